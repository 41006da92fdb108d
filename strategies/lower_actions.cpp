#include <algorithm>

#include "kernels/part_label.h"
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

std::int32_t Lowering::add_compute(StageUnit& u, int d, const Piece& piece, std::int32_t label,
                                   std::int32_t chunk, std::int32_t micro_batch) {
  Task task;
  task.kind = TaskKind::Compute;
  task.chunk = static_cast<std::int16_t>(chunk);
  task.micro_batch = micro_batch;
  task.device = device(u, d);
  task.payload = piece.segment;
  task.label = label;
  const std::vector<double>& loads = class_loads_[static_cast<std::size_t>(u.replica_class)];
  if (!loads.empty() && micro_batch >= 0)
    task.load = loads[static_cast<std::size_t>(micro_batch * context_variants() + variant_of(d))];
  const std::int32_t id = add_task(task);
  const auto at = static_cast<std::size_t>(d);
  const Awaited& before = piece.beside ? u.beside[at] : u.awaited[at];
  for (const std::int32_t awaited : {before.task, before.beside})
    if (awaited >= 0) edges_.add(awaited, id);
  // Of joined actions, what another computed last comes before too.
  const std::int32_t last = u.tail[at];
  if (u.takes_turns && last >= 0 && last != before.task && last != before.beside)
    edges_.add(last, id);
  u.awaited[at] = {id, piece.beside ? u.awaited[at].task : -1};
  if (u.first_task[at] < 0) u.first_task[at] = id;
  u.tail[at] = id;
  return id;
}

/// A collective of the tensor group of one context device, or of the context group of one tensor
/// device.
Task Lowering::layer_task(StageUnit& u, const Piece& piece, int member) {
  if (piece.group == CommGroup::Context) return context_task(u, piece, member);
  const std::vector<int>& replicas = classes_.members[static_cast<std::size_t>(u.replica_class)];
  Task task;
  task.kind = TaskKind::Comm;
  task.comm = CommKind::Tensor;
  task.stream = Stream::Tensor;
  task.label = piece.label;
  task.bytes = task.rank_bytes = piece.bytes;
  const int parts = parts_of(piece.group), context = member / parts;
  const std::vector<std::vector<GpuId>> groups =
      tensor_groups(replicas, context, u.stage, piece.group, parts > 1 ? member % parts : -1);
  const std::vector<GpuId>& group = groups.front();
  if (is_local(cluster_, group))
    task.seconds = std::max(
        0.0, nccl_choice(piece.collective, communicator(group), piece.bytes).seconds(piece.bytes) -
                 piece.hidden_s);
  else
    put_on_network(task,
                   group_name(piece.group) + (" " + std::to_string(replicas.front())) + " " +
                       std::to_string(u.stage) + " " + std::to_string(member),
                   groups, piece.collective);
  task.seconds += piece.late_s;
  return task;
}

void Lowering::put_on_network(Task& task, const std::string& name,
                              const std::vector<std::vector<GpuId>>& groups, CollectiveKind kind) {
  const CollectiveChoice choice = nccl_choice(kind, communicator(groups.front()), task.bytes);
  const std::string whole_name =
      name + " " + collective_name(kind) + " " + algorithm_name(choice.algorithm);
  task.seconds = latency_before_flows(whole_name, groups.front(), kind, choice, task.bytes);
  task.payload = pattern(whole_name, [&] {
    std::vector<PhysicalFlow> flows;
    for (const std::vector<GpuId>& group : groups)
      for (const PhysicalFlow& flow : collective_flows(cluster_, group, kind, choice.algorithm))
        flows.push_back(flow);
    return flows;
  });
}

int Lowering::parts_of(CommGroup group) const {
  if (tensor_devices_ == 1) return 1;
  if (group == CommGroup::TensorRow) return plan_.tensor_rows;
  if (group == CommGroup::TensorColumn) return plan_.tp / plan_.tensor_rows;
  return 1;
}

/// Devices of a unit that take part in a collective: the tensor devices of a context device, of its
/// rows or columns one after the other, or the context devices of a tensor device.
std::vector<int> Lowering::layer_devices(CommGroup group, int member) const {
  if (group == CommGroup::Context) return lane(member);
  const int parts = parts_of(group), context = member / parts, part = member % parts;
  const int size = tensor_devices_ / parts;
  std::vector<int> devices;
  for (int i = 0; i < size; ++i) {
    const int t = group == CommGroup::TensorColumn ? i * parts + part : part * size + i;
    devices.push_back(context * tensor_devices_ + t);
  }
  return devices;
}

