#include "runtime/train/pipeline_mail.h"

#include <algorithm>
#include <set>
#include <utility>

#include "plan/ensure.h"

namespace rehearse {
namespace {

int tag_of(bool forward) { return forward ? 1 : 2; }

}  // namespace

std::vector<MessageLane> pipeline_lanes(const Schedule& schedule) {
  std::set<MessageLane> lanes;
  for (int stage = 0; stage < schedule.stages; ++stage)
    for (const Action& action : schedule.actions[static_cast<std::size_t>(stage)]) {
      const MailTarget to = mail_target(schedule, stage, action);
      if (to.stage >= 0 && to.stage != stage)
        lanes.insert({stage, to.stage, tag_of(to.key.forward)});
    }
  return {lanes.begin(), lanes.end()};
}

PipelineMail::PipelineMail(const RankContext& rank, const Schedule& schedule, int stage,
                           Communicator& stages, bool moves_on_device)
    : rank_(rank),
      schedule_(schedule),
      stage_(stage),
      stages_(stages),
      moves_on_device_(moves_on_device),
      ahead_(rank.plan.overlap.pipeline && !moves_on_device
                 ? 1
                 : static_cast<std::size_t>(receives_ahead(schedule))) {
  for (int sender = 0; sender < schedule.stages; ++sender) {
    if (sender == stage) continue;
    for (const bool forward : {true, false}) {
      Inbox inbox{.peer = sender,
                  .forward = forward,
                  .order = mail_between(schedule, sender, stage, forward)};
      if (inbox.order.empty()) continue;
      for (const MailKey& key : inbox.order) inbox_of_[key] = inboxes_.size();
      inboxes_.push_back(std::move(inbox));
    }
  }
}

void PipelineMail::post_next(Inbox& inbox) {
  if (inbox.posted == inbox.order.size()) return;
  Arrival arrival{.tensor = rank_.empty({rank_.split_tokens(), rank_.model.hidden}),
                  .transfer = {}};
  arrival.transfer = stages_.start_receive(arrival.tensor, inbox.peer, tag_of(inbox.forward));
  arrivals_[inbox.order[inbox.posted++]] = std::move(arrival);
}

void PipelineMail::post_ahead(Inbox& inbox) {
  while (inbox.posted < std::min(inbox.taken + ahead_, inbox.order.size())) post_next(inbox);
}

void PipelineMail::begin_step() {
  for (Inbox& inbox : inboxes_) {
    inbox.posted = inbox.taken = 0;
    post_ahead(inbox);
  }
}

Tensor PipelineMail::receive(bool forward, int chunk, int micro_batch) {
  const MailKey key{forward, chunk, micro_batch};
  const auto from = inbox_of_.find(key);
  if (from != inbox_of_.end()) {
    Inbox& inbox = inboxes_[from->second];
    while (arrivals_.find(key) == arrivals_.end()) post_next(inbox);
    ++inbox.taken;
    post_ahead(inbox);
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
  const ActionKind kind = forward ? ActionKind::Forward : ActionKind::Backward;
  const MailTarget to = mail_target(schedule_, stage_, {kind, micro_batch, chunk});
  if (to.stage == stage_) {
    // The turn of a vee: the next piece is on this very rank.
    arrivals_[to.key] = {std::move(tensor), {}};
    return;
  }
  Departure departure{.tensor = std::move(tensor), .transfer = {}};
  departure.transfer =
      stages_.start_send(departure.tensor, to.stage, tag_of(forward), Traffic::Pipeline);
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
