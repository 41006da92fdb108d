#include "tests/catch.h"
#include "tests/kernels/ops/host_tensor.h"

using namespace rehearse;

TEST_CASE("slices of the embedding add up to the whole, positions included once") {
  Random random(70);
  const std::int64_t rows = 9, h = 5, vocabulary = 10;
  const HostTensor tokens = random_ints(random, {rows}, vocabulary),
                   positions = random_ints(random, {rows}, 4);
  const HostTensor table = random_tensor(random, DType::F32, {vocabulary, h}),
                   places = random_tensor(random, DType::F32, {4, h});
  HostTensor low(DType::F32, {rows, h}), high(DType::F32, {rows, h}), sum(DType::F32, {rows, h});
  cpu().run(EmbeddingForward{.tokens = tokens,
                             .table = slice_rows(table.view(), 0, 6),
                             .position_table = places,
                             .positions = positions,
                             .out = low});
  cpu().run(EmbeddingForward{
      .tokens = tokens, .table = slice_rows(table.view(), 6, 4), .first_row = 6, .out = high});
  cpu().run(Add{.a = low, .b = high, .out = sum});
  for (std::int64_t t = 0; t < rows; ++t)
    for (std::int64_t j = 0; j < h; ++j)
      CHECK(sum.at(t * h + j) ==
            Approx(table.at(static_cast<std::int64_t>(tokens.at(t)) * h + j) +
                   places.at(static_cast<std::int64_t>(positions.at(t)) * h + j)));
}

TEST_CASE("the embedding's gradient adds every token's row, repeated tokens too") {
  Random random(71);
  const HostTensor tokens = int_tensor({3, 1, 3, 7, 3, 1}),
                   d_out = random_tensor(random, DType::Bf16, {6, 4});
  HostTensor d_table = constant_tensor(DType::F32, {5, 4}, 1);  // rows 2 … 6 of the vocabulary
  cpu().run(
      EmbeddingBackward{.tokens = tokens, .d_out = d_out, .d_table = d_table, .first_row = 2});
  for (std::int64_t r = 0; r < 5; ++r)
    for (std::int64_t j = 0; j < 4; ++j) {
      double expected = 1;
      for (std::int64_t t = 0; t < 6; ++t)
        if (tokens.at(t) == static_cast<double>(r + 2)) expected += d_out.at(t * 4 + j);
      CHECK(d_table.at(r * 4 + j) == Approx(expected).epsilon(1e-5));
    }
}

namespace {

/// Loss and gradient over `slices` equal slices of the columns, exchanging what tensor ranks do.
struct SlicedLoss {
  std::vector<HostTensor> slices;
  HostTensor loss;
};

SlicedLoss sliced_cross_entropy(const HostTensor& logits, const HostTensor& targets,
                                const HostTensor& scale, std::int64_t vocabulary, int slice_count) {
  const std::int64_t rows = logits.size(0), width = logits.size(1) / slice_count;
  const DType wide = logits.dtype() == DType::F64 ? DType::F64 : DType::F32;
  SlicedLoss result;
  std::vector<HostTensor> maxima, sums, hits;
  for (int s = 0; s < slice_count; ++s) {
    HostTensor slice(logits.dtype(), {rows, width}), maximum(wide, {rows}), sum(wide, {rows}),
        hit(wide, {rows});
    for (std::int64_t i = 0; i < rows * width; ++i)
      slice.set(i, logits.at(i / width * logits.size(1) + s * width + i % width));
    cpu().run(CrossEntropyForward{.logits = slice,
                                  .targets = targets,
                                  .first_column = s * width,
                                  .vocabulary = vocabulary,
                                  .maximum = maximum,
                                  .sum = sum,
                                  .target_logit = hit});
    result.slices.push_back(slice);
    maxima.push_back(maximum);
    sums.push_back(sum);
    hits.push_back(hit);
  }
  HostTensor maximum = maxima[0], sum(wide, {rows}), hit(wide, {rows});
  for (std::int64_t t = 0; t < rows; ++t)
    for (const HostTensor& one : maxima) maximum.set(t, std::max(maximum.at(t), one.at(t)));
  for (int s = 0; s < slice_count; ++s) {
    const auto index = static_cast<std::size_t>(s);
    cpu().run(CrossEntropyRescale{
        .local_maximum = maxima[index], .maximum = maximum, .sum = sums[index]});
    for (std::int64_t t = 0; t < rows; ++t) {
      sum.set(t, sum.at(t) + sums[index].at(t));
      hit.set(t, hit.at(t) + hits[index].at(t));
    }
  }
  result.loss = HostTensor(wide, {rows});
  for (int s = 0; s < slice_count; ++s)
    cpu().run(CrossEntropyBackward{.logits = result.slices[static_cast<std::size_t>(s)],
                                   .targets = targets,
                                   .first_column = s * width,
                                   .vocabulary = vocabulary,
                                   .maximum = maximum,
                                   .sum = sum,
                                   .target_logit = hit,
                                   .loss_scale = scale,
                                   .loss = result.loss});
  return result;
}

}  // namespace

TEST_CASE("cross entropy equals its definition however many ranks share the vocabulary") {
  Random random(72);
  const int slices = GENERATE(1, 2, 4);
  const DType dtype = GENERATE(DType::F32, DType::Bf16);
  const std::int64_t rows = 6, columns = 16, vocabulary = 11;  // the last slice is padding only
  const HostTensor logits = random_tensor(random, dtype, {rows, columns}, 3);
  HostTensor targets = random_ints(random, {rows}, vocabulary);
  targets.set(2, -1);  // ignored
  const HostTensor scale = constant_tensor(DType::F32, {rows}, 0.25);
  const SlicedLoss result = sliced_cross_entropy(logits, targets, scale, vocabulary, slices);
  HostTensor loss(DType::F64, {rows}), gradient(DType::F64, {rows, columns}),
      got(DType::F64, {rows, columns});
  for (std::int64_t t = 0; t < rows; ++t) {
    double sum = 0;
    for (std::int64_t j = 0; j < vocabulary; ++j) sum += std::exp(logits.at(t * columns + j));
    const auto target = static_cast<std::int64_t>(targets.at(t));
    if (target >= 0) loss.set(t, std::log(sum) - logits.at(t * columns + target));
    for (std::int64_t j = 0; j < columns; ++j) {
      if (target >= 0 && j < vocabulary)
        gradient.set(t * columns + j,
                     0.25 * (std::exp(logits.at(t * columns + j)) / sum - (j == target ? 1 : 0)));
      const std::int64_t width = columns / slices;
      got.set(t * columns + j,
              result.slices[static_cast<std::size_t>(j / width)].at(t * width + j % width));
    }
  }
  CHECK(relative_error(result.loss, loss) < 1e-5);
  CHECK(relative_error(got, gradient) < error_bound(dtype));
}

TEST_CASE("the gradient of cross entropy equals finite differences") {
  Random random(73);
  HostTensor logits = random_tensor(random, DType::F64, {3, 8}, 2);
  const HostTensor targets = int_tensor({5, 0, 7}), scale = random_tensor(random, DType::F64, {3});
  const auto loss = [&] {
    return inner_product(sliced_cross_entropy(logits, targets, scale, 8, 1).loss, scale);
  };
  const HostTensor gradient = sliced_cross_entropy(logits, targets, scale, 8, 1).slices[0];
  CHECK(gradient_error(logits, gradient, loss, 100) < 1e-7);
}
