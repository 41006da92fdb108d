#include "kernels/profiler/profile_device.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>

namespace rehearse {

MeasureOptions measure_options(const ProfiledDevice& device) {
  return {.cache_bytes = device.cache_bytes,
          .memory_bytes = device.memory_bytes,
          .most_sets = device.most_sets,
          .rotation_s = device.rotation_s};
}

ProfiledDevice profiled_cpu(int threads, const std::string& model) {
  ProfiledDevice result;
  result.device = cpu_device(threads);
  result.stopwatch = host_stopwatch(*result.device);
  result.facts.gpu = "cpu";
  result.facts.streaming_multiprocessors = threads;
  // What the C library says of the last-level cache; 32 MiB where it says nothing.
  const long l3 = sysconf(_SC_LEVEL3_CACHE_SIZE);
  result.cache_bytes = l3 > 0 ? static_cast<double>(l3) : 33554432.0;
  result.facts.l2_bytes = result.cache_bytes;
  result.memory_bytes = std::max(2.5 * result.cache_bytes, 1e8);
  result.scope = cpu_scope();
  result.description = model + ", " + result.device->description();
  return result;
}

#ifndef REHEARSE_HAS_CUDA
ProfiledDevice profiled_gpu(int) {
  throw std::runtime_error(
      "this program was built without device code, so that it cannot profile a GPU; "
      "--device cpu works");
}
#endif

double measured_launch_s(ProfiledDevice& device) {
  const float zeros[2] = {};
  DeviceBuffer memory(*device.device, sizeof zeros);
  device.device->upload(memory.data(), zeros, sizeof zeros);
  const TensorView one(memory.data(), DType::F32, {1});
  constexpr int kRounds = 9, kCalls = 200;
  std::vector<double> samples;
  for (int round = 0; round < kRounds; ++round) {
    device.device->synchronize();
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < kCalls; ++i) device.device->run(Add{.a = one, .b = one, .out = one});
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    samples.push_back(took.count() / kCalls);
  }
  device.device->synchronize();
  return statistics_of(samples).median;
}

std::vector<CopyTime> measured_copies(ProfiledDevice& device) {
  const double most = std::max(4 * device.cache_bytes, 0x1p26);
  const auto largest = static_cast<std::size_t>(most);
  DeviceBuffer from(*device.device, largest), to(*device.device, largest);
  device.device->fill_bytes(from.data(), 0x3c, largest);  // bf16 and fp32 alike: a small number
  const auto seconds_of = [&](std::size_t bytes, int copies) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < copies; ++i) device.device->copy(to.data(), from.data(), bytes);
    device.device->synchronize();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    return took.count() / copies;
  };
  std::vector<CopyTime> result;
  const auto measure_one = [&](std::size_t bytes) {
    seconds_of(bytes, 1);  // its pages are there now
    // One after the other for 10 ms, so that starting them is little.
    const double once_s = std::max(seconds_of(bytes, 1), 1e-9);
    const int copies = static_cast<int>(std::clamp(1e-2 / once_s, 1.0, 4096.0));
    std::vector<double> samples;
    for (int round = 0; round < 5; ++round) samples.push_back(seconds_of(bytes, copies));
    result.push_back(
        {.bytes = 2 * static_cast<double>(bytes), .seconds = statistics_of(samples).median});
  };
  for (std::size_t bytes = std::size_t{1} << 20; bytes < largest; bytes *= 4) measure_one(bytes);
  measure_one(largest);
  return result;
}

}  // namespace rehearse
