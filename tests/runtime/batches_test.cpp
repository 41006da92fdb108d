// Dealing samples to replicas: none lost, none seen twice, the same set for every division.
#include "runtime/data/batches.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "tests/catch.h"
#include "tests/runtime/scratch_folder.h"

using namespace rehearse;

namespace {

constexpr Partition kPartitions[] = {Partition::Range, Partition::Random, Partition::RoundRobin};

std::vector<std::int64_t> of_all_replicas(const BatchPlan& plan, std::int64_t step, int replicas) {
  std::vector<std::int64_t> all;
  for (int replica = 0; replica < replicas; ++replica) {
    const auto mine = plan.samples(step, replica);
    CHECK(mine.size() == static_cast<std::size_t>(plan.samples_of(replica)));
    all.insert(all.end(), mine.begin(), mine.end());
  }
  return all;
}

/// 1,000 tokens in samples of 9: 111 of them.
BatchSpec spec_of(Partition partition, int global_batch, int replicas) {
  return {.tokens = 1000,
          .seq_len = 9,
          .global_batch = global_batch,
          .replicas = replicas,
          .partition = partition,
          .seed = 7};
}

}  // namespace

TEST_CASE("every sample is seen once an epoch, for every partition and number of replicas") {
  for (const Partition partition : kPartitions)
    for (const int global_batch : {1, 7, 12, 37, 111})
      for (const int replicas : {1, 2, 3, 5, 8}) {
        CAPTURE(static_cast<int>(partition), global_batch, replicas);
        const BatchPlan plan(spec_of(partition, global_batch, replicas));
        REQUIRE(plan.samples_per_epoch() == 111);
        // As many steps as whole epochs take: each sample once for each of `global_batch` epochs.
        std::vector<int> seen(111, 0);
        for (std::int64_t step = 0; step < 111; ++step)
          for (const std::int64_t sample : of_all_replicas(plan, step, replicas))
            ++seen.at(static_cast<std::size_t>(sample));
        CHECK(std::all_of(seen.begin(), seen.end(), [&](int n) { return n == global_batch; }));
      }
}

TEST_CASE("each epoch by itself is complete, also where steps span two") {
  for (const Partition partition : kPartitions) {
    const BatchPlan plan(spec_of(partition, 10, 1));
    std::vector<std::int64_t> stream;
    for (std::int64_t step = 0; step < 34; ++step)
      for (const std::int64_t sample : plan.samples(step, 0)) stream.push_back(sample);
    for (std::size_t epoch = 0; epoch < 3; ++epoch) {
      const auto begin = stream.begin() + static_cast<std::ptrdiff_t>(epoch * 111);
      CHECK(std::set<std::int64_t>(begin, begin + 111).size() == 111);
    }
    CHECK(plan.epoch_of(0) == 0);
    CHECK(plan.epoch_of(11) == 0);
    CHECK(plan.epoch_of(12) == 1);
  }
}

TEST_CASE("a step's samples are the same set for every division among replicas") {
  for (const Partition partition : kPartitions)
    for (std::int64_t step = 0; step < 40; ++step) {
      const BatchPlan one(spec_of(partition, 12, 1));
      auto expected = one.samples(step, 0);
      std::sort(expected.begin(), expected.end());
      const auto same = [&](const BatchSpec& spec) {
        auto all = of_all_replicas(BatchPlan(spec), step, spec.replicas);
        std::sort(all.begin(), all.end());
        CHECK(all == expected);
      };
      for (const int replicas : {2, 3, 5, 12}) same(spec_of(partition, 12, replicas));
      for (const std::vector<int>& uneven :
           {std::vector<int>{7, 5}, std::vector<int>{1, 0, 11}, std::vector<int>{2, 3, 3, 4}}) {
        BatchSpec spec = spec_of(partition, 12, static_cast<int>(uneven.size()));
        spec.replica_samples = uneven;
        same(spec);
      }
    }
}

TEST_CASE("ranges keep neighbours together, round-robin deals one to each in turn") {
  const BatchPlan range(spec_of(Partition::Range, 7, 3));
  CHECK(range.samples(0, 0) == std::vector<std::int64_t>{0, 1, 2});
  CHECK(range.samples(0, 1) == std::vector<std::int64_t>{3, 4});
  CHECK(range.samples(1, 2) == std::vector<std::int64_t>{12, 13});
  const BatchPlan dealt(spec_of(Partition::RoundRobin, 7, 3));
  CHECK(dealt.samples(0, 0) == std::vector<std::int64_t>{0, 3, 6});
  CHECK(dealt.samples(0, 1) == std::vector<std::int64_t>{1, 4});
  BatchSpec uneven = spec_of(Partition::RoundRobin, 7, 3);
  uneven.replica_samples = {1, 4, 2};
  CHECK(BatchPlan(uneven).samples(0, 1) == std::vector<std::int64_t>{1, 3, 5, 6});
  CHECK(BatchPlan(uneven).samples(0, 2) == std::vector<std::int64_t>{2, 4});
}

TEST_CASE("weights of replicas add up to one and follow their samples") {
  BatchSpec uneven = spec_of(Partition::Range, 8, 3);
  uneven.replica_samples = {1, 5, 2};
  const BatchPlan plan(uneven);
  CHECK(plan.weight(0) == 0.125);
  CHECK(plan.weight(1) == 0.625);
  CHECK(plan.weight(0) + plan.weight(1) + plan.weight(2) == 1.0);
}

