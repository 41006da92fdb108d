// The sizes that docs/performance.md records: a step of GPT-3 175B on 1,024 GPUs at every
// fidelity, Llama 3 405B on 16,384 GPUs, and how the folded cost grows with the cluster.
// Every case runs in a child process, so that its peak memory is its own.
#include <benchmark/benchmark.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "plan/ensure.h"
#include "plan/model_catalogue.h"
#include "planner/evaluate.h"

namespace rehearse {
namespace {

struct Size {
  const char* model;
  int nodes;
  Plan plan;
  int global_batch;
};

/// With sequence parallelism a layer has 10 tensor collectives instead of 4.
Size gpt3_on_1024(bool sequence_parallel = false) {
  Size size{"gpt3-175b", 128, {}, 16 * 64};
  size.plan.tp = 8;
  size.plan.pp = 8;
  size.plan.zero = 1;
  size.plan.sequence_parallel = sequence_parallel;
  return size;
}

Size llama_on(int gpus) {
  Size size{"llama3-405b", gpus / 8, {}, gpus / 128 * 16};
  size.plan.tp = 8;
  size.plan.pp = 16;
  size.plan.zero = 1;
  size.plan.sequence_parallel = true;
  return size;
}

struct ChildResult {
  double step_time_s = 0, build_s = 0, lowering_s = 0, simulation_s = 0, peak_mib = 0;
};

double now_s() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

ChildResult work(const Size& size, Fidelity fidelity) {
  ChildResult result;
  const double begin = now_s();
  Problems problems;
  ClusterSpec spec;
  spec.groups.push_back({*find_node("dgx-h100"), size.nodes, 1});
  spec.fabric.kind = FabricKind::RailOptimized;
  const Cluster cluster = Cluster::build(spec, problems);
  ensure(problems.empty(), "the benchmark's cluster can be built");
  result.build_s = now_s() - begin;
  const Model& model = *find_model(size.model);
  EvaluationOptions options;
  options.lowering.fidelity = fidelity;
  const PlanOutcome outcome =
      evaluate(model, {size.global_batch, model.max_seq_len, 0}, cluster, size.plan, options);
  for (const PlanFault& fault : outcome.faults) std::fprintf(stderr, "%s\n", fault.message.c_str());
  ensure(outcome.faults.empty(), "the benchmark's plan can be");
  result.step_time_s = outcome.metrics.step_time_s;
  result.lowering_s = outcome.phases.lowering_s + outcome.phases.pricing_s;
  result.simulation_s = outcome.phases.simulation_s;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  result.peak_mib = static_cast<double>(usage.ru_maxrss) / 1024;
  return result;
}

ChildResult in_child(const Size& size, Fidelity fidelity) {
  int pipe_ends[2];
  ensure(pipe(pipe_ends) == 0, "a pipe can be made");
  const pid_t child = fork();
  ensure(child >= 0, "a process can be started");
  if (child == 0) {
    const ChildResult result = work(size, fidelity);
    const bool written = write(pipe_ends[1], &result, sizeof result) == sizeof result;
    _exit(written ? 0 : 1);
  }
  ChildResult result;
  const bool whole = read(pipe_ends[0], &result, sizeof result) == sizeof result;
  int status = 0;
  waitpid(child, &status, 0);
  close(pipe_ends[0]);
  close(pipe_ends[1]);
  ensure(whole && status == 0, "the child finished");
  return result;
}

void run(benchmark::State& state, const Size& size, Fidelity fidelity) {
  ChildResult last;
  for ([[maybe_unused]] auto _ : state) last = in_child(size, fidelity);
  state.counters["cluster_s"] = last.build_s;
  state.counters["lowering_s"] = last.lowering_s;
  state.counters["simulation_s"] = last.simulation_s;
  state.counters["peak_MiB"] = last.peak_mib;
  state.counters["simulated_step_s"] = last.step_time_s;
}

}  // namespace
}  // namespace rehearse

int main(int argc, char** argv) {
  using rehearse::Fidelity;
  const auto add = [](const std::string& name, const rehearse::Size& size, Fidelity fidelity) {
    benchmark::RegisterBenchmark(
        name.c_str(), [=](benchmark::State& state) { rehearse::run(state, size, fidelity); })
        ->Unit(benchmark::kMillisecond)
        ->UseRealTime();
  };
  add("gpt3_175b/1024/full", rehearse::gpt3_on_1024(), Fidelity::Full);
  add("gpt3_175b/1024/full/sequence_parallel", rehearse::gpt3_on_1024(true), Fidelity::Full);
  add("gpt3_175b/1024/replicas", rehearse::gpt3_on_1024(), Fidelity::Replicas);
  add("gpt3_175b/1024/folded", rehearse::gpt3_on_1024(), Fidelity::Folded);
  for (int gpus = 1024; gpus <= 16384; gpus *= 2)
    add("llama3_405b/" + std::to_string(gpus) + "/folded", rehearse::llama_on(gpus),
        Fidelity::Folded);
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
