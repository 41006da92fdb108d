#include "runtime/train/pipeline_mail.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "plan/ensure.h"

namespace rehearse {
namespace {

int tag_of(bool forward) { return forward ? 1 : 2; }

/// Where an action's result goes; nothing for the model's ends and for weight gradients.
std::optional<ChunkPlace> next_place(const Schedule& schedule, int stage, const Action& action) {
  if (action.kind == ActionKind::WeightGradient) return std::nullopt;
  const int step = action.kind == ActionKind::Forward ? 1 : -1;
  const int piece = piece_of(schedule, stage, action.chunk) + step;
  if (piece < 0 || piece >= piece_count(schedule)) return std::nullopt;
  return place_of(schedule, piece, action.micro_batch);
}

}  // namespace

std::vector<MessageLane> pipeline_lanes(const Schedule& schedule) {
  std::set<MessageLane> lanes;
  for (int stage = 0; stage < schedule.stages; ++stage)
    for (const Action& action : schedule.actions[static_cast<std::size_t>(stage)]) {
      const auto to = next_place(schedule, stage, action);
      if (to && to->stage != stage)
        lanes.insert({stage, to->stage, tag_of(action.kind == ActionKind::Forward)});
    }
  return {lanes.begin(), lanes.end()};
}

PipelineMail::PipelineMail(const RankContext& rank, const Schedule& schedule, int stage,
                           Communicator& stages, bool moves_on_device)
    : rank_(rank),
      schedule_(schedule),
      stage_(stage),
      stages_(stages),
      moves_on_device_(moves_on_device) {
  for (int sender = 0; sender < schedule.stages; ++sender)
    if (sender != stage) expect(sender);
}

void PipelineMail::expect(int sender) {
  Inbox down{.peer = sender, .forward = true, .order = {}};
  Inbox up{.peer = sender, .forward = false, .order = {}};
  for (const Action& action : schedule_.actions[static_cast<std::size_t>(sender)]) {
    const bool forward = action.kind == ActionKind::Forward;
    const auto place = next_place(schedule_, sender, action);
    if (!place || place->stage != stage_) continue;
    (forward ? down : up).order.push_back({forward, place->chunk, action.micro_batch});
  }
  for (Inbox* inbox : {&down, &up}) {
    if (inbox->order.empty()) continue;
    for (const Key& key : inbox->order) inbox_of_[key] = inboxes_.size();
    inboxes_.push_back(std::move(*inbox));
  }
}

void PipelineMail::post_next(Inbox& inbox) {
  if (inbox.posted == inbox.order.size()) return;
  Arrival arrival{.tensor = rank_.empty({rank_.split_tokens(), rank_.model.hidden}),
                  .transfer = {}};
  arrival.transfer = stages_.start_receive(arrival.tensor, inbox.peer, tag_of(inbox.forward));
  arrivals_[inbox.order[inbox.posted++]] = std::move(arrival);
}

void PipelineMail::begin_step() {
  for (Inbox& inbox : inboxes_) {
    inbox.posted = inbox.taken = 0;
    post_next(inbox);
  }
}

Tensor PipelineMail::receive(bool forward, int chunk, int micro_batch) {
  const Key key{forward, chunk, micro_batch};
  const auto from = inbox_of_.find(key);
  if (from != inbox_of_.end()) {
    Inbox& inbox = inboxes_[from->second];
    while (arrivals_.find(key) == arrivals_.end()) post_next(inbox);
    ++inbox.taken;
    if (inbox.posted <= inbox.taken) post_next(inbox);
  }
  const auto found = arrivals_.find(key);
  ensure(found != arrivals_.end(), "a schedule that can run sends before it receives");
  Arrival arrival = std::move(found->second);
  arrivals_.erase(found);
  finish(arrival.transfer);
  release_sent();
  return arrival.tensor;
}

void PipelineMail::send(bool forward, int chunk, int micro_batch, Tensor tensor) {
  const int piece = piece_of(schedule_, stage_, chunk) + (forward ? 1 : -1);
  const ChunkPlace place = place_of(schedule_, piece, micro_batch);
  if (place.stage == stage_) {
    // The turn of a vee: the next piece is on this very rank.
    arrivals_[{forward, place.chunk, micro_batch}] = {std::move(tensor), {}};
    return;
  }
  Departure departure{.tensor = std::move(tensor), .transfer = {}};
  departure.transfer =
      stages_.start_send(departure.tensor, place.stage, tag_of(forward), Traffic::Pipeline);
  if (!rank_.plan.overlap.pipeline) finish(departure.transfer);
  departures_.push_back(std::move(departure));
  release_sent();
  for (; moves_on_device_ && departures_.size() > kDepartures; departures_.pop_front())
    finish(departures_.front().transfer);
}

void PipelineMail::release_sent() {
  departures_.remove_if([](const Departure& departure) {
    return departure.transfer == nullptr || departure.transfer->test();
  });
}

void PipelineMail::end_step() {
  for (Departure& departure : departures_) finish(departure.transfer);
  departures_.clear();
  ensure(arrivals_.empty(), "every message of a step is used in it");
}

}  // namespace rehearse