void Lowering::add_layer_collective(StageUnit& u, const ActionAt& at, const Piece& piece,
                                    int member) {
  // A unit has a handful of different collectives, asked for thousands of times.
  const auto same = [&](const StageUnit::LayerTask& made) {
    return made.group == piece.group && made.member == member && made.task.bytes == piece.bytes &&
           made.task.label == piece.label && made.hidden_s == piece.hidden_s &&
           made.late_s == piece.late_s;
  };
  auto prototype = std::find_if(u.layer_tasks.begin(), u.layer_tasks.end(), same);
  if (prototype == u.layer_tasks.end()) {
    Task made = layer_task(u, piece, member);
    std::vector<int> devices = layer_devices(piece.group, member);
    std::vector<std::int32_t> group;
    for (const int d : devices) group.push_back(device(u, d));
    made.device = add_group(group);
    prototype = u.layer_tasks.insert(u.layer_tasks.end(), {piece.group, member, piece.hidden_s,
                                                           piece.late_s, made, std::move(devices)});
  }
  Task task = prototype->task;
  task.chunk = static_cast<std::int16_t>(at.chunk);
  task.micro_batch = at.micro_batch;
  const std::int32_t id = add_task(task);
  std::int32_t last = -1;  // devices often wait for the same task
  for (const int d : prototype->devices) {
    Awaited& awaited = u.awaited[static_cast<std::size_t>(d)];
    for (const std::int32_t before : {awaited.task, awaited.beside})
      if (before >= 0 && before != last) edges_.add(last = before, id);
    u.beside[static_cast<std::size_t>(d)] = awaited;
    awaited = {id, -1};
    note(u, at, d, piece, id);
  }
}

/// The tasks of an action up to its next collective, which is returned; null at its end.
const Piece* Lowering::emit_computes(StageUnit& u, ActionInHand& hand) {
  const Piece* collective = nullptr;
  for (int c = 0; c < context_devices_; ++c) {
    const auto index = static_cast<std::size_t>(c);
    const std::vector<Piece>& list = *hand.lists[std::min(index, hand.lists.size() - 1)];
    std::size_t& next = hand.next[index];
    for (; next < list.size() && !list[next].is_collective; ++next)
      for (int t = 0; t < tensor_devices_; ++t) {
        const int d = c * tensor_devices_ + t;
        note(u, hand.at, d, list[next],
             add_compute(u, d, list[next], hand.at.label, hand.at.chunk, hand.at.micro_batch));
      }
    const bool ends = next == list.size();
    ensure(c == 0 || ends == (collective == nullptr), "context ranks meet at the same transfers");
    if (!ends) collective = &list[next++];
  }
  return collective;
}

void Lowering::emit_collective(StageUnit& u, const ActionInHand& hand, const Piece& piece) {
  if (piece.group == CommGroup::Experts) return add_expert_collective(u, hand.at, piece);
  const bool in_context = piece.group == CommGroup::Context;
  const int members = in_context ? tensor_devices_ : context_devices_ * parts_of(piece.group);
  for (int member = 0; member < members; ++member) add_layer_collective(u, hand.at, piece, member);
}

/// Notes a task of an action where others will look for it.
void Lowering::note(StageUnit& u, const ActionAt& at, int d, const Piece& piece,
                    std::int32_t task) {
  const auto devices = static_cast<std::size_t>(unit_devices_), own = static_cast<std::size_t>(d);
  const std::size_t bucket = static_cast<std::size_t>(piece.first_bucket) * devices + own;
  std::int32_t& first = u.action_first[at.index * devices + own];
  if (first < 0) first = task;
  u.action_last[at.index * devices + own] = task;
  const auto chunk = static_cast<std::size_t>(at.chunk);
  if (at.completes) u.bucket_ready[chunk][bucket] = task;
  if (at.opens && u.bucket_reader[chunk][bucket] < 0) u.bucket_reader[chunk][bucket] = task;
  if (at.shares) visit(u, at, d, piece.first_bucket, task);
  if (plan_.offload.activations > 0) visit_layer(u, at, d, piece.layer, task);
}

ActionInHand Lowering::take_up(StageUnit& u, std::size_t index, bool completes, bool opens) {
  const Action& action = actions_of(u)[index];
  // Where transfers run beside the action, it is cut so that they can start, or be waited for,
  // bucket by bucket.
  const bool is_forward = action.kind == ActionKind::Forward;
  const bool many = data_ranks() > 1;
  const bool shares = (many && (is_forward ? plan_.zero == 3 : plan_.zero >= 2)) ||
                      (plan_.offload.gradients && !is_forward);
  ActionInHand hand;
  hand.at = {index,        labels_.of(action_label(action.kind)),
             action.chunk, action.micro_batch,
             completes,    opens,
             shares};
  hand.signals = shares || (completes && many && plan_.overlap.gradients);
  const bool gathers = plan_.zero > 0 || has_servers();
  hand.waits = shares || (opens && many && gathers && plan_.overlap.parameters);
  const std::int32_t chunk = piece_of(in_.schedule, u.stage, action.chunk);
  for (int c = 0; c < context_variants(); ++c)
    hand.lists.push_back(&pieces(u, {chunk, c, action.kind, hand.signals || hand.waits}));
  hand.next.assign(static_cast<std::size_t>(context_devices_), 0);
  return hand;
}

