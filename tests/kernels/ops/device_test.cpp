#include <limits>

#include "tests/catch.h"
#include "tests/kernels/ops/device_under_test.h"

using namespace rehearse;

namespace {

DType device_type() { return GENERATE(DType::F32, DType::Bf16); }
/// Widths that packs of 16 bytes fit, and one that they do not.
std::int64_t width() { return GENERATE(as<std::int64_t>{}, 64, 328, 77); }

}  // namespace

TEST_CASE("device: elementwise operators agree with the CPU") {
  const DType dtype = device_type();
  const std::int64_t w = width();
  CAPTURE(dtype_name(dtype), w);
  Random random(100);
  const HostTensor x = random_tensor(random, dtype, {7, w}),
                   y = random_tensor(random, dtype, {7, w});
  const HostTensor empty(dtype, {7, w});
  check_on_device({.tensors = {x, y, empty}, .outputs = {2}, .call = [](const auto& t) {
                     return Add{.a = t[0], .b = t[1], .out = t[2]};
                   }});
  const HostTensor factor = constant_tensor(DType::F32, {1}, 0.37);
  check_on_device({.tensors = {x, factor}, .outputs = {0}, .kept = {0}, .call = [](const auto& t) {
                     return Scale{.x = t[0], .factor = t[1]};
                   }});
  const HostTensor mask(DType::U8, {7, w});
  check_on_device({.tensors = {x, y, empty, mask}, .outputs = {2, 3}, .call = [](const auto& t) {
                     return DropoutForward{.x = t[0],
                                           .residual = t[1],
                                           .out = t[2],
                                           .mask = t[3],
                                           .probability = 0.2f,
                                           .seed = 5,
                                           .offset = 4};
                   }});
  HostTensor kept = random_ints(random, {7, w}, 2), bits(DType::U8, {7, w});
  for (std::int64_t i = 0; i < kept.elements(); ++i) bits.set(i, kept.at(i));
  check_on_device({.tensors = {x, bits, empty}, .outputs = {2}, .call = [](const auto& t) {
                     return DropoutBackward{
                         .d_out = t[0], .mask = t[1], .d_x = t[2], .probability = 0.2f};
                   }});
}

TEST_CASE("device: casts agree with the CPU, to the bit") {
  const DType from = device_type(), to = GENERATE(DType::F32, DType::Bf16, DType::F8E4m3);
  const std::int64_t w = width();
  Random random(101);
  const HostTensor scale = constant_tensor(DType::F32, {1}, GENERATE(0.5, 0.37));
  HostTensor x = random_tensor(random, from, {5, w}, 3), out(to, {5, w});
  for (std::int64_t i = 0; i < 5; ++i)
    x.set(i * 3, std::ldexp(static_cast<double>(i) - 2.0, -9));  // near fp8's smallest
  for (std::int64_t i = 20; i < 60; ++i)  // half-way between two codes, but for rounding
    x.set(i, scale.at(0) * (1 + static_cast<double>(2 * (i % 8) + 1) / 16));
  DeviceCase test{.tensors = {x, out, scale}, .outputs = {1}, .call = [&](const auto& t) {
                    Cast cast{.x = t[0], .out = t[1]};
                    if (to == DType::F8E4m3) cast.scale = t[2];
                    return cast;
                  }};
  check_on_device(test);
  if (to != DType::F8E4m3) return;
  test.tensors = {x, out, scale, HostTensor(from, {5, w})};
  cpu().run(Cast{.x = test.tensors[0], .out = test.tensors[1], .scale = test.tensors[2]});
  test.outputs = {3};
  test.call = [](const auto& t) { return Cast{.x = t[1], .out = t[3], .scale = t[2]}; };
  check_on_device(test);
}

