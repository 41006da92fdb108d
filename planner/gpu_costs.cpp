#include "planner/gpu_costs.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <list>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "kernels/profile_catalogue.h"
#include "kernels/profile_file.h"

namespace rehearse {
namespace {

bool same(const DeviceFacts& a, const DeviceFacts& b) {
  return a.gpu == b.gpu && a.fp32_flops == b.fp32_flops && a.bf16_flops == b.bf16_flops &&
         a.fp16_flops == b.fp16_flops && a.fp8_flops == b.fp8_flops &&
         a.memory_bandwidth_bytes_per_s == b.memory_bandwidth_bytes_per_s &&
         a.streaming_multiprocessors == b.streaming_multiprocessors &&
         a.compute_capability == b.compute_capability && a.l2_bytes == b.l2_bytes &&
         a.power_w == b.power_w;
}

/// One model for each GPU that was asked for, in the order of asking.
const CostModel& shared_model(const DeviceFacts& device) {
  struct Known {
    DeviceFacts device;
    std::unique_ptr<CostModel> model;
  };
  static std::mutex mutex;
  static std::vector<Known> known;
  const std::lock_guard lock(mutex);
  for (const Known& entry : known)
    if (same(entry.device, device)) return *entry.model;
  known.push_back({device, device_cost_model(device)});
  return *known.back().model;
}

/// A profile file that a scenario names, and its model; each file is read once. A list: models keep
/// their places while others are added.
struct FileModel {
  std::string path, gpu;
  MemoryOverheads overheads;
  std::unique_ptr<CostModel> model;
};

const FileModel& file_model(const std::string& path) {
  static std::mutex mutex;
  static std::list<FileModel> known;
  const std::lock_guard lock(mutex);
  for (const FileModel& entry : known)
    if (entry.path == path) return entry;
  std::ifstream in(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  if (!in) throw std::runtime_error("the profile " + path + " cannot be read");
  Problems problems;
  auto profile = read_profile(text, path, problems);
  if (!profile) throw std::runtime_error(problems.text());
  // The constants refer to the rates that were measured with them, whatever the scenario states.
  const DeviceFacts device = profile->device;
  const std::string gpu = profile->gpu;
  const MemoryOverheads overheads = profile->overheads;
  known.push_back({path, gpu, overheads, profile_cost_model(std::move(*profile), device)});
  return known.back();
}

class SharedCostModel final : public CostModel {
 public:
  explicit SharedCostModel(const CostModel& shared) : shared_(shared) {}
  Cost cost(const Operator& op) const override { return shared_.cost(op); }
  double launch_s() const override { return shared_.launch_s(); }
  std::string description() const override { return shared_.description(); }
  const std::vector<CollectiveCurve>& collectives() const override { return shared_.collectives(); }

 private:
  const CostModel& shared_;
};

}  // namespace

DeviceFacts device_facts(const GpuSpec& gpu) {
  DeviceFacts facts;
  facts.fp32_flops = gpu.fp32_flops;
  facts.bf16_flops = gpu.bf16_flops;
  facts.fp16_flops = gpu.fp16_flops;
  facts.fp8_flops = gpu.fp8_flops;
  facts.memory_bandwidth_bytes_per_s = gpu.memory_bandwidth_bytes_per_s;
  // Of a GPU whose multiprocessors are not stated, all of it is one: no waves, no idle rest.
  facts.streaming_multiprocessors = std::max(1, gpu.streaming_multiprocessors);
  facts.compute_capability = gpu.compute_capability;
  facts.gpu = gpu.id;
  facts.l2_bytes = gpu.l2_bytes;
  facts.power_w = gpu.power_w;
  return facts;
}

std::unique_ptr<CostModel> gpu_cost_model(const GpuSpec& gpu,
                                          const std::vector<std::string>& profile_files) {
  for (const std::string& path : profile_files)
    if (const FileModel& file = file_model(path); file.gpu == gpu.id)
      return std::make_unique<SharedCostModel>(*file.model);
  return std::make_unique<SharedCostModel>(shared_model(device_facts(gpu)));
}

MemoryOverheads gpu_memory_overheads(const GpuSpec& gpu,
                                     const std::vector<std::string>& profile_files) {
  for (const std::string& path : profile_files)
    if (const FileModel& file = file_model(path); file.gpu == gpu.id) return file.overheads;
  const Profile* shipped = shipped_profile(gpu.id, kDefaultStack);
  return shipped ? shipped->overheads : MemoryOverheads();
}

}  // namespace rehearse
