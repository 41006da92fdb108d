#pragma once
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/channel.h"

namespace rehearse {

class FakeStream;
class FakeComm;

/// What the GPUs of a test have in common: who talks to whom, and what went wrong.
struct FakeFabric {
  std::atomic<int> device_waits{0};  ///< host waited for all streams, as CUDA may for its memory
  std::atomic<int> hangs{0};         ///< such waits that would have lasted for ever
  std::atomic<int> made{0}, ended_well{0}, aborted{0};
  std::atomic<int> misuses{0};  ///< calls that NCCL forbids

  std::shared_ptr<FakeComm> comm_of(const std::string& id, int size);

 private:
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<FakeComm>> comms_;
};

/// A GPU made of threads: a stream that computes, on the CPU, and one for each channel, which run
/// beside each other and know no order but their marks. It is as forbidding as CUDA may be: memory
/// is allocated and given back only when all streams are idle, which the host waits for.
class FakeGpu final : public ComputeDevice, public ChannelBackend {
 public:
  FakeGpu(FakeFabric& fabric, int rank);
  ~FakeGpu() override;

  std::string description() const override { return "fake"; }
  void* allocate(std::size_t bytes) override;
  void release(void* memory) noexcept override;
  void upload(void* to_device, const void* from_host, std::size_t bytes) override;
  void download(void* to_host, const void* from_device, std::size_t bytes) override;
  void fill_bytes(void* memory, std::uint8_t value, std::size_t bytes) override;
  void copy(void* to, const void* from, std::size_t bytes) override;
  void synchronize() override;
  int allocations() const { return allocations_; }

  ComputeDevice& device() override { return *this; }
  std::size_t id_bytes() const override { return 16; }
  std::string new_id() override;
  std::unique_ptr<Channel> connect(const std::string& id, int rank, int size) override;
  std::shared_ptr<const StreamMark> compute_mark() override;
  void before_host_waits(std::function<void()> call) override { before_host_waits_ = call; }

 private:
  friend class FakeChannel;
  void execute(const OperatorCall& call) override;
  void wait_for_all_streams() noexcept;

  FakeFabric& fabric_;
  int rank_, ids_ = 0, allocations_ = 0;
  std::unique_ptr<ComputeDevice> cpu_;
  std::unique_ptr<FakeStream> compute_;
  std::mutex streams_mutex_;
  std::vector<FakeStream*> streams_;
  std::function<void()> before_host_waits_;
};

}  // namespace rehearse
