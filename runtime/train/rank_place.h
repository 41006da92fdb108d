#pragma once
#include <functional>
#include <optional>
#include <string>

#include "runtime/rendezvous.h"

namespace rehearse {

/// Which rank of how many a launcher made this process, and where the ranks meet.
struct RankPlace {
  int rank = 0, size = 1;
  int local_rank = 0;  ///< among those on this machine
  int local_size = 1;  ///< of them, as far as the launcher says
  Rendezvous::Place meeting;
};

/// Reads an environment variable; empty where it is not set.
using Environment = std::function<std::string(const char*)>;
std::string process_environment(const char* name);

/// As torchrun (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT), Open MPI's mpirun or
/// Slurm's srun say it; MASTER_ADDR and MASTER_PORT count with each. Nothing where none of them
/// started this process. Throws std::runtime_error where what they say is no rank.
std::optional<RankPlace> rank_place(const Environment& environment = process_environment);

/// What NCCL must be told so that ranks on this machine may share a GPU, which it refuses
/// otherwise: each is a host of its own that talks through the loopback interface. Proves that a
/// plan runs; its times mean nothing. Sets environment variables of this process that are not set.
void share_gpus(const RankPlace& place);

}  // namespace rehearse
