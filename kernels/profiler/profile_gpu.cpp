// The part of profiling that needs CUDA: graphs, events, clocks and power.
#include <dlfcn.h>

#include <algorithm>
#include <cctype>

#include "kernels/cuda/cuda_device.h"
#include "kernels/fit/operator_table.h"
#include "kernels/profile_catalogue.h"
#include "kernels/profiler/profile_device.h"

namespace rehearse {
namespace {

/// Calls recorded as one CUDA graph, so that the host's launches are not measured, between two
/// events.
class GraphBatch final : public TimedBatch {
 public:
  GraphBatch(CudaDevice& device, const std::vector<OperatorCall>& calls)
      : device_(device), graph_(recorded(device, calls)) {}
  double run_s() override {
    start_.record(device_.stream());
    graph_->launch(device_.stream());
    end_.record(device_.stream());
    end_.wait();
    return end_.seconds_since(start_);
  }

 private:
  static std::unique_ptr<CudaGraph> recorded(CudaDevice& device,
                                             const std::vector<OperatorCall>& calls) {
    // Once outside the recording: workspaces grow and heuristics are asked, which a recording
    // does not allow.
    device.run(calls.front());
    device.synchronize();
    return std::make_unique<CudaGraph>(device.stream(), [&] {
      for (const OperatorCall& call : calls) device.run(call);
    });
  }

  CudaDevice& device_;
  std::unique_ptr<CudaGraph> graph_;
  CudaEvent start_, end_;
};

/// Clocks, power and temperature, where the driver's library is there to ask. Signatures and
/// constants: NVML API Reference Guide, "Device Queries".
class Sensors {
 public:
  /// NVML counts GPUs otherwise than CUDA, which may see some of them only: the bus tells them.
  explicit Sensors(int index) : library_(dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL)) {
    if (library_ == nullptr) return;
    char bus[32] = {};
    check_cuda(cudaDeviceGetPCIBusId(bus, sizeof bus, index));
    const auto init = symbol<int (*)()>("nvmlInit_v2");
    const auto handle = symbol<int (*)(const char*, void**)>("nvmlDeviceGetHandleByPciBusId_v2");
    if (!init || !handle || init() != 0 || handle(bus, &device_) != 0) device_ = nullptr;
  }
  ~Sensors() {
    if (library_ == nullptr) return;
    if (const auto shutdown = symbol<int (*)()>("nvmlShutdown")) shutdown();
    dlclose(library_);
  }
  Sensors(const Sensors&) = delete;
  Sensors& operator=(const Sensors&) = delete;

  /// The clock at this moment; power, which the driver averages over a second (NVML API Reference
  /// Guide, nvmlDeviceGetPowerUsage), and temperature only after as long a measurement.
  std::map<std::string, std::string> read(bool sustained) const {
    std::map<std::string, std::string> remarks;
    if (device_ == nullptr) return remarks;
    unsigned value = 0;
    constexpr int kSmClock = 1, kGpuTemperature = 0;
    if (const auto clock = symbol<int (*)(void*, int, unsigned*)>("nvmlDeviceGetClockInfo");
        clock && clock(device_, kSmClock, &value) == 0)
      remarks["sm_clock_mhz"] = std::to_string(value);
    if (!sustained) return remarks;
    if (const auto power = symbol<int (*)(void*, unsigned*)>("nvmlDeviceGetPowerUsage");
        power && power(device_, &value) == 0)
      remarks["power_w"] = std::to_string(value / 1000);
    if (const auto heat = symbol<int (*)(void*, int, unsigned*)>("nvmlDeviceGetTemperature");
        heat && heat(device_, kGpuTemperature, &value) == 0)
      remarks["temperature_c"] = std::to_string(value);
    return remarks;
  }

  /// The driver's own version; empty where it does not say.
  std::string driver_version() const {
    char text[96] = {};
    if (device_ == nullptr) return "";
    const auto ask = symbol<int (*)(char*, unsigned)>("nvmlSystemGetDriverVersion");
    return ask && ask(text, sizeof text) == 0 ? text : "";
  }

