#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "plan/field_table.h"
#include "runtime/data/token_file.h"

namespace rehearse {

/// How the samples of each step are dealt to replicas. `Range`: in the order of the file,
/// neighbours together. `Random`: in a new random order every epoch, neighbours of that order
/// together. `RoundRobin`: in the order of the file, one to each replica in turn.
enum class Partition : std::uint8_t { Range, Random, RoundRobin };
const Names<Partition>& partition_names();

struct BatchSpec {
  std::int64_t tokens = 0;  ///< in the corpus
  int seq_len = 0;
  int global_batch = 0;  ///< samples of a step, all replicas together
  int replicas = 1;
  Partition partition = Partition::Range;
  std::uint64_t seed = 0;            ///< of the random order
  std::vector<int> replica_samples;  ///< of a step, by replica; empty: as even as can be
};

/// What makes a batch plan impossible, as a sentence without a full stop; empty: nothing.
std::string batch_fault(const BatchSpec& spec);

/// Which samples each replica computes in each step. Sample i is the seq_len + 1 tokens from
/// i·seq_len on: all but the last are read, all but the first are predicted. Neighbours share a
/// token, so that an epoch predicts every token but the first and less than seq_len last ones.
///
/// The samples of all epochs, one after another, are cut into steps of `global_batch`: a step may
/// end one epoch and begin the next. What a step computes depends on neither the number of
/// replicas nor how they share it, so the loss of every layout is that of one rank; and no sample
/// is lost or seen twice in an epoch. Deterministic on every machine; O(1) memory.
class BatchPlan {
 public:
  /// Throws std::invalid_argument with `batch_fault`'s sentence.
  explicit BatchPlan(BatchSpec spec);

  std::int64_t samples_per_epoch() const { return samples_; }
  /// The epoch that the first sample of a step belongs to.
  std::int64_t epoch_of(std::int64_t step) const;
  /// Samples that the replica computes in every step.
  int samples_of(int replica) const { return counts_[static_cast<std::size_t>(replica)]; }
  /// The replica's share of a step's mean: samples over global batch.
  double weight(int replica) const;

  /// The replica's samples of a step, in the order it computes them. REQUIRES: step ≥ 0.
  std::vector<std::int64_t> samples(std::int64_t step, int replica) const;

 private:
  std::int64_t sample_at(std::int64_t position) const;

  BatchSpec spec_;
  std::int64_t samples_ = 0;
  std::vector<int> counts_;
  std::vector<std::vector<int>> places_;  ///< by replica: its places in a step's samples
};

/// The place of `index` in a random order of [0, count): a bijection, computed without a table.
/// Four Feistel rounds (Luby and Rackoff 1988) over the next even number of bits, repeated until
/// the place lies in range (Black and Rogaway 2002, "cycle walking"). REQUIRES: 0 ≤ index < count.
std::int64_t shuffled(std::int64_t index, std::int64_t count, std::uint64_t key);

/// Tokens [begin, end) of a sequence.
struct TokenRange {
  int begin = 0, end = 0;
  int length() const { return end - begin; }
  bool operator==(const TokenRange&) const = default;
};

/// What a context rank computes of each sequence, in order. With causal attention late tokens
/// attend to more than early ones, so a `balanced` sequence is cut into 2·cp chunks of equal length
/// (to one token) and rank r gets chunks r and 2·cp − 1 − r; else it gets the r-th of cp chunks.
/// REQUIRES: 0 ≤ rank < cp, seq_len ≥ 2·cp.
std::vector<TokenRange> context_ranges(int seq_len, int cp, int rank, bool balanced);

/// Tokens of a range of a sample, and the labels that follow each of them.
/// REQUIRES: both spans are as long as the range.
void read_sample(const TokenFile& file, int seq_len, std::int64_t sample, TokenRange range,
                 std::span<std::int32_t> tokens, std::span<std::int32_t> labels);

}  // namespace rehearse
