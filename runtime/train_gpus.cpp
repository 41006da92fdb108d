#include "runtime/train_gpus.h"

#include <unistd.h>

#include <array>
#include <cstdlib>
#include <stdexcept>

#include "runtime/channel_world.h"
#include "runtime/nccl_backend.h"
#if REHEARSE_HAS_CUDA
#include "kernels/cuda/cuda_devices.h"
#endif

namespace rehearse {

#if REHEARSE_HAS_CUDA
namespace {

#if REHEARSE_HAS_NCCL
constexpr bool kRanksCanTalk = true;
#else
constexpr bool kRanksCanTalk = false;
#endif

std::string host_name() {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

}  // namespace

int usable_gpus() { return static_cast<int>(cuda_devices().size()); }

bool uses_gpus(const TrainRequest& request, int ranks_here) {
  if (request.device.starts_with("cuda")) return true;
  return request.device.empty() && (ranks_here == 1 || kRanksCanTalk) &&
         usable_gpus() >= ranks_here;
}

GpuRank join_on_gpu(const TrainRequest& request, const RankPlace& place) {
  std::string reason;
  const std::vector<CudaDeviceFacts> gpus = cuda_devices(&reason);
  if (gpus.empty()) throw std::runtime_error("there is no GPU to train on: " + reason);
  const bool is_named = request.device.starts_with("cuda:");
  const int index = is_named ? std::atoi(request.device.c_str() + 5)
                             : place.local_rank % static_cast<int>(gpus.size());
  GpuRank rank;
  rank.device = cuda_device(index);
  GpuSeat own{host_name(), gpus[static_cast<std::size_t>(index)].uuid,
              static_cast<double>(free_cuda_memory_bytes(index))};
  rank.free_bytes = own.free_bytes;
  if (place.size == 1) {
    rank.world = lone_world();
    return rank;
  }
  auto meeting =
      std::make_unique<Rendezvous>(place.rank, place.size, place.meeting, request.deadline_s);
  std::vector<GpuSeat> seats;
  for (const std::string& text : meeting->all_gather(seat_text(own)))
    seats.push_back(parse_seat(text));
  rank.sharing = ranks_on_gpu(seats, place.rank);
  // NCCL refuses two ranks on a GPU unless it is told to take them for different machines.
  if (is_any_shared(seats)) share_gpus(place.rank, is_one_host(seats));
  rank.channels = nccl_backend(*rank.device);
  rank.world = channel_world(std::move(meeting), request.deadline_s, *rank.channels);
  return rank;
}

#else

int usable_gpus() { return 0; }

bool uses_gpus(const TrainRequest& request, int) {
  if (request.device.starts_with("cuda"))
    throw std::runtime_error("this rehearse-device was built without CUDA");
  return false;
}

GpuRank join_on_gpu(const TrainRequest& request, const RankPlace&) {
  throw std::runtime_error("this rehearse-device was built without CUDA: " + request.device);
}

#endif

}  // namespace rehearse
