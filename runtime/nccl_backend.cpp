// Channels over NCCL, all of them non-blocking: every call may come back before it is done, and is
// then asked about, so that nothing hangs inside NCCL and a communicator can be aborted (NCCL user
// guide, "Fault tolerance"; ncclConfig_t::blocking = 0).
#include "runtime/nccl_backend.h"

#include <nccl.h>

#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "kernels/cuda/cuda_device.h"
#include "plan/ensure.h"

namespace rehearse {
namespace {

void check_nccl(ncclResult_t result, const char* what) {
  if (result == ncclSuccess || result == ncclInProgress) return;
  throw CommunicationError(std::string(what) + " failed: " + ncclGetErrorString(result) +
                           "; NCCL_DEBUG=WARN says more");
}

ncclDataType_t type_of(DType dtype) {
  if (dtype == DType::F32) return ncclFloat32;
  if (dtype == DType::F64) return ncclFloat64;
  if (dtype == DType::I32) return ncclInt32;
  ensure(dtype == DType::Bf16, "NCCL moves fp32, fp64, int32 and bf16");
  return ncclBfloat16;
}

ncclRedOp_t operation(Reduction how) { return how == Reduction::Sum ? ncclSum : ncclMax; }

std::size_t count_of(const ConstTensorView& tensor) {
  return static_cast<std::size_t>(tensor.elements());
}

/// Events without times, used again and again: making one may cost more than a transfer. What was
/// asked to wait for one keeps waiting for what it meant then (CUDA runtime API,
/// cudaStreamWaitEvent), so that it is free as soon as nobody asks about it any more.
class Events {
 public:
  Events() = default;
  ~Events() {
    for (cudaEvent_t event : free_) report_cuda(cudaEventDestroy(event));
  }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;
  cudaEvent_t take() {
    cudaEvent_t event = nullptr;
    if (free_.empty()) {
      check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    } else {
      event = free_.back();
      free_.pop_back();
    }
    return event;
  }
  void give_back(cudaEvent_t event) { free_.push_back(event); }

 private:
  std::vector<cudaEvent_t> free_;
};

class NcclMark final : public StreamMark {
 public:
  NcclMark(std::shared_ptr<Events> events, cudaStream_t stream, cudaStream_t compute)
      : events_(std::move(events)), event_(events_->take()), compute_(compute) {
    check_cuda(cudaEventRecord(event_, stream));
  }
  ~NcclMark() override { events_->give_back(event_); }
  NcclMark(const NcclMark&) = delete;
  NcclMark& operator=(const NcclMark&) = delete;
  bool is_reached() const override {
    const cudaError_t status = cudaEventQuery(event_);
    if (status != cudaErrorNotReady) check_cuda(status);
    return status == cudaSuccess;
  }
  void hold_up(cudaStream_t stream) const { check_cuda(cudaStreamWaitEvent(stream, event_, 0)); }
  void hold_up_compute() const override { hold_up(compute_); }

 private:
  std::shared_ptr<Events> events_;
  cudaEvent_t event_;
  cudaStream_t compute_;
};

class NcclChannel final : public Channel {
 public:
  NcclChannel(std::shared_ptr<Events> events, cudaStream_t compute, const std::string& id, int rank,
              int size)
      : events_(std::move(events)), compute_(compute), size_(size) {
    ncclUniqueId unique;
    ensure(id.size() == sizeof unique.internal, "an id has NCCL's size");
    std::memcpy(unique.internal, id.data(), id.size());
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    check_nccl(ncclCommInitRankConfig(&comm_, size, unique, rank, &config),
               "making a communicator");
  }
  ~NcclChannel() override { abort(); }
  NcclChannel(const NcclChannel&) = delete;
  NcclChannel& operator=(const NcclChannel&) = delete;

  bool is_ready() override {
    ncclResult_t state = ncclSuccess;
    check_nccl(ncclCommGetAsyncError(comm_, &state), what_);
    check_nccl(state, what_);
    return state == ncclSuccess;
  }
  void follow_compute() override { NcclMark(events_, compute_, compute_).hold_up(stream()); }
  std::shared_ptr<const StreamMark> mark() override {
    return std::make_shared<NcclMark>(events_, stream(), compute_);
  }

