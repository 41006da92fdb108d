#include "plan/dealt_schedule.h"

#include <algorithm>
#include <numeric>
#include <queue>
#include <set>
#include <tuple>

#include "plan/draws.h"
#include "plan/ensure.h"

namespace rehearse {
namespace {

std::vector<int> by_lot(int count, std::uint64_t seed) {
  std::vector<int> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return uniform_draw(seed, static_cast<std::uint64_t>(a)) <
           uniform_draw(seed, static_cast<std::uint64_t>(b));
  });
  return order;
}

/// Works through a step and writes down what each stage did.
class Rehearsal {
 public:
  Rehearsal(Schedule& schedule, bool forwards_first, int most_on_their_way)
      : schedule_(schedule),
        pieces_(piece_count(schedule)),
        forwards_first_(forwards_first),
        most_on_their_way_(most_on_their_way),
        ready_(static_cast<std::size_t>(schedule.stages)),
        busy_(static_cast<std::size_t>(schedule.stages), false) {}

  void run() {
    for (int i = 0; i < std::min(most_on_their_way_, schedule_.micro_batches); ++i)
      offer({ActionKind::Forward, i, 0}, 0);
    start_idle_stages(0);
    while (!running_.empty()) {
      const int now = running_.top().end;
      while (!running_.empty() && running_.top().end == now) {
        const Running done = running_.top();
        running_.pop();
        busy_[static_cast<std::size_t>(done.stage)] = false;
        follow(done);
      }
      start_idle_stages(now);
    }
  }

 private:
  struct Running {
    int end, stage, piece;
    ActionKind kind;
    int micro_batch;
    bool operator>(const Running& other) const {
      return std::tie(end, stage) > std::tie(other.end, other.stage);
    }
  };
  /// Smaller is more urgent: (kind, micro-batch, piece).
  using Urgency = std::tuple<int, int, int>;

  void offer(const Action& action, int piece) {
    const bool forward = action.kind == ActionKind::Forward;
    const int rank = forward == forwards_first_ ? 0 : 1;
    const int stage = place_of(schedule_, piece, action.micro_batch).stage;
    ready_[static_cast<std::size_t>(stage)].insert({rank, action.micro_batch, piece});
  }

  void follow(const Running& done) {
    const bool forward = done.kind == ActionKind::Forward;
    if (forward && done.piece + 1 < pieces_)
      return offer({ActionKind::Forward, done.micro_batch, 0}, done.piece + 1);
    if (forward) return offer({ActionKind::Backward, done.micro_batch, 0}, done.piece);
    if (done.piece > 0) return offer({ActionKind::Backward, done.micro_batch, 0}, done.piece - 1);
    const int next = done.micro_batch + most_on_their_way_;
    if (next < schedule_.micro_batches) offer({ActionKind::Forward, next, 0}, 0);
  }

  void start_idle_stages(int now) {
    constexpr int kForward = 1, kBackward = 2;
    for (int stage = 0; stage < schedule_.stages; ++stage) {
      std::set<Urgency>& ready = ready_[static_cast<std::size_t>(stage)];
      if (busy_[static_cast<std::size_t>(stage)] || ready.empty()) continue;
      const auto [rank, micro_batch, piece] = *ready.begin();
      ready.erase(ready.begin());
      const bool forward = (rank == 0) == forwards_first_;
      const ActionKind kind = forward ? ActionKind::Forward : ActionKind::Backward;
      const int chunk = place_of(schedule_, piece, micro_batch).chunk;
      schedule_.actions[static_cast<std::size_t>(stage)].push_back({kind, micro_batch, chunk});
      busy_[static_cast<std::size_t>(stage)] = true;
      running_.push({now + (forward ? kForward : kBackward), stage, piece, kind, micro_batch});
    }
  }

  Schedule& schedule_;
  int pieces_;
  bool forwards_first_;
  int most_on_their_way_;
  std::vector<std::set<Urgency>> ready_;  ///< by stage
  std::vector<bool> busy_;
  std::priority_queue<Running, std::vector<Running>, std::greater<>> running_;
};

}  // namespace

std::vector<ChunkPlace> dealt_places(Deal deal, int stages, int chunks, std::uint64_t seed) {
  const int pieces = stages * chunks;
  const std::vector<int> lots = deal == Deal::Random ? by_lot(pieces, seed) : std::vector<int>();
  std::vector<ChunkPlace> places;
  std::vector<int> held(static_cast<std::size_t>(stages), 0);
  for (int piece = 0; piece < pieces; ++piece) {
    int stage = piece % stages;
    if (deal == Deal::Range) stage = piece / chunks;
    if (deal == Deal::Random) stage = lots[static_cast<std::size_t>(piece)] % stages;
    places.push_back({stage, held[static_cast<std::size_t>(stage)]++});
  }
  return places;
}

std::string why_not_dealt(ScheduleKind kind) {
  if (kind == ScheduleKind::OneFOneB || kind == ScheduleKind::Gpipe ||
      kind == ScheduleKind::LayerWise)
    return "";
  return "its schedule says itself which pieces of the model a stage holds";
}

Schedule dealt_schedule(ScheduleKind kind, std::vector<ChunkPlace> places, int stages,
                        int micro_batches) {
  ensure(why_not_dealt(kind).empty(), "the schedule was checked before it is made");
  Schedule schedule{.stages = stages,
                    .chunks = static_cast<int>(places.size()) / stages,
                    .micro_batches = micro_batches,
                    .actions = {},
                    .placement = Placement::Dealt,
                    .places = std::move(places)};
  schedule.actions.resize(static_cast<std::size_t>(stages));
  const bool all_at_once = kind == ScheduleKind::Gpipe;
  const int most = kind == ScheduleKind::LayerWise ? 1 : all_at_once ? micro_batches : stages;
  Rehearsal(schedule, all_at_once, most).run();
  return schedule;
}

}  // namespace rehearse
