#include <algorithm>

#include "plan/ensure.h"
#include "strategies/lowering.h"

namespace rehearse {
namespace {

const char* action_label(ActionKind kind) {
  switch (kind) {
    case ActionKind::Forward:
      return "forward";
    case ActionKind::Backward:
      return "backward";
    case ActionKind::InputGradient:
      return "input gradient";
    case ActionKind::WeightGradient:
      return "weight gradient";
  }
  return "";
}

bool completes_gradients(ActionKind kind) {
  return kind == ActionKind::Backward || kind == ActionKind::WeightGradient;
}

}  // namespace

std::int32_t Lowering::add_compute(StageUnit& u, int t, const Piece& piece, std::int32_t label,
                                   std::int32_t chunk, std::int32_t micro_batch) {
  Task task;
  task.kind = TaskKind::Compute;
  task.chunk = static_cast<std::int16_t>(chunk);
  task.micro_batch = micro_batch;
  task.device = device(u, t);
  task.payload = piece.segment;
  task.label = label;
  const std::int32_t id = add_task(task);
  const auto at = static_cast<std::size_t>(t);
  if (u.open_comm >= 0) edges_.add(u.open_comm, id);
  if ((u.open_comm < 0 || u.takes_turns) && u.tail[at] >= 0) edges_.add(u.tail[at], id);
  if (u.first_task[at] < 0) u.first_task[at] = id;
  u.tail[at] = id;
  return id;
}

Task Lowering::tensor_task(StageUnit& u, const Piece& piece) {
  const std::vector<int>& replicas = classes_.members[static_cast<std::size_t>(u.replica_class)];
  const std::vector<GpuId> group = tensor_group(replicas.front(), u.stage);
  const CollectiveChoice choice =
      nccl_choice(piece.collective, communicator_shape(cluster_, group), piece.bytes);
  Task task;
  task.kind = TaskKind::Comm;
  task.comm = CommKind::Tensor;
  task.stream = Stream::Tensor;
  task.label = piece.label;
  task.bytes = task.rank_bytes = piece.bytes;
  if (kinds_[u.kind].is_local) {
    task.seconds = std::max(0.0, choice.seconds(piece.bytes) - piece.hidden_s);
  } else {
    const std::string name = "tensor " + std::to_string(replicas.front()) + " " +
                             std::to_string(u.stage) + " " + collective_name(piece.collective) +
                             " " + algorithm_name(choice.algorithm);
    task.seconds = latency_before_flows(name, group, piece.collective, choice, piece.bytes);
    task.payload = pattern(name, [&] {
      std::vector<PhysicalFlow> flows;
      for (const int replica : replicas)
        for (const PhysicalFlow& flow : collective_flows(cluster_, tensor_group(replica, u.stage),
                                                         piece.collective, choice.algorithm))
          flows.push_back(flow);
      return flows;
    });
  }
  std::vector<std::int32_t> devices;
  for (int t = 0; t < tensor_devices_; ++t) devices.push_back(device(u, t));
  task.device = add_group(devices);
  return task;
}

std::int32_t Lowering::add_tensor_collective(StageUnit& u, const Piece& piece, std::int32_t chunk,
                                             std::int32_t micro_batch) {
  // A unit has a handful of different collectives, asked for thousands of times.
  const auto same = [&](const TensorPrototype& made) {
    return made.task.bytes == piece.bytes && made.task.label == piece.label &&
           made.hidden_s == piece.hidden_s;
  };
  auto prototype = std::find_if(u.tensor_tasks.begin(), u.tensor_tasks.end(), same);
  if (prototype == u.tensor_tasks.end())
    prototype =
        u.tensor_tasks.insert(u.tensor_tasks.end(), {piece.hidden_s, tensor_task(u, piece)});
  Task task = prototype->task;
  task.chunk = static_cast<std::int16_t>(chunk);
  task.micro_batch = micro_batch;
  const std::int32_t id = add_task(task);
  if (u.open_comm >= 0) {
    edges_.add(u.open_comm, id);
  } else {
    for (const std::int32_t tail : u.tail)
      if (tail >= 0) edges_.add(tail, id);
  }
  u.open_comm = id;
  return id;
}

ActionInHand Lowering::take_up(StageUnit& u, std::size_t index, bool completes, bool opens) {
  const Action& action = in_.schedule.actions[static_cast<std::size_t>(u.stage)][index];
  // Where transfers run beside the action, it is cut so that they can start, or be waited for,
  // bucket by bucket.
  const bool is_forward = action.kind == ActionKind::Forward;
  ActionInHand hand{.index = index, .completes = completes, .opens = opens};
  hand.label = labels_.of(action_label(action.kind));
  hand.shares = (plan_.dp > 1 && (is_forward ? plan_.zero == 3 : plan_.zero >= 2)) ||
                (plan_.offload.gradients && !is_forward);
  hand.signals = hand.shares || (completes && plan_.dp > 1 && plan_.overlap.gradients);
  const bool gathers = plan_.zero > 0 || has_servers();
  hand.waits = hand.shares || (opens && plan_.dp > 1 && gathers && plan_.overlap.parameters);
  const std::int32_t chunk = piece_of(in_.schedule, u.stage, action.chunk);
  hand.pieces = &pieces(u, {chunk, action.kind, hand.signals || hand.waits});
  return hand;
}

/// The tasks of the action's next piece.
void Lowering::emit_piece(StageUnit& u, ActionInHand& hand) {
  const Action& action = in_.schedule.actions[static_cast<std::size_t>(u.stage)][hand.index];
  const Piece& piece = (*hand.pieces)[hand.next];
  const auto devices = static_cast<std::size_t>(tensor_devices_);
  auto& ready = u.bucket_ready[static_cast<std::size_t>(action.chunk)];
  auto& reader = u.bucket_reader[static_cast<std::size_t>(action.chunk)];
  const auto bucket = static_cast<std::size_t>(piece.first_bucket);
  std::int32_t shared = -1;
  if (piece.is_collective)
    shared = piece.group == CommGroup::Experts
                 ? add_expert_collective(u, piece, action.chunk, action.micro_batch)
                 : add_tensor_collective(u, piece, action.chunk, action.micro_batch);
  std::vector<std::int32_t> tasks(devices);
  for (std::size_t t = 0; t < devices; ++t) {
    const std::int32_t id = shared >= 0 ? shared
                                        : add_compute(u, static_cast<int>(t), piece, hand.label,
                                                      action.chunk, action.micro_batch);
    if (hand.next == 0) u.action_first[hand.index * devices + t] = id;
    u.action_last[hand.index * devices + t] = tasks[t] = id;
    if (hand.completes) ready[bucket * devices + t] = id;
    if (hand.opens && reader[bucket * devices + t] < 0) reader[bucket * devices + t] = id;
  }
  if (hand.shares) visit(u, hand.index, piece, hand.completes);
  if (plan_.offload.activations > 0) visit_layer(u, action, piece.layer, tasks);
  // The first compute after a collective hangs on it alone; later ones on their own chain.
  if (!piece.is_collective) u.open_comm = -1;
  ++hand.next;
}

void Lowering::put_down(StageUnit& u, const ActionInHand& hand) {
  const Action& action = in_.schedule.actions[static_cast<std::size_t>(u.stage)][hand.index];
  const auto devices = static_cast<std::size_t>(tensor_devices_);
  auto& ready = u.bucket_ready[static_cast<std::size_t>(action.chunk)];
  auto& reader = u.bucket_reader[static_cast<std::size_t>(action.chunk)];
  if (hand.completes && !hand.signals)  // not cut: all buckets complete with the last piece
    for (std::size_t i = 0; i < ready.size(); ++i)
      ready[i] = u.action_last[hand.index * devices + i % devices];
  if (hand.opens && !hand.waits)
    for (std::size_t i = 0; i < reader.size(); ++i)
      reader[i] = u.action_first[hand.index * devices + i % devices];
}

/// One action piece by piece; of several that are joined, each in turn until a collective of its
/// own is under way, which then runs beside the next one's work.
void Lowering::emit_hands(StageUnit& u, std::vector<ActionInHand>& hands) {
  u.takes_turns = hands.size() > 1;
  for (ActionInHand& hand : hands) hand.open_comm = u.open_comm;
  for (bool is_done = false; !is_done;) {
    is_done = true;
    for (ActionInHand& hand : hands) {
      if (hand.is_done()) continue;
      u.open_comm = hand.open_comm;
      while (!hand.is_done() && !(*hand.pieces)[hand.next].is_collective) emit_piece(u, hand);
      while (!hand.is_done() && (*hand.pieces)[hand.next].is_collective) emit_piece(u, hand);
      hand.open_comm = u.open_comm;
      is_done = false;
    }
  }
  u.takes_turns = false;
  for (const ActionInHand& hand : hands) {
    if (hand.open_comm >= 0) u.open_comm = hand.open_comm;
    put_down(u, hand);
  }
}

/// Notes that the tasks just made work on a piece's bucket.
void Lowering::visit(StageUnit& u, std::size_t index, const Piece& piece, bool completes) {
  const Action& action = in_.schedule.actions[static_cast<std::size_t>(u.stage)][index];
  const auto devices = static_cast<std::size_t>(tensor_devices_);
  const auto made = u.action_last.begin() + static_cast<std::ptrdiff_t>(index * devices);
  const std::vector<std::int32_t> tasks(made, made + static_cast<std::ptrdiff_t>(devices));
  if (u.visits.empty() || u.visits.back().action != index ||
      u.visits.back().bucket != piece.first_bucket)
    u.visits.push_back(
        {index, action.chunk, piece.first_bucket, action.kind, completes, tasks, {}});
  u.visits.back().last = tasks;
}

void Lowering::emit_actions(StageUnit& u) {
  const auto& actions = in_.schedule.actions[static_cast<std::size_t>(u.stage)];
  const auto devices = static_cast<std::size_t>(tensor_devices_);
  u.action_first.assign(actions.size() * devices, -1);
  u.action_last.assign(actions.size() * devices, -1);
  std::vector<std::size_t> last_of_chunk(static_cast<std::size_t>(in_.schedule.chunks), 0);
  std::vector<std::size_t> first_of_chunk(last_of_chunk.size(), actions.size());
  for (std::size_t i = 0; i < actions.size(); ++i) {
    const auto chunk = static_cast<std::size_t>(actions[i].chunk);
    if (completes_gradients(actions[i].kind)) last_of_chunk[chunk] = i;
    if (actions[i].kind == ActionKind::Forward)
      first_of_chunk[chunk] = std::min(first_of_chunk[chunk], i);
  }
  for (int v = 0; v < in_.schedule.chunks; ++v) {
    const std::size_t buckets =
        kinds_[u.kind].chunks[program_of(u.stage, v)].bucket_parameters.size();
    u.bucket_ready.emplace_back(buckets * devices, -1);
    u.bucket_reader.emplace_back(buckets * devices, -1);
  }
  std::vector<ActionInHand> hands;
  for (std::size_t i = 0; i < actions.size(); ++i) {
    const auto chunk = static_cast<std::size_t>(actions[i].chunk);
    const bool completes = completes_gradients(actions[i].kind) && last_of_chunk[chunk] == i;
    hands.push_back(take_up(u, i, completes, first_of_chunk[chunk] == i));
    if (completes)
      for (std::size_t b = 0; b < u.bucket_ready[chunk].size() / devices; ++b)
        u.bucket_order.emplace_back(static_cast<int>(chunk), static_cast<int>(b));
    if (plan_.overlap.experts && actions[i].joined && i + 1 < actions.size()) continue;
    emit_hands(u, hands);
    hands.clear();
  }
  join_actions(u);
}

/// Joined actions start when all of them can, and what they make is there when all are done.
void Lowering::join_actions(StageUnit& u) {
  const auto& actions = in_.schedule.actions[static_cast<std::size_t>(u.stage)];
  const auto devices = static_cast<std::size_t>(tensor_devices_);
  std::size_t begin = 0;
  for (std::size_t end = 0; end < actions.size(); ++end) {
    if (actions[end].joined && end + 1 < actions.size()) continue;
    for (std::size_t i = begin; i <= end; ++i)
      for (std::size_t t = 0; t < devices; ++t) {
        u.action_first[i * devices + t] = u.action_first[begin * devices + t];
        u.action_last[i * devices + t] = u.action_last[end * devices + t];
      }
    begin = end + 1;
  }
}

Task Lowering::transfer_task(const StageUnit& from, const StageUnit& to, int t, bool forward) {
  const std::vector<int>& replicas = classes_.members[static_cast<std::size_t>(from.replica_class)];
  const auto gpu = [&](int tensor, int replica, int stage) {
    return ranks_.gpu(ranks_.rank({tensor, 0, replica, stage}));
  };
  const double bytes = boundary_bytes(shape_);
  const CommunicatorShape shape = communicator_shape(
      cluster_, {gpu(t, replicas.front(), from.stage), gpu(t, replicas.front(), to.stage)});
  Task task;
  task.kind = TaskKind::Comm;
  task.comm = CommKind::Pipeline;
  task.stream = forward ? Stream::PipelineForward : Stream::PipelineBackward;
  task.overlaps = plan_.overlap.pipeline;
  task.device = add_group({device(from, t), device(to, t)});
  task.label = labels_.of(forward ? "send activations" : "send gradients");
  task.bytes = task.rank_bytes = bytes;
  // The flow itself may be faster than NCCL's sends are inside a node.
  const CollectiveChoice choice = nccl_choice(CollectiveKind::SendReceive, shape, bytes);
  const Route route =
      cluster_.route(gpu(t, replicas.front(), from.stage), gpu(t, replicas.front(), to.stage));
  double flow_s = 0;
  for (int hop = 0; hop < route.count; ++hop) {
    const Link& link = cluster_.links()[static_cast<std::size_t>(route.links[hop].value)];
    flow_s = std::max(flow_s, bytes / (link.bandwidth_bytes_per_s * payload_efficiency(link.kind)));
  }
  task.seconds = std::max(choice.latency_s, choice.seconds(bytes) - flow_s);
  const std::string name =
      "transfer " + std::to_string(device(from, t)) + " " + std::to_string(device(to, t));
  task.payload = pattern(name, [&] {
    std::vector<PhysicalFlow> flows;
    for (const int replica : replicas)
      for (const int tensor : tensor_members(t))
        flows.push_back({gpu(tensor, replica, from.stage), gpu(tensor, replica, to.stage)});
    return flows;
  });
  return task;
}

void Lowering::emit_transfer(StageUnit& from, std::size_t action, StageUnit& to,
                             std::size_t to_action) {
  const auto& sent_by = in_.schedule.actions[static_cast<std::size_t>(from.stage)];
  const Action& sent = sent_by[action];
  const bool forward = sent.kind == ActionKind::Forward;
  auto& [prototypes, tails] = from.transfers[{forward, to.stage}];
  if (prototypes.empty())
    for (int t = 0; t < tensor_devices_; ++t)
      prototypes.push_back(transfer_task(from, to, t, forward));
  tails.resize(prototypes.size(), -1);
  for (std::size_t t = 0; t < prototypes.size(); ++t) {
    Task task = prototypes[t];
    task.chunk = static_cast<std::int16_t>(sent.chunk);
    task.micro_batch = sent.micro_batch;
    const std::int32_t id = add_task(task);
    const std::size_t at = action * prototypes.size() + t;
    edges_.add(from.action_last[at], id);
    edges_.add(id, to.action_first[to_action * prototypes.size() + t]);
    if (tails[t] >= 0) edges_.add(tails[t], id);
    tails[t] = id;
    if (plan_.overlap.pipeline) continue;
    std::size_t after = action + 1;  // the sender waits for its send before its next block
    while (after < sent_by.size() && sent_by[after - 1].joined) ++after;
    if (after < sent_by.size()) edges_.add(id, from.action_first[after * prototypes.size() + t]);
  }
}

/// Where each stage does what: index of the action by (backward?, chunk, micro-batch).
void Lowering::index_actions() {
  const auto m = static_cast<std::size_t>(in_.schedule.micro_batches);
  const auto v = static_cast<std::size_t>(in_.schedule.chunks);
  for (const auto& actions : in_.schedule.actions) {
    std::vector<std::size_t> index(2 * v * m, 0);
    for (std::size_t i = 0; i < actions.size(); ++i)
      if (actions[i].kind != ActionKind::WeightGradient) index[action_slot(actions[i])] = i;
    action_index_.push_back(std::move(index));
  }
}

std::size_t Lowering::action_slot(const Action& action) const {
  const auto m = static_cast<std::size_t>(in_.schedule.micro_batches);
  const auto v = static_cast<std::size_t>(in_.schedule.chunks);
  const std::size_t backward = action.kind == ActionKind::Forward ? 0 : 1;
  return (backward * v + static_cast<std::size_t>(action.chunk)) * m +
         static_cast<std::size_t>(action.micro_batch);
}

void Lowering::emit_transfers(StageUnit& from) {
  if (plan_.pp == 1) return;
  const auto& actions = in_.schedule.actions[static_cast<std::size_t>(from.stage)];
  for (std::size_t i = 0; i < actions.size(); ++i) {
    const Action& action = actions[i];
    if (action.kind == ActionKind::WeightGradient) continue;
    const bool forward = action.kind == ActionKind::Forward;
    const int piece = piece_of(in_.schedule, from.stage, action.chunk);
    const int next = forward ? piece + 1 : piece - 1;
    if (next < 0 || next > last_chunk()) continue;
    const ChunkPlace place = place_of(in_.schedule, next, action.micro_batch);
    if (place.stage == from.stage) continue;  // where a way turns back
    StageUnit& to = unit(from.replica_class, place.stage);
    Action received = action;
    received.chunk = place.chunk;
    emit_transfer(from, i, to,
                  action_index_[static_cast<std::size_t>(to.stage)][action_slot(received)]);
  }
}

}  // namespace rehearse