TEST_CASE("device: a gradient norm's sum passes through fp32 and back as on the CPU") {
  const DType narrow = GENERATE(DType::F32, DType::Bf16);
  const std::int64_t n = GENERATE(as<std::int64_t>{}, 1, 3, 300);
  CAPTURE(dtype_name(narrow), n);
  Random random(112);
  const HostTensor wide = random_tensor(random, DType::F64, {n}, 1e4);
  DeviceCase there{.tensors = {wide, HostTensor(narrow, {n})},
                   .outputs = {1},
                   .call = [](const auto& t) { return Cast{.x = t[0], .out = t[1]}; }};
  there = check_on_device(there);
  check_on_device({.tensors = {there.tensors[1], wide}, .outputs = {1}, .call = [](const auto& t) {
                     return Cast{.x = t[0], .out = t[1]};
                   }});
}

TEST_CASE("device: activations and their gradients agree with the CPU") {
  const DType dtype = device_type();
  const std::int64_t f = width();
  const Activation kind = GENERATE(Activation::Gelu, Activation::Swiglu, Activation::SquaredRelu);
  CAPTURE(dtype_name(dtype), f, static_cast<int>(kind));
  Random random(102);
  const std::int64_t w = kind == Activation::Swiglu ? 2 * f : f;
  const HostTensor x = random_tensor(random, dtype, {6, w}),
                   d_out = random_tensor(random, dtype, {6, f});
  check_on_device(
      {.tensors = {x, HostTensor(dtype, {6, f})}, .outputs = {1}, .call = [&](const auto& t) {
         return ActivationForward{.kind = kind, .x = t[0], .out = t[1]};
       }});
  check_on_device({.tensors = {x, d_out, HostTensor(dtype, {6, w})},
                   .outputs = {2},
                   .call = [&](const auto& t) {
                     return ActivationBackward{.kind = kind, .x = t[0], .d_out = t[1], .d_x = t[2]};
                   }});
}

TEST_CASE("device: norms and their gradients agree with the CPU") {
  const DType dtype = device_type(), parameter = GENERATE(DType::F32, DType::Bf16);
  if (dtype == DType::F32 && parameter == DType::Bf16)
    return;  // refused: parameters are not narrower
  // More rows than the emulated device has blocks, so that one takes several.
  const std::int64_t h = GENERATE(as<std::int64_t>{}, 64, 77, 2568), rows = 14;
  const Norm kind = GENERATE(Norm::RmsNorm, Norm::LayerNorm);
  const bool residual = GENERATE(false, true);
  CAPTURE(dtype_name(dtype), dtype_name(parameter), h, static_cast<int>(kind), residual);
  Random random(103);
  const HostTensor x = random_tensor(random, dtype, {rows, h}),
                   beside = random_tensor(random, dtype, {rows, h});
  const HostTensor weight = random_tensor(random, parameter, {h}),
                   bias = random_tensor(random, parameter, {h});
  const HostTensor matrix(dtype, {rows, h}), column(DType::F32, {rows});
  DeviceCase forward{
      .tensors = {x, beside, weight, bias, matrix, matrix, column, column},
      .outputs = {5, 7},
      .call = [&](const auto& t) {
        NormForward call{
            .kind = kind, .x = t[0], .weight = t[2], .out = t[5], .inverse_deviation = t[7]};
        if (kind == Norm::LayerNorm) {
          call.bias = t[3];
          call.mean = t[6];
        }
        if (residual) {
          call.residual = t[1];
          call.sum = t[4];
        }
        return call;
      }};
  if (residual) forward.outputs.push_back(4);
  forward = check_on_device(forward);
  const HostTensor parameters = random_tensor(random, DType::F32, {h});
  DeviceCase backward{.tensors = {beside, x, weight, forward.tensors[6], forward.tensors[7], matrix,
                                  parameters, parameters, x},
                      .outputs = {5, 6},
                      .kept = {6, 7},
                      .call = [&](const auto& t) {
                        NormBackward call{.kind = kind,
                                          .d_out = t[0],
                                          .x = t[1],
                                          .weight = t[2],
                                          .inverse_deviation = t[4],
                                          .d_x = t[5],
                                          .d_weight = t[6],
                                          .accumulate = true};
                        if (kind == Norm::LayerNorm) {
                          call.mean = t[3];
                          call.d_bias = t[7];
                        }
                        if (residual) call.d_residual = t[8];
                        return call;
                      }};
  if (kind == Norm::LayerNorm) backward.outputs.push_back(7);
  check_on_device(backward);
}

