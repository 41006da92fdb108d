// How fast the engine runs step graphs of the shapes that matter. The graphs are synthetic: the
// size and structure of a GPT-3 step, with round times.
#include <benchmark/benchmark.h>
#include <sys/resource.h>

#include <algorithm>
#include <vector>

#include "sim/metrics.h"
#include "sim/simulate.h"
#include "tests/sim/graph_builder.h"

namespace rehearse {
namespace {

/// A pipeline of tensor groups, replicated; 1F1B. Each pass of a micro-batch through a stage is
/// `collectives` tensor collectives with segments of five operators around them.
struct Shape {
  int stages = 8, replicas = 16, tensor = 8, micro_batches = 64;
  int forward_collectives = 24, backward_collectives = 24;
  bool uneven = false;  ///< every replica a little slower than the one before: no two dates equal
};

class Pipelines {
 public:
  explicit Pipelines(const Shape& shape) : shape_(shape) {
    const std::vector<SegmentItem> items(5, SegmentItem{.seconds = 40e-6});
    segment_ = build_.segment(items);
    make_cluster();
    forward_.resize(cells() * static_cast<std::size_t>(shape.micro_batches));
    backward_.resize(forward_.size());
    for (int replica = 0; replica < shape.replicas; ++replica) make_replica(replica);
    make_reductions();
  }
  StepGraph finish() { return build_.finish(); }

 private:
  struct Pass {
    std::vector<std::int32_t> first, last;  // compute task of each tensor rank
  };

  std::size_t cells() const {
    return static_cast<std::size_t>(shape_.stages) * static_cast<std::size_t>(shape_.replicas);
  }
  std::size_t cell(int stage, int replica) const {
    return static_cast<std::size_t>(replica * shape_.stages + stage);
  }
  std::int32_t device(int stage, int replica, int rank) const {
    return (replica * shape_.stages + stage) * shape_.tensor + rank;
  }

  void make_cluster() {
    for (int replica = 0; replica < shape_.replicas; ++replica)
      for (int stage = 0; stage < shape_.stages; ++stage) {
        std::vector<std::int32_t> members;
        for (int rank = 0; rank < shape_.tensor; ++rank) {
          members.push_back(
              build_.device(stage, shape_.uneven ? 1 - 1e-3 * replica : 1.0, replica));
          up_.push_back(build_.link(50e9));
          down_.push_back(build_.link(50e9));
        }
        groups_.push_back(build_.group(members));
      }
  }

  Pass make_pass(int stage, int replica, int collectives) {
    Pass pass;
    std::int32_t comm = -1;
    for (int part = 0; part <= collectives; ++part) {
      std::vector<std::int32_t> tasks;
      for (int rank = 0; rank < shape_.tensor; ++rank) {
        tasks.push_back(build_.compute_segment(device(stage, replica, rank), segment_));
        if (comm >= 0) build_.edge(comm, tasks.back());
      }
      if (part == 0) pass.first = tasks;
      pass.last = tasks;
      if (part == collectives) break;
      comm = build_.comm(CommKind::Tensor, groups_[cell(stage, replica)], 100e-6);
      for (const std::int32_t task : tasks) build_.edge(task, comm);
    }
    return pass;
  }

  void make_replica(int replica) {
    for (int stage = 0; stage < shape_.stages; ++stage) {
      const int ahead = std::min(shape_.stages - 1 - stage, shape_.micro_batches);
      int next = 0;
      const auto forward = [&] {
        pass(forward_, stage, replica, next++) =
            make_pass(stage, replica, shape_.forward_collectives);
      };
      while (next < ahead) forward();
      for (int m = 0; m < shape_.micro_batches; ++m) {
        if (next < shape_.micro_batches) forward();
        pass(backward_, stage, replica, m) = make_pass(stage, replica, shape_.backward_collectives);
      }
    }
    for (int stage = 0; stage + 1 < shape_.stages; ++stage)
      for (int rank = 0; rank < shape_.tensor; ++rank) {
        const std::int32_t a = device(stage, replica, rank), b = device(stage + 1, replica, rank);
        const std::int32_t there = build_.group({a, b}), back = build_.group({b, a});
        const std::int32_t up = build_.pattern({{1, {{up_[a], 1}, {down_[b], 1}}}});
        const std::int32_t down = build_.pattern({{1, {{up_[b], 1}, {down_[a], 1}}}});
        for (int m = 0; m < shape_.micro_batches; ++m) {
          send(there, up, pass(forward_, stage, replica, m).last[rank],
               pass(forward_, stage + 1, replica, m).first[rank]);
          send(back, down, pass(backward_, stage + 1, replica, m).last[rank],
               pass(backward_, stage, replica, m).first[rank]);
        }
      }
  }

  Pass& pass(std::vector<Pass>& passes, int stage, int replica, int micro_batch) {
    return passes[cell(stage, replica) * static_cast<std::size_t>(shape_.micro_batches) +
                  static_cast<std::size_t>(micro_batch)];
  }

  void send(std::int32_t group, std::int32_t pattern, std::int32_t after, std::int32_t before) {
    const std::int32_t comm = build_.comm(CommKind::Pipeline, group, 10e-6, pattern, 6e6);
    build_.edge(after, comm);
    build_.edge(comm, before);
  }

