// One process drives all GPUs: a communicator and a stream for each, every call inside an NCCL
// group. Times lie between two events of a stream; the slowest GPU's counts.

#include "runtime/gpu_node.h"

#if REHEARSE_HAS_CUDA && REHEARSE_HAS_NCCL
#include <nccl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <thread>

#include "kernels/cuda/cuda_device.h"
#include "kernels/profiler/operands.h"
#include "kernels/profiler/statistics.h"
#include "runtime/command_line.h"
#include "runtime/patience.h"
#endif

namespace rehearse {

#if REHEARSE_HAS_CUDA && REHEARSE_HAS_NCCL
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kLeastBytes = 512, kMostBytes = std::size_t{1} << 30;
constexpr double kBatch_s = 2e-3;  ///< a sample is at least this long, so that events resolve it
constexpr int kSamples = 7;
constexpr std::chrono::seconds kDeadline{60};

void check_nccl(ncclResult_t status, const char* what) {
  if (status != ncclSuccess)
    throw std::runtime_error(std::string("NCCL: ") + what + ": " + ncclGetErrorString(status) +
                             "; NCCL_DEBUG=INFO says more");
}

std::size_t free_bytes(int device) {
  check_cuda(cudaSetDevice(device));
  std::size_t free = 0, total = 0;
  check_cuda(cudaMemGetInfo(&free, &total));
  return free;
}

/// Calls of NCCL that block know no deadline, and those that do not would lengthen what is
/// measured: one that never comes back ends the process.
BlockingCallGuard guard() {
  return BlockingCallGuard(static_cast<double>(kDeadline.count()), [] {
    std::cerr
        << "rehearse-device: error: NCCL did not come back from a call among the GPUs of this "
           "machine in "
        << kDeadline.count() << " s; NCCL_DEBUG=INFO says more" << std::endl;
    _exit(kExitEnvironment);
  });
}

/// A GPU of the node, with what it sends and what it gets.
struct Member {
  Member(int device, std::size_t bytes) : index(device) {
    check_cuda(cudaSetDevice(index));
    stream = std::make_unique<CudaStream>();
    begin = std::make_unique<CudaEvent>();
    end = std::make_unique<CudaEvent>();
    sent = CudaBuffer(bytes);
    received = CudaBuffer(bytes);
    check_cuda(cudaMemsetAsync(sent.data(), 0, bytes, stream->handle()));
  }
  int index;
  std::unique_ptr<CudaStream> stream;
  std::unique_ptr<CudaEvent> begin, end;
  CudaBuffer sent, received;
  ncclComm_t communicator = nullptr;
};

class Node {
 public:
  /// `channels` 0: as many as NCCL takes.
  Node(int gpus, std::size_t bytes, int channels) {
    for (int gpu = 0; gpu < gpus; ++gpu) members_.emplace_back(gpu, bytes);
    free_before_ = free_bytes(members_.front().index);
    ncclUniqueId id;
    check_nccl(ncclGetUniqueId(&id), "no id for a communicator");
    const BlockingCallGuard in_time = guard();
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    if (channels > 0) config.minCTAs = config.maxCTAs = channels;
    check_nccl(ncclGroupStart(), "group");
    for (Member& member : members_) {
      check_cuda(cudaSetDevice(member.index));
      check_nccl(ncclCommInitRankConfig(&member.communicator, gpus, id, member.index, &config),
                 "a communicator cannot be made");
    }
    check_nccl(ncclGroupEnd(), "the communicators cannot be made");
  }
  ~Node() {
    for (Member& member : members_)
      if (member.communicator != nullptr) ncclCommAbort(member.communicator);
  }
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  int size() const { return static_cast<int>(members_.size()); }

  /// What the communicator has taken of the first GPU's memory up to now; NCCL allocates some of
  /// its buffers with the first call that needs them.
  double communicator_bytes() const {
    const std::size_t now = free_bytes(members_.front().index);
    return free_before_ > now ? static_cast<double>(free_before_ - now) : 0.0;
  }

  void issue(CollectiveKind kind, std::size_t bytes) {
    check_nccl(ncclGroupStart(), "group");
    for (Member& member : members_) issue(kind, bytes, member);
    check_nccl(ncclGroupEnd(), collective_name(kind));
  }

  /// Seconds of one call, the median of some samples of as many calls as fill one.
  double seconds(CollectiveKind kind, std::size_t bytes) {
    const double once_s = batch_s(kind, bytes, 2);
    const int calls = std::clamp(static_cast<int>(kBatch_s / std::max(once_s, 1e-7)), 1, 1000);
    std::vector<double> samples;
    for (int i = 0; i < kSamples; ++i) samples.push_back(batch_s(kind, bytes, calls));
    return statistics_of(samples).median;
  }

