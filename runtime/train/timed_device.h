#pragma once
#include "kernels/ops/compute_device.h"
#include "runtime/timeline_writer.h"

namespace rehearse {

/// Runs operators on another device, waits for each, and says when it was at work (seconds of
/// EventLog::now_s). What else a device does is passed on.
class TimedDevice : public ComputeDevice {
 public:
  explicit TimedDevice(ComputeDevice& inner) : inner_(inner) {}
  std::string description() const override { return inner_.description(); }
  void* allocate(std::size_t bytes) override { return inner_.allocate(bytes); }
  void release(void* memory) noexcept override { inner_.release(memory); }
  void upload(void* to_device, const void* from_host, std::size_t bytes) override {
    inner_.upload(to_device, from_host, bytes);
  }
  void download(void* to_host, const void* from_device, std::size_t bytes) override {
    inner_.download(to_host, from_device, bytes);
  }
  void fill_bytes(void* memory, std::uint8_t value, std::size_t bytes) override {
    const double start_s = EventLog::now_s();
    inner_.fill_bytes(memory, value, bytes);
    inner_.synchronize();
    filled(start_s, EventLog::now_s());
  }
  void copy(void* to, const void* from, std::size_t bytes) override {
    inner_.copy(to, from, bytes);
  }
  void synchronize() override { inner_.synchronize(); }
  DeviceMemory memory() override { return inner_.memory(); }

 private:
  virtual void ran(const OperatorCall& call, double start_s, double end_s) = 0;
  virtual void filled(double start_s, double end_s) = 0;

  void execute(const OperatorCall& call) override {
    const double start_s = EventLog::now_s();
    inner_.run(call);
    inner_.synchronize();
    ran(call, start_s, EventLog::now_s());
  }

  ComputeDevice& inner_;
};

}  // namespace rehearse
