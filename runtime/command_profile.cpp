#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <iostream>

#include "kernels/profile_file.h"
#include "kernels/profiler/profile_device.h"
#include "kernels/profiler/profile_report.h"
#include "plan/units.h"
#include "plan/write_file.h"
#include "runtime/busy_ranks.h"
#include "runtime/device_commands.h"
#include "runtime/gpu_node.h"
#include "runtime/machine_facts.h"
#include "runtime/plan_profile.h"
#include "runtime/profile_arguments.h"
#include "runtime/train/memory_need.h"
#include "runtime/train/runnable.h"

namespace rehearse {
namespace {

std::atomic<bool> interrupted{false};
void on_interrupt(int) { interrupted = true; }

struct ProfileRequest {
  std::string device;   ///< empty: a GPU where there is one, else the CPU
  int threads = 0;      ///< 0: as many as this process may use
  int ranks = 1;        ///< of a CPU: processes that measure at once; one's times are kept
  double budget_s = 0;  ///< 0: by the device
  std::string plan;     ///< whose operators alone are measured; empty: those of a device
  std::string output;
  bool force = false;
};

int count_of(const std::string& option, const std::string& text) {
  const ParsedQuantity parsed = parse_quantity(text, Dimension::Count);
  if (!parsed.value || *parsed.value < 1 || *parsed.value > 4096 ||
      *parsed.value != std::floor(*parsed.value))
    throw ArgumentError(option + " is a whole number from 1, not '" + text + "'");
  return static_cast<int>(*parsed.value);
}

ProfileRequest parse(Arguments arguments) {
  const std::vector<std::string> known{"--device", "--threads", "--ranks", "--budget",
                                       "--plan",   "--output",  "-o",      "--force"};
  ProfileRequest request;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& name = arguments[i];
    if (name == "--force") {
      request.force = true;
      continue;
    }
    if (std::find(known.begin(), known.end(), name) == known.end())
      throw ArgumentError("profile does not take '" + name + "'", meant(name, known));
    if (i + 1 == arguments.size()) throw ArgumentError(name + " wants a value");
    const std::string& value = arguments[++i];
    if (name == "--device") request.device = value;
    if (name == "--threads") request.threads = count_of(name, value);
    if (name == "--ranks") request.ranks = count_of(name, value);
    if (name == "--budget") request.budget_s = budget_of(value);
    if (name == "--plan") request.plan = value;
    if (name == "--output" || name == "-o") request.output = value;
  }
  return request;
}

ProfiledDevice device_of(const ProfileRequest& request) {
  const CpuFacts cpu = probe_cpu();
  const int usable = std::max(1, cpu.usable_threads);
  const auto on_cpu = [&] {
    return profiled_cpu(request.threads > 0 ? request.threads : usable, cpu.model);
  };
  if (request.device == "cpu") return on_cpu();
  if (request.device.empty()) {
    const std::vector<GpuFacts> gpus = probe_cuda().gpus;
    constexpr int kFirstWithBf16 = 8;  // compute capability; kernels want its tensor cores
    if (!gpus.empty() && gpus.front().capability_major >= kFirstWithBf16) return profiled_gpu(0);
    std::cerr << "rehearse-device: no GPU is usable here: profiling the CPU\n";
    return on_cpu();
  }
  const auto on_gpu = [](int index) {
    if (const CudaFacts cuda = probe_cuda(); cuda.gpus.empty())
      throw std::runtime_error("no GPU can be profiled: " + cuda.problem + "; --device cpu works");
    return profiled_gpu(index);
  };
  if (const auto index = gpu_index_of(request.device)) return on_gpu(*index);
  throw ArgumentError("there is no device '" + request.device + "'", "cpu, cuda or cuda:1");
}

void show_progress(const MeasureProgress& at, double budget_s) {
  if (isatty(STDERR_FILENO) == 0) return;
  std::fprintf(stderr, "\r%zu of %zu operators, %.0f s of %.0f s ", at.done, at.total, at.elapsed_s,
               budget_s);
  std::fflush(stderr);
}

/// The first of them in full: one cause often fails many.
void show_failures(const std::vector<ProfileTask>& tasks, const Measurements& measured) {
  constexpr std::size_t kShown = 5;
  for (std::size_t i = 0; i < std::min(kShown, measured.failures.size()); ++i) {
    const MeasureFailure& failure = measured.failures[i];
    const ProfileTask& task = tasks[failure.task];
    std::cerr << "rehearse-device: " << task.label << ' ' << pass_name(task.op.pass) << " in "
              << dtype_name(task.dtype) << " was not measured: " << failure.reason << '\n';
  }
  if (measured.failures.size() > kShown)
    std::cerr << "rehearse-device: " << measured.failures.size() - kShown
              << " more operators could not be measured\n";
}

/// What the other ranks of a run on this machine would do meanwhile: the same kind of work.
void keep_busy(const ProfileRequest& request, int rank) {
  ProfiledDevice own = device_of(request);
  MeasureOptions options = measure_options(own);
  options.budget_s = 3600;
  options.seed += static_cast<std::uint64_t>(rank);  // another order of the shapes
  const std::atomic<bool> never{false};
  measure(profile_tasks(own.scope), *own.device, *own.stopwatch, options, never,
          [](const MeasureProgress&) {});
}

/// The table lies beside the profile: "my-cpu.json", "my-cpu.csv".
std::string table_path(const std::string& output) {
  return std::filesystem::path(output).replace_extension(".csv").string();
}

/// What the GPUs of this machine do together, as far as it can be measured: whatever goes wrong
/// there, the operators of one GPU are not lost.
NodeMeasurements measured_together(double budget_s) {
  NodeMeasurements node = measure_gpu_node(budget_s, interrupted);
  if (!node.problem.empty())
    std::cerr
        << "rehearse-device: what the GPUs do together was measured in part only, the rest is "
           "kept: "
        << node.problem << '\n';
  return node;
}

/// The operators that a plan needs on this CPU, with as many ranks at work as it has.
int profile_plan(const ProfileRequest& request) {
  if (request.device != "cpu" || request.ranks > 1)
    throw ArgumentError("--plan measures a CPU, with as many ranks as the plan has",
                        "--device cpu, without --ranks");
  const auto file = read_runnable_plan(request.plan, true);
  if (!file) return kExitBadInput;
  const std::string why =
      why_it_does_not_fit(*file, world_size(file->plan), available_memory_bytes());
  if (!why.empty()) {
    std::cerr << "rehearse-device: error: " << why << '\n';
    return kExitInfeasible;
  }
  UnfinishedFile profile_file(request.output, request.force);
  const double budget_s = request.budget_s > 0 ? request.budget_s : 10;
  const bool shows = isatty(STDERR_FILENO) != 0;
  const Profile profile =
      measure_plan(*file, {.budget_s = budget_s,
                           .device = [&] { return device_of(request); },
                           .interrupt = &interrupted,
                           .progress =
                               [&](double elapsed_s) {
                                 if (shows)
                                   std::fprintf(stderr, "\r%.0f s of %.0f s ", elapsed_s, budget_s);
                               }});
  if (shows) std::cerr << '\n';
  profile_file.write(write_profile(profile));
  profile_file.finish();
  std::cout << request.output << ": " << profile.samples.size() << " operators of " << request.plan
            << '\n';
  return interrupted ? 130 : kExitDone;
}

}  // namespace