void Lowering::put_down(StageUnit& u, const ActionInHand& hand) {
  const auto devices = static_cast<std::size_t>(unit_devices_);
  auto& ready = u.bucket_ready[static_cast<std::size_t>(hand.at.chunk)];
  auto& reader = u.bucket_reader[static_cast<std::size_t>(hand.at.chunk)];
  if (hand.at.completes && !hand.signals)  // not cut: all buckets complete with the last piece
    for (std::size_t i = 0; i < ready.size(); ++i)
      ready[i] = u.action_last[hand.at.index * devices + i % devices];
  if (hand.at.opens && !hand.waits)
    for (std::size_t i = 0; i < reader.size(); ++i)
      reader[i] = u.action_first[hand.at.index * devices + i % devices];
}

/// One action piece by piece; of several that are joined, each in turn until a collective of its
/// own is under way, which then runs beside the next one's work.
void Lowering::emit_hands(StageUnit& u, std::vector<ActionInHand>& hands) {
  u.takes_turns = hands.size() > 1;
  for (ActionInHand& hand : hands) {
    hand.awaited = u.awaited;
    hand.beside = u.beside;
  }
  for (bool is_done = false; !is_done;) {
    is_done = true;
    for (ActionInHand& hand : hands) {
      if (hand.is_done()) continue;
      is_done = false;
      u.awaited.swap(hand.awaited);
      u.beside.swap(hand.beside);
      const Piece* collective = emit_computes(u, hand);
      while (collective != nullptr) {
        emit_collective(u, hand, *collective);
        const bool another =
            !hand.is_done() && (*hand.lists.front())[hand.next.front()].is_collective;
        collective = another ? emit_computes(u, hand) : nullptr;
      }
      u.awaited.swap(hand.awaited);
      u.beside.swap(hand.beside);
    }
  }
  u.takes_turns = false;
  for (const ActionInHand& hand : hands) put_down(u, hand);
  u.awaited = hands.back().awaited;
  u.beside = hands.back().beside;
  // What comes next waits for the ends of all.
  for (std::size_t h = 0; h + 1 < hands.size(); ++h)
    for (std::size_t d = 0; d < u.awaited.size(); ++d)
      if (u.awaited[d].beside < 0 && hands[h].awaited[d].task != u.awaited[d].task)
        u.awaited[d].beside = hands[h].awaited[d].task;
}

/// Notes that a task works on a bucket.
void Lowering::visit(StageUnit& u, const ActionAt& at, int d, std::int32_t bucket,
                     std::int32_t task) {
  const auto devices = static_cast<std::size_t>(unit_devices_);
  auto found = u.visits.rbegin();
  while (found != u.visits.rend() && found->action == at.index && found->bucket != bucket) ++found;
  if (found == u.visits.rend() || found->action != at.index) {
    const Action& action = actions_of(u)[at.index];
    const std::vector<std::int32_t> none(devices, -1);
    u.visits.push_back({at.index, action.chunk, bucket, action.kind, at.completes, none, none});
    found = u.visits.rbegin();
  }
  const auto own = static_cast<std::size_t>(d);
  if (found->first[own] < 0) found->first[own] = task;
  found->last[own] = task;
}

