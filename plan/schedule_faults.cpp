// Finds out whether a schedule can run, by counting its actions and then executing them.
#include <array>
#include <cstddef>

#include "plan/schedule.h"

namespace rehearse {
namespace {

constexpr int kActionKinds = 4;
/// Faults told one by one; a schedule for other sizes would otherwise print thousands.
constexpr std::size_t kToldFaults = 20;

const char* action_name(ActionKind kind) {
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
  return "unknown action";
}

std::string describe(const Action& action) {
  return std::string("the ") + action_name(action.kind) + " of micro-batch " +
         std::to_string(action.micro_batch) + ", chunk " + std::to_string(action.chunk);
}

std::string at_stage(int stage) { return "stage " + std::to_string(stage) + ": "; }

class FaultList {
 public:
  void add(std::string sentence) {
    if (++count_ <= kToldFaults) sentences_.push_back(std::move(sentence));
  }
  bool empty() const { return count_ == 0; }
  std::vector<std::string> finish() {
    if (count_ > kToldFaults)
      sentences_.push_back("and " + std::to_string(count_ - kToldFaults) + " more faults");
    return std::move(sentences_);
  }

 private:
  std::vector<std::string> sentences_;
  std::size_t count_ = 0;
};

/// What has been done of each (stage, chunk, micro-batch), by kind.
class Tally {
 public:
  explicit Tally(const Schedule& schedule)
      : chunks_(static_cast<std::size_t>(schedule.chunks)),
        micro_batches_(static_cast<std::size_t>(schedule.micro_batches)),
        counts_(static_cast<std::size_t>(schedule.stages) * chunks_ * micro_batches_) {}
  int& count(int stage, int chunk, int micro_batch, ActionKind kind) {
    const auto cell =
        (static_cast<std::size_t>(stage) * chunks_ + static_cast<std::size_t>(chunk)) *
            micro_batches_ +
        static_cast<std::size_t>(micro_batch);
    return counts_[cell][static_cast<std::size_t>(kind)];
  }

 private:
  std::size_t chunks_, micro_batches_;
  std::vector<std::array<int, kActionKinds>> counts_;
};

bool in_range(const Schedule& schedule, const Action& action) {
  return action.micro_batch >= 0 && action.micro_batch < schedule.micro_batches &&
         action.chunk >= 0 && action.chunk < schedule.chunks &&
         static_cast<int>(action.kind) < kActionKinds;
}

/// Each pair wants one forward, and either one whole backward or both of its halves.
void check_counts(int stage, const Action& pair, Tally& tally, FaultList& faults) {
  const auto count = [&](ActionKind kind) {
    return tally.count(stage, pair.chunk, pair.micro_batch, kind);
  };
  const auto complain = [&](ActionKind kind, const char* what) {
    faults.add(at_stage(stage) + describe({kind, pair.micro_batch, pair.chunk}) + what);
  };
  for (int k = 0; k < kActionKinds; ++k)
    if (count(static_cast<ActionKind>(k)) > 1)
      complain(static_cast<ActionKind>(k), " is done more than once");
  if (count(ActionKind::Forward) == 0) complain(ActionKind::Forward, " is missing");
  const int whole = count(ActionKind::Backward);
  const int input = count(ActionKind::InputGradient);
  const int weight = count(ActionKind::WeightGradient);
  if (whole > 0 && input + weight > 0)
    complain(ActionKind::Backward, " is done whole and in halves");
  if (whole > 0) return;
  if (input + weight == 0) return complain(ActionKind::Backward, " is missing");
  if (input == 0) complain(ActionKind::InputGradient, " is missing");
  if (weight == 0) complain(ActionKind::WeightGradient, " is missing");
}

void check_completeness(const Schedule& schedule, FaultList& faults) {
  Tally tally(schedule);
  for (int stage = 0; stage < schedule.stages; ++stage)
    for (const Action& action : schedule.actions[static_cast<std::size_t>(stage)]) {
      if (!in_range(schedule, action))
        faults.add(at_stage(stage) + describe(action) + " is out of range");
      else if (!visits_chunk(schedule, action.chunk, action.micro_batch))
        faults.add(at_stage(stage) + describe(action) + " is on the way of the other half");
      else
        ++tally.count(stage, action.chunk, action.micro_batch, action.kind);
    }
  for (int stage = 0; stage < schedule.stages; ++stage)
    for (int chunk = 0; chunk < schedule.chunks; ++chunk)
      for (int i = 0; i < schedule.micro_batches; ++i)
        if (visits_chunk(schedule, chunk, i))
          check_counts(stage, {ActionKind::Forward, i, chunk}, tally, faults);
}

/// Executes the stages' lists without a clock: an action is done as soon as what it needs is.
class Execution {
 public:
  explicit Execution(const Schedule& schedule)
      : schedule_(schedule), done_(schedule), next_(schedule.actions.size(), 0) {}

