#include <limits>

#include "tests/catch.h"
#include "tests/kernels/ops/host_tensor.h"

using namespace rehearse;

namespace {

struct Packed {
  std::vector<std::int32_t> query_lengths, key_lengths;
  std::int64_t heads = 1, kv_heads = 1, d = 8;
  bool causal = true;
};

/// The tensors of an attention over packed sequences, and the shape that describes them.
struct Problem {
  Packed packed;
  HostTensor query_offsets, key_offsets, query, key, value, out, lse;
  double scale;

  Problem(const Packed& what, DType dtype, Random& random) : packed(what) {
    query_offsets = offsets(what.query_lengths);
    key_offsets = offsets(what.key_lengths);
    const auto queries = static_cast<std::int64_t>(query_offsets.at(query_offsets.elements() - 1));
    const auto keys = static_cast<std::int64_t>(key_offsets.at(key_offsets.elements() - 1));
    query = random_tensor(random, dtype, {queries, what.heads, what.d});
    key = random_tensor(random, dtype, {keys, what.kv_heads, what.d});
    value = random_tensor(random, dtype, {keys, what.kv_heads, what.d});
    out = HostTensor(dtype, {queries, what.heads, what.d});
    lse = HostTensor(dtype == DType::F64 ? DType::F64 : DType::F32, {what.heads, queries});
    out.poison();
    lse.poison();
    scale = 1 / std::sqrt(static_cast<double>(what.d));
  }

  static HostTensor offsets(const std::vector<std::int32_t>& lengths) {
    std::vector<std::int32_t> sums{0};
    for (const std::int32_t length : lengths) sums.push_back(sums.back() + length);
    return int_tensor(sums);
  }
  static std::int64_t longest(const std::vector<std::int32_t>& lengths) {
    std::int64_t most = 0;
    for (const std::int32_t length : lengths) most = std::max<std::int64_t>(most, length);
    return most;
  }
  AttentionShape shape() const {
    return {.query_offsets = query_offsets,
            .key_offsets = key_offsets,
            .max_query_length = longest(packed.query_lengths),
            .max_key_length = longest(packed.key_lengths),
            .causal = packed.causal,
            .scale = static_cast<float>(scale)};
  }
  void forward() {
    cpu().run(AttentionForward{.query = query,
                               .key = key,
                               .value = value,
                               .out = out,
                               .log_sum_exp = lse,
                               .shape = shape()});
  }
};

/// Softmax attention straight from its definition, one query at a time.
void expect(const Problem& p, HostTensor& out, HostTensor& lse) {
  const auto [heads, kv_heads, d] = std::tuple(p.packed.heads, p.packed.kv_heads, p.packed.d);
  const std::int64_t queries = p.query.size(0);
  for (std::size_t s = 0; s < p.packed.query_lengths.size(); ++s)
    for (std::int64_t h = 0; h < heads; ++h)
      for (std::int32_t i = 0; i < p.packed.query_lengths[s]; ++i) {
        const auto row =
            static_cast<std::int64_t>(p.query_offsets.at(static_cast<std::int64_t>(s))) + i;
        const auto first =
            static_cast<std::int64_t>(p.key_offsets.at(static_cast<std::int64_t>(s)));
        const std::int32_t keys = p.packed.key_lengths[s];
        std::vector<double> sum(static_cast<std::size_t>(d));
        double total = 0;
        for (std::int32_t j = 0; j < keys; ++j) {
          if (p.packed.causal && j > i + keys - p.packed.query_lengths[s]) continue;
          const std::int64_t k = ((first + j) * kv_heads + h / (heads / kv_heads)) * d;
          double score = 0;
          for (std::int64_t c = 0; c < d; ++c)
            score += p.query.at((row * heads + h) * d + c) * p.key.at(k + c);
          const double weight = std::exp(score * static_cast<float>(p.scale));
          total += weight;
          for (std::int64_t c = 0; c < d; ++c)
            sum[static_cast<std::size_t>(c)] += weight * p.value.at(k + c);
        }
        for (std::int64_t c = 0; c < d; ++c)
          out.set((row * heads + h) * d + c,
                  total == 0 ? 0 : sum[static_cast<std::size_t>(c)] / total);
        lse.set(h * queries + row, std::log(total));
      }
}

const Packed kCases[] = {
    {.query_lengths = {5}, .key_lengths = {5}},
    {.query_lengths = {70, 1, 33}, .key_lengths = {70, 1, 33}, .heads = 4, .kv_heads = 2, .d = 16},
    {.query_lengths = {3, 9}, .key_lengths = {11, 4}, .heads = 6, .kv_heads = 2, .d = 8},
    {.query_lengths = {3, 9},
     .key_lengths = {11, 4},
     .heads = 3,
     .kv_heads = 3,
     .d = 10,
     .causal = false},
    {.query_lengths = {130},
     .key_lengths = {130},
     .heads = 2,
     .kv_heads = 1,
     .d = 64,
     .causal = false},
    {.query_lengths = {0, 7}, .key_lengths = {4, 7}, .heads = 2, .kv_heads = 1, .d = 4},
};

}  // namespace

