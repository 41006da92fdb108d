#include "runtime/train/mail_order.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "plan/ensure.h"

namespace rehearse {
namespace {

/// The messages from one stage to another in one direction.
struct Line {
  std::vector<MailKey> order;
  std::size_t begun = 0;   ///< receives that the receiver has come to
  std::size_t posted = 0;  ///< the first so many may leave
};

/// Stages that do one thing after the other, and wait for every message to leave.
class WaitingStages {
 public:
  WaitingStages(const Schedule& schedule, std::size_t ahead)
      : schedule_(schedule), ahead_(ahead), places_(schedule.actions.size()) {}

  /// Whether all come to their end.
  bool come_to_an_end() {
    for (bool moves = true; moves;) {
      moves = false;
      for (int stage = 0; stage < schedule_.stages; ++stage)
        while (go_on(stage)) moves = true;
    }
    for (int stage = 0; stage < schedule_.stages; ++stage)
      if (place(stage).action < actions(stage).size()) return false;
    return true;
  }

 private:
  struct Place {
    std::size_t action = 0;
    bool has_begun = false, has_received = false;
  };

  Place& place(int stage) { return places_[static_cast<std::size_t>(stage)]; }
  const std::vector<Action>& actions(int stage) const {
    return schedule_.actions[static_cast<std::size_t>(stage)];
  }

  Line& line(int sender, int receiver, bool forward) {
    const auto [at, is_new] = lines_.try_emplace({sender, receiver, forward});
    if (is_new) {
      at->second.order = mail_between(schedule_, sender, receiver, forward);
      at->second.posted = ahead_;
    }
    return at->second;
  }

  /// Takes one step of a stage; false where it waits or is done.
  bool go_on(int stage) {
    Place& at = place(stage);
    if (at.action == actions(stage).size()) return false;
    const Action& action = actions(stage)[at.action];
    if (!at.has_received) {
      if (begins_with_mail(schedule_, stage, action) && !receive(stage, action)) return false;
      at.has_received = true;
    }
    if (!send(stage, action)) return false;
    at = {.action = at.action + 1};
    return true;
  }

  bool receive(int stage, const Action& action) {
    const bool forward = action.kind == ActionKind::Forward;
    const MailKey key{forward, action.chunk, action.micro_batch};
    const int piece = piece_of(schedule_, stage, action.chunk) + (forward ? -1 : 1);
    const int sender = place_of(schedule_, piece, action.micro_batch).stage;
    Place& at = place(stage);
    if (sender != stage && !at.has_begun) {
      at.has_begun = true;
      Line& from = line(sender, stage, forward);
      const auto index = std::find(from.order.begin(), from.order.end(), key) - from.order.begin();
      ++from.begun;
      from.posted =
          std::max({from.posted, static_cast<std::size_t>(index) + 1, from.begun + ahead_});
    }
    return left_.count({stage, key}) != 0;
  }

  bool send(int stage, const Action& action) {
    const MailTarget to = mail_target(schedule_, stage, action);
    if (to.stage < 0) return true;
    if (to.stage != stage) {
      const Line& way = line(stage, to.stage, to.key.forward);
      const auto index = std::find(way.order.begin(), way.order.end(), to.key) - way.order.begin();
      if (static_cast<std::size_t>(index) >= way.posted) return false;
    }
    left_.insert({to.stage, to.key});
    return true;
  }

  const Schedule& schedule_;
  std::size_t ahead_;
  std::vector<Place> places_;
  std::map<std::tuple<int, int, bool>, Line> lines_;
  std::set<std::pair<int, MailKey>> left_;
};

}  // namespace

MailTarget mail_target(const Schedule& schedule, int stage, const Action& action) {
  if (action.kind == ActionKind::WeightGradient) return {};
  const bool forward = action.kind == ActionKind::Forward;
  const int piece = piece_of(schedule, stage, action.chunk) + (forward ? 1 : -1);
  if (piece < 0 || piece >= piece_count(schedule)) return {};
  const ChunkPlace place = place_of(schedule, piece, action.micro_batch);
  return {place.stage, {forward, place.chunk, action.micro_batch}};
}

bool begins_with_mail(const Schedule& schedule, int stage, const Action& action) {
  if (action.kind == ActionKind::WeightGradient) return false;
  const int piece = piece_of(schedule, stage, action.chunk);
  return action.kind == ActionKind::Forward ? piece > 0 : piece + 1 < piece_count(schedule);
}

std::vector<MailKey> mail_between(const Schedule& schedule, int sender, int receiver,
                                  bool forward) {
  std::vector<MailKey> order;
  for (const Action& action : schedule.actions[static_cast<std::size_t>(sender)]) {
    const MailTarget to = mail_target(schedule, sender, action);
    if (to.stage == receiver && to.key.forward == forward) order.push_back(to.key);
  }
  return order;
}

int receives_ahead(const Schedule& schedule) {
  const int most = 2 * schedule.micro_batches * schedule.chunks;
  for (int ahead = 1; ahead <= most; ++ahead)
    if (WaitingStages(schedule, static_cast<std::size_t>(ahead)).come_to_an_end()) return ahead;
  ensure(most == 0 || schedule.stages == 1, "a schedule that can run comes to an end");
  return 1;
}

}  // namespace rehearse
