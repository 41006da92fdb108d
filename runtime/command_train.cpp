#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <thread>

#include "plan/json_value.h"
#include "plan/units.h"
#include "runtime/channel_world.h"
#include "runtime/device_commands.h"
#include "runtime/machine_facts.h"
#include "runtime/nccl_backend.h"
#include "runtime/train/local_launch.h"
#include "runtime/train/memory_need.h"
#include "runtime/train/rank_place.h"
#include "runtime/train/rank_states.h"
#include "runtime/train/run_checkpoints.h"
#include "runtime/train/runnable.h"
#include "runtime/train/train_report.h"
#include "runtime/train/train_run.h"
#if REHEARSE_HAS_CUDA
#include "kernels/cuda/cuda_devices.h"
#endif

namespace rehearse {
namespace {

double number_of(const std::string& name, const std::string& text, Dimension dimension,
                 double least) {
  const ParsedQuantity parsed = parse_quantity(text, dimension);
  if (!parsed.value) throw ArgumentError(name + ": " + parsed.fault, parsed.hint);
  if (*parsed.value < least)
    throw ArgumentError(name + " is at least " + number_text(least) + ", not '" + text + "'");
  return *parsed.value;
}

std::int64_t count_of(const std::string& name, const std::string& text, double least) {
  const double value = number_of(name, text, Dimension::Count, least);
  if (value != std::floor(value) || value > 1e15)
    throw ArgumentError(name + " is a whole number, not '" + text + "'");
  return static_cast<std::int64_t>(value);
}

/// One option with a value; false where the name is unknown.
bool take_option(TrainRequest& request, const std::string& name, const std::string& value) {
  const auto count = [&](double least) { return count_of(name, value, least); };
  const auto real = [&](double least) { return number_of(name, value, Dimension::Count, least); };
  TrainOptions& options = request.options;
  if (name == "--data")
    request.data = value;
  else if (name == "--device")
    request.device = value;
  else if (name == "--steps")
    request.steps = count(1);
  else if (name == "--threads")
    request.threads = static_cast<int>(count(1));
  else if (name == "--deadline")
    request.deadline_s = number_of(name, value, Dimension::Seconds, 1);
  else if (name == "--timeline")
    request.timeline = value;
  else if (name == "--checkpoint")
    request.checkpoint = value;
  else if (name == "--checkpoint-every")
    request.checkpoint_every = count(1);
  else if (name == "--restarts")
    request.restarts = static_cast<int>(count(0));
  else if (name == "--predicted-step")
    request.predicted_step_s = number_of(name, value, Dimension::Seconds, 0);
  else if (name == "--rank-states")
    request.states = value;
  else if (name == "--seed")
    options.seed = static_cast<std::uint64_t>(count(0));
  else if (name == "--rate")
    options.rate.peak = real(0);
  else if (name == "--rate-batch")
    request.reference_batch = real(1);
  else if (name == "--warmup")
    options.rate.warmup_steps = count(0);
  else if (name == "--clip")
    options.adam.clip_norm = real(0);
  else if (name == "--weight-decay")
    options.adam.weight_decay = real(0);
  else if (name == "--rate-schedule") {
    if (!parse_rate_kind(value, options.rate.kind))
      throw ArgumentError("there is no rate schedule '" + value + "'",
                          meant(value, {"constant", "linear", "cosine", "adaptive"}));
  } else if (name == "--partition") {
    const auto& names = partition_names();
    const auto named = std::find_if(names.begin(), names.end(),
                                    [&](const auto& known) { return known.first == value; });
    if (named == names.end())
      throw ArgumentError("there is no partition '" + value + "'",
                          meant(value, {"range", "random", "round-robin"}));
    options.partition = named->second;
  } else {
    return false;
  }
  return true;
}

TrainRequest parse(Arguments arguments) {
  static const std::vector<std::string> known{
      "--data",          "--device",   "--steps",  "--threads",       "--deadline",
      "--checkpoint",    "--restarts", "--seed",   "--rate",          "--rate-batch",
      "--warmup",        "--clip",     "--resume", "--rate-schedule", "--partition",
      "--json",          "--timeline", "--local",  "--weight-decay",  "--checkpoint-every",
      "--predicted-step"};
  TrainRequest request;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& name = arguments[i];
    if (name == "--json")
      request.json = true;
    else if (name == "--local")
      request.local = true;
    else if (name == "--on-terminal")
      request.on_terminal = true;
    else if (name == "--resume")
      request.resume = true;
    else if (!name.starts_with("-")) {
      if (!request.plan.empty())
        throw ArgumentError("train takes one plan, not '" + name + "' too");
      request.plan = name;
    } else {
      const std::string value = i + 1 < arguments.size() ? arguments[i + 1] : "";
      if (i + 1 == arguments.size() && std::find(known.begin(), known.end(), name) != known.end())
        throw ArgumentError(name + " wants a value");
      if (!take_option(request, name, value))
        throw ArgumentError("train does not take '" + name + "'", meant(name, known));
      ++i;
    }
  }
  if (request.plan.empty())
    throw ArgumentError("train wants a plan", "rehearse run SCENARIO --plan-out plan.json");
  if (request.checkpoint.empty() &&
      (request.resume || request.restarts > 0 || request.checkpoint_every > 0))
    throw ArgumentError("going on from a checkpoint wants their folder: --checkpoint FOLDER");
  return request;
}

int environment_number(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? 0 : std::atoi(text);
}

/// Whether ranks compute on GPUs: where asked for; one that is alone also where there is one and
/// nothing else is asked for.
bool uses_gpus(const TrainRequest& request, int ranks) {
  const bool wanted = request.device.starts_with("cuda");
#if REHEARSE_HAS_CUDA
  return wanted || (ranks == 1 && request.device.empty() && !cuda_devices().empty());
#else
  (void)ranks;
  if (wanted) throw std::runtime_error("this rehearse-device was built without CUDA");
  return false;
#endif
}

/// The GPU of a rank: the one named, or those of the machine in turn. NCCL refuses two ranks on a
/// GPU unless it is told to take them for different machines.
std::unique_ptr<ComputeDevice> gpu_for(const TrainRequest& request, const RankPlace& place) {
#if REHEARSE_HAS_CUDA
  const bool is_named = request.device.starts_with("cuda:");
  std::string reason;
  const auto gpus = static_cast<int>(cuda_devices(&reason).size());
  if (gpus == 0) throw std::runtime_error("there is no GPU to train on: " + reason);
  if (place.size > 1 && (is_named || place.local_size > gpus)) share_gpus(place);
  return cuda_device(is_named ? std::atoi(request.device.c_str() + 5) : place.local_rank % gpus);
#else
  (void)place;
  throw std::runtime_error("this rehearse-device was built without CUDA: " + request.device);
#endif
}

std::unique_ptr<ComputeDevice> cpu_for(const TrainRequest& request, int ranks) {
  const int usable = std::max(1, probe_cpu().usable_threads);
  return cpu_device(request.threads > 0 ? request.threads : std::max(1, usable / ranks));
}

TrainResult train_with_progress(const TrainRequest& request, const PlanFile& file, World& world,
                                ComputeDevice& device) {
  const bool on_terminal = request.on_terminal || isatty(STDERR_FILENO) != 0;
  ProgressLine progress(steps_of(request, file), on_terminal);
  return run_training(request, file, world, device, [&](const StepReport& step, double step_s) {
    progress.show(step, step_s, file);
  });
}

/// Of the run's ranks those on this machine, as far as the launcher says.
int ranks_here(int ranks) {
  const std::optional<RankPlace> place = rank_place();
  return place.has_value() ? std::min(place->local_size, ranks) : 1;
}

void tell_bad_input(const std::string& what, const std::string& hint) {
  std::cerr << "rehearse-device: error: " << what << '\n';
  if (!hint.empty()) std::cerr << "help: " << hint << '\n';
}

/// `gpu`: null where ranks compute on CPUs.
int train_rank(const TrainRequest& request, World& world, ComputeDevice* gpu) {
  const bool first = world.rank() == 0;
  std::optional<PlanFile> file = read_runnable_plan(request.plan, first);
  if (!file) return kExitBadInput;
  if (request.predicted_step_s > 0) file->step_time_s = request.predicted_step_s;
  const int ranks = world_size(file->plan);
  if (ranks != world.size()) {
    if (first)
      std::cerr << "rehearse-device: error: the plan needs " << ranks << " ranks, but "
                << world.size() << " were started\n";
    return kExitBadInput;
  }
  if (const std::string why = why_folder_is_taken(request); !why.empty()) {
    if (first) tell_bad_input(why, kTakenFolderHint);
    return kExitBadInput;
  }
  // Whoever started the ranks here has looked before.
  if (gpu == nullptr && request.states.empty() && ranks > 1)
    if (const std::string why =
            why_it_does_not_fit(*file, ranks_here(ranks), available_memory_bytes());
        !why.empty())
      throw std::runtime_error(why);
  const std::unique_ptr<ComputeDevice> cpu = gpu == nullptr ? cpu_for(request, ranks) : nullptr;
  const TrainResult result = train_with_progress(request, *file, world, cpu ? *cpu : *gpu);
  if (first) std::cout << (request.json ? result_json(result, *file) : result_text(result, *file));
  return kExitDone;
}

/// Tells what went wrong, for all ranks: what one rank meets, most meet, so that lower ranks speak
/// first, and end the others before they do.
void tell(const std::string& what, int rank, int ranks) {
  std::this_thread::sleep_for(std::chrono::milliseconds(200) * std::min(rank, 10));
  RankSign::set(RankState::Failed);
  if (!RankSign::claim_voice()) return;
  std::cerr << "rehearse-device: error: ";
  if (ranks > 1) std::cerr << "rank " << rank << ": ";
  std::cerr << what << std::endl;
}

int run_rank(const TrainRequest& request) {
  RankPlace place = rank_place().value_or(RankPlace{});
  const bool on_gpu = uses_gpus(request, place.size);
  if (!on_gpu) place.rank = std::max(0, launched_rank());
  const RankSign sign(request.states, place.rank);
  std::unique_ptr<ComputeDevice> gpu;  // outlives the world, which moves what lies on it
  std::unique_ptr<ChannelBackend> channels;
  std::unique_ptr<World> world;
  try {
    if (on_gpu) {
      gpu = gpu_for(request, place);
      if (place.size > 1) {
        channels = nccl_backend(*gpu);
        world = channel_world(place.rank, place.size, place.meeting, request.deadline_s, *channels);
      } else {
        world = lone_world();
      }
    } else {
      world = started_by_mpi() ? mpi_world(request.deadline_s) : lone_world();
    }
    const int code = train_rank(request, *world, gpu.get());
    RankSign::set(code == kExitDone ? RankState::Done : RankState::Failed);
    return code;
  } catch (const std::bad_alloc&) {
    tell("there is no memory left", place.rank, world != nullptr ? world->size() : place.size);
    if (world != nullptr) world->abort(kExitEnvironment);
    return kExitEnvironment;
  } catch (const ArgumentError& error) {
    // All ranks meet it together.
    if (place.rank == 0) tell_bad_input(error.what(), error.hint);
    RankSign::set(RankState::Failed);
    if (world != nullptr) world->abort(kExitBadInput);
    return kExitBadInput;
  } catch (const std::exception& error) {
    tell(error.what(), place.rank, world != nullptr ? world->size() : place.size);
    if (world != nullptr) world->abort(kExitEnvironment);
    return kExitEnvironment;
  }
}

}  // namespace