TEST_CASE("attention equals the softmax of its definition on packed sequences") {
  const std::size_t which = GENERATE(range<std::size_t>(0, std::size(kCases)));
  const DType dtype = GENERATE(DType::F32, DType::Bf16, DType::F64);
  CAPTURE(which, dtype_name(dtype));
  Random random(20 + which);
  Problem problem(kCases[which], dtype, random);
  HostTensor out(DType::F64, problem.out.shape()), lse(DType::F64, problem.lse.shape());
  expect(problem, out, lse);
  problem.forward();
  CHECK(relative_error(problem.out, out) < error_bound(dtype));
  CHECK(relative_error(problem.lse, lse) < error_bound(dtype == DType::F64 ? dtype : DType::F32));
}

TEST_CASE("a query that sees no key gives zeros and minus infinity") {
  Random random(30);
  Problem problem({.query_lengths = {4}, .key_lengths = {2}, .d = 4}, DType::F32, random);
  problem.forward();
  for (std::int64_t i = 0; i < 8; ++i) CHECK(problem.out.at(i) == 0);
  CHECK(problem.lse.at(0) == -std::numeric_limits<double>::infinity());
  CHECK(std::isfinite(problem.lse.at(2)));
}

TEST_CASE("attention's gradients equal finite differences") {
  const std::size_t which = GENERATE(range<std::size_t>(0, std::size(kCases)));
  CAPTURE(which);
  Random random(40 + which);
  Problem p(kCases[which], DType::F64, random);
  const HostTensor d_out = random_tensor(random, DType::F64, p.out.shape());
  p.forward();
  HostTensor d_query(DType::F64, p.query.shape()), d_key(DType::F64, p.key.shape()),
      d_value(DType::F64, p.value.shape());
  for (HostTensor* one : {&d_query, &d_key, &d_value}) one->poison();
  cpu().run(AttentionBackward{.d_out = d_out,
                              .query = p.query,
                              .key = p.key,
                              .value = p.value,
                              .out = p.out,
                              .log_sum_exp = p.lse,
                              .d_query = d_query,
                              .d_key = d_key,
                              .d_value = d_value,
                              .shape = p.shape()});
  const auto loss = [&] {
    p.forward();
    return inner_product(p.out, d_out);
  };
  CHECK(gradient_error(p.query, d_query, loss, 20) < 1e-7);
  CHECK(gradient_error(p.key, d_key, loss, 20) < 1e-7);
  CHECK(gradient_error(p.value, d_value, loss, 20) < 1e-7);
}

TEST_CASE("attention over parts of the keys is joined to attention over all of them") {
  // Each sequence twice: its first keys, then its last. Queries without keys, and keys without
  // queries, are how a ring's blocks leave out what causality hides.
  const DType dtype = GENERATE(DType::F32, DType::Bf16, DType::F64);
  CAPTURE(dtype_name(dtype));
  Random random(45);
  Problem all(
      {.query_lengths = {6, 6}, .key_lengths = {9, 9}, .heads = 4, .kv_heads = 2, .causal = false},
      dtype, random);
  all.forward();
  Problem first = all, last = all;
  first.packed = {.query_lengths = {6, 0, 6, 0}, .key_lengths = {4, 5, 4, 5}};
  last.packed = {.query_lengths = {0, 6, 0, 6}, .key_lengths = {4, 5, 4, 5}};
  for (Problem* part : {&first, &last}) {
    part->packed.causal = false;
    part->query_offsets = Problem::offsets(part->packed.query_lengths);
    part->key_offsets = Problem::offsets(part->packed.key_lengths);
    part->forward();
  }
  HostTensor out = all.out, lse = all.lse;
  for (HostTensor* one : {&out, &lse}) one->poison();
  cpu().run(AttentionJoin{.a = first.out,
                          .b = last.out,
                          .a_log_sum_exp = first.lse,
                          .b_log_sum_exp = last.lse,
                          .out = out,
                          .log_sum_exp = lse});
  CHECK(relative_error(out, all.out) < error_bound(dtype));
  CHECK(relative_error(lse, all.lse) < error_bound(dtype == DType::F64 ? dtype : DType::F32));
}

