// How fast each simulated device is, and whose micro-batches it works on, where GPUs or documents
// differ. Ranks that meet at every layer (a tensor group, a ring, the replicas that share experts
// or gather weights from each other) go at the pace of their slowest. Of replicas that are folded
// into a class the slowest is simulated, since the step ends when the last gradient is there; which
// one that is follows from the time of a pipeline whose stages take W₁ … W_p for all m
// micro-batches,
//   max W + (Σ W − max W) / (m·v):
// the slowest stage works through all of them after the first came through the chunks before it.
// What the others wait goes into the metrics by Device::mean_busy.
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

Lowering::MicroBatchWork Lowering::work_of(const StageUnit& u, int variant) const {
  MicroBatchWork work;
  const auto first = static_cast<std::size_t>(variant * (last_chunk() + 1));
  for (int v = 0; v < in_.schedule.chunks; ++v) {
    const ChunkProgram& program = kinds_[u.kind].chunks[first + program_of(u.stage, v)];
    for (const auto* items : {&program.forward, &program.backward})
      for (const ChunkItem& item : *items) {
        if (item.is_collective) continue;
        work.seconds += item.item.seconds;
        work.per_load_s += item.item.per_load_s;
      }
  }
  return work;
}

/// Loads of replicas that go micro-batch by micro-batch together.
std::vector<double> Lowering::heaviest_loads(const std::vector<int>& replicas) const {
  if (load_.loads.empty()) return {};
  std::vector<double> heaviest = load_.loads[static_cast<std::size_t>(replicas.front())];
  for (const int replica : replicas) {
    const std::vector<double>& own = load_.loads[static_cast<std::size_t>(replica)];
    for (std::size_t i = 0; i < own.size(); ++i) heaviest[i] = std::max(heaviest[i], own[i]);
  }
  return heaviest;
}

double Lowering::sum_of(const std::vector<double>& loads, int variant) const {
  double sum = 0;
  const auto step = static_cast<std::size_t>(context_variants());
  for (auto i = static_cast<std::size_t>(variant); i < loads.size(); i += step) sum += loads[i];
  return sum;
}

/// Of all micro-batches of a step; context ranks go through each together.
double Lowering::stage_time_s(const StageUnit& u, const std::vector<int>& replicas,
                              const std::vector<double>& loads) const {
  const auto variants = static_cast<std::size_t>(context_variants());
  std::vector<MicroBatchWork> work;  // by context variant, at the speed of its slowest GPU
  for (int d = 0; d < unit_devices_; d += tensor_devices_) {
    const double speed = lowest_speed(replicas, u.stage, d);
    const MicroBatchWork usual = work_of(u, variant_of(d));
    work.push_back({usual.seconds / speed, usual.per_load_s / speed});
  }
  double sum_s = 0;
  for (int m = 0; m < schedule_of(u.replica_class).micro_batches; ++m) {
    double slowest_s = 0;
    for (std::size_t c = 0; c < work.size(); ++c) {
      const std::size_t at = static_cast<std::size_t>(m) * variants + c % variants;
      const double load = loads.empty() ? 0 : loads[at];
      slowest_s = std::max(slowest_s, work[c].seconds + load * work[c].per_load_s);
    }
    sum_s += slowest_s;
  }
  return sum_s;
}

double Lowering::replica_time_s(int replica_class, const std::vector<int>& replicas) {
  const std::vector<double> loads = heaviest_loads(replicas);
  double slowest_s = 0, sum_s = 0;
  for (int stage = 0; stage < plan_.pp; ++stage) {
    const double stage_s = stage_time_s(unit(replica_class, stage), replicas, loads);
    slowest_s = std::max(slowest_s, stage_s);
    sum_s += stage_s;
  }
  if (plan_.schedule == ScheduleKind::LayerWise) return sum_s;
  const double m = schedule_of(replica_class).micro_batches;
  return slowest_s + (sum_s - slowest_s) / (m * in_.schedule.chunks);
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
  const bool alike = options_.spread.deviation <= 0 && load_.loads.empty();
  for (std::size_t c = 0; c < classes_.members.size(); ++c) {
    const std::vector<int>& members = classes_.members[c];
    const std::vector<int> slowest = members.size() == 1 || alike
                                         ? std::vector<int>{members.front()}
                                         : slowest_members(static_cast<int>(c));
    class_loads_.push_back(heaviest_loads(slowest));
    for (int stage = 0; stage < plan_.pp; ++stage)
      for (int d = 0; d < unit_devices_; ++d)
        set_speed(unit(static_cast<int>(c), stage), d, slowest);
  }
}

/// The device works as the slowest replicas do; the mean of all its members is kept beside it.
void Lowering::set_speed(const StageUnit& u, int d, const std::vector<int>& slowest) {
  Device& device = out_.graph.devices[static_cast<std::size_t>(u.first_device + d)];
  device.speed = lowest_speed(slowest, u.stage, d);
  if (device.members == 1) return;
  const int variant = variant_of(d);
  const auto c = static_cast<std::size_t>(u.replica_class);
  const MicroBatchWork work = work_of(u, variant);
  const double usual_s = schedule_of(u.replica_class).micro_batches * work.seconds;
  const double slowest_s =
      (usual_s + sum_of(class_loads_[c], variant) * work.per_load_s) / device.speed;
  if (slowest_s <= 0) return;
  double sum_s = 0;
  for (const int replica : classes_.members[c]) {
    const double own_s = usual_s + load_.sum(replica, variant) * work.per_load_s;
    for (const InnerRank& at : inner_ranks(d)) sum_s += own_s / speed_of(gpu(at, replica, u.stage));
  }
  device.mean_busy = std::min(1.0, sum_s / (device.members * slowest_s));
}

void Lowering::state_documents() {
  if (const std::string sentence = documents_sentence(load_, in_.workload); !sentence.empty())
    out_.assumptions.push_back(sentence);
  else if (load_.pair_share < 1)
    out_.assumptions.push_back(
        fmt::format("attention looks back {} tokens: {:.1f} % of the pairs of whole sequences",
                    in_.model.window, 100 * load_.pair_share));
  if (load_.pair_share < 1 && plan_.attention == AttentionKernel::Plain)
    out_.assumptions.push_back("plain attention computes all pairs, masked or not");
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
