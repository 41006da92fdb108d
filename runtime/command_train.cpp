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

#include "kernels/ops/device_memory.h"
#include "plan/json_value.h"
#include "plan/units.h"
#include "runtime/device_commands.h"
#include "runtime/machine_facts.h"
#include "runtime/train/local_launch.h"
#include "runtime/train/memory_need.h"
#include "runtime/train/rank_place.h"
#include "runtime/train/rank_states.h"
#include "runtime/train/run_checkpoints.h"
#include "runtime/train/runnable.h"
#include "runtime/train/train_report.h"
#include "runtime/train/train_run.h"
#include "runtime/train_gpus.h"

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

/// Of the run's ranks those on this machine; all of them where the launcher does not say.
int ranks_here(const RankPlace& place) {
  return place.local_size > 0 ? place.local_size : place.size;
}
/// GPUs without being asked for only where the ranks would find each other.
bool trains_on_gpus(const TrainRequest& request, const RankPlace& place) {
  const bool can_meet =
      ranks_here(place) == place.size || place.meeting.address != Rendezvous::Place{}.address;
  return (can_meet || !request.device.empty()) && uses_gpus(request, ranks_here(place));
}
/// As few as there are for certain.
int least_ranks_here(int ranks) {
  const std::optional<RankPlace> place = rank_place();
  return place.has_value() ? std::clamp(place->local_size, 1, ranks) : 1;
}

void tell_bad_input(const std::string& what, const std::string& hint) {
  std::cerr << "rehearse-device: error: " << what << '\n';
  if (!hint.empty()) std::cerr << "help: " << hint << '\n';
}

/// `gpu`: null where ranks compute on CPUs.
int train_rank(const TrainRequest& request, World& world, const GpuRank* gpu) {
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
  // Whoever started the ranks here has looked before, but not at GPUs.
  std::string why;
  if (gpu != nullptr)
    why = why_it_does_not_fit(*file, gpu->sharing, gpu->free_bytes);
  else if (request.states.empty() && ranks > 1)
    why = why_it_does_not_fit(*file, least_ranks_here(ranks), available_memory_bytes());
  if (!why.empty()) throw DoesNotFit(why);
  const std::unique_ptr<ComputeDevice> cpu = gpu == nullptr ? cpu_for(request, ranks) : nullptr;
  const TrainResult result = train_with_progress(request, *file, world, cpu ? *cpu : *gpu->device);
  if (first) std::cout << (request.json ? result_json(result, *file) : result_text(result, *file));
  return kExitDone;
}

/// Whether this rank shall tell what went wrong, for all ranks: what one rank meets, most meet, so
/// that lower ranks speak first, and end the others before they do.
bool may_speak(int rank) {
  std::this_thread::sleep_for(std::chrono::milliseconds(200) * std::min(rank, 10));
  RankSign::set(RankState::Failed);
  return RankSign::claim_voice();
}

void tell(const std::string& what, int rank, int ranks) {
  if (!may_speak(rank)) return;
  std::cerr << "rehearse-device: error: ";
  if (ranks > 1) std::cerr << "rank " << rank << ": ";
  std::cerr << what << std::endl;
}

/// Whatever fails in `train` ends all ranks; one of them says why.
template <class Train>
int tell_failures(const RankPlace& place, std::unique_ptr<World>& world, const Train& train) {
  const auto fail = [&](const std::string& what, int code) {
    tell(what, place.rank, world != nullptr ? world->size() : place.size);
    if (world != nullptr) world->abort(code);
    return code;
  };
  try {
    return train();
  } catch (const std::bad_alloc&) {
    return fail("there is no memory left", kExitEnvironment);
  } catch (const DoesNotFit& error) {
    return fail(error.what(), kExitInfeasible);
  } catch (const DeviceMemoryError& error) {
    return fail(std::string("the plan does not fit: ") + error.what(), kExitInfeasible);
  } catch (const ArgumentError& error) {
    // All ranks meet it together; the first that comes to it speaks for them.
    if (may_speak(place.rank)) tell_bad_input(error.what(), error.hint);
    if (world != nullptr) world->abort(kExitBadInput);
    return kExitBadInput;
  } catch (const std::exception& error) {
    return fail(error.what(), kExitEnvironment);
  }
}

void tell_gpus() {
  std::cerr << "rehearse-device: the ranks train on GPUs, one each; --device cpu takes cores\n";
}

int run_rank(const TrainRequest& request) {
  RankPlace place = rank_place().value_or(RankPlace{});
  const bool on_gpu = trains_on_gpus(request, place);
  if (on_gpu && place.size > 1 && place.rank == 0 && request.device.empty()) tell_gpus();
  if (!on_gpu) place.rank = std::max(0, launched_rank());
  const RankSign sign(request.states, place.rank);
  GpuRank gpu;
  return tell_failures(place, gpu.world, [&] {
    if (on_gpu)
      gpu = join_on_gpu(request, place);
    else
      gpu.world = started_by_mpi() ? mpi_world(request.deadline_s) : lone_world();
    const int code = train_rank(request, *gpu.world, on_gpu ? &gpu : nullptr);
    RankSign::set(code == kExitDone ? RankState::Done : RankState::Failed);
    return code;
  });
}

/// All ranks of a plan, here.
int start_here(TrainRequest request, Arguments arguments) {
  const std::optional<PlanFile> file = read_runnable_plan(request.plan, true);
  if (!file) return kExitBadInput;
  const int ranks = world_size(file->plan);
  const bool on_gpus = uses_gpus(request, ranks);
  if (!on_gpus)
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
  std::vector<std::string> words(arguments.begin(), arguments.end());
  if (request.device.empty()) {
    if (on_gpus)
      tell_gpus();
    else if (const int gpus = usable_gpus(); gpus > 0)
      std::cerr << "rehearse-device: the ranks train on CPUs, since they are " << ranks
                << " and GPUs are " << gpus << "; --device cuda shares those\n";
    request.device = on_gpus ? "cuda" : "cpu";
    words.insert(words.end(), {"--device", request.device});
  }
  return launch_locally(request, ranks, words);
}

}  // namespace

int command_train(Arguments arguments) {
  // A file that would outgrow a limit is an error of its write, told like a full disk.
  std::signal(SIGXFSZ, SIG_IGN);
  const TrainRequest request = parse(arguments);
  const bool is_started_here = !request.states.empty();
  if (request.local && !is_started_here) {
    forget_launchers();
    return start_here(request, arguments);
  }
  const std::optional<RankPlace> place = rank_place();
  if (place && place->size > 1) prepare_for_transfers();
  if (is_started_here || started_by_mpi()) return run_rank(request);
  if (place && trains_on_gpus(request, *place)) return run_rank(request);
  if (place && place->size > 1)
    throw std::runtime_error("a launcher started " + std::to_string(place->size) +
                             " ranks, but none of MPI: ranks on CPUs talk through MPI (start them "
                             "with mpirun, with srun "
                             "and its --mpi, or with --local)");
  return start_here(request, arguments);
}

}  // namespace rehearse