TEST_CASE("gradients of attention add up over parts of the keys") {
  Random random(46);
  Problem all({.query_lengths = {5, 5}, .key_lengths = {8, 8}, .heads = 2, .causal = false},
              DType::F64, random);
  all.forward();
  const HostTensor d_out = random_tensor(random, DType::F64, all.out.shape());
  const auto gradients = [&](const AttentionShape& shape) {
    std::vector<HostTensor> out{all.query, all.key, all.value};
    for (HostTensor& one : out) one.poison();
    cpu().run(AttentionBackward{.d_out = d_out,
                                .query = all.query,
                                .key = all.key,
                                .value = all.value,
                                .out = all.out,
                                .log_sum_exp = all.lse,
                                .d_query = out[0],
                                .d_key = out[1],
                                .d_value = out[2],
                                .shape = shape});
    return out;
  };
  const std::vector<HostTensor> whole = gradients(all.shape());
  const HostTensor keys = Problem::offsets({3, 5, 3, 5});
  const HostTensor seen_first = Problem::offsets({5, 0, 5, 0});
  const HostTensor seen_last = Problem::offsets({0, 5, 0, 5});
  AttentionShape part = all.shape();
  part.key_offsets = keys;
  part.query_offsets = seen_first;
  const std::vector<HostTensor> first = gradients(part);
  part.query_offsets = seen_last;
  const std::vector<HostTensor> last = gradients(part);
  for (std::size_t i = 0; i < whole.size(); ++i) {
    HostTensor sum = first[i];
    cpu().run(AttentionJoin{.a = sum, .b = last[i], .out = sum});
    CHECK(relative_error(sum, whole[i]) < 1e-14);
  }
}

TEST_CASE("joining what saw no key changes nothing") {
  Random random(47);
  Problem none({.query_lengths = {4}, .key_lengths = {0}, .d = 4, .causal = false}, DType::F32,
               random);
  none.forward();
  HostTensor some = random_tensor(random, DType::F32, none.out.shape());
  HostTensor lse = random_tensor(random, DType::F32, none.lse.shape()), out = some, joined = lse;
  cpu().run(AttentionJoin{.a = some,
                          .b = none.out,
                          .a_log_sum_exp = lse,
                          .b_log_sum_exp = none.lse,
                          .out = out,
                          .log_sum_exp = joined});
  CHECK(relative_error(out, some) == 0);
  CHECK(relative_error(joined, lse) == 0);
  cpu().run(AttentionJoin{.a = none.out,
                          .b = none.out,
                          .a_log_sum_exp = none.lse,
                          .b_log_sum_exp = none.lse,
                          .out = out,
                          .log_sum_exp = joined});
  for (std::int64_t i = 0; i < out.elements(); ++i) CHECK(out.at(i) == 0);
  CHECK(joined.at(0) == -std::numeric_limits<double>::infinity());
}

TEST_CASE("attention reads heads from one fused projection and writes gradients back into one") {
  Random random(50);
  const Packed packed{
      .query_lengths = {6, 3}, .key_lengths = {6, 3}, .heads = 4, .kv_heads = 2, .d = 8};
  Problem p(packed, DType::F32, random);
  HostTensor fused(DType::F32, {9, 8, 8});
  for (std::int64_t t = 0; t < 9; ++t)
    for (std::int64_t h = 0; h < 8; ++h)
      for (std::int64_t c = 0; c < 8; ++c)
        fused.set((t * 8 + h) * 8 + c, h < 4   ? p.query.at((t * 4 + h) * 8 + c)
                                       : h < 6 ? p.key.at((t * 2 + h - 4) * 8 + c)
                                               : p.value.at((t * 2 + h - 6) * 8 + c));
  p.forward();
  HostTensor out(DType::F32, p.out.shape());
  cpu().run(AttentionForward{.query = slice_columns(fused.view(), 0, 4),
                             .key = slice_columns(fused.view(), 4, 2),
                             .value = slice_columns(fused.view(), 6, 2),
                             .out = out,
                             .shape = p.shape()});
  CHECK(relative_error(out, p.out) == 0);
}

