#include "runtime/train/local_launch.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>

#include "runtime/child_process.h"
#include "runtime/command_line.h"
#include "runtime/train/rank_states.h"

namespace rehearse {
namespace {

namespace fs = std::filesystem;

/// The file of rank states, for as long as the ranks run.
class StatesFile {
 public:
  explicit StatesFile(int ranks)
      : path_(
            (fs::temp_directory_path() / ("rehearse-ranks-" + std::to_string(getpid()))).string()) {
    make_rank_states(path_, ranks);
  }
  ~StatesFile() {
    std::error_code ignored;
    fs::remove(path_, ignored);
  }
  StatesFile(const StatesFile&) = delete;
  StatesFile& operator=(const StatesFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

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

/// True where a rank has told why the run failed.
bool tell_what_happened(const std::vector<RankState>& states) {
  bool told = false;
  std::string vanished;
  for (std::size_t rank = 0; rank < states.size(); ++rank) {
    told = told || states[rank] == RankState::Failed;
    if (states[rank] == RankState::Running)
      vanished += (vanished.empty() ? "" : ", ") + std::to_string(rank);
  }
  if (told) return true;
  if (vanished.empty()) return false;
  std::cerr << "rehearse-device: error: rank " << vanished
            << " vanished: it was killed, or crashed; the others were stopped\n";
  return true;
}

}  // namespace

int launch_locally(const TrainRequest& request, int ranks,
                   const std::vector<std::string>& arguments) {
  const std::string mpirun = program_path("mpirun");
  if (mpirun.empty())
    throw std::runtime_error("the plan needs " + std::to_string(ranks) +
                             " ranks, and there is no mpirun to start them");
  allow_local_ranks();
  for (int attempt = 0;; ++attempt) {
    const StatesFile states(ranks);
    std::vector<std::string> command{
        mpirun, "--quiet", "-n", std::to_string(ranks), fs::read_symlink("/proc/self/exe").string(),
        "train"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    command.insert(command.end(), {"--rank-states", states.path()});
    if (attempt > 0) command.push_back("--resume");
    const int code = run_attached(command);
    if (code == kExitDone) return code;
    const bool told = tell_what_happened(read_rank_states(states.path()));
    const bool may_help = code != kExitBadInput && code != 128 + SIGINT && code != 128 + SIGTERM;
    if (attempt < request.restarts && may_help) {
      std::cerr << "rehearse-device: starting again from the last checkpoint ("
                << request.restarts - attempt - 1 << " more to go)\n";
      continue;
    }
    if (code == kExitBadInput || code == kExitInfeasible || code == 130) return code;
    if (!told) std::cerr << "rehearse-device: error: mpirun ended with exit code " << code << '\n';
    return kExitEnvironment;
  }
}

}  // namespace rehearse
