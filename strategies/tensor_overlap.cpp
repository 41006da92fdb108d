#include "strategies/tensor_overlap.h"

#include <algorithm>

namespace rehearse {

void hide_tensor_collectives(std::vector<ChunkItem>& items, const TensorShare& share) {
  for (std::size_t i = 0; i + 1 < items.size(); ++i) {
    ChunkItem& collective = items[i];
    ChunkItem& beside = items[i + 1];
    if (!collective.beside_next || beside.is_collective) continue;
    const double held = share(collective.collective, collective.item.bytes);
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

}  // namespace rehearse
