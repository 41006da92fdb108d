#include <dlfcn.h>

#include <array>
#include <memory>

#include "runtime/machine_facts.h"

namespace rehearse {
namespace {

// NVML comes with the driver, not with the toolkit, so it is loaded by hand. Signatures and
// constants: NVML API Reference Guide, "Initialization", "System Queries", "Device Queries".
using Device = void*;
constexpr int kSuccess = 0;
constexpr int kClockSm = 1;  // nvmlClockType_t NVML_CLOCK_SM

struct LibraryClose {
  void operator()(void* library) const { dlclose(library); }
};
using Library = std::unique_ptr<void, LibraryClose>;

template <typename Function>
Function symbol(const Library& library, const char* name) {
  return reinterpret_cast<Function>(dlsym(library.get(), name));
}

void describe_gpu(const Library& library, GpuFacts& gpu) {
  const auto by_bus_id =
      symbol<int (*)(const char*, Device*)>(library, "nvmlDeviceGetHandleByPciBusId_v2");
  const auto power_limit =
      symbol<int (*)(Device, unsigned*)>(library, "nvmlDeviceGetEnforcedPowerLimit");
  const auto max_clock =
      symbol<int (*)(Device, int, unsigned*)>(library, "nvmlDeviceGetMaxClockInfo");
  Device device = nullptr;
  if (!by_bus_id || by_bus_id(gpu.bus_id.c_str(), &device) != kSuccess) return;
  unsigned milliwatts = 0, megahertz = 0;
  if (power_limit && power_limit(device, &milliwatts) == kSuccess)
    gpu.power_limit_w = milliwatts * 1e-3;
  if (max_clock && max_clock(device, kClockSm, &megahertz) == kSuccess)
    gpu.max_sm_clock_hz = megahertz * 1e6;
}

}  // namespace

NvmlFacts probe_nvml(const char* name, std::vector<GpuFacts>& gpus) {
  NvmlFacts facts;
  const Library library(dlopen(name, RTLD_NOW | RTLD_LOCAL));
  if (!library) {
    facts.problem = std::string(name) + " is not there: it comes with the NVIDIA driver";
    return facts;
  }
  facts.found = true;
  const auto init = symbol<int (*)()>(library, "nvmlInit_v2");
  const auto shutdown = symbol<int (*)()>(library, "nvmlShutdown");
  const auto version = symbol<int (*)(char*, unsigned)>(library, "nvmlSystemGetDriverVersion");
  if (!init || !shutdown || !version) {
    facts.problem = std::string(name) + " lacks the functions of NVML";
    return facts;
  }
  if (const int error = init(); error != kSuccess) {
    facts.problem = "NVML does not start (nvmlReturn_t " + std::to_string(error) + ")";
    return facts;
  }
  std::array<char, 96> text{};
  if (version(text.data(), static_cast<unsigned>(text.size())) == kSuccess)
    facts.driver_version = text.data();
  for (auto& gpu : gpus) describe_gpu(library, gpu);
  shutdown();
  return facts;
}

}  // namespace rehearse