int command_train(Arguments arguments) {
  // A file that would outgrow a limit is an error of its write, told like a full disk.
  std::signal(SIGXFSZ, SIG_IGN);
  const TrainRequest request = parse(arguments);
  if (started_by_mpi()) return run_rank(request);
  if (uses_gpus(request, 2) && rank_place().has_value()) return run_rank(request);
  if (environment_number("WORLD_SIZE") > 1)
    throw std::runtime_error(
        "WORLD_SIZE is set, but no MPI launcher started this rank: ranks on CPUs talk through MPI "
        "(start them with mpirun, srun, or --local)");
  const std::optional<PlanFile> file = read_runnable_plan(request.plan, true);
  if (!file) return kExitBadInput;
  const int ranks = world_size(file->plan);
  if (!uses_gpus(request, ranks))
    if (const std::string why = why_it_does_not_fit(*file, ranks, available_memory_bytes());
        !why.empty()) {
      std::cerr << "rehearse-device: error: " << why << '\n';
      return kExitInfeasible;
    }
  if (ranks == 1) return run_rank(request);
  if (const std::string why = why_folder_is_taken(request); !why.empty()) {
    tell_bad_input(why, kTakenFolderHint);
    return kExitBadInput;
  }
  return launch_locally(request, ranks, {arguments.begin(), arguments.end()});
}

}  // namespace rehearse