  void wait() {
    const auto deadline = Clock::now() + kDeadline;
    for (Member& member : members_) {
      check_cuda(cudaSetDevice(member.index));
      while (cudaStreamQuery(member.stream->handle()) == cudaErrorNotReady) {
        ncclResult_t status = ncclSuccess;
        check_nccl(ncclCommGetAsyncError(member.communicator, &status), "state of a communicator");
        check_nccl(status == ncclInProgress ? ncclSuccess : status, "a collective failed");
        if (Clock::now() > deadline)
          throw std::runtime_error(
              "NCCL: a collective among the GPUs of this machine does not end");
        std::this_thread::yield();
      }
      check_cuda(cudaStreamSynchronize(member.stream->handle()));
    }
  }

 private:
  double batch_s(CollectiveKind kind, std::size_t bytes, int calls) {
    for (Member& member : members_) {
      check_cuda(cudaSetDevice(member.index));
      member.begin->record(member.stream->handle());
    }
    {
      const BlockingCallGuard in_time = guard();
      for (int i = 0; i < calls; ++i) issue(kind, bytes);
    }
    for (Member& member : members_) {
      check_cuda(cudaSetDevice(member.index));
      member.end->record(member.stream->handle());
    }
    wait();
    double slowest_s = 0;
    for (Member& member : members_)
      slowest_s = std::max(slowest_s, member.end->seconds_since(*member.begin));
    return slowest_s / calls;
  }

  /// `bytes` are the whole buffer's, as profiles count them.
  void issue(CollectiveKind kind, std::size_t bytes, Member& member) {
    const std::size_t count = bytes / sizeof(float), part = count / members_.size();
    const void* sent = member.sent.data();
    void* received = member.received.data();
    const cudaStream_t stream = member.stream->handle();
    const auto check = [&](ncclResult_t status) { check_nccl(status, collective_name(kind)); };
    switch (kind) {
      case CollectiveKind::AllReduce:
        return check(
            ncclAllReduce(sent, received, count, ncclFloat, ncclSum, member.communicator, stream));
      case CollectiveKind::AllGather:
        return check(ncclAllGather(sent, received, part, ncclFloat, member.communicator, stream));
      case CollectiveKind::ReduceScatter:
        return check(ncclReduceScatter(sent, received, part, ncclFloat, ncclSum,
                                       member.communicator, stream));
      case CollectiveKind::Broadcast:
        return check(
            ncclBroadcast(sent, received, count, ncclFloat, 0, member.communicator, stream));
      case CollectiveKind::AllToAll:
        for (int peer = 0; peer < size(); ++peer) {
          const std::size_t at = part * sizeof(float) * static_cast<std::size_t>(peer);
          check(ncclSend(static_cast<const char*>(sent) + at, part, ncclFloat, peer,
                         member.communicator, stream));
          check(ncclRecv(static_cast<char*>(received) + at, part, ncclFloat, peer,
                         member.communicator, stream));
        }
        return;
      case CollectiveKind::SendReceive:
        if (member.index == 0)
          check(ncclSend(sent, count, ncclFloat, 1, member.communicator, stream));
        if (member.index == 1)
          check(ncclRecv(received, count, ncclFloat, 0, member.communicator, stream));
        return;
    }
  }

  std::vector<Member> members_;
  std::size_t free_before_ = 0;
};

std::string nccl_source(int gpus) {
  int code = 0;
  check_nccl(ncclGetVersion(&code), "version");
  return "rehearse-device profile; NCCL " + std::to_string(code / 10000) + "." +
         std::to_string(code % 10000 / 100) + "." + std::to_string(code % 100) + ", " +
         std::to_string(gpus) + " GPUs; median of " + std::to_string(kSamples);
}

/// 2, 4, … and all of them.
std::vector<int> group_sizes(int gpus) {
  std::vector<int> sizes;
  for (int size = 2; size < gpus; size *= 2) sizes.push_back(size);
  sizes.push_back(gpus);
  return sizes;
}

/// A product y = x·wᵀ of normally distributed numbers on the first GPU: others draw another power.
class Product {
 public:
  Product(CudaDevice& device, FillData& data, std::int64_t m, std::int64_t n, std::int64_t k)
      : device_(device),
        a_(tensor(m, k)),
        b_(tensor(n, k)),
        out_(tensor(m, n)),
        a_data_(a_.bytes()),
        b_data_(b_.bytes()),
        out_data_(out_.bytes()) {
    // On the device's own stream, so that products wait for it.
    data.fill(device, a_, static_cast<std::byte*>(a_data_.data()));
    data.fill(device, b_, static_cast<std::byte*>(b_data_.data()));
  }
  /// Seconds of some, one after the other.
  double run_s() {
    constexpr int kProducts = 8;
    check_cuda(cudaSetDevice(0));
    const Gemm gemm{.a = ConstTensorView(a_data_.data(), DType::Bf16, a_.shape),
                    .b = ConstTensorView(b_data_.data(), DType::Bf16, b_.shape),
                    .out = TensorView(out_data_.data(), DType::Bf16, out_.shape),
                    .transpose_b = true};
    begin_.record(device_.stream());
    for (int i = 0; i < kProducts; ++i) device_.run(gemm);
    end_.record(device_.stream());
    end_.wait();
    return end_.seconds_since(begin_);
  }