 private:
  template <typename Function>
  Function symbol(const char* name) const {
    return reinterpret_cast<Function>(dlsym(library_, name));
  }
  void* library_ = nullptr;
  void* device_ = nullptr;
};

class GraphStopwatch final : public Stopwatch {
 public:
  GraphStopwatch(CudaDevice& device, int index) : device_(device), sensors_(index) {}
  std::unique_ptr<TimedBatch> prepare(const std::vector<OperatorCall>& calls) override {
    return std::make_unique<GraphBatch>(device_, calls);
  }
  std::map<std::string, std::string> remarks(const OperatorCall& call, bool sustained) override {
    std::map<std::string, std::string> result = sensors_.read(sustained);
    if (const Gemm* gemm = std::get_if<Gemm>(&call)) {
      const GemmChoice choice = device_.gemm().choice(*gemm);
      result["algorithm"] = std::to_string(choice.algorithm);
      result["tile"] = std::to_string(choice.tile);
      result["stages"] = std::to_string(choice.stages);
      result["split_k"] = std::to_string(choice.split_k);
      result["waves"] = std::to_string(choice.waves);
    }
    return result;
  }

 private:
  CudaDevice& device_;
  Sensors sensors_;
};

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

/// The catalogue's name for a GPU, or its own name in the catalogue's manner.
std::string catalogue_id(const std::string& name) {
  if (const TableGpu* known = find_table_gpu(name)) return known->gpu;
  constexpr std::pair<const char*, const char*> kNames[] = {{"H200", "h200-sxm"},
                                                            {"H100 80GB HBM3", "h100-sxm-80gb"},
                                                            {"B200", "b200-sxm"},
                                                            {"A100-SXM4-80GB", "a100-sxm-80gb"},
                                                            {"A100-SXM4-40GB", "a100-sxm-40gb"}};
  for (const auto& [part, id] : kNames)
    if (name.find(part) != std::string::npos) return id;
  std::string id;
  for (const char letter : name)
    id += letter == ' ' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
  return id;
}

/// Memory that is taken once a context and cuBLASLt's workspace exist. What others hold on the
/// device cannot be told apart; nobody's context takes gigabytes, so that then nothing is said.
MemoryOverheads measured_overheads(CudaDevice& device) {
  constexpr double kMostContext = 4.0 * (1 << 30);
  const auto workspace = static_cast<double>(device.gemm().workspace_bytes());
  MemoryOverheads overheads;
  overheads.matrix_workspace = {workspace, "measured"};
  std::size_t free = 0, total = 0;
  check_cuda(cudaMemGetInfo(&free, &total));
  const double context = static_cast<double>(total - free) - workspace;
  if (context > 0 && context < kMostContext) overheads.context = {context, "measured"};
  return overheads;
}

}  // namespace

ProfiledDevice profiled_gpu(int index) {
  ProfiledDevice result;
  auto device = std::make_unique<CudaDevice>(index);
  const CudaDeviceFacts cuda = cuda_devices().at(static_cast<std::size_t>(index));
  const std::string id = catalogue_id(cuda.name);
  // Data-sheet rates where a shipped profile of the GPU states them; else the fastest measured.
  if (const Profile* shipped = shipped_profile(id, kDefaultStack)) result.facts = shipped->device;
  result.facts.gpu = id;
  result.facts.streaming_multiprocessors = cuda.multiprocessors;
  result.facts.compute_capability =
      10 * cuda.compute_capability_major + cuda.compute_capability_minor;
  result.facts.l2_bytes = static_cast<double>(cuda.l2_bytes);
  result.cache_bytes = result.facts.l2_bytes;
  result.memory_bytes = 0.5 * static_cast<double>(cuda.memory_bytes);
  // The smallest operators take microseconds and little memory: hundreds of sets fill a cache.
  result.most_sets = 1024;
  result.overheads = measured_overheads(*device);
  result.scope = gpu_scope(result.facts.compute_capability >= 89);
  // A turn over hundreds of sets of small operands takes some milliseconds.
  result.rotation_s = 20e-3;
  const std::string driver = Sensors(index).driver_version();
  result.description = device->description() + ", CUDA " + version_text(cuda.runtime_version) +
                       ", driver " + (driver.empty() ? "" : driver + " ") + "for CUDA " +
                       version_text(cuda.driver_version);
  result.stopwatch = std::make_unique<GraphStopwatch>(*device, index);
  result.device = std::move(device);
  return result;
}

}  // namespace rehearse
