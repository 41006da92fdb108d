#include "plan/document_lengths.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "plan/draws.h"
#include "plan/ensure.h"

namespace rehearse {
namespace {

/// More documents in a step are a mistake, or take longer to draw than a simulation should.
constexpr double kMostDocuments = 2e7;

/// Purposes of draws from one seed.
constexpr std::uint64_t kLengths = 1, kOrder = 2;

double half_square(double length) { return length * length / 2; }

/// Pairs of the first `queries` queries and the first `keys` keys with the key not after the query.
double corner(std::int64_t queries, std::int64_t keys) {
  const double q = static_cast<double>(std::max<std::int64_t>(queries, 0));
  const double k = std::min(static_cast<double>(std::max<std::int64_t>(keys, 0)), q);
  return k * (k + 1) / 2 + (q - k) * k;
}

double causal_pairs(const PairBlock& block, std::int64_t shift) {
  const std::int64_t begin = block.query_begin - shift, end = block.query_end - shift;
  return corner(end, block.key_end) - corner(begin, block.key_end) - corner(end, block.key_begin) +
         corner(begin, block.key_begin);
}

int drawn_length(const Documents& documents, std::uint64_t index) {
  const double mean = documents.mean_tokens, deviation = documents.deviation_tokens;
  const std::uint64_t seed = derived_seed(static_cast<std::uint64_t>(documents.seed), kLengths);
  double length = mean;
  if (documents.distribution == LengthDistribution::Uniform) {
    length += (2 * uniform_draw(seed, index) - 1) * std::sqrt(3.0) * deviation;
  } else if (deviation > 0) {
    // Parameters of the logarithm for this mean and deviation.
    const double variance = std::log1p(deviation * deviation / (mean * mean));
    length *= std::exp(std::sqrt(variance) * normal_draw(seed, index) - variance / 2);
  }
  return static_cast<int>(std::clamp(std::round(length), 1.0, 1e9));
}

/// Takes documents one by one and closes sequences.
class Packer {
 public:
  Packer(int seq_len, Packing packing) : seq_len_(seq_len), packing_(packing) {}

  void add(int length) {
    if (packing_ == Packing::Whole && length <= seq_len_ && length > left_ && left_ < seq_len_)
      close();
    while (length > 0) {
      const int part = std::min(length, left_);
      open_.push_back(part);
      left_ -= part;
      length -= part;
      if (left_ == 0) close();
    }
  }
  void close() {
    if (open_.empty()) return;
    closed_.push_back(std::move(open_));
    open_ = {};
    left_ = seq_len_;
  }
  std::vector<PackedSequence>& closed() { return closed_; }

