#include "runtime/data/batches.h"

#include <numeric>
#include <stdexcept>
#include <utility>

#include "plan/ensure.h"

namespace rehearse {
namespace {

/// Finalizer of splitmix64 (Steele, Lea, Flood 2014): every bit of the result depends on every bit
/// of the value.
std::uint64_t mixed(std::uint64_t value) {
  value += 0x9e3779b97f4a7c15u;
  value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
  value = (value ^ value >> 27) * 0x94d049bb133111ebu;
  return value ^ value >> 31;
}

/// As even as can be; the first replicas have what is left over.
std::vector<int> even_counts(int samples, int replicas) {
  std::vector<int> counts(static_cast<std::size_t>(replicas), samples / replicas);
  for (int i = 0; i < samples % replicas; ++i) ++counts[static_cast<std::size_t>(i)];
  return counts;
}

/// Places of a step, neighbours together.
std::vector<std::vector<int>> ranges(const std::vector<int>& counts) {
  std::vector<std::vector<int>> places;
  int next = 0;
  for (const int count : counts) {
    places.emplace_back(static_cast<std::size_t>(count));
    std::iota(places.back().begin(), places.back().end(), next);
    next += count;
  }
  return places;
}

/// Places of a step, one to each replica in turn; replicas that have their number are passed over.
std::vector<std::vector<int>> dealt(const std::vector<int>& counts) {
  std::vector<std::vector<int>> places(counts.size());
  const int total = std::accumulate(counts.begin(), counts.end(), 0);
  for (int place = 0; place < total;)
    for (std::size_t replica = 0; replica < counts.size(); ++replica)
      if (places[replica].size() < static_cast<std::size_t>(counts[replica]))
        places[replica].push_back(place++);
  return places;
}

std::string uneven_fault(const BatchSpec& spec) {
  if (spec.replica_samples.size() != static_cast<std::size_t>(spec.replicas))
    return "samples are stated for " + std::to_string(spec.replica_samples.size()) +
           " replicas, but there are " + std::to_string(spec.replicas);
  std::int64_t sum = 0;
  for (const int count : spec.replica_samples) {
    if (count < 0) return "a replica cannot have " + std::to_string(count) + " samples";
    sum += count;
  }
  if (sum != spec.global_batch)
    return "the samples of the replicas add up to " + std::to_string(sum) +
           ", but the global batch is " + std::to_string(spec.global_batch);
  return "";
}

}  // namespace

const Names<Partition>& partition_names() {
  static const Names<Partition> names = {{"range", Partition::Range},
                                         {"random", Partition::Random},
                                         {"round-robin", Partition::RoundRobin}};
  return names;
}

std::string batch_fault(const BatchSpec& spec) {
  if (spec.seq_len < 1 || spec.global_batch < 1 || spec.replicas < 1)
    return "sequence length, global batch and replicas are at least 1";
  const std::int64_t samples = (spec.tokens - 1) / spec.seq_len;
  if (samples < spec.global_batch)
    return "the corpus is too short: a step of " + std::to_string(spec.global_batch) +
           " sequences of " + std::to_string(spec.seq_len) + " tokens needs " +
           std::to_string(std::int64_t{spec.global_batch} * spec.seq_len + 1) +
           " tokens, and it has " + std::to_string(spec.tokens);
  return spec.replica_samples.empty() ? "" : uneven_fault(spec);
}

BatchPlan::BatchPlan(BatchSpec spec) : spec_(std::move(spec)) {
  if (const std::string fault = batch_fault(spec_); !fault.empty())
    throw std::invalid_argument(fault);
  samples_ = (spec_.tokens - 1) / spec_.seq_len;
  counts_ = spec_.replica_samples.empty() ? even_counts(spec_.global_batch, spec_.replicas)
                                          : spec_.replica_samples;
  places_ = spec_.partition == Partition::RoundRobin ? dealt(counts_) : ranges(counts_);
}

std::int64_t BatchPlan::epoch_of(std::int64_t step) const {
  return step * spec_.global_batch / samples_;
}

double BatchPlan::weight(int replica) const {
  return static_cast<double>(samples_of(replica)) / spec_.global_batch;
}

std::int64_t BatchPlan::sample_at(std::int64_t position) const {
  const std::int64_t epoch = position / samples_, index = position % samples_;
  if (spec_.partition != Partition::Random) return index;
  return shuffled(index, samples_, mixed(spec_.seed) ^ static_cast<std::uint64_t>(epoch));
}

std::vector<std::int64_t> BatchPlan::samples(std::int64_t step, int replica) const {
  ensure(step >= 0 && replica >= 0 && replica < spec_.replicas,
         "samples are asked for of a step and replica that there are");
  std::vector<std::int64_t> result;
  for (const int place : places_[static_cast<std::size_t>(replica)])
    result.push_back(sample_at(step * spec_.global_batch + place));
  return result;
}

std::int64_t shuffled(std::int64_t index, std::int64_t count, std::uint64_t key) {
  ensure(index >= 0 && index < count, "a place is asked for of an index in range");
  int half = 1;  // bits of each half
  while (half < 31 && (std::int64_t{1} << 2 * half) < count) ++half;
  ensure(count <= std::int64_t{1} << 2 * half, "at most 2^62 things are put in random order");
  const std::uint64_t mask = (std::uint64_t{1} << half) - 1;
  auto place = static_cast<std::uint64_t>(index);
  do {
    std::uint64_t left = place >> half, right = place & mask;
    for (std::uint64_t round = 0; round < 4; ++round) {
      const std::uint64_t next = left ^ (mixed(right ^ mixed(key + (round << 56))) & mask);
      left = right;
      right = next;
    }
    place = left << half | right;
  } while (place >= static_cast<std::uint64_t>(count));
  return static_cast<std::int64_t>(place);
}

std::vector<TokenRange> context_ranges(int seq_len, int cp, int rank, bool balanced) {
  ensure(cp >= 1 && rank >= 0 && rank < cp && seq_len >= 2 * cp,
         "a sequence is divided among ranks that it has at least two tokens for");
  if (cp == 1) return {{0, seq_len}};
  const int chunks = balanced ? 2 * cp : cp;
  const auto chunk = [&](int i) {
    const auto border = [&](int at) {
      return static_cast<int>(std::int64_t{seq_len} * at / chunks);
    };
    return TokenRange{border(i), border(i + 1)};
  };
  if (!balanced) return {chunk(rank)};
  return {chunk(rank), chunk(2 * cp - 1 - rank)};
}

void read_sample(const TokenFile& file, int seq_len, std::int64_t sample, TokenRange range,
                 std::span<std::int32_t> tokens, std::span<std::int32_t> labels) {
  const auto length = static_cast<std::size_t>(range.length());
  ensure(tokens.size() == length && labels.size() == length,
         "a sample is read into spans of its range's length");
  const std::int64_t first = sample * seq_len + range.begin;
  file.copy(first, tokens);
  file.copy(first + 1, labels);
}

}  // namespace rehearse
