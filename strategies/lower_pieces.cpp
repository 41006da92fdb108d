#include <algorithm>
#include <utility>

#include "strategies/lowering.h"
#include "strategies/tensor_grid.h"
#include "strategies/tensor_lateness.h"
#include "strategies/tensor_overlap.h"

namespace rehearse {

/// True for actions during which the tensor collectives are all that is on the network, so that
/// they take their idle time and need no events of their own: no other stages, all replicas and
/// context ranks in step, and no reduction or gather beside them.
bool Lowering::network_is_quiet(const PieceKey& key) const {
  return plan_.pp == 1 && classes_.members.size() == 1 && context_devices_ == 1 &&
         !key.cut_at_buckets;
}

/// What an action executes: the items of its pass, tensor collectives beside the operators that
/// hide them.
std::vector<ChunkItem> Lowering::items_of(const StageUnit& u, const PieceKey& key) const {
  const UnitKind& kind = kinds_[u.kind];
  const ChunkProgram& program =
      kind.chunks[static_cast<std::size_t>(key.context * (last_chunk() + 1) + key.chunk)];
  std::vector<ChunkItem> items;
  for (const ChunkItem& item :
       key.action == ActionKind::Forward ? program.forward : program.backward) {
    const bool other_half = (key.action == ActionKind::InputGradient && item.weight_gradient) ||
                            (key.action == ActionKind::WeightGradient && !item.weight_gradient);
    if (other_half) {
      if (!items.empty()) items.back().beside_next = false;  // what would hide it comes later
    } else if (!item.is_collective || !is_tensor(item.group) || plan_.tp > 1) {
      items.push_back(item);
    }
  }
  // Across nodes the flows of a collective have no time known beforehand: it stays in line.
  if (kind.is_local && plan_.tp > 1) overlap_tensor_collectives(u, items);
  add_tensor_lateness(items, plan_.tp, plan_.tensor_rows);
  return items;
}

/// Tensor collectives beside the operators that hide them, as far as the plan lets them.
void Lowering::overlap_tensor_collectives(const StageUnit& u, std::vector<ChunkItem>& items) const {
  if (!plan_.overlap.tensor && !plan_.overlap.tensor_pieces) return;
  const std::vector<int>& replicas = classes_.members[static_cast<std::size_t>(u.replica_class)];
  const std::vector<GpuId> group = tensor_group(replicas.front(), 0, u.stage);
  const double sms = std::max(1, cluster_.gpu(group.front()).streaming_multiprocessors);
  const auto share = [&](const ChunkItem& collective) {
    const auto part = grid_parts(collective.group, group, plan_.tensor_rows).front();
    return std::min(
        0.5,
        nccl_choice(collective.collective, communicator(part), collective.item.bytes).channels /
            sms);
  };
  for (ChunkItem& item : items)
    if (is_tensor(item.group) && !plan_.overlap.tensor) item.beside_next = false;
  hide_tensor_collectives(items, share);
  if (plan_.overlap.tensor_pieces) hide_tensor_pieces(items, plan_.tp, share);
}

const std::vector<Piece>& Lowering::pieces(StageUnit& u, const PieceKey& key) {
  UnitKind& kind = kinds_[u.kind];
  const auto [at, is_new] = kind.pieces.try_emplace(key);
  std::vector<Piece>& made = at->second;
  if (!is_new) return made;
  const bool collectives_are_tasks =
      tensor_devices_ > 1 || (!kind.is_local && !network_is_quiet(key));
  const double launch_s = in_.cost_models[static_cast<std::size_t>(kind.group)]->launch_s();

  std::vector<SegmentItem> open;
  std::int32_t bucket = -1, layer = -1;
  bool beside = false;  // the open items run beside the collective before them
  const auto close = [&] {
    if (open.empty()) return;
    Piece piece;
    piece.beside = std::exchange(beside, false);
    piece.segment = add_segment(out_.graph, open, launch_s);
    piece.first_bucket = bucket;
    piece.layer = layer;
    made.push_back(piece);
    open.clear();
  };
  for (const ChunkItem& item : items_of(u, key)) {
    if (key.cut_at_buckets && item.bucket != bucket) close();
    if (plan_.offload.activations > 0 && item.item.layer != layer) close();
    bucket = item.bucket;
    layer = item.item.layer;
    const bool among_others = !is_tensor(item.group);
    if (!item.is_collective || !(collectives_are_tasks || among_others)) {
      open.push_back(item.item);
      if (beside) close();
      continue;
    }
    close();
    // What a tensor collective runs beside has taken its time already.
    beside = item.group == CommGroup::Context && item.beside_next;
    Piece piece;
    piece.is_collective = true;
    piece.group = item.group;
    piece.collective = item.collective;
    piece.bytes = item.item.bytes;
    piece.hidden_s = item.hidden_s;
    piece.late_s = item.late_s;
    piece.label = item.item.label;
    piece.first_bucket = bucket;
    piece.layer = layer;
    made.push_back(piece);
  }
  close();
  if (made.empty()) {  // a chunk without layers, embedding or head still takes its turn
    Piece piece;
    piece.segment = empty_segment_;
    made.push_back(piece);
  }
  return made;
}

}  // namespace rehearse