TEST_CASE("decoding token by token through the paged cache equals attention over the whole") {
  Random random(51);
  const std::int64_t heads = 4, kv_heads = 2, d = 8, length = 11, block = 4;
  const DType dtype = GENERATE(DType::F32, DType::Bf16);
  Problem p({.query_lengths = {11, 11},
             .key_lengths = {11, 11},
             .heads = heads,
             .kv_heads = kv_heads,
             .d = d},
            dtype, random);
  p.forward();
  HostTensor key_cache(dtype, {7, block, kv_heads, d}), value_cache(dtype, {7, block, kv_heads, d});
  const HostTensor table = int_tensor({3, 0, 6, 5, 1, 2}, {2, 3});      // blocks in no order
  const auto rows_at = [&](const HostTensor& packed, std::int64_t t) {  // row t of both sequences
    ConstTensorView two = slice_rows(packed.view(), t, 1);
    two.shape.size[0] = 2;
    two.shape.stride = length * packed.shape().row_elements();
    return two;
  };
  for (std::int64_t t = 0; t < length; ++t) {
    const HostTensor before =
        int_tensor({static_cast<std::int32_t>(t), static_cast<std::int32_t>(t)});
    const HostTensor lengths =
        int_tensor({static_cast<std::int32_t>(t + 1), static_cast<std::int32_t>(t + 1)});
    HostTensor out(dtype, {2, heads, d});
    cpu().run(PagedAppend{.key = rows_at(p.key, t),
                          .value = rows_at(p.value, t),
                          .key_cache = key_cache,
                          .value_cache = value_cache,
                          .block_table = table,
                          .positions = before});
    cpu().run(PagedAttention{.query = rows_at(p.query, t),
                             .key_cache = key_cache,
                             .value_cache = value_cache,
                             .block_table = table,
                             .lengths = lengths,
                             .out = out,
                             .max_length = t + 1,
                             .scale = static_cast<float>(p.scale)});
    double error = 0;
    for (std::int64_t s = 0; s < 2; ++s)
      for (std::int64_t i = 0; i < heads * d; ++i)
        error = std::max(error, std::fabs(out.at(s * heads * d + i) -
                                          p.out.at((s * length + t) * heads * d + i)));
    CHECK(error < error_bound(dtype));
  }
}

TEST_CASE("rotary positions rotate pairs, and the inverse turns back") {
  Random random(52);
  const std::int64_t tokens = 5, heads = 3, d = 6;
  HostTensor table(DType::F64, {8, d}), x = random_tensor(random, DType::F64, {tokens, heads, d});
  for (std::int64_t p = 0; p < 8; ++p)
    for (std::int64_t i = 0; i < d / 2; ++i) {
      const double angle =
          static_cast<double>(p) *
          std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(d));
      table.set(p * d + i, std::cos(angle));
      table.set(p * d + d / 2 + i, std::sin(angle));
    }
  const HostTensor positions = int_tensor({0, 7, 3, 3, 1}), kept = x;
  cpu().run(Rope{.x = x, .cosine_sine = table, .positions = positions});
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t h = 0; h < heads; ++h)
      for (std::int64_t i = 0; i < d / 2; ++i) {
        const std::int64_t at = (t * heads + h) * d + i;
        const double angle = positions.at(t) * std::pow(10000.0, -2.0 * static_cast<double>(i) /
                                                                     static_cast<double>(d));
        CHECK(x.at(at) ==
              Approx(kept.at(at) * std::cos(angle) - kept.at(at + d / 2) * std::sin(angle)));
        CHECK(x.at(at + d / 2) ==
              Approx(kept.at(at + d / 2) * std::cos(angle) + kept.at(at) * std::sin(angle)));
      }
  cpu().run(Rope{.x = x, .cosine_sine = table, .positions = positions, .inverse = true});
  CHECK(relative_error(x, kept) < 1e-14);  // a rotation's inverse is its transpose: the gradient
}