  /// The gradients of each stage's tensor rank, in a ring over the replicas, then the optimizer.
  void make_reductions() {
    if (shape_.replicas == 1) return;
    for (int stage = 0; stage < shape_.stages; ++stage)
      for (int rank = 0; rank < shape_.tensor; ++rank) {
        std::vector<std::int32_t> members;
        std::vector<GraphBuilder::FlowSpec> flows;
        for (int replica = 0; replica < shape_.replicas; ++replica) {
          const std::int32_t from = device(stage, replica, rank);
          const std::int32_t to = device(stage, (replica + 1) % shape_.replicas, rank);
          members.push_back(from);
          flows.push_back({1.875, {{up_[from], 1}, {down_[to], 1}}});
        }
        const std::int32_t comm =
            build_.comm(CommKind::Data, build_.group(members), 50e-6, build_.pattern(flows), 1e9);
        for (int replica = 0; replica < shape_.replicas; ++replica) {
          build_.edge(pass(backward_, stage, replica, shape_.micro_batches - 1).last[rank], comm);
          build_.edge(comm, build_.compute(device(stage, replica, rank), 5e-3));
        }
      }
  }

  Shape shape_;
  GraphBuilder build_;
  std::int32_t segment_ = 0;
  std::vector<std::int32_t> up_, down_, groups_;
  std::vector<Pass> forward_, backward_;
};

double peak_megabytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

void run(benchmark::State& state, const Shape& shape, const SimulationOptions& options = {}) {
  const StepGraph graph = Pipelines(shape).finish();
  SimulationRecord record;
  for (auto _ : state) {
    record = simulate(graph, options);
    benchmark::DoNotOptimize(record.end_s);
  }
  state.counters["tasks"] = static_cast<double>(graph.tasks.size());
  state.counters["events"] = static_cast<double>(record.event_count);
  state.counters["events/s"] = benchmark::Counter(static_cast<double>(record.event_count),
                                                  benchmark::Counter::kIsIterationInvariantRate);
  state.counters["step_s"] = record.end_s - record.begin_s;
  state.counters["peak_MB"] = peak_megabytes();
}

Shape folded_groups(int replicas) {
  return {.replicas = replicas, .tensor = 1, .forward_collectives = 0, .backward_collectives = 0};
}

void eight_devices_folded(benchmark::State& state) { run(state, folded_groups(1)); }
BENCHMARK(eight_devices_folded)->Unit(benchmark::kMillisecond);

void replicas_of_tensor_groups(benchmark::State& state) { run(state, folded_groups(16)); }
BENCHMARK(replicas_of_tensor_groups)->Unit(benchmark::kMillisecond);

void replicas_that_never_coincide(benchmark::State& state) {
  Shape shape = folded_groups(16);
  shape.uneven = true;
  run(state, shape);
}
BENCHMARK(replicas_that_never_coincide)->Unit(benchmark::kMillisecond);

void every_gpu_of_1024(benchmark::State& state) { run(state, Shape{}); }
BENCHMARK(every_gpu_of_1024)->Unit(benchmark::kMillisecond)->Iterations(1);

void every_gpu_of_1024_slowed_by_transfers(benchmark::State& state) {
  SimulationOptions options;
  options.interference.compute_share = {0.1, 0.1, 0.1, 0.02, 0};
  run(state, Shape{}, options);
}
BENCHMARK(every_gpu_of_1024_slowed_by_transfers)->Unit(benchmark::kMillisecond)->Iterations(1);

void metrics_of_1024(benchmark::State& state) {
  const StepGraph graph = Pipelines(Shape{}).finish();
  const SimulationRecord record = simulate(graph, {});
  for (auto _ : state) benchmark::DoNotOptimize(measure(graph, record).step_time_s);
  state.counters["peak_MB"] = peak_megabytes();
}
BENCHMARK(metrics_of_1024)->Unit(benchmark::kMillisecond)->Iterations(1);

void timeline_of_replicas(benchmark::State& state) {
  const StepGraph graph = Pipelines(folded_groups(16)).finish();
  const SimulationRecord record = simulate(graph, {});
  std::size_t events = 0;
  for (auto _ : state) events = expand_timeline(graph, record).events.size();
  state.counters["events"] = static_cast<double>(events);
}
BENCHMARK(timeline_of_replicas)->Unit(benchmark::kMillisecond);

/// n flows of different sizes through one link: every end changes all other rates.
void flows_of_distinct_sizes(benchmark::State& state) {
  GraphBuilder build;
  const std::int32_t group = build.group({build.device()});
  const std::int32_t pattern = build.pattern({{1, {{build.link(1e11), 1}}}});
  for (int i = 0; i < state.range(0); ++i)
    build.comm(CommKind::Data, group, 0, pattern, 1e6 * (1 + i));
  const StepGraph graph = build.finish();
  for (auto _ : state) benchmark::DoNotOptimize(simulate(graph, {.steps = 1}).end_s);
}
BENCHMARK(flows_of_distinct_sizes)->Arg(64)->Arg(512)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace rehearse

BENCHMARK_MAIN();
