#include <atomic>
#include <csignal>
#include <iostream>

#include "kernels/profiler/product_race.h"
#include "runtime/device_commands.h"
#include "runtime/machine_facts.h"
#include "runtime/profile_arguments.h"

namespace rehearse {
namespace {

std::atomic<bool> interrupted{false};
void on_interrupt(int) { interrupted = true; }

/// How much slower than the library called bare our path may be.
constexpr double kTolerance = 0.03;

}  // namespace

int command_bench(Arguments arguments) {
  std::string name = "cuda";
  double budget_s = 240;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& option = arguments[i];
    if (option != "--device" && option != "--budget")
      throw ArgumentError("bench does not take '" + option + "'",
                          meant(option, {"--device", "--budget"}));
    if (i + 1 == arguments.size()) throw ArgumentError(option + " wants a value");
    const std::string& value = arguments[++i];
    if (option == "--device")
      name = value;
    else
      budget_s = budget_of(value);
  }
  const auto index = gpu_index_of(name);
  if (!index)
    throw ArgumentError("bench compares with cuBLASLt on a GPU, not on '" + name + "'",
                        "--device cuda or cuda:1; ./dev bench times the CPU's products");
  if (const CudaFacts cuda = probe_cuda(); cuda.gpus.empty())
    throw std::runtime_error("no GPU can be timed: " + cuda.problem +
                             "; profiles of a CPU and simulations work without one");
  ProfiledDevice device = profiled_gpu(*index);
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
  const std::vector<ProfileTask> tasks = race_tasks(device.scope);
  const auto results =
      race_all(tasks, device, bare_cublas(device), kTolerance, budget_s, interrupted);
  std::cout << device.description << '\n' << race_text(tasks, results, kTolerance);
  if (interrupted) return 130;
  return race_passes(tasks, results, kTolerance) ? kExitDone : kExitTolerance;
}

}  // namespace rehearse
