#include <algorithm>
#include <cstdlib>
#include <limits>

#include "tests/catch.h"
#include "tests/kernels/ops/device_under_test.h"

using namespace rehearse;

namespace {

/// Shapes drawn anew with each seed; $REHEARSE_TEST_SEED repeats what a failure prints, or tries
/// others.
std::uint64_t seed() {
  const char* given = std::getenv("REHEARSE_TEST_SEED");
  return given == nullptr ? 20260131 : std::strtoull(given, nullptr, 10);
}
int draws() { return device_is_fast() ? 40 : 4; }

/// Of [1, most], small sizes as likely as large ones; every other one odd, few a multiple of 8.
std::int64_t draw_size(Random& random, std::int64_t most) {
  const double exponent = std::uniform_real_distribution<double>(0, 1)(random);
  const auto size = static_cast<std::int64_t>(std::pow(static_cast<double>(most), exponent) + 0.5);
  return std::clamp<std::int64_t>(random() % 2 == 0 ? size | 1 : size, 1, most);
}
DType draw_type(Random& random) { return random() % 2 == 0 ? DType::F32 : DType::Bf16; }

/// Calls body with a generator of its own for each draw, and says on failure which it was.
template <typename Body>
void each_draw(std::uint64_t family, const Body& body) {
  for (int i = 0; i < draws(); ++i) {
    INFO("REHEARSE_TEST_SEED=" << seed() << ", draw " << i);
    Random random(seed() * 1000 + family * 100 + static_cast<std::uint64_t>(i));
    body(random);
  }
}

/// A flat view of `count` elements, `offset` into its tensor: how a share of a shard lies.
TensorView piece(const TensorView& tensor, std::int64_t offset, std::int64_t count) {
  return slice_rows(tensor, offset, count);
}

}  // namespace

TEST_CASE("device: products of drawn shapes agree with the CPU") {
  each_draw(1, [](Random& random) {
    const std::int64_t most = device_is_fast() ? 700 : 90;
    const std::int64_t m = draw_size(random, most), n = draw_size(random, most),
                       k = draw_size(random, most);
    const DType dtype = draw_type(random);
    const bool transposed_a = random() % 2 == 0, transposed_b = random() % 2 == 0;
    CAPTURE(m, n, k, dtype_name(dtype), transposed_a, transposed_b);
    const auto shape = [](bool transposed, std::int64_t rows, std::int64_t columns) {
      return transposed ? TensorShape{columns, rows} : TensorShape{rows, columns};
    };
    check_on_device({.tensors = {random_tensor(random, dtype, shape(transposed_a, m, k)),
                                 random_tensor(random, dtype, shape(transposed_b, k, n)),
                                 HostTensor(dtype, {m, n}), random_tensor(random, dtype, {n})},
                     .outputs = {2},
                     .call = [&](const auto& t) {
                       return Gemm{.a = t[0],
                                   .b = t[1],
                                   .out = t[2],
                                   .transpose_a = transposed_a,
                                   .transpose_b = transposed_b,
                                   .epilogue = Epilogue::Bias,
                                   .bias = t[3]};
                     }});
  });
}

TEST_CASE("device: attention of drawn shapes agrees with the CPU") {
  each_draw(2, [](Random& random) {
    const std::int64_t most = device_is_fast() ? 900 : 70;
    const std::int64_t sizes[] = {64, 96, 128, 2 * draw_size(random, 60)};
    const std::int64_t d = sizes[random() % 4], kv_heads = draw_size(random, 3),
                       heads = kv_heads * draw_size(random, 3);
    const DType dtype = random() % 4 == 0 ? DType::F32 : DType::Bf16;
    const bool causal = random() % 2 == 0;
    std::vector<std::int32_t> queries{0}, keys{0};
    std::int64_t longest_query = 0, longest_key = 0;
    for (std::int64_t i = draw_size(random, 3); i > 0; --i) {
      const std::int64_t q = draw_size(random, most), k = draw_size(random, most);
      queries.push_back(queries.back() + static_cast<std::int32_t>(q));
      keys.push_back(keys.back() + static_cast<std::int32_t>(k));
      longest_query = std::max(longest_query, q);
      longest_key = std::max(longest_key, k);
    }
    CAPTURE(d, heads, kv_heads, dtype_name(dtype), causal, queries, keys);
    const TensorShape query_shape{queries.back(), heads, d}, key_shape{keys.back(), kv_heads, d};
    const HostTensor query = random_tensor(random, dtype, query_shape),
                     key = random_tensor(random, dtype, key_shape),
                     value = random_tensor(random, dtype, key_shape);
    const auto shape = [&](const TensorView& query_offsets, const TensorView& key_offsets) {
      return AttentionShape{.query_offsets = query_offsets,
                            .key_offsets = key_offsets,
                            .max_query_length = longest_query,
                            .max_key_length = longest_key,
                            .causal = causal,
                            .scale = 1 / std::sqrt(static_cast<float>(d))};
    };
    DeviceCase forward{.tensors = {query, key, value, int_tensor(queries), int_tensor(keys), query,
                                   HostTensor(DType::F32, {heads, queries.back()})},
                       .outputs = {5},
                       .call = [&](const auto& t) {
                         return AttentionForward{.query = t[0],
                                                 .key = t[1],
                                                 .value = t[2],
                                                 .out = t[5],
                                                 .log_sum_exp = t[6],
                                                 .shape = shape(t[3], t[4])};
                       }};
    forward = check_on_device(forward);
    check_on_device({.tensors = {random_tensor(random, dtype, query_shape), query, key, value,
                                 forward.tensors[5], forward.tensors[6], int_tensor(queries),
                                 int_tensor(keys), query, key, key},
                     .outputs = {8, 9, 10},
                     .call = [&](const auto& t) {
                       return AttentionBackward{.d_out = t[0],
                                                .query = t[1],
                                                .key = t[2],
                                                .value = t[3],
                                                .out = t[4],
                                                .log_sum_exp = t[5],
                                                .d_query = t[8],
                                                .d_key = t[9],
                                                .d_value = t[10],
                                                .shape = shape(t[6], t[7])};
                     }});
  });
}