int command_profile(Arguments arguments) {
  ProfileRequest request = parse(arguments);
  if (!request.plan.empty()) {
    if (request.output.empty()) request.output = "cpu.rehearse.json";
    std::signal(SIGINT, on_interrupt);
    std::signal(SIGTERM, on_interrupt);
    return profile_plan(request);
  }
  if (request.ranks > 1 && request.device != "cpu")
    throw ArgumentError("--ranks is for processes that share a CPU", "--device cpu");
  ProfiledDevice target = device_of(request);
  const bool is_cpu = target.facts.gpu == "cpu";
  if (request.budget_s == 0) request.budget_s = is_cpu ? 100 : 450;
  if (request.output.empty()) request.output = target.facts.gpu + ".rehearse.json";
  const std::string table_file = table_path(request.output);
  // Both files are begun before anything is measured: minutes later would be late to hear that
  // they cannot be written.
  UnfinishedFile profile_file(request.output, request.force);
  UnfinishedFile measurement_file(table_file, request.force);
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);

  const std::vector<ProfileTask> tasks = profile_tasks(target.scope);
  MeasureOptions options = measure_options(target);
  const BusyRanks others(request.ranks - 1, [&](int rank) { keep_busy(request, rank); });
  const auto start = std::chrono::steady_clock::now();
  const double launch_s = measured_launch_s(target);
  const std::vector<CopyTime> copies = measured_copies(target);
  // Where there are several GPUs, a fifth of the time is for what they do together. That comes
  // last: a collective that fails may take the device with it.
  const bool several = !is_cpu && probe_cuda().gpus.size() > 1;
  const double together_s = several ? 0.2 * request.budget_s : 0;
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
  options.budget_s = std::max(1.0, request.budget_s - together_s - spent.count());
  Measurements measured =
      measure(tasks, *target.device, *target.stopwatch, options, interrupted,
              [&](const MeasureProgress& at) { show_progress(at, request.budget_s); });
  const NodeMeasurements node = several ? measured_together(together_s) : NodeMeasurements();
  const DeviceFacts facts = with_measured_rates(target.facts, tasks, measured);
  leave_out_impossible(measured, tasks, facts);
  if (isatty(STDERR_FILENO) != 0) std::cerr << '\n';
  show_failures(tasks, measured);
  if (measured.operators.empty())
    throw std::runtime_error(measured.failures.empty() ? "interrupted before anything was measured"
                                                       : "no operator could be measured");

  ProfileProvenance provenance;
  provenance.device = facts;
  provenance.table_name = std::filesystem::path(table_file).filename().string();
  provenance.made_by =
      "rehearse-device profile; " + target.description +
      (request.ranks > 1 ? "; " + std::to_string(request.ranks) + " ranks at once" : "") +
      "; seed " + std::to_string(options.seed) + "; " +
      std::to_string(tasks.size() - measured.not_reached - measured.failures.size()) + " of " +
      std::to_string(tasks.size()) + " operators in " + format_seconds(measured.elapsed_s) +
      "; copies at " + format_rate(copies.back().bytes / copies.back().seconds);
  const std::string table = measurement_table(tasks, measured, provenance.device.gpu,
                                              larger_of(target.overheads, node.overheads), copies);
  measurement_file.write(table);
  measurement_file.finish();
  Profile profile = measured_profile(table, provenance, launch_s);
  profile.collectives = node.curves;
  if (node.overlap_slowdown > 0)
    profile.overlap_slowdown = {.value = node.overlap_slowdown, .source = node.overlap_source};
  profile_file.write(write_profile(profile));
  profile_file.finish();
  std::cout << request.output << ": " << profile.samples.size() << " operators of "
            << target.description << " in " << format_seconds(measured.elapsed_s) << '\n'
            << table_file << ": the measurements with their spread\n";
  if (measured.not_reached > 0)
    std::cerr << "rehearse-device: " << measured.not_reached << " operators were not reached"
              << (measured.interrupted ? ": interrupted" : " in the budget") << '\n';
  return measured.interrupted ? 130 : kExitDone;
}

}  // namespace rehearse
