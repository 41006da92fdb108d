#include "runtime/train/rank_memory.h"

#include <algorithm>
#include <numeric>

#include "plan/units.h"

namespace rehearse {

std::vector<double> peak_memory(Trainer& trainer, ComputeDevice& device) {
  const ParameterStore::Bytes store = trainer.store().bytes();
  const auto standing = static_cast<double>(store.weights + store.gradients + store.optimizer);
  const auto pooled = static_cast<double>(trainer.allocated_bytes());
  const auto alive = static_cast<double>(trainer.most_alive_bytes());
  const DeviceMemory memory = device.memory();
  const double rest = memory.used_bytes - pooled - memory.scratch_bytes;
  return {static_cast<double>(store.weights),
          static_cast<double>(store.gradients),
          static_cast<double>(store.optimizer),
          alive - standing,
          pooled - alive,
          memory.scratch_bytes,
          std::max(0.0, rest)};
}

RankMemory rank_memory(int rank, int stage, const std::vector<double>& parts) {
  RankMemory memory{.rank = rank, .stage = stage, .parts = {}};
  for (std::size_t i = 0; i < kMemoryParts.size(); ++i)
    if (parts[i] > 0) memory.parts.emplace_back(kMemoryParts[i], parts[i]);
  return memory;
}

std::string fullest_rank_text(const std::vector<std::vector<double>>& ranks) {
  const auto sum = [](const std::vector<double>& parts) {
    return std::accumulate(parts.begin(), parts.end(), 0.0);
  };
  const auto fullest = std::max_element(
      ranks.begin(), ranks.end(), [&](const auto& a, const auto& b) { return sum(a) < sum(b); });
  std::string text = format_bytes(sum(*fullest)) + ":";
  bool is_first = true;
  for (const auto& [name, bytes] : rank_memory(0, 0, *fullest).parts) {
    text += (is_first ? " " : ", ") + name + " " + format_bytes(bytes);
    is_first = false;
  }
  return text;
}

}  // namespace rehearse