  /// Runs as far as the order allows. O(actions + stages): a stage is looked at again only
  /// when a neighbour moved; neighbours in the pipeline are neighbours unless pieces are dealt.
  void run() {
    std::vector<int> awake;
    for (int stage = schedule_.stages - 1; stage >= 0; --stage) awake.push_back(stage);
    while (!awake.empty()) {
      const int stage = awake.back();
      awake.pop_back();
      if (!advance(stage) || schedule_.stages == 1) continue;
      if (schedule_.placement == Placement::Dealt) {
        for (int other = 0; other < schedule_.stages; ++other)
          if (other != stage) awake.push_back(other);
        continue;
      }
      awake.push_back((stage + schedule_.stages - 1) % schedule_.stages);
      awake.push_back((stage + 1) % schedule_.stages);
    }
  }

  void report(FaultList& faults) const {
    for (int stage = 0; stage < schedule_.stages; ++stage) {
      const auto& actions = schedule_.actions[static_cast<std::size_t>(stage)];
      const std::size_t at = next_[static_cast<std::size_t>(stage)];
      if (at < actions.size())
        faults.add(at_stage(stage) + describe(actions[at]) + " (action " + std::to_string(at) +
                   ") waits for ever, because what it needs comes after what waits for it");
    }
  }

 private:
  bool advance(int stage) {
    const auto& actions = schedule_.actions[static_cast<std::size_t>(stage)];
    std::size_t& at = next_[static_cast<std::size_t>(stage)];
    const std::size_t before = at;
    for (;;) {
      // Joined actions start together.
      std::size_t end = at;
      bool can_start = at < actions.size();
      while (can_start) {
        can_start = ready(stage, actions[end]);
        if (!actions[end++].joined || end == actions.size()) break;
      }
      if (!can_start) return at != before;
      for (; at < end; ++at)
        done_.count(stage, actions[at].chunk, actions[at].micro_batch, actions[at].kind) = 1;
    }
  }

  bool done_on_piece(int piece, int micro_batch, ActionKind kind) {
    const ChunkPlace place = place_of(schedule_, piece, micro_batch);
    return done_.count(place.stage, place.chunk, micro_batch, kind) > 0;
  }

  bool ready(int stage, const Action& action) {
    const int piece = piece_of(schedule_, stage, action.chunk);
    const int last = piece_count(schedule_) - 1;
    const int i = action.micro_batch;
    switch (action.kind) {
      case ActionKind::Forward:
        return piece == 0 || done_on_piece(piece - 1, i, ActionKind::Forward);
      case ActionKind::Backward:
      case ActionKind::InputGradient:
        return done_on_piece(piece, i, ActionKind::Forward) &&
               (piece == last || done_on_piece(piece + 1, i, ActionKind::Backward) ||
                done_on_piece(piece + 1, i, ActionKind::InputGradient));
      case ActionKind::WeightGradient:
        return done_on_piece(piece, i, ActionKind::InputGradient);
    }
    return false;
  }

  const Schedule& schedule_;
  Tally done_;
  std::vector<std::size_t> next_;
};

}  // namespace

std::vector<std::string> schedule_faults(const Schedule& schedule) {
  FaultList faults;
  if (schedule.stages < 1 || schedule.chunks < 1 || schedule.micro_batches < 1)
    faults.add("a schedule needs at least 1 stage, 1 chunk and 1 micro-batch");
  else if (schedule.actions.size() != static_cast<std::size_t>(schedule.stages))
    faults.add("the schedule lists actions for " + std::to_string(schedule.actions.size()) +
               " stages, and there are " + std::to_string(schedule.stages));
  if (!faults.empty()) return faults.finish();
  check_completeness(schedule, faults);
  if (!faults.empty()) return faults.finish();
  Execution execution(schedule);
  execution.run();
  execution.report(faults);
  return faults.finish();
}

}  // namespace rehearse
