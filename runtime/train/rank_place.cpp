#include "runtime/train/rank_place.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <sstream>
#include <stdexcept>

namespace rehearse {
namespace {

/// `step`: set where a process is one of the launcher's ranks, and not a script that may call it.
struct Launcher {
  const char *rank, *size, *local_rank, *local_size, *address, *step;
};
constexpr Launcher kLaunchers[] = {
    {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "RANK"},
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE", "MASTER_ADDR", "OMPI_COMM_WORLD_RANK"},
    {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE",
     "SLURM_LAUNCH_NODE_IPADDR", "SLURM_STEP_ID"},
};

int number_of(const Environment& environment, const char* name, int least, int most) {
  const std::string text = environment(name);
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least || value > most)
    throw std::runtime_error(std::string(name) + " is '" + text + "', which is no number from " +
                             std::to_string(least) + " to " + std::to_string(most));
  return value;
}

}  // namespace

std::string process_environment(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? "" : text;
}

std::optional<RankPlace> rank_place(const Environment& environment) {
  constexpr int kMostRanks = 1 << 20;
  for (const Launcher& launcher : kLaunchers) {
    if (environment(launcher.rank).empty() || environment(launcher.size).empty() ||
        environment(launcher.step).empty())
      continue;
    RankPlace place;
    place.size = number_of(environment, launcher.size, 1, kMostRanks);
    place.rank = number_of(environment, launcher.rank, 0, place.size - 1);
    place.local_rank = environment(launcher.local_rank).empty()
                           ? place.rank
                           : number_of(environment, launcher.local_rank, 0, place.size - 1);
    place.local_size = environment(launcher.local_size).empty()
                           ? 0
                           : number_of(environment, launcher.local_size, 1, place.size);
    for (const char* name : {launcher.address, "MASTER_ADDR"})
      if (const std::string address = environment(name); !address.empty())
        place.meeting.address = address;
    if (!environment("MASTER_PORT").empty())
      place.meeting.port = number_of(environment, "MASTER_PORT", 1, 65535);
    if (place.rank == 0 && !environment(kListenerName).empty())
      place.meeting.listener = number_of(environment, kListenerName, 3, 1 << 20);
    return place;
  }
  return std::nullopt;
}

void forget_launchers() {
  const bool by_open_mpi = !process_environment("OMPI_COMM_WORLD_RANK").empty();
  std::vector<std::string> names;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const std::string name = text.substr(0, text.find('='));
    const auto is_of = [&](const char* prefix) { return name.starts_with(prefix); };
    const bool is_torchs = is_of("LOCAL_RANK") || is_of("LOCAL_WORLD_SIZE") || name == "RANK" ||
                           name == "WORLD_SIZE" || is_of("MASTER_") || is_of("TORCHELASTIC_");
    // What a user told Open MPI stays, unless mpirun has added its own.
    if (is_torchs || is_of("SLURM_") || is_of("PMIX_") || is_of("PMI_") || is_of("PRTE_") ||
        (by_open_mpi && is_of("OMPI_")))
      names.push_back(name);
  }
  for (const std::string& name : names) unsetenv(name.c_str());
}

std::string seat_text(const GpuSeat& seat) {
  return seat.host + '\n' + seat.uuid + '\n' + std::to_string(seat.free_bytes);
}

GpuSeat parse_seat(const std::string& text) {
  std::istringstream lines(text);
  GpuSeat seat;
  std::getline(lines, seat.host);
  std::getline(lines, seat.uuid);
  lines >> seat.free_bytes;
  return seat;
}

int ranks_on_gpu(const std::vector<GpuSeat>& seats, int rank) {
  const GpuSeat& own = seats[static_cast<std::size_t>(rank)];
  return static_cast<int>(std::count_if(seats.begin(), seats.end(), [&](const GpuSeat& other) {
    return other.host == own.host && other.uuid == own.uuid;
  }));
}

bool is_any_shared(const std::vector<GpuSeat>& seats) {
  for (std::size_t rank = 0; rank < seats.size(); ++rank)
    if (ranks_on_gpu(seats, static_cast<int>(rank)) > 1) return true;
  return false;
}

bool is_one_host(const std::vector<GpuSeat>& seats) {
  return std::all_of(seats.begin(), seats.end(),
                     [&](const GpuSeat& seat) { return seat.host == seats.front().host; });
}

void prepare_for_transfers() {
  // Loading a kernel may wait for all that the GPU is doing (CUDA programming guide, "Lazy
  // loading"), and a receive that was posted early ends no sooner than this rank goes on.
  setenv("CUDA_MODULE_LOADING", "EAGER", 0);
  // Streams that share one of the GPU's queues wait for each other; 8 unless told, at most 32.
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
  // Ranks are connected when a communicator is made, not when they first use it (NCCL 2.22 on).
  setenv("NCCL_RUNTIME_CONNECT", "0", 0);
}

void share_gpus(int rank, bool on_one_host) {
  const auto set = [](const char* name, const std::string& value) {
    setenv(name, value.c_str(), 0);
  };
  set("NCCL_HOSTID", "rehearse-" + std::to_string(rank));
  set("NCCL_NET", "Socket");
  set("NCCL_IB_DISABLE", "1");
  if (on_one_host) set("NCCL_SOCKET_IFNAME", "lo");
  set("NCCL_NVLS_ENABLE", "0");
  set("NCCL_MNNVL_ENABLE", "0");
  // Kernels of different processes take turns on a GPU: few hand-overs, and few blocks that wait.
  set("NCCL_ALGO", "Ring");
  set("NCCL_PROTO", "Simple");
  set("NCCL_MAX_CTAS", "2");
}

}  // namespace rehearse
