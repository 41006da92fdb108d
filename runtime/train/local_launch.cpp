#include "runtime/train/local_launch.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <optional>
#include <random>

#include "runtime/child_process.h"
#include "runtime/command_line.h"
#include "runtime/patience.h"
#include "runtime/rendezvous.h"
#include "runtime/train/rank_place.h"
#include "runtime/train/rank_states.h"

namespace rehearse {
namespace {

namespace fs = std::filesystem;

std::string program_path(const char* name) {
  const char* path = std::getenv("PATH");
  std::string folders = path == nullptr ? "" : path;
  while (!folders.empty()) {
    const std::size_t end = std::min(folders.find(':'), folders.size());
    const fs::path candidate = fs::path(folders.substr(0, end)) / name;
    if (access(candidate.c_str(), X_OK) == 0) return candidate.string();
    folders.erase(0, end + 1);
  }
  return {};
}

/// What Open MPI would otherwise refuse or do on a machine that holds all ranks: root, more ranks
/// than cores, and each rank bound to one core.
void allow_local_ranks() {
  setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
  setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
  setenv("OMPI_MCA_rmaps_base_oversubscribe", "1", 1);
  setenv("OMPI_MCA_hwloc_base_binding_policy", "none", 1);
}

/// One that nobody can know before: the folder may be everybody's.
std::string states_path() {
  std::random_device random;
  return (fs::temp_directory_path() / ("rehearse-ranks-" + std::to_string(getpid()) + "-" +
                                       std::to_string(random()) + std::to_string(random())))
      .string();
}

/// Looks at the ranks while they run: notes which vanished first, and which beat no more.
class RankWatch {
 public:
  RankWatch(RankStates& states, double deadline_s) : states_(states), deadline_s_(deadline_s) {
    for (int rank = 0; rank < states.ranks(); ++rank)
      pulses_.push_back({0, Patience(std::max(deadline_s, kStart_s))});
  }

  /// False once a rank has been silent for as long as the deadline, or others still run ten seconds
  /// after one vanished.
  bool may_go_on() {
    if (vanished_.empty()) {
      vanished_ = ranks_that([this](int rank) { return is_gone(rank); });
      if (!vanished_.empty()) ending_.emplace(10);
    }
    if (ending_) return !ending_->is_over();
    silent_ = ranks_that([this](int rank) { return is_silent(rank); });
    // Claimed before any rank is told to stop, which wakes those that were stopped.
    if (!silent_.empty()) speaks_ = states_.claim_voice();
    return silent_.empty();
  }

  bool ended_the_run() const { return !silent_.empty(); }

  /// Says why the run failed, unless a rank has.
  void tell_what_happened(int code) {
    if (vanished_.empty())
      vanished_ = ranks_that([this](int rank) { return state(rank) == RankState::Running; });
    if (vanished_.empty())
      vanished_ = ranks_that([this](int rank) { return state(rank) == RankState::NotStarted; });
    if (!speaks_ && !states_.claim_voice()) return;
    std::cerr << "rehearse-device: error: ";
    if (!silent_.empty())
      std::cerr << ranks_text(silent_) << " gave no sign of life for " << deadline_s_
                << " s: stopped, or never started; all ranks were ended\n";
    else if (!vanished_.empty() && static_cast<int>(vanished_.size()) < states_.ranks())
      std::cerr << ranks_text(vanished_)
                << " vanished: killed, or crashed; the others were stopped\n";
    else
      std::cerr << "the ranks ended with exit code " << code << '\n';
  }

 private:
  /// Starting processes on a busy machine may outlast a short deadline.
  static constexpr double kStart_s = 30;
  struct Pulse {
    std::uint32_t beats;
    Patience patience;
  };

  template <class Condition>
  std::vector<int> ranks_that(const Condition& condition) {
    std::vector<int> out;
    for (int rank = 0; rank < states_.ranks(); ++rank)
      if (condition(rank)) out.push_back(rank);
    return out;
  }
  RankState state(int rank) const { return states_.record(rank).state; }

  /// A process that ended without saying so.
  bool is_gone(int rank) const {
    const RankRecord record = states_.record(rank);
    if (record.state != RankState::Running) return false;
    std::ifstream status("/proc/" + std::to_string(record.pid) + "/stat");
    std::string text;
    std::getline(status, text);
    const std::size_t name_end = text.rfind(')');  // "pid (name) state …"
    return name_end == std::string::npos || text.compare(name_end, 3, ") Z") == 0 ||
           text.compare(name_end, 3, ") X") == 0;
  }

