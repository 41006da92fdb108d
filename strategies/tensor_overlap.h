#pragma once
#include <functional>
#include <vector>

#include "strategies/stage_program.h"

namespace rehearse {

/// Share of the GPU's SMs that a tensor collective holds while it runs.
using TensorShare = std::function<double(const ChunkItem& collective)>;

/// Runs each collective that `beside_next` allows beside the operator after it, which has o seconds
/// alone and advances at 1 − s while the collective of c seconds holds a share s of the SMs. Of the
/// collective stay max(0, c − o / (1 − s)) seconds that nothing hides; the operator takes
/// o + s·c, or o / (1 − s) where it ends first, and notes what it hides.
///
/// Times are those of an undisturbed device, in order to keep both items steps of a chain: where a
/// device is slow, it would hide a little more than is counted.
void hide_tensor_collectives(std::vector<ChunkItem>& items, const TensorShare& share);

/// Runs gathers and reductions of the split sequence in `pieces` beside the product after or before
/// them: the first piece of a gather, or the last of a reduction, has nothing beside it, and the
/// rest is hidden as above, as far as the product has room beside what it hides already.
void hide_tensor_pieces(std::vector<ChunkItem>& items, int pieces, const TensorShare& share);

}  // namespace rehearse
