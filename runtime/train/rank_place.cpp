#include "runtime/train/rank_place.h"

#include <charconv>
#include <cstdlib>
#include <stdexcept>

namespace rehearse {
namespace {

struct Launcher {
  const char *rank, *size, *local_rank, *local_size, *address;
};
constexpr Launcher kLaunchers[] = {
    {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR"},
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE", "MASTER_ADDR"},
    {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE",
     "SLURM_LAUNCH_NODE_IPADDR"},
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
    if (environment(launcher.rank).empty() || environment(launcher.size).empty()) continue;
    RankPlace place;
    place.size = number_of(environment, launcher.size, 1, kMostRanks);
    place.rank = number_of(environment, launcher.rank, 0, place.size - 1);
    place.local_rank = environment(launcher.local_rank).empty()
                           ? place.rank
                           : number_of(environment, launcher.local_rank, 0, place.size - 1);
    place.local_size = environment(launcher.local_size).empty()
                           ? place.local_rank + 1
                           : number_of(environment, launcher.local_size, 1, place.size);
    for (const char* name : {launcher.address, "MASTER_ADDR"})
      if (const std::string address = environment(name); !address.empty())
        place.meeting.address = address;
    if (!environment("MASTER_PORT").empty())
      place.meeting.port = number_of(environment, "MASTER_PORT", 1, 65535);
    return place;
  }
  return std::nullopt;
}

void share_gpus(const RankPlace& place) {
  const auto set = [](const char* name, const std::string& value) {
    setenv(name, value.c_str(), 0);
  };
  set("NCCL_HOSTID", "rehearse-" + std::to_string(place.rank));
  set("NCCL_NET", "Socket");
  set("NCCL_IB_DISABLE", "1");
  set("NCCL_SOCKET_IFNAME", "lo");
  set("NCCL_NVLS_ENABLE", "0");
  set("NCCL_MNNVL_ENABLE", "0");
  // Kernels of different processes take turns on a GPU: few hand-overs, and few blocks that wait.
  set("NCCL_ALGO", "Ring");
  set("NCCL_PROTO", "Simple");
  set("NCCL_MAX_CTAS", "2");
}

}  // namespace rehearse
