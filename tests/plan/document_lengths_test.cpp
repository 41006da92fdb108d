#include "plan/document_lengths.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "tests/catch.h"

using namespace rehearse;

namespace {

/// Pairs one by one.
double counted(const PairBlock& block, int window) {
  double pairs = 0;
  for (std::int64_t q = block.query_begin; q < block.query_end; ++q)
    for (std::int64_t k = block.key_begin; k < block.key_end; ++k)
      if (k <= q && (window == 0 || q - k < window)) ++pairs;
  return pairs;
}

std::int64_t tokens_of(const PackedSequence& sequence) {
  return std::accumulate(sequence.begin(), sequence.end(), std::int64_t{0});
}

}  // namespace

TEST_CASE("A window of w tokens leaves w·s − w(w − 1)/2 pairs") {
  CHECK(attention_pairs(10, 0) == 55);
  CHECK(attention_pairs(10, 1) == 10);
  CHECK(attention_pairs(10, 3) == 3 * 10 - 3);
  CHECK(attention_pairs(10, 10) == 55);
  CHECK(attention_pairs(10, 99) == 55);
  CHECK(attention_pairs(32768, 4096) == 4096.0 * 32768 - 4096.0 * 4095 / 2);
}

TEST_CASE("Pairs of any block equal those counted one by one") {
  for (const int window : {0, 1, 4, 7, 50})
    for (std::int64_t a = 0; a < 12; a += 3)
      for (std::int64_t b = a; b <= 12; b += 4)
        for (std::int64_t c = 0; c < 12; c += 2)
          for (std::int64_t d = c; d <= 12; d += 5) {
            const PairBlock block{a, b, c, d};
            CHECK(attention_pairs(block, window) == counted(block, window));
          }
}

TEST_CASE("Equal documents of d tokens have d over the sequence's length of its pairs") {
  CHECK(pair_share({4096}, 4096, 0) == 1);
  CHECK(pair_share({1024, 1024, 1024, 1024}, 4096, 0) == 0.25);
  CHECK(pair_share({2048, 1024, 1024}, 4096, 0) == (4.0 + 1 + 1) / 16);
  // Padding attends to nothing.
  CHECK(pair_share({1024, 1024}, 4096, 0) == 0.125);
  // A window as long as the documents leaves them alone; half of the diagonal is counted.
  CHECK(pair_share({1024, 1024, 1024, 1024}, 4096, 1024) == 0.25);
  CHECK(pair_share({4096}, 4096, 1) == 4096 * 0.5 / (4096.0 * 4096 / 2));
}

TEST_CASE("Packing by cutting fills every sequence, and loses or repeats no token") {
  const std::vector<int> lengths{5, 3, 9, 30, 1, 2, 14};
  const auto sequences = packed(lengths, 8, Packing::Cut);
  REQUIRE(sequences.size() == 8);
  for (const PackedSequence& sequence : sequences) CHECK(tokens_of(sequence) == 8);
  CHECK(sequences[0] == PackedSequence{5, 3});
  CHECK(sequences[1] == PackedSequence{8});
  CHECK(sequences[2] == PackedSequence{1, 7});
  CHECK(sequences.back() == PackedSequence{8});
}

TEST_CASE("Packing whole documents cuts only those that are longer than a sequence") {
  const auto sequences = packed({5, 4, 3, 20, 8, 1}, 8, Packing::Whole);
  REQUIRE(sequences.size() == 7);
  CHECK(sequences[0] == PackedSequence{5});
  CHECK(sequences[1] == PackedSequence{4, 3, 1});  // the first token of the long one
  CHECK(sequences[2] == PackedSequence{8});
  CHECK(sequences[3] == PackedSequence{8});
  CHECK(sequences[4] == PackedSequence{3});
  CHECK(sequences[5] == PackedSequence{8});
  CHECK(sequences[6] == PackedSequence{1});
}