TEST_CASE("device: attention in several groups of heads agrees with the CPU") {
  Random random(130);
  // 30,000 keys of 256 bytes beside their values: two of five heads fit into a cache at a time.
  const HostTensor query = random_tensor(random, DType::Bf16, {40, 10, 64}),
                   key = random_tensor(random, DType::Bf16, {40, 5, 64});
  const bool causal = GENERATE(false, true);
  check_on_device({.tensors = {query, key, key, int_tensor({0, 40}), query},
                   .outputs = {4},
                   .call = [&](const auto& t) {
                     return AttentionForward{.query = t[0],
                                             .key = t[1],
                                             .value = t[2],
                                             .out = t[4],
                                             .shape = {.query_offsets = t[3],
                                                       .key_offsets = t[3],
                                                       .max_query_length = 300,
                                                       .max_key_length = 30000,
                                                       .causal = causal,
                                                       .scale = 0.125f}};
                   }});
}

TEST_CASE("device: the last queries of 8,192 causal tokens agree with the CPU") {
  Random random(131);
  // A few rows see all keys: the reference and emulated threads do not work through the square.
  const std::int64_t keys = 8192, queries = 3;
  const HostTensor query = random_tensor(random, DType::Bf16, {queries, 2, 64}),
                   key = random_tensor(random, DType::Bf16, {keys, 1, 64}),
                   value = random_tensor(random, DType::Bf16, {keys, 1, 64});
  check_on_device({.tensors = {query, key, value, int_tensor({0, 3}), int_tensor({0, 8192}), query,
                               HostTensor(DType::F32, {2, queries})},
                   .outputs = {5, 6},
                   .call = [&](const auto& t) {
                     return AttentionForward{.query = t[0],
                                             .key = t[1],
                                             .value = t[2],
                                             .out = t[5],
                                             .log_sum_exp = t[6],
                                             .shape = {.query_offsets = t[3],
                                                       .key_offsets = t[4],
                                                       .max_query_length = queries,
                                                       .max_key_length = keys,
                                                       .scale = 0.125f}};
                   }});
}

TEST_CASE("device: norms of drawn shapes agree with the CPU") {
  each_draw(3, [](Random& random) {
    const std::int64_t rows = draw_size(random, 20), h = draw_size(random, 3000);
    const DType dtype = draw_type(random);
    CAPTURE(rows, h, dtype_name(dtype));
    const HostTensor x = random_tensor(random, dtype, {rows, h}),
                     weight = random_tensor(random, dtype, {h});
    DeviceCase forward{.tensors = {x, weight, x, HostTensor(DType::F32, {rows})},
                       .outputs = {2, 3},
                       .call = [](const auto& t) {
                         return NormForward{
                             .x = t[0], .weight = t[1], .out = t[2], .inverse_deviation = t[3]};
                       }};
    forward = check_on_device(forward);
    check_on_device({.tensors = {random_tensor(random, dtype, {rows, h}), x, weight,
                                 forward.tensors[3], x, HostTensor(DType::F32, {h})},
                     .outputs = {4, 5},
                     .call = [](const auto& t) {
                       return NormBackward{.d_out = t[0],
                                           .x = t[1],
                                           .weight = t[2],
                                           .inverse_deviation = t[3],
                                           .d_x = t[4],
                                           .d_weight = t[5]};
                     }});
  });
}