void Lowering::emit_actions(StageUnit& u) {
  const auto& actions = actions_of(u);
  const auto devices = static_cast<std::size_t>(unit_devices_);
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
  const auto& actions = actions_of(u);
  const auto devices = static_cast<std::size_t>(unit_devices_);
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

Task Lowering::transfer_task(const StageUnit& from, const StageUnit& to, int d, bool forward) {
  const std::vector<int>& replicas = classes_.members[static_cast<std::size_t>(from.replica_class)];
  const InnerRank first = inner_ranks(d).front();
  const GpuId near = gpu(first, replicas.front(), from.stage);
  const GpuId far = gpu(first, replicas.front(), to.stage);
  // With sequence parallelism ranks hold different tokens, and each sends its own anyway.
  const bool scattered = options_.scatter_transfers && plan_.tp > 1 && !shape_.sequence_parallel;
  const double bytes = boundary_bytes(shape_) / (scattered ? shape_.tensor_columns() : 1);
  const CommunicatorShape shape = communicator({near, far});
  Task task;
  task.kind = TaskKind::Comm;
  task.comm = CommKind::Pipeline;
  task.stream = forward ? Stream::PipelineForward : Stream::PipelineBackward;
  task.overlaps = plan_.overlap.pipeline;
  task.device = add_group({device(from, d), device(to, d)});
  task.label = labels_.of(forward ? "send activations" : "send gradients");
  task.bytes = task.rank_bytes = bytes;
  // The flow itself may be faster than NCCL's sends are inside a node.
  const CollectiveChoice choice = nccl_choice(CollectiveKind::SendReceive, shape, bytes);
  const Route route = cluster_.route(near, far);
  double flow_s = 0;
  for (int hop = 0; hop < route.count; ++hop) {
    const Link& link = cluster_.links()[static_cast<std::size_t>(route.links[hop].value)];
    flow_s = std::max(flow_s, bytes / payload_bytes_per_s(link));
  }
  task.seconds = std::max(choice.latency_s, choice.seconds(bytes) - flow_s);
  if (scattered) {
    const auto group = communicator(tensor_group(replicas.front(), first.context, to.stage));
    const double whole = bytes * plan_.tp;
    task.seconds += nccl_choice(CollectiveKind::AllGather, group, whole).seconds(whole);
  }
  const std::string name =
      "transfer " + std::to_string(device(from, d)) + " " + std::to_string(device(to, d));
  task.payload = pattern(name, [&] {
    std::vector<PhysicalFlow> flows;
    for (const int replica : replicas)
      for (const InnerRank& at : inner_ranks(d))
        flows.push_back({gpu(at, replica, from.stage), gpu(at, replica, to.stage)});
    return flows;
  });
  return task;
}

void Lowering::emit_transfer(StageUnit& from, std::size_t action, StageUnit& to,
                             std::size_t to_action) {
  const auto& sent_by = actions_of(from);
  const Action& sent = sent_by[action];
  const bool forward = sent.kind == ActionKind::Forward;
  auto& [prototypes, tails] = from.transfers[{forward, to.stage}];
  if (prototypes.empty())
    for (int t = 0; t < unit_devices_; ++t)
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
    std::vector<std::int32_t> kept_back{to.action_first[to_action * prototypes.size() + t]};
    if (after < sent_by.size()) {
      kept_back.push_back(from.action_first[after * prototypes.size() + t]);
      edges_.add(id, kept_back.back());
    }
    if (options_.transfers_stop_host)
      for (const std::int32_t next : kept_back)
        out_.graph.tasks[static_cast<std::size_t>(next)].host_waits = true;
  }
}

/// Where each stage does what: index of the action by (backward?, chunk, micro-batch).
void Lowering::index_actions() {
  for (const Schedule* schedule : class_schedules_) {
    const auto [at, is_new] = action_index_.try_emplace(schedule->micro_batches);
    if (!is_new) continue;
    const auto m = static_cast<std::size_t>(schedule->micro_batches);
    const auto v = static_cast<std::size_t>(schedule->chunks);
    for (const auto& actions : schedule->actions) {
      std::vector<std::size_t> index(2 * v * m, 0);
      for (std::size_t i = 0; i < actions.size(); ++i)
        if (actions[i].kind != ActionKind::WeightGradient)
          index[action_slot(*schedule, actions[i])] = i;
      at->second.push_back(std::move(index));
    }
  }
}

std::size_t Lowering::action_slot(const Schedule& schedule, const Action& action) const {
  const auto m = static_cast<std::size_t>(schedule.micro_batches);
  const auto v = static_cast<std::size_t>(schedule.chunks);
  const std::size_t backward = action.kind == ActionKind::Forward ? 0 : 1;
  return (backward * v + static_cast<std::size_t>(action.chunk)) * m +
         static_cast<std::size_t>(action.micro_batch);
}

void Lowering::emit_transfers(StageUnit& from) {
  if (plan_.pp == 1) return;
  const auto& actions = actions_of(from);
  const Schedule& schedule = schedule_of(from.replica_class);
  const auto& index = action_index_.at(schedule.micro_batches);
  for (std::size_t i = 0; i < actions.size(); ++i) {
    const Action& action = actions[i];
    if (action.kind == ActionKind::WeightGradient) continue;
    const bool forward = action.kind == ActionKind::Forward;
    const int piece = piece_of(in_.schedule, from.stage, action.chunk);
    const int next = forward ? piece + 1 : piece - 1;
    if (next < 0 || next > last_chunk()) continue;
    const ChunkPlace place = place_of(schedule, next, action.micro_batch);
    if (place.stage == from.stage) continue;  // where a way turns back
    StageUnit& to = unit(from.replica_class, place.stage);
    Action received = action;
    received.chunk = place.chunk;
    emit_transfer(from, i, to,
                  index[static_cast<std::size_t>(to.stage)][action_slot(schedule, received)]);
  }
}

}  // namespace rehearse