 private:
  static TaskTensor tensor(std::int64_t rows, std::int64_t columns) {
    return {.dtype = DType::Bf16, .shape = {rows, columns}};
  }
  CudaDevice& device_;
  TaskTensor a_, b_, out_;
  CudaBuffer a_data_, b_data_, out_data_;
  CudaEvent begin_, end_;
};

/// Products of three shapes, alone and beside all-reduces of 256 MiB on a known number of
/// multiprocessors, which are told NCCL rather than asked of it. The median of the three counts.
void measure_overlap(int gpus, NodeMeasurements& result) {
  constexpr int kChannels = 16, kReductions = 24;
  constexpr std::size_t kReduced = std::size_t{256} << 20;
  constexpr std::int64_t kShapes[][3] = {
      {8192, 8192, 4096}, {4096, 14336, 4096}, {8192, 4096, 6400}};
  Node node(gpus, kReduced, kChannels);
  check_cuda(cudaSetDevice(0));
  CudaDevice device(0);
  FillData data(1);
  std::vector<double> ratios;
  for (const auto& [m, n, k] : kShapes) {
    Product product(device, data, m, n, k);
    product.run_s();
    std::vector<double> alone, beside;
    for (int i = 0; i < kSamples; ++i) {
      alone.push_back(product.run_s());
      for (int j = 0; j < kReductions; ++j) node.issue(CollectiveKind::AllReduce, kReduced);
      beside.push_back(product.run_s());
      node.wait();
    }
    ratios.push_back(statistics_of(beside).median / statistics_of(alone).median);
  }
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, 0));
  const double left = 1 - static_cast<double>(kChannels) / properties.multiProcessorCount;
  // A product that fills its waves no worse on fewer multiprocessors loses nothing to them.
  result.overlap_slowdown = std::max(1.0, statistics_of(ratios).median * left);
  result.overlap_source = nccl_source(gpus) + ", three products beside all-reduces on " +
                          std::to_string(kChannels) + " multiprocessors";
}

void measure_curves(int size, Clock::time_point end, const std::atomic<bool>& interrupt,
                    NodeMeasurements& result) {
  Node node(size, kMostBytes, 0);
  for (const CollectiveKind kind : kCollectiveKinds) {
    if (kind == CollectiveKind::SendReceive && size > 2) continue;  // it has two ends
    CollectiveCurve curve{.collective = kind, .ranks = size, .source = nccl_source(size)};
    for (std::size_t bytes = kLeastBytes; bytes <= kMostBytes; bytes *= 2) {
      if (interrupt || Clock::now() > end) break;
      // Whole numbers of elements for every rank.
      const std::size_t unit = sizeof(float) * static_cast<std::size_t>(size);
      const std::size_t whole = bytes / unit * unit;
      curve.points.push_back({static_cast<double>(whole), node.seconds(kind, whole)});
    }
    if (curve.points.size() >= 2) result.curves.push_back(std::move(curve));
  }
  StatedBytes& taken =
      size == 2 ? result.overheads.pair_communicator : result.overheads.communicator;
  taken = {std::max(taken.bytes, node.communicator_bytes()), "measured"};
}

}  // namespace

NodeMeasurements measure_gpu_node(double budget_s, const std::atomic<bool>& interrupt) {
  NodeMeasurements result;
  int gpus = 0;
  if (cudaGetDeviceCount(&gpus) != cudaSuccess || gpus < 2) return result;
  const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                      std::chrono::duration<double>(budget_s));
  try {
    measure_overlap(gpus, result);
    for (const int size : group_sizes(gpus)) measure_curves(size, end, interrupt, result);
  } catch (const std::exception& error) {
    result.problem = error.what();
  }
  return result;
}

#else

NodeMeasurements measure_gpu_node(double, const std::atomic<bool>&) { return {}; }

#endif

}  // namespace rehearse
