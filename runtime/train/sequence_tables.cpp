#include "runtime/train/sequence_tables.h"

#include <cmath>

namespace rehearse {
namespace {

// Llama's and GPT-NeoX's base of the rotation's wavelengths (Su et al. 2021, arXiv 2104.09864).
constexpr double kRopeBase = 10000;

Tensor rope_table(const RankContext& rank) {
  const std::int64_t d = rank.model.head_dim;
  std::vector<float> table(static_cast<std::size_t>(rank.seq_len * d));
  for (std::int64_t p = 0; p < rank.seq_len; ++p)
    for (std::int64_t i = 0; i < d / 2; ++i) {
      const double share = 2 * static_cast<double>(i) / static_cast<double>(d);
      const double angle = static_cast<double>(p) * std::pow(kRopeBase, -share);
      table[static_cast<std::size_t>(p * d + i)] = static_cast<float>(std::cos(angle));
      table[static_cast<std::size_t>(p * d + d / 2 + i)] = static_cast<float>(std::sin(angle));
    }
  Tensor tensor = rank.wide({rank.seq_len, d});
  rank.device.upload(tensor.view().data, table.data(), table.size() * sizeof(float));
  return tensor;
}

}  // namespace

SequenceTables::SequenceTables(const RankContext& rank)
    : ranges(context_ranges(rank.seq_len, rank.plan.cp, rank.context.rank(),
                            holds_two_pieces(rank.plan))) {
  std::vector<std::int32_t> of_rows;
  for (int sequence = 0; sequence < rank.plan.micro_batch; ++sequence)
    for (const TokenRange& range : ranges)
      for (int at = range.begin; at < range.end; ++at) of_rows.push_back(at);
  positions = int_tensor(rank.pool, of_rows);
  if (rank.model.positions == Positions::Rotary) rope = rope_table(rank);
}

}  // namespace rehearse