 private:
  int seq_len_;
  Packing packing_;
  int left_ = seq_len_;
  PackedSequence open_;
  std::vector<PackedSequence> closed_;
};

/// Fisher and Yates's shuffle by draws.
std::vector<std::size_t> shuffled_order(std::size_t count, int seed) {
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  const std::uint64_t key = derived_seed(static_cast<std::uint64_t>(seed), kOrder);
  for (std::size_t left = count; left > 1; --left) {
    const auto at = static_cast<std::size_t>(uniform_draw(key, left) * static_cast<double>(left));
    std::swap(order[left - 1], order[std::min(at, left - 1)]);
  }
  return order;
}

std::vector<PackedSequence> drawn_sequences(const Documents& documents, int seq_len,
                                            std::size_t count) {
  Packer packer(seq_len, documents.packing);
  for (std::uint64_t index = 0; packer.closed().size() < count; ++index)
    packer.add(drawn_length(documents, index));
  packer.closed().resize(count);
  return std::move(packer.closed());
}

}  // namespace

double attention_pairs(std::int64_t length, int window) {
  const auto tokens = static_cast<double>(length);
  const double back = window > 0 ? std::min<double>(window, tokens) : tokens;
  return back * tokens - back * (back - 1) / 2;
}

double attention_pairs(const PairBlock& block, int window) {
  const double all = causal_pairs(block, 0);
  return window > 0 ? all - causal_pairs(block, window) : all;
}

double pair_share(const PackedSequence& sequence, int seq_len, int window) {
  double pairs = 0;
  for (const int length : sequence) pairs += attention_pairs(length, window) - length / 2.0;
  return pairs / half_square(seq_len);
}

std::vector<PackedSequence> packed(const std::vector<int>& lengths, int seq_len, Packing packing) {
  Packer packer(seq_len, packing);
  for (const int length : lengths) packer.add(length);
  packer.close();
  return std::move(packer.closed());
}

StepSequences step_sequences(const Documents& documents, Deal partition, int seq_len,
                             std::int64_t count) {
  const auto needed = static_cast<std::size_t>(count);
  StepSequences step;
  if (documents.lengths.empty()) {
    step.sequences = drawn_sequences(documents, seq_len, needed);
  } else {
    std::vector<PackedSequence> all = packed(documents.lengths, seq_len, documents.packing);
    // What follows the last whole sequence is left out, as in training.
    const std::int64_t tokens = std::accumulate(all.back().begin(), all.back().end(), 0LL);
    if (documents.packing == Packing::Cut && tokens < seq_len && all.size() > 1) all.pop_back();
    step.file_steps = static_cast<std::int64_t>((all.size() + needed - 1) / needed);
    step.file_step = (documents.seed + step.file_steps - 1) % step.file_steps;
    const auto first = static_cast<std::size_t>(step.file_step) * needed;
    std::vector<std::size_t> order(all.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    if (partition == Deal::Random) order = shuffled_order(all.size(), documents.seed);
    for (std::size_t i = 0; i < needed; ++i)
      step.sequences.push_back(all[order[(first + i) % all.size()]]);
  }
  for (const PackedSequence& sequence : step.sequences)
    step.documents += static_cast<std::int64_t>(sequence.size());
  return step;
}

std::string documents_fault(const Documents& documents, int seq_len, std::int64_t count) {
  char text[200];
  if (!documents.lengths_file.empty()) {
    const std::int64_t tokens =
        std::accumulate(documents.lengths.begin(), documents.lengths.end(), std::int64_t{0});
    if (tokens >= seq_len) return "";
    std::snprintf(text, sizeof text,
                  "the documents of %.100s do not fill one sequence of %d tokens",
                  documents.lengths_file.c_str(), seq_len);
    return text;
  }
  if (documents.mean_tokens < 1)
    return "documents have a deviation or a packing, but no mean length and no file of lengths";
  const double drawn = static_cast<double>(count) * seq_len / documents.mean_tokens;
  if (drawn > kMostDocuments) {
    std::snprintf(text, sizeof text, "%.3g documents a step are more than the %.3g that are drawn",
                  drawn, kMostDocuments);
    return text;
  }
  const double reach = std::sqrt(3.0) * documents.deviation_tokens;
  if (documents.distribution == LengthDistribution::Uniform && reach > documents.mean_tokens) {
    std::snprintf(text, sizeof text,
                  "lengths spread evenly with a deviation of %.4g about %.4g tokens reach below 0",
                  documents.deviation_tokens, documents.mean_tokens);
    return text;
  }
  return "";
}

std::vector<std::vector<std::int64_t>> dealt(Deal partition,
                                             const std::vector<std::int64_t>& counts) {
  std::vector<std::vector<std::int64_t>> places(counts.size());
  std::int64_t next = 0;
  if (partition != Deal::RoundRobin) {
    for (std::size_t replica = 0; replica < counts.size(); ++replica)
      for (std::int64_t i = 0; i < counts[replica]; ++i) places[replica].push_back(next++);
    return places;
  }
  const std::int64_t all = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  while (next < all)
    for (std::size_t replica = 0; replica < counts.size(); ++replica)
      if (static_cast<std::int64_t>(places[replica].size()) < counts[replica])
        places[replica].push_back(next++);
  return places;
}

}  // namespace rehearse