TEST_CASE("device: rotary positions agree with the CPU") {
  const DType dtype = device_type();
  Random random(104);
  const std::int64_t d = GENERATE(as<std::int64_t>{}, 32, 128, 6);
  CAPTURE(dtype_name(dtype), d);
  const HostTensor x = random_tensor(random, dtype, {5, 6, d}),
                   table = random_tensor(random, DType::F32, {9, d});
  const HostTensor positions = random_ints(random, {5}, 9);
  const bool inverse = GENERATE(false, true);
  check_on_device(
      {.tensors = {x, table, positions}, .outputs = {0}, .kept = {0}, .call = [&](const auto& t) {
         return Rope{.x = slice_columns(t[0], 1, 4),
                     .cosine_sine = t[1],
                     .positions = t[2],
                     .inverse = inverse};
       }});
}

TEST_CASE("device: parts of attention are joined as on the CPU") {
  const DType dtype = device_type(), running = GENERATE(DType::F32, DType::Bf16);
  const bool gradient = GENERATE(false, true);
  if (dtype == DType::F32 && running == DType::Bf16) return;  // refused: a sum is not narrower
  const std::int64_t d = GENERATE(as<std::int64_t>{}, 64, 10);
  CAPTURE(dtype_name(dtype), dtype_name(running), gradient, d);
  Random random(111);
  HostTensor a_lse = random_tensor(random, DType::F32, {3, 7}),
             b_lse = random_tensor(random, DType::F32, {3, 7});
  b_lse.set(2, -std::numeric_limits<double>::infinity());
  const std::vector<std::size_t> written{3}, with_statistics{3, 5};
  check_on_device({.tensors = {random_tensor(random, running, {7, 3, d}),
                               random_tensor(random, dtype, {7, 5, d}), a_lse,
                               HostTensor(dtype, {7, 3, d}), b_lse, HostTensor(DType::F32, {3, 7})},
                   .outputs = gradient ? written : with_statistics,
                   .call = [&](const auto& t) {
                     AttentionJoin call{.a = t[0], .b = slice_columns(t[1], 1, 3), .out = t[3]};
                     if (gradient) return call;
                     call.a_log_sum_exp = t[2];
                     call.b_log_sum_exp = t[4];
                     call.log_sum_exp = t[5];
                     return call;
                   }});
}

TEST_CASE("device: embedding and its gradient agree with the CPU") {
  const DType dtype = device_type();
  const std::int64_t h = width();
  Random random(105);
  const HostTensor tokens = random_ints(random, {70}, 12), positions = random_ints(random, {70}, 5);
  const HostTensor table = random_tensor(random, dtype, {8, h}),
                   places = random_tensor(random, dtype, {5, h});
  check_on_device({.tensors = {tokens, positions, table, places, HostTensor(dtype, {70, h})},
                   .outputs = {4},
                   .call = [](const auto& t) {
                     return EmbeddingForward{.tokens = t[0],
                                             .table = t[2],
                                             .first_row = 3,
                                             .position_table = t[3],
                                             .positions = t[1],
                                             .out = t[4]};
                   }});
  check_on_device({.tensors = {tokens, random_tensor(random, dtype, {70, h}),
                               random_tensor(random, DType::F32, {8, h})},
                   .outputs = {2},
                   .kept = {2},
                   .call = [](const auto& t) {
                     return EmbeddingBackward{
                         .tokens = t[0], .d_out = t[1], .d_table = t[2], .first_row = 3};
                   }});
}