  void all_reduce(const TensorView& tensor, Reduction how) override {
    check(ncclAllReduce(tensor.data, tensor.data, count_of(tensor), type_of(tensor.dtype),
                        operation(how), comm_, stream()),
          "an all-reduce");
  }
  void all_gather(const ConstTensorView& mine, const TensorView& all) override {
    check(ncclAllGather(mine.data, all.data, count_of(mine), type_of(mine.dtype), comm_, stream()),
          "an all-gather");
  }
  void reduce_scatter(const ConstTensorView& all, const TensorView& mine) override {
    check(ncclReduceScatter(all.data, mine.data, count_of(mine), type_of(all.dtype), ncclSum, comm_,
                            stream()),
          "a reduce-scatter");
  }
  void all_to_all(const ConstTensorView& mine, const TensorView& all) override {
    const std::size_t part = count_of(mine) / static_cast<std::size_t>(size_);
    const std::size_t bytes = part * element_bytes(mine.dtype);
    check(ncclGroupStart(), "an all-to-all");
    for (int peer = 0; peer < size_; ++peer) {
      const std::size_t at = static_cast<std::size_t>(peer) * bytes;
      check(ncclSend(static_cast<const char*>(mine.data) + at, part, type_of(mine.dtype), peer,
                     comm_, stream()),
            "an all-to-all");
      check(ncclRecv(static_cast<char*>(all.data) + at, part, type_of(all.dtype), peer, comm_,
                     stream()),
            "an all-to-all");
    }
    check(ncclGroupEnd(), "an all-to-all");
  }
  void broadcast(const TensorView& tensor, int root) override {
    check(ncclBroadcast(tensor.data, tensor.data, count_of(tensor), type_of(tensor.dtype), root,
                        comm_, stream()),
          "a broadcast");
  }
  void send(const ConstTensorView& tensor, int to) override {
    check(ncclSend(tensor.data, count_of(tensor), type_of(tensor.dtype), to, comm_, stream()),
          "a message");
  }
  void receive(const TensorView& tensor, int from) override {
    check(ncclRecv(tensor.data, count_of(tensor), type_of(tensor.dtype), from, comm_, stream()),
          "a message");
  }

  void finalize() override { check(ncclCommFinalize(comm_), "ending a communicator"); }
  void destroy() override {
    const ncclComm_t comm = std::exchange(comm_, nullptr);
    check(ncclCommDestroy(comm), "ending a communicator");
  }
  void abort() noexcept override {
    if (const ncclComm_t comm = std::exchange(comm_, nullptr)) (void)ncclCommAbort(comm);
  }

 private:
  void check(ncclResult_t result, const char* what) {
    what_ = what;
    check_nccl(result, what);
  }
  cudaStream_t stream() const { return stream_.handle(); }

  std::shared_ptr<Events> events_;
  cudaStream_t compute_;
  int size_;
  CudaStream stream_;
  ncclComm_t comm_ = nullptr;
  const char* what_ = "making a communicator";  ///< asked last
};

/// Kernels of different communicators start in the order of the rank's program, so that two GPUs
/// without room for all of them never begin with different ones (NCCL 2.26 on). CUDA before 12.3
/// would have each wait for the end of the one before, which a receive posted early does not stand.
void order_launches() {
  int driver = 0, runtime = 0, nccl = 0;
  check_cuda(cudaDriverGetVersion(&driver));
  check_cuda(cudaRuntimeGetVersion(&runtime));
  check_nccl(ncclGetVersion(&nccl), "ncclGetVersion");
  if (driver >= 12030 && runtime >= 12030 && nccl >= 22600)
    setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", 0);
}

class NcclBackend final : public ChannelBackend {
 public:
  explicit NcclBackend(CudaDevice& device) : device_(device) { order_launches(); }
  ComputeDevice& device() override { return device_; }
  std::size_t id_bytes() const override { return sizeof(ncclUniqueId); }
  std::string new_id() override {
    ncclUniqueId id;
    check_nccl(ncclGetUniqueId(&id), "ncclGetUniqueId");
    return {id.internal, sizeof id.internal};
  }
  std::unique_ptr<Channel> connect(const std::string& id, int rank, int size) override {
    return std::make_unique<NcclChannel>(events_, device_.stream(), id, rank, size);
  }
  std::shared_ptr<const StreamMark> compute_mark() override {
    return std::make_shared<NcclMark>(events_, device_.stream(), device_.stream());
  }
  void before_host_waits(std::function<void()> call) override {
    device_.before_host_waits = std::move(call);
  }

 private:
  CudaDevice& device_;
  std::shared_ptr<Events> events_ = std::make_shared<Events>();
};

}  // namespace

std::unique_ptr<ChannelBackend> nccl_backend(ComputeDevice& device) {
  auto* gpu = dynamic_cast<CudaDevice*>(&device);
  ensure(gpu != nullptr, "ranks that talk through NCCL compute on GPUs");
  return std::make_unique<NcclBackend>(*gpu);
}

}  // namespace rehearse
