#include "strategies/tensor_overlap.h"

#include <algorithm>

namespace rehearse {
namespace {

/// The product right after a collective, or right before it; a cast may stand between.
ChunkItem* product_beside(std::vector<ChunkItem>& items, std::size_t collective, bool after) {
  std::size_t at = collective;
  for (int step = 0; step < 2; ++step) {
    if (after ? at + 1 >= items.size() : at == 0) return nullptr;
    after ? ++at : --at;
    if (items[at].is_collective) return nullptr;
    if (items[at].is_product) return &items[at];
  }
  return nullptr;
}

}  // namespace

void hide_tensor_collectives(std::vector<ChunkItem>& items, const TensorShare& share) {
  for (std::size_t i = 0; i + 1 < items.size(); ++i) {
    ChunkItem& collective = items[i];
    ChunkItem& beside = items[i + 1];
    if (!collective.beside_next || beside.is_collective) continue;
    if (!is_tensor(collective.group)) continue;
    const double held = share(collective);
    const double whole_s = collective.item.seconds;
    const double slowed_s = beside.item.seconds / (1 - held);
    const double hidden_s = std::min(whole_s, slowed_s);
    beside.item.hides_s = hidden_s;
    beside.item.hidden_label = collective.item.label;
    beside.item.seconds += held * hidden_s;
    collective.item.seconds = whole_s - hidden_s;
    collective.hidden_s = hidden_s;
  }
}

void hide_tensor_pieces(std::vector<ChunkItem>& items, int pieces, const TensorShare& share) {
  for (std::size_t i = 0; i < items.size(); ++i) {
    ChunkItem& collective = items[i];
    const bool gathers = collective.collective == CollectiveKind::AllGather;
    const bool in_pieces = gathers || collective.collective == CollectiveKind::ReduceScatter;
    if (!collective.is_collective || !in_pieces || collective.beside_next) continue;
    ChunkItem* beside = product_beside(items, i, gathers);
    if (beside == nullptr) continue;
    const double held = share(collective);
    const double room_s = std::max(0.0, beside->item.seconds / (1 - held) - beside->item.hides_s);
    const double whole_s = collective.item.seconds;
    const double hidden_s = std::min(whole_s * (1 - 1.0 / pieces), room_s);
    if (beside->item.hides_s <= 0) beside->item.hidden_label = collective.item.label;
    beside->item.hides_s += hidden_s;
    beside->item.seconds += held * hidden_s;
    collective.item.seconds = whole_s - hidden_s;
    collective.hidden_s = hidden_s;
  }
}

}  // namespace rehearse
