// Prices from a file of own measurements.
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "kernels/profile_file.h"
#include "planner/gpu_costs.h"
#include "tests/catch.h"

using namespace rehearse;

TEST_CASE("a profile's file prices the GPU of its id as measured, and no other") {
  Profile profile;
  profile.gpu = profile.device.gpu = "cpu";
  profile.stack = "test";
  profile.sustained_rate = {.value = 1, .source = "as measured"};
  profile.device.streaming_multiprocessors = 1;
  profile.device.fp32_flops = 5e10;
  profile.device.memory_bandwidth_bytes_per_s = 1e10;
  profile.samples.push_back(
      {.precision = Precision::Fp32, .m = 256, .n = 768, .k = 512, .seconds = 0.0125});
  const auto path = std::filesystem::temp_directory_path() /
                    ("rehearse-profile-" + std::to_string(getpid()) + ".json");
  std::ofstream(path) << write_profile(profile);
  const Operator op = gemm(OperatorName::Qkv, Pass::Forward, Precision::Fp32, 256, 768, 512);
  GpuSpec cpu{.id = "cpu", .memory_bandwidth_bytes_per_s = 2e11, .fp32_flops = 1e14};
  const Cost own = gpu_cost_model(cpu, {path.string()})->cost(op);
  CHECK(own.seconds == 0.0125);
  CHECK(own.source == CostSource::Measured);
  CHECK(gpu_cost_model(cpu)->cost(op).source != CostSource::Measured);
  cpu.id = "another";
  CHECK(gpu_cost_model(cpu, {path.string()})->cost(op).source != CostSource::Measured);
  std::filesystem::remove(path);
  CHECK_THROWS_AS(gpu_cost_model(cpu, {"/nowhere/p.json"}), std::runtime_error);
}

TEST_CASE("a profile's memory beside tensors goes before what is usual, part by part") {
  Profile profile;
  profile.gpu = profile.device.gpu = "cpu";
  profile.stack = "test";
  profile.device.streaming_multiprocessors = 1;
  profile.device.fp32_flops = 5e10;
  profile.device.memory_bandwidth_bytes_per_s = 1e10;
  constexpr double kMiB = 1024 * 1024;
  profile.overheads.context = {300 * kMiB, "measured: a table"};
  profile.overheads.communicator = {64 * kMiB, ""};
  const auto path = std::filesystem::temp_directory_path() /
                    ("rehearse-overheads-" + std::to_string(getpid()) + ".json");
  std::ofstream(path) << write_profile(profile);
  const GpuSpec cpu{.id = "cpu"}, other{.id = "another"};
  const MemoryOverheads stated = gpu_memory_overheads(cpu, {path.string()});
  CHECK(stated.context.bytes == 300 * kMiB);
  CHECK(stated.matrix_workspace.bytes == 0);
  CHECK(stated_text(stated) ==
        "context 300 MiB (measured: a table), each larger communicator 64 MiB");
  CHECK(stated_text(gpu_memory_overheads(other, {path.string()})).empty());
  const MemoryOverheads all = usual_overheads(stated);
  CHECK(all.context.bytes == 300 * kMiB);
  CHECK(all.matrix_workspace.bytes == 32 * kMiB);
  CHECK(all.pair_communicator.bytes == 342 * kMiB);
  CHECK(all.communicator.bytes == 64 * kMiB);
  const MemoryOverheads mixed = larger_of(stated, {.context = {400 * kMiB, "another"}});
  CHECK(mixed.context.source == "another");
  CHECK(mixed.communicator.bytes == 64 * kMiB);
  std::filesystem::remove(path);
}