TEST_CASE("random order is fixed by its seed, and another in each epoch") {
  const BatchPlan plan(spec_of(Partition::Random, 111, 1));
  const auto first = plan.samples(0, 0);
  CHECK(first == BatchPlan(spec_of(Partition::Random, 111, 1)).samples(0, 0));
  CHECK(first != plan.samples(1, 0));
  BatchSpec other = spec_of(Partition::Random, 111, 1);
  other.seed = 8;
  CHECK(first != BatchPlan(other).samples(0, 0));
  // The order is part of what makes a run repeatable on another machine.
  CHECK(shuffled(0, 1000, 1) == 425);
  CHECK(shuffled(999, 1000, 1) == 975);
}

TEST_CASE("a random order is a bijection for every count, and spreads evenly") {
  for (std::int64_t count = 1; count < 300; ++count) {
    std::set<std::int64_t> places;
    for (std::int64_t i = 0; i < count; ++i) places.insert(shuffled(i, count, 42));
    REQUIRE(places.size() == static_cast<std::size_t>(count));
    REQUIRE(*places.rbegin() == count - 1);
  }
  // Mean distance of the places of neighbours: a third of the count where the order is random.
  constexpr std::int64_t kCount = 100'000;
  double distance = 0;
  for (std::int64_t i = 1; i < kCount; ++i)
    distance += std::abs(static_cast<double>(shuffled(i, kCount, 3) - shuffled(i - 1, kCount, 3)));
  CHECK(distance / kCount / kCount == Approx(1.0 / 3).epsilon(0.02));
  const std::int64_t huge = std::int64_t{1} << 60;
  CHECK(shuffled(huge - 1, huge, 5) < huge);
}

TEST_CASE("a corpus too short, and uneven batches that do not add up, are refused") {
  BatchSpec spec = spec_of(Partition::Range, 112, 1);
  CHECK(batch_fault(spec) ==
        "the corpus is too short: a step of 112 sequences of 9 tokens needs 1009 tokens, and it "
        "has 1000");
  CHECK(refusal([&] { BatchPlan plan(spec); }) == batch_fault(spec));
  spec = spec_of(Partition::Range, 12, 2);
  spec.replica_samples = {6, 7};
  CHECK(batch_fault(spec).find("add up to 13") != std::string::npos);
  spec.replica_samples = {13, -1};
  CHECK(batch_fault(spec).find("cannot have -1") != std::string::npos);
  spec.replica_samples = {12};
  CHECK(batch_fault(spec).find("stated for 1 replicas") != std::string::npos);
  spec = spec_of(Partition::Range, 0, 2);
  CHECK(batch_fault(spec) != "");
  CHECK(batch_fault(BatchSpec{.tokens = 0, .seq_len = 4, .global_batch = 1}) != "");
}

TEST_CASE("context ranks share each sequence exactly, and balanced, causal attention evenly") {
  const bool balanced = GENERATE(true, false);
  for (const int cp : {1, 2, 3, 4, 8})
    for (const int seq_len : {16, 31, 64, 1000}) {
      std::vector<int> owners(static_cast<std::size_t>(seq_len), 0);
      std::vector<double> pairs;
      for (int rank = 0; rank < cp; ++rank) {
        pairs.push_back(0);
        for (const TokenRange& range : context_ranges(seq_len, cp, rank, balanced))
          for (int token = range.begin; token < range.end; ++token) {
            ++owners[static_cast<std::size_t>(token)];
            pairs.back() += token + 1;
          }
      }
      CHECK(std::all_of(owners.begin(), owners.end(), [](int n) { return n == 1; }));
      if (!balanced) continue;
      const double even = 0.5 * seq_len * (seq_len + 1.0) / cp;
      for (const double mine : pairs) CHECK(std::abs(mine - even) <= 2.0 * seq_len);
    }
  CHECK(context_ranges(16, 2, 0, true) == std::vector<TokenRange>{{0, 4}, {12, 16}});
  CHECK(context_ranges(16, 2, 1, true) == std::vector<TokenRange>{{4, 8}, {8, 12}});
  CHECK(context_ranges(16, 2, 1, false) == std::vector<TokenRange>{{8, 16}});
}

TEST_CASE("a sample is its tokens and the ones that follow them") {
  const ScratchFolder folder("sample");
  std::vector<std::int32_t> tokens(41);
  std::iota(tokens.begin(), tokens.end(), 100);
  write_token_file(folder.file("t"), tokens, 256, false);
  const TokenFile file = TokenFile::open(folder.file("t"));
  const BatchPlan plan({.tokens = file.size(), .seq_len = 8, .global_batch = 5});
  CHECK(plan.samples_per_epoch() == 5);
  std::vector<std::int32_t> inputs(8), labels(8);
  read_sample(file, 8, 4, {0, 8}, inputs, labels);
  CHECK(inputs.front() == 132);
  CHECK(labels.back() == 140);
  inputs.resize(3), labels.resize(3);
  read_sample(file, 8, 1, {2, 5}, inputs, labels);
  CHECK(inputs == std::vector<std::int32_t>{110, 111, 112});
  CHECK(labels == std::vector<std::int32_t>{111, 112, 113});
}
