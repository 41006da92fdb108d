#include "strategies/attention_load.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include <fmt/format.h>

#include "plan/ensure.h"

namespace rehearse {
namespace {

using Span = std::pair<std::int64_t, std::int64_t>;

/// Tokens of a sequence that a context rank of a ring holds.
std::vector<Span> held(const Plan& plan, int seq_len, int rank) {
  const std::int64_t s = seq_len;
  if (!plan.context_balanced) return {{s * rank / plan.cp, s * (rank + 1) / plan.cp}};
  const std::int64_t pieces = 2 * static_cast<std::int64_t>(plan.cp), mirror = pieces - 1 - rank;
  return {{s * rank / pieces, s * (rank + 1) / pieces},
          {s * mirror / pieces, s * (mirror + 1) / pieces}};
}

Span inside(const Span& span, std::int64_t begin, std::int64_t end) {
  return {std::clamp(span.first, begin, end) - begin, std::clamp(span.second, begin, end) - begin};
}

double document_pairs(std::int64_t begin, std::int64_t end, const std::vector<Span>& queries,
                      const std::vector<Span>& keys, int window) {
  double pairs = 0;
  for (const Span& query : queries) {
    const Span q = inside(query, begin, end);
    if (q.first == q.second) continue;
    for (const Span& key : keys) {
      const Span k = inside(key, begin, end);
      if (k.first == k.second) continue;
      pairs += attention_pairs({q.first, q.second, k.first, k.second}, window);
      if (k == q) pairs -= static_cast<double>(q.second - q.first) / 2;
    }
  }
  return pairs;
}

/// Shares of whole micro-batches, before they are set against their mean.
class LoadCounter {
 public:
  LoadCounter(const Model& model, const Plan& plan, int seq_len)
      : plan_(plan),
        seq_len_(seq_len),
        window_(model.window),
        ring_(plan.cp > 1 && plan.context == ContextKind::Ring) {
    for (int rank = 0; ring_ && rank < plan.cp; ++rank) held_.push_back(held(plan, seq_len, rank));
  }

  int variants() const { return ring_ && !plan_.context_balanced ? plan_.cp : 1; }

  double pair_share_of(const PackedSequence& sequence) const {
    return pair_share(sequence, seq_len_, window_);
  }

  /// Of the sequences of one micro-batch, by context variant.
  std::vector<double> shares(const std::vector<const PackedSequence*>& sequences) const {
    const auto count = static_cast<double>(sequences.size());
    if (!ring_) {
      double share = 0;
      for (const PackedSequence* sequence : sequences) share += pair_share_of(*sequence) / count;
      return {share};
    }
    const auto ranks = static_cast<std::size_t>(plan_.cp);
    std::vector<double> pairs(ranks * ranks, 0);  // [hop][rank]
    for (const PackedSequence* sequence : sequences) add_ring(*sequence, pairs);
    const double square = static_cast<double>(seq_len_) * seq_len_ * count;
    std::vector<double> shares;
    if (plan_.context_balanced) {
      double steps = 0;
      for (std::size_t hop = 0; hop < ranks; ++hop)
        steps += *std::max_element(pairs.begin() + static_cast<std::ptrdiff_t>(hop * ranks),
                                   pairs.begin() + static_cast<std::ptrdiff_t>((hop + 1) * ranks));
      shares.push_back(steps / (square / (2.0 * plan_.cp)));
    } else {
      for (std::size_t rank = 0; rank < ranks; ++rank) {
        double own = 0;
        for (std::size_t hop = 0; hop < ranks; ++hop) own += pairs[hop * ranks + rank];
        // One causal and `rank` whole squares of the rank's tokens.
        const double whole = static_cast<double>(rank) + 0.5;
        shares.push_back(own / (square * whole / (static_cast<double>(plan_.cp) * plan_.cp)));
      }
    }
    return shares;
  }

 private:
  void add_ring(const PackedSequence& sequence, std::vector<double>& pairs) const {
    const int ranks = plan_.cp;
    std::int64_t begin = 0;
    for (const int length : sequence) {
      for (int rank = 0; rank < ranks; ++rank)
        for (int hop = 0; hop < ranks; ++hop)
          pairs[static_cast<std::size_t>(hop * ranks + rank)] += document_pairs(
              begin, begin + length, held_[static_cast<std::size_t>(rank)],
              held_[static_cast<std::size_t>((rank - hop + ranks) % ranks)], window_);
      begin += length;
    }
  }

