#include "plan/schedule.h"

#include <algorithm>

#include "plan/ensure.h"
#include "plan/split_schedules.h"

namespace rehearse {
namespace {

using Actions = std::vector<Action>;

/// All forwards, then all backwards in the order of the forwards. The peak and the makespan are
/// those of Huang et al. 2019 (arXiv 1811.06965, figure 2c), who draw the backwards reversed; the
/// ascending order makes the last micro-batch's backward the last action, as in the other kinds.
Actions gpipe_actions(int micro_batches) {
  Actions actions;
  for (int i = 0; i < micro_batches; ++i) actions.push_back({ActionKind::Forward, i, 0});
  for (int i = 0; i < micro_batches; ++i) actions.push_back({ActionKind::Backward, i, 0});
  return actions;
}

/// A micro-batch goes forward through all stages and back before the next one starts.
Actions layer_wise_actions(int micro_batches) {
  Actions actions;
  for (int i = 0; i < micro_batches; ++i) {
    actions.push_back({ActionKind::Forward, i, 0});
    actions.push_back({ActionKind::Backward, i, 0});
  }
  return actions;
}

/// `warm_up` forwards, then forward and backward in turn, then the backwards that are left.
/// The n-th forward of a stage is `forward[n]`, its n-th backward `backward[n]`.
Actions one_f_one_b(const Actions& forward, const Actions& backward, std::size_t warm_up) {
  Actions actions(forward.begin(), forward.begin() + static_cast<std::ptrdiff_t>(warm_up));
  for (std::size_t n = warm_up; n < forward.size(); ++n) {
    actions.push_back(forward[n]);
    actions.push_back(backward[n - warm_up]);
  }
  for (std::size_t n = backward.size() - warm_up; n < backward.size(); ++n)
    actions.push_back(backward[n]);
  return actions;
}

/// The order in which a stage visits its (micro-batch, chunk) pairs: groups of `group`
/// micro-batches, within a group one chunk after the other. Forwards visit chunks upwards,
/// backwards downwards. Source: Megatron-LM schedules.py, get_schedule_table.
Actions visits(ActionKind kind, int chunks, int micro_batches, int group) {
  Actions table;
  for (int first = 0; first < micro_batches; first += group) {
    const int end = std::min(first + group, micro_batches);
    for (int c = 0; c < chunks; ++c) {
      const int chunk = kind == ActionKind::Forward ? c : chunks - 1 - c;
      for (int i = first; i < end; ++i) table.push_back({kind, i, chunk});
    }
  }
  return table;
}

/// Forwards before the first backward. Plain: the stages after this one. Interleaved: twice
/// that, and a group for each chunk but the last. Source: Megatron-LM schedules.py,
/// get_pp_rank_microbatches.
std::size_t warm_up_forwards(int stage, int stages, int chunks, int micro_batches, int group) {
  const long long after = stages - stage - 1;
  const long long wanted =
      chunks == 1 ? after : 2 * after + static_cast<long long>(chunks - 1) * group;
  return static_cast<std::size_t>(std::min(wanted, static_cast<long long>(chunks) * micro_batches));
}

const char* kind_name(ScheduleKind kind) {
  switch (kind) {
    case ScheduleKind::Gpipe:
      return "GPipe";
    case ScheduleKind::OneFOneB:
      return "1F1B";
    case ScheduleKind::LayerWise:
      return "layer-wise";
    case ScheduleKind::ZbH1:
      return "ZB-H1";
    case ScheduleKind::ZbH2:
      return "ZB-H2";
    case ScheduleKind::ZbV:
      return "ZB-V";
    case ScheduleKind::DualPipe:
      return "DualPipe";
  }
  ensure(false, "a schedule has one of the named kinds");
  return "";
}

/// Rules of Megatron-LM's forward_backward_pipelining_with_interleaving: a group is at least as
/// long as the pipeline and at most all micro-batches, and a shorter last group must still fill
/// the pipeline. With the default group (= stages) that is micro_batches % stages == 0.
std::string why_not_interleaved(int stages, int micro_batches, int group) {
  const auto text = [](int number) { return std::to_string(number); };
  if (stages == 1) return "interleaving needs at least 2 pipeline stages, and there is 1";
  if (group < stages || group > micro_batches) {
    if (group == stages)
      return "interleaved 1F1B over " + text(stages) + " stages needs at least " + text(stages) +
             " micro-batches, and there are " + text(micro_batches);
    return "a group of " + text(group) + " micro-batches is outside " + text(stages) +
           " (the stages) to " + text(micro_batches) + " (the micro-batches)";
  }
  const int rest = micro_batches % group;
  if (rest == 0 || rest >= stages) return "";
  if (group == stages)
    return "interleaved 1F1B needs a number of micro-batches that is a multiple of its " +
           text(stages) + " stages, and " + text(micro_batches) + " is not";
  return "the last group of micro-batches has " + text(rest) + ", fewer than the " + text(stages) +
         " stages, so the pipeline would run dry";
}

/// Two micro-batches a stage fill the pipeline from both ends (DualPipe, README of
/// deepseek-ai/DualPipe), and each end takes half of them.
std::string why_not_dual(int stages, int micro_batches) {
  const auto text = [](int number) { return std::to_string(number); };
  if (stages % 2 != 0)
    return "DualPipe needs an even number of stages, and " + text(stages) + " is odd";
  if (micro_batches % 2 != 0)
    return "DualPipe sends half of the micro-batches from each end, and " + text(micro_batches) +
           " is odd";
  if (micro_batches < 2 * stages)
    return "DualPipe over " + text(stages) + " stages needs at least " + text(2 * stages) +
           " micro-batches, and there are " + text(micro_batches);
  return "";
}

}  // namespace

int piece_count(const Schedule& schedule) {
  return schedule.placement == Placement::BothWays ? schedule.stages
                                                   : schedule.stages * schedule.chunks;
}

int piece_of(const Schedule& schedule, int stage, int chunk) {
  const int mirrored = schedule.stages - 1 - stage;
  switch (schedule.placement) {
    case Placement::Loop:
      return chunk * schedule.stages + stage;
    case Placement::Vee:
      return chunk * schedule.stages + (chunk % 2 == 0 ? stage : mirrored);
    case Placement::BothWays:
      return chunk == 0 ? stage : mirrored;
    case Placement::Dealt:
      for (std::size_t piece = 0; piece < schedule.places.size(); ++piece)
        if (schedule.places[piece] == ChunkPlace{stage, chunk}) return static_cast<int>(piece);
  }
  ensure(false, "a schedule has one of the named placements");
  return 0;
}

ChunkPlace place_of(const Schedule& schedule, int piece, int micro_batch) {
  const int row = piece / schedule.stages, column = piece % schedule.stages;
  const int mirrored = schedule.stages - 1 - column;
  switch (schedule.placement) {
    case Placement::Loop:
      return {column, row};
    case Placement::Vee:
      return {row % 2 == 0 ? column : mirrored, row};
    case Placement::BothWays:
      if (visits_chunk(schedule, 0, micro_batch)) return {column, 0};
      return {mirrored, 1};
    case Placement::Dealt:
      return schedule.places[static_cast<std::size_t>(piece)];
  }
  ensure(false, "a schedule has one of the named placements");
  return {};
}

bool visits_chunk(const Schedule& schedule, int chunk, int micro_batch) {
  if (schedule.placement != Placement::BothWays) return true;
  return (chunk == 0) == (2 * micro_batch < schedule.micro_batches);
}

bool ends_meet(const Schedule& schedule) {
  if (schedule.stages == 1 || schedule.placement == Placement::BothWays) return true;
  if (schedule.placement == Placement::Dealt)
    return schedule.places.front().stage == schedule.places.back().stage;
  return schedule.placement == Placement::Vee && schedule.chunks % 2 == 0;
}

Placement placement_of(ScheduleKind kind) {
  if (kind == ScheduleKind::ZbV) return Placement::Vee;
  return kind == ScheduleKind::DualPipe ? Placement::BothWays : Placement::Loop;
}

int chunks_of(ScheduleKind kind, int virtual_stages) {
  return kind == ScheduleKind::DualPipe ? 2 : virtual_stages;
}

std::string why_not_schedulable(ScheduleKind kind, int stages, int chunks, int micro_batches,
                                int group) {
  if (stages < 1) return "a pipeline needs at least 1 stage";
  if (chunks < 1) return "a stage needs at least 1 model chunk";
  if (micro_batches < 1) return "a step needs at least 1 micro-batch";
  if (kind == ScheduleKind::ZbV && chunks != 2)
    return "a ZB-V stage holds 2 model chunks, not " + std::to_string(chunks);
  if (kind == ScheduleKind::ZbV) return "";
  if (kind == ScheduleKind::DualPipe && chunks == 1) return why_not_dual(stages, micro_batches);
  if (chunks == 1) return "";
  if (kind != ScheduleKind::OneFOneB)
    return std::string("only 1F1B interleaves model chunks, and a ") + kind_name(kind) +
           " stage holds one, not " + std::to_string(chunks);
  return why_not_interleaved(stages, micro_batches, group == 0 ? stages : group);
}

Schedule make_schedule(ScheduleKind kind, int stages, int chunks, int micro_batches, int group) {
  ensure(why_not_schedulable(kind, stages, chunks, micro_batches, group).empty(),
         "the schedule was checked before it is made");
  Schedule schedule{.stages = stages,
                    .chunks = chunks_of(kind, chunks),
                    .micro_batches = micro_batches,
                    .actions = {},
                    .placement = placement_of(kind)};
  schedule.actions.reserve(static_cast<std::size_t>(stages));
  if (group == 0) group = stages;
  const Actions forward = visits(ActionKind::Forward, chunks, micro_batches, group);
  const Actions backward = visits(ActionKind::Backward, chunks, micro_batches, group);
  for (int stage = 0; stage < stages; ++stage) {
    switch (kind) {
      case ScheduleKind::Gpipe:
        schedule.actions.push_back(gpipe_actions(micro_batches));
        break;
      case ScheduleKind::LayerWise:
        schedule.actions.push_back(layer_wise_actions(micro_batches));
        break;
      case ScheduleKind::OneFOneB:
        schedule.actions.push_back(one_f_one_b(
            forward, backward, warm_up_forwards(stage, stages, chunks, micro_batches, group)));
        break;
      case ScheduleKind::ZbH1:
        schedule.actions.push_back(zb_h1_actions(stage, stages, micro_batches));
        break;
      case ScheduleKind::ZbH2:
        schedule.actions.push_back(zb_h2_actions(stage, stages, micro_batches));
        break;
      case ScheduleKind::ZbV:
        schedule.actions.push_back(zb_v_actions(stage, stages, micro_batches));
        break;
      case ScheduleKind::DualPipe:
        schedule.actions.push_back(dual_pipe_actions(stage, stages, micro_batches));
        break;
    }
  }
  return schedule;
}

std::vector<int> peak_in_flight(const Schedule& schedule) {
  std::vector<int> peaks;
  for (const Actions& actions : schedule.actions) {
    int held = 0, peak = 0;
    for (const Action& action : actions) {
      if (action.kind == ActionKind::Forward) peak = std::max(peak, ++held);
      if (action.kind == ActionKind::Backward || action.kind == ActionKind::WeightGradient) --held;
    }
    peaks.push_back(peak);
  }
  return peaks;
}

}  // namespace rehearse