TEST_CASE("Drawn lengths have the mean and deviation that were asked for") {
  const auto kind = GENERATE(LengthDistribution::LogNormal, LengthDistribution::Uniform);
  Documents documents;
  documents.mean_tokens = 1000;
  documents.deviation_tokens = 400;
  documents.distribution = kind;
  // Sequences far longer than documents, so that hardly any is cut.
  const StepSequences step = step_sequences(documents, Deal::Range, 1'000'000, 20);
  double sum = 0, squares = 0, count = 0;
  for (const PackedSequence& sequence : step.sequences)
    for (std::size_t i = 1; i + 1 < sequence.size(); ++i, ++count) {
      sum += sequence[i];
      squares += double(sequence[i]) * sequence[i];
    }
  const double mean = sum / count, deviation = std::sqrt(squares / count - mean * mean);
  CHECK(mean == Approx(1000).epsilon(4 * 0.4 / std::sqrt(count)));
  CHECK(deviation == Approx(400).epsilon(0.04));  // four errors of a log-normal's deviation
  CHECK(step_sequences(documents, Deal::Range, 1'000'000, 20).sequences == step.sequences);
  documents.seed = 2;
  CHECK(step_sequences(documents, Deal::Range, 1'000'000, 20).sequences != step.sequences);
}

TEST_CASE("Documents that are all alike are drawn without a deviation") {
  Documents documents;
  documents.mean_tokens = 512;
  const StepSequences step = step_sequences(documents, Deal::Range, 2048, 3);
  REQUIRE(step.sequences.size() == 3);
  for (const PackedSequence& sequence : step.sequences)
    CHECK(sequence == PackedSequence{512, 512, 512, 512});
}

TEST_CASE("A file's sequences follow each other from step to step and from epoch to epoch") {
  Documents documents;
  documents.lengths_file = "lengths.txt";
  documents.lengths = {1, 7, 2, 6, 3, 5, 4, 4, 8, 3};  // five sequences of 8 and a rest
  const auto first_of = [&](int seed, Deal partition) {
    documents.seed = seed;
    std::vector<int> first;
    const StepSequences step = step_sequences(documents, partition, 8, 2);
    CHECK(step.file_steps == 3);
    for (const PackedSequence& sequence : step.sequences) first.push_back(sequence.front());
    return first;
  };
  CHECK(first_of(1, Deal::Range) == std::vector<int>{1, 2});
  CHECK(first_of(2, Deal::RoundRobin) == std::vector<int>{3, 4});
  CHECK(first_of(3, Deal::Range) == std::vector<int>{8, 1});
  CHECK(first_of(4, Deal::Range) == std::vector<int>{1, 2});
  // In random order too each sequence comes once.
  std::vector<int> all;
  documents.seed = 1;
  for (const PackedSequence& sequence : step_sequences(documents, Deal::Random, 8, 5).sequences)
    all.push_back(sequence.front());
  std::sort(all.begin(), all.end());
  CHECK(all == std::vector<int>{1, 2, 3, 4, 8});
}

TEST_CASE("Sequences are dealt out in runs or in turn, each once") {
  using Places = std::vector<std::vector<std::int64_t>>;
  CHECK(dealt(Deal::Range, {2, 2}) == Places{{0, 1}, {2, 3}});
  CHECK(dealt(Deal::RoundRobin, {2, 2}) == Places{{0, 2}, {1, 3}});
  CHECK(dealt(Deal::RoundRobin, {1, 3}) == Places{{0}, {1, 2, 3}});
  CHECK(dealt(Deal::Random, {1, 3}) == Places{{0}, {1, 2, 3}});
}

TEST_CASE("Documents that cannot be drawn are refused with the reason") {
  Documents documents;
  CHECK(documents_fault(documents, 4096, 8).find("no mean length") != std::string::npos);
  documents.mean_tokens = 1;
  CHECK(documents_fault(documents, 1 << 20, 2048).find("more than") != std::string::npos);
  documents.mean_tokens = 100;
  CHECK(documents_fault(documents, 4096, 8).empty());
  documents.deviation_tokens = 60;
  documents.distribution = LengthDistribution::Uniform;
  CHECK(documents_fault(documents, 4096, 8).find("below 0") != std::string::npos);
  documents.lengths_file = "few.txt";
  documents.lengths = {10, 20};
  CHECK(documents_fault(documents, 4096, 8).find("do not fill") != std::string::npos);
}