TEST_CASE("device: cross entropy and its gradient agree with the CPU") {
  const DType dtype = device_type();
  const std::int64_t columns = width(), rows = 6;
  Random random(106);
  const HostTensor logits = random_tensor(random, dtype, {rows, columns}, 4);
  HostTensor targets = random_ints(random, {rows}, 60);
  targets.set(1, -1);
  const HostTensor row(DType::F32, {rows});
  DeviceCase forward{.tensors = {logits, targets, row, row, row},
                     .outputs = {2, 3, 4},
                     .call = [&](const auto& t) {
                       return CrossEntropyForward{.logits = t[0],
                                                  .targets = t[1],
                                                  .first_column = 0,
                                                  .vocabulary = columns - 3,
                                                  .maximum = t[2],
                                                  .sum = t[3],
                                                  .target_logit = t[4]};
                     }};
  forward = check_on_device(forward);
  HostTensor higher = forward.tensors[2];
  for (std::int64_t i = 0; i < rows; ++i) higher.set(i, higher.at(i) + 0.5);
  check_on_device({.tensors = {forward.tensors[2], higher, forward.tensors[3]},
                   .outputs = {2},
                   .kept = {2},
                   .call = [](const auto& t) {
                     return CrossEntropyRescale{
                         .local_maximum = t[0], .maximum = t[1], .sum = t[2]};
                   }});
  const HostTensor scale = random_tensor(random, DType::F32, {rows});
  check_on_device({.tensors = {logits, targets, forward.tensors[2], forward.tensors[3],
                               forward.tensors[4], scale, row},
                   .outputs = {0, 6},
                   .kept = {0},
                   .call = [&](const auto& t) {
                     return CrossEntropyBackward{.logits = t[0],
                                                 .targets = t[1],
                                                 .first_column = 0,
                                                 .vocabulary = columns - 3,
                                                 .maximum = t[2],
                                                 .sum = t[3],
                                                 .target_logit = t[4],
                                                 .loss_scale = t[5],
                                                 .loss = t[6]};
                   }});
}

TEST_CASE("device: optimizer, norms of gradients and buckets agree with the CPU") {
  const DType dtype = device_type();
  const std::int64_t n = GENERATE(as<std::int64_t>{}, 1, 1023, 20480);
  Random random(107);
  HostTensor second = random_tensor(random, DType::F32, {n});
  for (std::int64_t i = 0; i < n; ++i) second.set(i, second.at(i) * second.at(i));
  const HostTensor clip = constant_tensor(DType::F32, {1}, 0.7);
  const bool decoupled = GENERATE(false, true);
  check_on_device(
      {.tensors = {random_tensor(random, DType::F32, {n}), random_tensor(random, DType::F32, {n}),
                   second, random_tensor(random, dtype, {n}), HostTensor(DType::Bf16, {n}), clip},
       .outputs = {0, 1, 2, 4},
       .kept = {0, 1, 2},
       .call = [&](const auto& t) {
         return AdamUpdate{.master = t[0],
                           .first_moment = t[1],
                           .second_moment = t[2],
                           .gradient = t[3],
                           .parameter = t[4],
                           .gradient_scale = t[5],
                           .learning_rate = 1e-3f,
                           .weight_decay = 0.1f,
                           .decoupled = decoupled,
                           .step = 7};
       }});
  const HostTensor x = random_tensor(random, dtype, {n}), sum = constant_tensor(DType::F64, {1}, 2);
  check_on_device({.tensors = {x, sum}, .outputs = {1}, .kept = {1}, .call = [](const auto& t) {
                     return SquaredSum{.x = t[0], .out = t[1], .accumulate = true};
                   }});
  check_on_device({.tensors = {sum, HostTensor(DType::F32, {1}), HostTensor(DType::F32, {1})},
                   .outputs = {1, 2},
                   .call = [](const auto& t) {
                     return ClipFactor{
                         .squared_sum = t[0], .max_norm = 0.5f, .norm = t[1], .factor = t[2]};
                   }});
  const HostTensor a = random_tensor(random, DType::Bf16, {n}),
                   bucket = random_tensor(random, DType::F32, {2 * n + 3});
  for (const bool unpack : {false, true})
    check_on_device(
        {.tensors = {a, x, bucket},
         .outputs = unpack ? std::vector<std::size_t>{0, 1} : std::vector<std::size_t>{2},
         .kept = {2},
         .call = [&](const auto& t) {
           return BucketCopy{.tensors = {t[0], t[1]}, .bucket = t[2], .unpack = unpack};
         }});
  // Columns of a matrix, packed and put back.
  const std::int64_t w = n % 8 == 0 ? 8 : 3;
  for (const bool unpack : {false, true})
    check_on_device({.tensors = {random_tensor(random, dtype, {5, 3 * w}),
                                 random_tensor(random, dtype, {10 * w})},
                     .outputs = {unpack ? 0U : 1U},
                     .kept = {0, 1},
                     .call = [&](const auto& t) {
                       return BucketCopy{
                           .tensors = {slice_columns(t[0], w, w), slice_columns(t[0], 0, w)},
                           .bucket = t[1],
                           .unpack = unpack};
                     }});
  check_on_device({.tensors = {x, random_tensor(random, dtype, {n}),
                               random_tensor(random, dtype, {n}), HostTensor(DType::F32, {n})},
                   .outputs = {3},
                   .call = [](const auto& t) {
                     return BucketReduce{.inputs = {t[0], t[1], t[2]}, .out = t[3], .scale = 0.25f};
                   }});
}

