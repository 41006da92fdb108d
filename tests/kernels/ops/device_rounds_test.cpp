// Sizes at which a kernel's threads take several rounds, its blocks several rows, or its launches
// several chunks: the smaller tests end in the first.
#include "tests/catch.h"
#include "tests/kernels/ops/device_under_test.h"

using namespace rehearse;

namespace {

DType device_type() { return GENERATE(DType::F32, DType::Bf16); }

}  // namespace

TEST_CASE("device: elementwise operators agree with the CPU over several blocks") {
  const DType dtype = device_type();
  const std::int64_t count = GENERATE(as<std::int64_t>{}, 9000, 12345);  // packs, single elements
  Random random(180);
  const HostTensor x = random_tensor(random, dtype, {1, count}),
                   y = random_tensor(random, dtype, {1, count}), out(dtype, {1, count});
  check_on_device({.tensors = {x, y, out}, .outputs = {2}, .call = [](const auto& t) {
                     return Add{.a = t[0], .b = t[1], .out = t[2]};
                   }});
  const DType other = dtype == DType::F32 ? DType::Bf16 : DType::F32;
  check_on_device({.tensors = {x, HostTensor(other, {1, count})},
                   .outputs = {1},
                   .call = [](const auto& t) { return Cast{.x = t[0], .out = t[1]}; }});
  check_on_device({.tensors = {x, constant_tensor(DType::F64, {1}, 0)},
                   .outputs = {1},
                   .call = [](const auto& t) { return SquaredSum{.x = t[0], .out = t[1]}; }});
  std::vector<HostTensor> inputs(6, x);
  inputs.push_back(out);
  check_on_device({.tensors = inputs, .outputs = {6}, .call = [](const auto& t) {
                     return BucketReduce{.inputs = {t[0], t[1], t[2], t[3], t[4], t[5]},
                                         .out = t[6],
                                         .scale = 0.5f};
                   }});
}

TEST_CASE("device: casts to and from fp8 agree with the CPU for every code and between them") {
  // Every bf16 of the range: all codes, all ties between neighbours, what is too small, too large.
  HostTensor x(DType::Bf16, {1, 1 << 16});
  for (std::int64_t i = 0; i < x.elements(); ++i) {
    const std::uint16_t bits = static_cast<std::uint16_t>(i);
    const float value = to_float(Bf16{bits});
    x.set(i, std::isfinite(value) ? static_cast<double>(value) : 0.0);
  }
  DeviceCase narrow{
      .tensors = {x, HostTensor(DType::F8E4m3, {1, 1 << 16}), constant_tensor(DType::F32, {1}, 1)},
      .outputs = {1},
      .call = [](const auto& t) { return Cast{.x = t[0], .out = t[1], .scale = t[2]}; }};
  narrow = check_on_device(narrow);
  check_on_device(
      {.tensors = {narrow.tensors[1], HostTensor(DType::F32, {1, 1 << 16}), narrow.tensors[2]},
       .outputs = {1},
       .call = [](const auto& t) { return Cast{.x = t[0], .out = t[1], .scale = t[2]}; }});
}

TEST_CASE("device: norms of wide rows agree with the CPU") {
  const DType dtype = device_type();
  // Several warps a row, a block's most, and rows that registers do not hold.
  const std::int64_t h = GENERATE(as<std::int64_t>{}, 1048, 8200, 16392), rows = 7;
  const Norm kind = GENERATE(Norm::RmsNorm, Norm::LayerNorm);
  CAPTURE(dtype_name(dtype), h, static_cast<int>(kind));
  Random random(181);
  const HostTensor x = random_tensor(random, dtype, {rows, h}),
                   d_out = random_tensor(random, dtype, {rows, h}),
                   weight = random_tensor(random, dtype, {h});
  const HostTensor matrix(dtype, {rows, h}), column(DType::F32, {rows}),
      parameters(DType::F32, {h});
  const bool centered = kind == Norm::LayerNorm;
  const DeviceCase forward = check_on_device(
      {.tensors = {x, d_out, weight, weight, matrix, matrix, column, column},
       .outputs = {4, 5, 7},
       .call = [&](const auto& t) {
         NormForward call{
             .kind = kind, .x = t[0], .weight = t[2], .out = t[5], .inverse_deviation = t[7]};
         call.residual = t[1];
         call.sum = t[4];
         if (!centered) return call;
         call.bias = t[3];
         call.mean = t[6];
         return call;
       }});
  DeviceCase backward{.tensors = {d_out, x, weight, forward.tensors[6], forward.tensors[7], matrix,
                                  parameters, parameters},
                      .outputs = {5, 6},
                      .call = [&](const auto& t) {
                        NormBackward call{.kind = kind,
                                          .d_out = t[0],
                                          .x = t[1],
                                          .weight = t[2],
                                          .inverse_deviation = t[4],
                                          .d_x = t[5],
                                          .d_weight = t[6]};
                        if (!centered) return call;
                        call.mean = t[3];
                        call.d_bias = t[7];
                        return call;
                      }};
  if (centered) backward.outputs.push_back(7);
  check_on_device(backward);
}