TEST_CASE("device: pieces that begin anywhere agree with the CPU") {
  each_draw(4, [](Random& random) {
    const std::int64_t n = draw_size(random, 9000), size = n + 20;
    const DType dtype = draw_type(random);
    // Mostly all begin at the same place of their packs, as shares of one shard do.
    const auto first = static_cast<std::int64_t>(random() % 9);
    const std::int64_t other = random() % 4 == 0 ? static_cast<std::int64_t>(random() % 9) : first;
    CAPTURE(n, first, other, dtype_name(dtype));
    const auto tensor = [&](DType type) { return random_tensor(random, type, {size}); };
    const std::vector<std::size_t> sum{2};
    // What lies around a piece stays as it is: outputs are compared as a whole.
    check_on_device({.tensors = {tensor(dtype), tensor(dtype), tensor(dtype)},
                     .outputs = sum,
                     .kept = sum,
                     .call = [&](const auto& t) {
                       return Add{.a = piece(t[0], first, n),
                                  .b = piece(t[1], other, n),
                                  .out = piece(t[2], first, n)};
                     }});
    check_on_device({.tensors = {tensor(DType::F32), tensor(DType::Bf16)},
                     .outputs = {1},
                     .kept = {1},
                     .call = [&](const auto& t) {
                       return Cast{.x = piece(t[0], first, n), .out = piece(t[1], other, n)};
                     }});
    check_on_device({.tensors = {tensor(dtype), tensor(dtype), tensor(DType::F32)},
                     .outputs = sum,
                     .kept = sum,
                     .call = [&](const auto& t) {
                       return BucketReduce{.inputs = {piece(t[0], first, n), piece(t[1], other, n)},
                                           .out = piece(t[2], first, n),
                                           .scale = 0.5f};
                     }});
    HostTensor second = tensor(DType::F32);
    for (std::int64_t i = 0; i < size; ++i) second.set(i, second.at(i) * second.at(i));
    check_on_device({.tensors = {tensor(DType::F32), tensor(DType::F32), second, tensor(dtype),
                                 tensor(DType::Bf16)},
                     .outputs = {0, 1, 2, 4},
                     .kept = {0, 1, 2, 4},
                     .call = [&](const auto& t) {
                       return AdamUpdate{.master = piece(t[0], first, n),
                                         .first_moment = piece(t[1], first, n),
                                         .second_moment = piece(t[2], first, n),
                                         .gradient = piece(t[3], other, n),
                                         .parameter = piece(t[4], first, n),
                                         .weight_decay = 0.1f,
                                         .step = 3};
                     }});
  });
}

TEST_CASE("device: experts of drawn shapes agree with the CPU") {
  each_draw(5, [](Random& random) {
    const std::int64_t tokens = draw_size(random, 60), experts = draw_size(random, 40),
                       k = draw_size(random, std::min<std::int64_t>(experts, 8)),
                       h = draw_size(random, 2500);
    const DType dtype = draw_type(random);
    CAPTURE(tokens, experts, k, h, dtype_name(dtype));
    const HostTensor slots(DType::F32, {tokens, k}), chosen(DType::I32, {tokens, k});
    DeviceCase route{.tensors = {random_tensor(random, DType::F32, {tokens, experts}),
                                 HostTensor(DType::F32, {tokens, experts}), chosen, slots},
                     .outputs = {1, 2, 3},
                     .call = [](const auto& t) {
                       return RouterForward{
                           .logits = t[0], .probabilities = t[1], .experts = t[2], .weights = t[3]};
                     }};
    route = check_on_device(route);
    DeviceCase sort{.tensors = {route.tensors[2], chosen, HostTensor(DType::I32, {experts + 1})},
                    .outputs = {1, 2},
                    .call = [](const auto& t) {
                      return MoeSort{.experts = t[0], .destination = t[1], .offsets = t[2]};
                    }};
    sort = check_on_device(sort);
    check_on_device({.tensors = {random_tensor(random, dtype, {tokens * k, h}), sort.tensors[1],
                                 route.tensors[3], HostTensor(dtype, {tokens, h})},
                     .outputs = {3},
                     .call = [](const auto& t) {
                       return MoeCombine{
                           .x = t[0], .destination = t[1], .weights = t[2], .out = t[3]};
                     }});
  });
}

TEST_CASE("device: logits that are not numbers make the loss none, as on the CPU") {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  Random random(132);
  const std::int64_t rows = 3, columns = 600;
  HostTensor logits = random_tensor(random, DType::F32, {rows, columns});
  for (std::int64_t j = 0; j < columns; ++j) logits.set(j, kNan);
  logits.set(columns + 17, kNan);
  const HostTensor row(DType::F32, {rows});
  check_on_device({.tensors = {logits, int_tensor({3, 5, 7}), row, row, row},
                   .outputs = {2, 3, 4},
                   .call =
                       [&](const auto& t) {
                         return CrossEntropyForward{.logits = t[0],
                                                    .targets = t[1],
                                                    .vocabulary = columns,
                                                    .maximum = t[2],
                                                    .sum = t[3],
                                                    .target_logit = t[4]};
                       },
                   .has_nan = true});
}