TEST_CASE("device: a bucket reduces any number of inputs") {
  const DType from = device_type(), to = GENERATE(DType::F32, DType::Bf16);
  if (from == DType::F32 && to == DType::Bf16) return;  // refused: a sum is not narrower
  const std::size_t inputs = GENERATE(as<std::size_t>{}, 16, 17, 37);
  CAPTURE(dtype_name(from), dtype_name(to), inputs);
  Random random(113);
  std::vector<HostTensor> tensors{HostTensor(to, {203})};
  for (std::size_t i = 0; i < inputs; ++i) tensors.push_back(random_tensor(random, from, {203}));
  check_on_device(
      {.tensors = tensors, .outputs = {0}, .call = [](const auto& t) {
         return BucketReduce{.inputs = {t.begin() + 1, t.end()}, .out = t[0], .scale = 0.1f};
       }});
}

TEST_CASE("device: a norm that is not a number gives no factor, as on the CPU") {
  const double sum =
      GENERATE(std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity());
  const HostTensor one(DType::F32, {1});
  check_on_device(
      {.tensors = {constant_tensor(DType::F64, {1}, sum), one},
       .outputs = {1},
       .call = [](const auto& t) { return ClipFactor{.squared_sum = t[0], .factor = t[1]}; },
       .has_nan = true});
}

TEST_CASE("device: tensors beyond what a grid holds are refused in a sentence") {
  ComputeDevice* device = device_under_test();
  if (device == nullptr) return;
  float nothing = 0;  // refused before anything is read
  const ConstTensorView tall{&nothing, DType::F32, {std::int64_t{65536} * 128, 1}};
  const TensorView out{&nothing, DType::F32, {1}};
  CHECK_THROWS_WITH(device->run(ColumnSum{.x = tall, .out = out}),
                    Catch::Contains("more than a GPU launches"));
  const ConstTensorView taller{&nothing, DType::F32, {std::int64_t{1} << 32, 1}};
  CHECK_THROWS_WITH(device->run(ColumnSum{.x = taller, .out = out}),
                    Catch::Contains("it counts to 2^31"));
}

TEST_CASE("device: column sums agree with the CPU") {
  const DType dtype = device_type();
  Random random(108);
  check_on_device({.tensors = {random_tensor(random, dtype, {600, 130}),
                               random_tensor(random, DType::F32, {130})},
                   .outputs = {1},
                   .kept = {1},
                   .call = [](const auto& t) {
                     return ColumnSum{.x = t[0], .out = t[1], .accumulate = true};
                   }});
}