TEST_CASE("device: rows of every length keep the parameters' gradients of all of them") {
  // More rows than the blocks of the emulated device take in one round.
  const std::int64_t h = GENERATE(as<std::int64_t>{}, 8, 768, 3080), rows = 150;
  Random random(182);
  const HostTensor x = random_tensor(random, DType::Bf16, {rows, h}),
                   weight = random_tensor(random, DType::F32, {h}),
                   inverse = random_tensor(random, DType::F32, {rows});
  check_on_device({.tensors = {x, x, weight, inverse, x, random_tensor(random, DType::F32, {h})},
                   .outputs = {4, 5},
                   .kept = {5},
                   .call = [](const auto& t) {
                     return NormBackward{.kind = Norm::RmsNorm,
                                         .d_out = t[0],
                                         .x = t[1],
                                         .weight = t[2],
                                         .inverse_deviation = t[3],
                                         .d_x = t[4],
                                         .d_weight = t[5],
                                         .accumulate = true};
                   }});
}

TEST_CASE("device: column sums agree with the CPU over many rows and slices of columns") {
  const DType dtype = device_type();
  const std::int64_t columns = GENERATE(as<std::int64_t>{}, 264, 333), rows = 1100;
  Random random(183);
  check_on_device({.tensors = {random_tensor(random, dtype, {rows, columns + 8}),
                               HostTensor(DType::F32, {columns})},
                   .outputs = {1},
                   .call = [&](const auto& t) {
                     return ColumnSum{.x = slice_columns(t[0], 8, columns), .out = t[1]};
                   }});
}

TEST_CASE("device: rotary positions turn groups of heads that do not come out even") {
  const std::int64_t heads = GENERATE(as<std::int64_t>{}, 1, 5, 8);
  Random random(184);
  check_on_device(
      {.tensors = {random_tensor(random, DType::Bf16, {9, heads, 64}),
                   random_tensor(random, DType::F32, {20, 64}), random_ints(random, {9}, 20)},
       .outputs = {0},
       .kept = {0},
       .call = [](const auto& t) {
         return Rope{.x = t[0], .cosine_sine = t[1], .positions = t[2]};
       }});
}

TEST_CASE("device: cross entropy over a wide vocabulary agrees with the CPU") {
  const DType dtype = device_type();
  const std::int64_t columns = GENERATE(as<std::int64_t>{}, 9000, 4099), rows = 3;
  Random random(185);
  const HostTensor logits = random_tensor(random, dtype, {rows, columns}, 6),
                   targets = int_tensor({5, -1, static_cast<std::int32_t>(columns) - 9}),
                   row(DType::F32, {rows});
  const DeviceCase forward =
      check_on_device({.tensors = {logits, targets, row, row, row},
                       .outputs = {2, 3, 4},
                       .call = [&](const auto& t) {
                         return CrossEntropyForward{.logits = t[0],
                                                    .targets = t[1],
                                                    .vocabulary = columns - 5,
                                                    .maximum = t[2],
                                                    .sum = t[3],
                                                    .target_logit = t[4]};
                       }});
  check_on_device({.tensors = {logits, targets, forward.tensors[2], forward.tensors[3],
                               forward.tensors[4], random_tensor(random, DType::F32, {rows}), row},
                   .outputs = {0, 6},
                   .kept = {0},
                   .call = [&](const auto& t) {
                     return CrossEntropyBackward{.logits = t[0],
                                                 .targets = t[1],
                                                 .vocabulary = columns - 5,
                                                 .maximum = t[2],
                                                 .sum = t[3],
                                                 .target_logit = t[4],
                                                 .loss_scale = t[5],
                                                 .loss = t[6]};
                   }});
}

TEST_CASE("device: the embedding's gradient adds tokens of several chunks") {
  const std::int64_t rows = 4200, h = GENERATE(as<std::int64_t>{}, 8, 5);
  Random random(186);
  HostTensor tokens = random_ints(random, {rows}, 900);
  for (std::int64_t i = 0; i < rows; i += 7) tokens.set(i, 450);  // one that is everywhere
  check_on_device({.tensors = {tokens, random_tensor(random, DType::Bf16, {rows, h}),
                               random_tensor(random, DType::F32, {800, h})},
                   .outputs = {2},
                   .kept = {2},
                   .call = [](const auto& t) {
                     return EmbeddingBackward{
                         .tokens = t[0], .d_out = t[1], .d_table = t[2], .first_row = 40};
                   }});
}

TEST_CASE("device: sorting by expert agrees with the CPU over several rounds") {
  const std::int64_t tokens = 2500, k = 2, experts = 5;
  Random random(187);
  const HostTensor chosen = random_ints(random, {tokens, k}, static_cast<int>(experts));
  check_on_device({.tensors = {chosen, chosen, HostTensor(DType::I32, {experts + 1})},
                   .outputs = {1, 2},
                   .call = [](const auto& t) {
                     return MoeSort{.experts = t[0], .destination = t[1], .offsets = t[2]};
                   }});
}
