// How fast each simulated device is, where GPUs differ. Ranks that meet at every layer (a tensor
// group, a ring, the replicas that share experts or gather weights from each other) go at the pace
// of their slowest. Of replicas that are folded into a class the slowest is simulated, since the
// step ends when the last gradient is there; which one that is follows from the time of a pipeline
// whose stages take w₁ … w_p a micro-batch,
//   m · max w + (Σ w − max w) / v,
// m micro-batches at the slowest stage after the first came through the chunks before it. What the
// others wait goes into the metrics by Device::mean_busy.
#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "strategies/expert_groups.h"
#include "strategies/lowering.h"

namespace rehearse {

double Lowering::speed_of(GpuId gpu) const {
  return cluster_.speed(gpu) / slowness(options_.spread, gpu);
}

double Lowering::lowest_speed(const std::vector<int>& replicas, int stage, int d) const {
  double lowest = std::numeric_limits<double>::infinity();
  for (const int replica : replicas)
    for (const InnerRank& at : inner_ranks(d))
      lowest = std::min(lowest, speed_of(gpu(at, replica, stage)));
  return lowest;
}

/// Replicas of a class that go layer by layer together with one of them.
std::vector<int> Lowering::in_step_with(int replica) const {
  const int size = plan_.zero == 3 ? shard_ranks(plan_) : replicas_with_all_experts(plan_);
  std::vector<int> together;
  for (int other = replica / size * size; other < (replica / size + 1) * size; ++other)
    if (classes_.class_of[static_cast<std::size_t>(other)] ==
        classes_.class_of[static_cast<std::size_t>(replica)])
      together.push_back(other);
  return together;
}

/// Seconds of computation of a micro-batch at a stage, at the usual speed.
double Lowering::work_s(const StageUnit& u) const {
  double seconds = 0;
  for (int v = 0; v < in_.schedule.chunks; ++v) {
    const ChunkProgram& program = kinds_[u.kind].chunks[program_of(u.stage, v)];
    for (const auto* items : {&program.forward, &program.backward})
      for (const ChunkItem& item : *items)
        if (!item.is_collective) seconds += item.item.seconds;
  }
  return seconds;
}

double Lowering::replica_time_s(int replica_class, const std::vector<int>& replicas) {
  double slowest_s = 0, sum_s = 0;
  for (int stage = 0; stage < plan_.pp; ++stage) {
    double speed = std::numeric_limits<double>::infinity();
    for (int d = 0; d < unit_devices_; ++d)
      speed = std::min(speed, lowest_speed(replicas, stage, d));
    const double stage_s = work_s(unit(replica_class, stage)) / speed;
    slowest_s = std::max(slowest_s, stage_s);
    sum_s += stage_s;
  }
  const double m = in_.schedule.micro_batches;
  if (plan_.schedule == ScheduleKind::LayerWise) return m * sum_s;
  return m * slowest_s + (sum_s - slowest_s) / in_.schedule.chunks;
}

std::vector<int> Lowering::slowest_members(int replica_class) {
  std::vector<int> slowest;
  double longest_s = -1;
  for (const int replica : classes_.members[static_cast<std::size_t>(replica_class)]) {
    const std::vector<int> together = in_step_with(replica);
    if (together.front() != replica) continue;
    const double seconds = replica_time_s(replica_class, together);
    if (seconds <= longest_s) continue;
    longest_s = seconds;
    slowest = together;
  }
  return slowest;
}

void Lowering::set_speeds() {
  for (std::size_t c = 0; c < classes_.members.size(); ++c) {
    const std::vector<int>& members = classes_.members[c];
    const std::vector<int> slowest = members.size() == 1 || options_.spread.deviation <= 0
                                         ? std::vector<int>{members.front()}
                                         : slowest_members(static_cast<int>(c));
    for (int stage = 0; stage < plan_.pp; ++stage)
      for (int d = 0; d < unit_devices_; ++d) {
        const StageUnit& u = unit(static_cast<int>(c), stage);
        Device& device = out_.graph.devices[static_cast<std::size_t>(u.first_device + d)];
        device.speed = lowest_speed(slowest, stage, d);
        double busy = 0;
        for (const int replica : members)
          for (const InnerRank& at : inner_ranks(d))
            busy += device.speed / speed_of(gpu(at, replica, stage));
        if (device.members > 1) device.mean_busy = std::min(1.0, busy / device.members);
      }
  }
}

void Lowering::state_spread() {
  if (options_.spread.deviation <= 0) return;
  double slowest = 1;
  for (int rank = 0; rank < ranks_.size(); ++rank)
    slowest = std::max(slowest, slowness(options_.spread, ranks_.gpu(Rank{rank})));
  out_.assumptions.push_back(fmt::format(
      "GPUs of one kind differ by {:.2g} % in their computing time (standard deviation, "
      "log-normal, "
      "seed {}; after Sinha et al. 2022): the slowest of {} takes {:.1f} % longer than usual, and "
      "others wait for it",
      100 * options_.spread.deviation, options_.spread.seed, ranks_.size(), 100 * (slowest - 1)));
}

}  // namespace rehearse