TEST_CASE("device: routing and sorting agree with the CPU") {
  const std::int64_t experts = GENERATE(as<std::int64_t>{}, 3, 8, 70),
                     k = GENERATE(as<std::int64_t>{}, 1, 2, 3), tokens = 70;
  const bool normalize = GENERATE(false, true);
  CAPTURE(experts, k, normalize);
  Random random(109);
  HostTensor logits = random_tensor(random, DType::F32, {tokens, experts});
  for (std::int64_t e = 0; e < experts; ++e) logits.set(e, static_cast<double>(e % 2));  // ties
  const HostTensor square(DType::F32, {tokens, experts}), slots(DType::F32, {tokens, k}),
      chosen(DType::I32, {tokens, k});
  DeviceCase route{
      .tensors = {logits, square, chosen, slots}, .outputs = {1, 2, 3}, .call = [&](const auto& t) {
        return RouterForward{.logits = t[0],
                             .probabilities = t[1],
                             .experts = t[2],
                             .weights = t[3],
                             .normalize = normalize};
      }};
  route = check_on_device(route);
  check_on_device({.tensors = {route.tensors[1], route.tensors[2],
                               random_tensor(random, DType::F32, {tokens, k}),
                               random_tensor(random, DType::F32, {tokens, experts}), square},
                   .outputs = {4},
                   .call = [&](const auto& t) {
                     return RouterBackward{.probabilities = t[0],
                                           .experts = t[1],
                                           .d_weights = t[2],
                                           .d_probabilities = t[3],
                                           .d_logits = t[4],
                                           .normalize = normalize};
                   }});
  const DeviceCase sort{
      .tensors = {route.tensors[2], chosen, HostTensor(DType::I32, {experts + 1})},
      .outputs = {1, 2},
      .call = [](const auto& t) {
        return MoeSort{.experts = t[0], .destination = t[1], .offsets = t[2]};
      }};
  check_on_device(sort);
}

TEST_CASE("device: logits that are not numbers still choose k experts, the CPU's") {
  const std::int64_t experts = GENERATE(as<std::int64_t>{}, 5, 40), tokens = 6, k = 3;
  const bool normalize = GENERATE(false, true);
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN(),
                   kInfinity = std::numeric_limits<double>::infinity();
  Random random(114);
  HostTensor logits = random_tensor(random, DType::F32, {tokens, experts});
  for (std::int64_t e = 0; e < experts; ++e) {
    logits.set(e, kNan);                                   // nothing else
    logits.set(3 * experts + e, e == 1 ? 0.0 : -0.0);      // all alike
    logits.set(4 * experts + e, e == 2 ? 1 : -kInfinity);  // masked
  }
  logits.set(experts + 4, kNan);
  logits.set(2 * experts + 2, kInfinity);
  logits.set(2 * experts + 3, kNan);
  const HostTensor slots(DType::F32, {tokens, k});
  check_on_device({.tensors = {logits, HostTensor(DType::F32, {tokens, experts}),
                               HostTensor(DType::I32, {tokens, k}), slots},
                   .outputs = {1, 2, 3},
                   .call =
                       [&](const auto& t) {
                         return RouterForward{.logits = t[0],
                                              .probabilities = t[1],
                                              .experts = t[2],
                                              .weights = t[3],
                                              .normalize = normalize};
                       },
                   .has_nan = true});
}

TEST_CASE("device: permuting to the experts and back agrees with the CPU") {
  const DType dtype = device_type();
  const std::int64_t tokens = 20, k = 3, h = width();
  CAPTURE(dtype_name(dtype), h);
  Random random(110);
  const HostTensor chosen = random_ints(random, {tokens, k}, 5), slots(DType::F32, {tokens, k});
  const HostTensor weights = random_tensor(random, DType::F32, {tokens, k});
  HostTensor destination(DType::I32, {tokens, k}), offsets(DType::I32, {6});
  cpu().run(MoeSort{.experts = chosen, .destination = destination, .offsets = offsets});
  const HostTensor x = random_tensor(random, dtype, {tokens, h}),
                   rows = random_tensor(random, dtype, {tokens * k, h});
  check_on_device(
      {.tensors = {x, destination, weights, rows}, .outputs = {3}, .call = [](const auto& t) {
         return MoePermute{.x = t[0], .destination = t[1], .weights = t[2], .out = t[3]};
       }});
  check_on_device(
      {.tensors = {rows, destination, weights, x}, .outputs = {3}, .call = [](const auto& t) {
         return MoeCombine{.x = t[0], .destination = t[1], .weights = t[2], .out = t[3]};
       }});
  check_on_device(
      {.tensors = {x, rows, destination, slots}, .outputs = {3}, .call = [](const auto& t) {
         return MoeWeightGradient{.d_out = t[0], .x = t[1], .destination = t[2], .d_weights = t[3]};
       }});
}
