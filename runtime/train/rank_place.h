#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "runtime/rendezvous.h"

namespace rehearse {

/// Which rank of how many a launcher made this process, and where the ranks meet.
struct RankPlace {
  int rank = 0, size = 1;
  int local_rank = 0;  ///< among those on this machine
  int local_size = 0;  ///< of them; 0: the launcher does not say
  Rendezvous::Place meeting;
};

/// Tells rank 0 the socket that its launcher listens on (Rendezvous::Place).
inline constexpr const char* kListenerName = "REHEARSE_LISTENER";

/// Reads an environment variable; empty where it is not set.
using Environment = std::function<std::string(const char*)>;
std::string process_environment(const char* name);

/// As torchrun (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT), Open MPI's mpirun or
/// Slurm's srun say it; MASTER_ADDR and MASTER_PORT count with each. Nothing where none of them
/// started this process: in a batch script Slurm says the rank too, but no step. Throws
/// std::runtime_error where what they say is no rank.
std::optional<RankPlace> rank_place(const Environment& environment = process_environment);

/// Unsets what launchers have told this process, so that it can be one itself.
void forget_launchers();

/// Which GPU a rank has, and how much of its memory was free before any rank took some.
struct GpuSeat {
  std::string host, uuid;
  double free_bytes = 0;
};
std::string seat_text(const GpuSeat& seat);
GpuSeat parse_seat(const std::string& text);
/// Ranks that have the same GPU as `rank`, itself included.
int ranks_on_gpu(const std::vector<GpuSeat>& seats, int rank);
bool is_any_shared(const std::vector<GpuSeat>& seats);
bool is_one_host(const std::vector<GpuSeat>& seats);

/// What CUDA and NCCL must be told, before either is called, where ranks on GPUs talk to each other
/// (docs/training.md, "GPUs"). Sets environment variables of this process that are not set.
void prepare_for_transfers();

/// What NCCL must be told so that ranks on this machine may share a GPU, which it refuses
/// otherwise: each is a host of its own that talks through the loopback interface. Proves that a
/// plan runs; its times mean nothing. Sets environment variables of this process that are not set.
void share_gpus(int rank, bool on_one_host);

}  // namespace rehearse
