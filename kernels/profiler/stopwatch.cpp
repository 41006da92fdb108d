#include "kernels/profiler/stopwatch.h"

#include <chrono>

namespace rehearse {
namespace {

class HostBatch final : public TimedBatch {
 public:
  HostBatch(ComputeDevice& device, std::vector<OperatorCall> calls)
      : device_(device), calls_(std::move(calls)) {}
  double run_s() override {
    const auto start = std::chrono::steady_clock::now();
    for (const OperatorCall& call : calls_) device_.run(call);
    device_.synchronize();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

 private:
  ComputeDevice& device_;
  std::vector<OperatorCall> calls_;
};

class HostStopwatch final : public Stopwatch {
 public:
  explicit HostStopwatch(ComputeDevice& device) : device_(device) {}
  std::unique_ptr<TimedBatch> prepare(const std::vector<OperatorCall>& calls) override {
    return std::make_unique<HostBatch>(device_, calls);
  }
  std::map<std::string, std::string> remarks(const OperatorCall&, bool) override { return {}; }

 private:
  ComputeDevice& device_;
};

}  // namespace

std::unique_ptr<Stopwatch> host_stopwatch(ComputeDevice& device) {
  return std::make_unique<HostStopwatch>(device);
}

}  // namespace rehearse