  const Plan& plan_;
  int seq_len_, window_;
  bool ring_;
  std::vector<std::vector<Span>> held_;
};

/// Turns shares into loads about their mean.
void set_against_mean(std::vector<std::vector<double>>& shares, AttentionLoad& load) {
  const std::size_t variants = load.shares.size();
  std::fill(load.shares.begin(), load.shares.end(), 0.0);
  std::size_t count = 0;
  for (const auto& replica : shares) {
    count += replica.size() / variants;
    for (std::size_t i = 0; i < replica.size(); ++i) load.shares[i % variants] += replica[i];
  }
  for (double& share : load.shares) share /= static_cast<double>(count);
  for (auto& replica : shares)
    for (std::size_t i = 0; i < replica.size(); ++i) {
      const double mean = load.shares[i % variants];
      replica[i] = mean > 0 ? replica[i] / mean - 1 : 0;
      load.heaviest = std::max(load.heaviest, replica[i]);
    }
  constexpr double kAlike = 1e-12;  // sums of the same numbers in another order
  if (load.heaviest > kAlike) load.loads = std::move(shares);
  if (load.heaviest <= kAlike) load.heaviest = 0;
}

}  // namespace

double AttentionLoad::sum(int replica, int variant) const {
  if (loads.empty()) return 0;
  const std::vector<double>& own = loads[static_cast<std::size_t>(replica)];
  double sum = 0;
  for (std::size_t i = static_cast<std::size_t>(variant); i < own.size(); i += shares.size())
    sum += own[i];
  return sum;
}

double ring_block_pairs(const PackedSequence& sequence, const Plan& plan, int seq_len, int window,
                        int rank, int hops) {
  const std::vector<Span> queries = held(plan, seq_len, rank);
  const std::vector<Span> keys = held(plan, seq_len, (rank - hops + plan.cp) % plan.cp);
  double pairs = 0;
  std::int64_t begin = 0;
  for (const int length : sequence) {
    pairs += document_pairs(begin, begin + length, queries, keys, window);
    begin += length;
  }
  return pairs;
}

std::vector<std::int64_t> replica_sequences(const Plan& plan, std::int64_t global_batch) {
  std::vector<std::int64_t> counts;
  for (const int micro_batches : plan.replica_micro_batches)
    counts.push_back(static_cast<std::int64_t>(micro_batches) * plan.micro_batch);
  if (counts.empty()) counts.assign(static_cast<std::size_t>(plan.dp), global_batch / plan.dp);
  return counts;
}

AttentionLoad attention_load(const Model& model, const Plan& plan, const Workload& workload) {
  AttentionLoad load;
  const LoadCounter counter(model, plan, workload.seq_len);
  load.shares.assign(static_cast<std::size_t>(counter.variants()), 1.0);
  const bool whole = workload.documents == Documents();
  if (whole && model.window == 0) return load;
  if (whole) {
    const PackedSequence sequence{workload.seq_len};
    load.pair_share = counter.pair_share_of(sequence);
    load.shares = counter.shares({&sequence});
    return load;
  }
  load.step = step_sequences(workload.documents, workload.partition, workload.seq_len,
                             workload.global_batch);
  double sum = 0;
  for (const PackedSequence& sequence : load.step.sequences) sum += counter.pair_share_of(sequence);
  load.pair_share = sum / static_cast<double>(load.step.sequences.size());

  const auto places = dealt(workload.partition, replica_sequences(plan, workload.global_batch));
  std::vector<std::vector<double>> shares;
  for (const std::vector<std::int64_t>& own : places) {
    std::vector<double>& replica = shares.emplace_back();
    const auto size = static_cast<std::size_t>(plan.micro_batch);
    for (std::size_t first = 0; first < own.size(); first += size) {
      std::vector<const PackedSequence*> sequences;
      for (std::size_t i = first; i < std::min(first + size, own.size()); ++i)
        sequences.push_back(&load.step.sequences[static_cast<std::size_t>(own[i])]);
      for (const double share : counter.shares(sequences)) replica.push_back(share);
    }
  }
  set_against_mean(shares, load);
  return load;
}

std::string documents_sentence(const AttentionLoad& load, const Workload& workload) {
  if (load.step.sequences.empty()) return "";
  double tokens = 0;
  for (const PackedSequence& sequence : load.step.sequences)
    tokens += std::accumulate(sequence.begin(), sequence.end(), 0.0);
  const auto sequences = static_cast<double>(load.step.sequences.size());
  const double padding = 1 - tokens / (sequences * workload.seq_len);
  const std::string from = load.step.file_steps > 0
                               ? fmt::format("step {} of {} of {}", load.step.file_step + 1,
                                             load.step.file_steps, workload.documents.lengths_file)
                               : fmt::format("drawn with seed {}", workload.documents.seed);
  return fmt::format(
      "{:.1f} documents or parts of one in a sequence, {}: attention has {:.1f} % of the pairs of "
      "whole sequences{}; the heaviest micro-batch has {:.2f} times the mean",
      static_cast<double>(load.step.documents) / sequences, from, 100 * load.pair_share,
      padding > 1e-9 ? fmt::format(", {:.1f} % of the tokens are padding", 100 * padding) : "",
      1 + load.heaviest);
}

}  // namespace rehearse