  bool is_silent(int rank) {
    const RankRecord record = states_.record(rank);
    Pulse& pulse = pulses_[static_cast<std::size_t>(rank)];
    const bool beats = record.beats != pulse.beats;
    const bool is_due = record.state == RankState::Running || record.state == RankState::NotStarted;
    if (beats || !is_due) pulse = {record.beats, Patience(deadline_s_)};
    return pulse.patience.is_over();
  }

  RankStates& states_;
  double deadline_s_;
  std::vector<Pulse> pulses_;
  std::vector<int> vanished_, silent_;
  std::optional<Patience> ending_;
  bool speaks_ = false;
};

/// Ends ranks that outlived their starter: those that still run and name this run's file.
void end_leftovers(const RankStates& states) {
  for (int rank = 0; rank < states.ranks(); ++rank) {
    const int pid = states.record(rank).pid;
    if (pid == 0) continue;
    std::ifstream words("/proc/" + std::to_string(pid) + "/cmdline");
    const std::string command((std::istreambuf_iterator<char>(words)),
                              std::istreambuf_iterator<char>());
    if (command.find(states.path()) != std::string::npos) kill(pid, SIGKILL);
  }
}

/// Through mpirun, or where that is empty with torchrun's variables.
int start_ranks(const std::string& mpirun, int ranks, const std::vector<std::string>& rank,
                const std::function<bool()>& may_go_on) {
  if (!mpirun.empty()) {
    std::vector<std::string> command{mpirun, "--quiet", "-n", std::to_string(ranks)};
    command.insert(command.end(), rank.begin(), rank.end());
    return run_attached(command, may_go_on);
  }
  const std::string size = std::to_string(ranks), chosen = process_environment("MASTER_PORT");
  std::optional<HeldPort> held;
  if (chosen.empty()) held.emplace();
  const std::string port = held ? std::to_string(held->port()) : chosen;
  std::vector<std::vector<std::string>> commands;
  for (int r = 0; r < ranks; ++r) {
    const std::string index = std::to_string(r);
    commands.push_back({"/usr/bin/env", "RANK=" + index, "WORLD_SIZE=" + size,
                        "LOCAL_RANK=" + index, "LOCAL_WORLD_SIZE=" + size, "MASTER_ADDR=127.0.0.1",
                        "MASTER_PORT=" + port});
    if (r == 0 && held)
      commands.back().push_back(kListenerName + ("=" + std::to_string(held->socket())));
    commands.back().insert(commands.back().end(), rank.begin(), rank.end());
  }
  return run_together(commands, may_go_on);
}

}  // namespace

int launch_locally(const TrainRequest& request, int ranks,
                   const std::vector<std::string>& arguments) {
  const bool on_gpus = request.device.starts_with("cuda");
  const std::string mpirun = on_gpus ? "" : program_path("mpirun");
  if (!on_gpus && mpirun.empty())
    throw std::runtime_error("the plan needs " + std::to_string(ranks) +
                             " ranks, and there is no mpirun to start them");
  allow_local_ranks();
  for (int attempt = 0;; ++attempt) {
    RankStates states(states_path(), ranks);
    RankWatch watch(states, request.deadline_s);
    std::vector<std::string> rank{fs::read_symlink("/proc/self/exe").string(), "train"};
    rank.insert(rank.end(), arguments.begin(), arguments.end());
    rank.insert(rank.end(), {"--rank-states", states.path()});
    // What the ranks write goes through their launcher's pipes.
    if (isatty(STDERR_FILENO) != 0) rank.push_back("--on-terminal");
    if (attempt > 0) rank.push_back("--resume");
    const int code = start_ranks(mpirun, ranks, rank, [&] { return watch.may_go_on(); });
    if (code == kExitDone) return code;
    end_leftovers(states);
    const bool was_told_to = code == kExitBadInput || code == kExitInfeasible ||
                             code == 128 + SIGINT || code == 128 + SIGTERM;
    if (was_told_to && !watch.ended_the_run()) return code;
    watch.tell_what_happened(code);
    if (attempt == request.restarts) return kExitEnvironment;
    std::cerr << "rehearse-device: starting again from the last checkpoint ("
              << request.restarts - attempt - 1 << " more to go)\n";
  }
}

}  // namespace rehearse
