// A small profile on a GPU: operators recorded in graphs, operands that rotate, and the profile
// made of what was measured. Minutes of measuring are not the place to learn that one fails.
#include "kernels/cuda/cuda_devices.h"
#include "kernels/profile_file.h"
#include "kernels/profiler/profile_device.h"
#include "kernels/profiler/profile_report.h"
#include "tests/catch.h"

using namespace rehearse;

TEST_CASE("device: every operator of a long profile can be recorded in a graph and measured") {
  std::string reason;
  if (cuda_devices(&reason).empty()) {
    WARN("SKIPPED: " + reason);
    return;
  }
  ProfiledDevice gpu = profiled_gpu(0);
  gpu.scope.most_flops = gpu.scope.most_plain_flops = 2e10;
  gpu.scope.most_elements = 1 << 22;
  gpu.scope.products = 40;
  gpu.scope.other_products = 20;
  gpu.scope.fp8_products = gpu.scope.fp8_products > 0 ? 10 : 0;
  gpu.scope.expert_products = 10;
  gpu.scope.other_matrix_shapes = 3;
  gpu.scope.attentions = 6;
  gpu.scope.sustained_products = 1;
  gpu.scope.memory_sizes = 2;
  gpu.scope.sequence_lengths = {512};
  gpu.scope.model_tokens = {};
  const std::vector<ProfileTask> tasks = profile_tasks(gpu.scope);
  const std::atomic<bool> interrupt{false};
  MeasureOptions options = measure_options(gpu);
  options.memory_bytes = 1e9;
  options.most_samples = 5;
  Measurements measured = measure(tasks, *gpu.device, *gpu.stopwatch, options, interrupt,
                                  [](const MeasureProgress&) {});
  for (const MeasureFailure& failure : measured.failures) {
    const Operator& op = tasks[failure.task].op;
    CAPTURE(tasks[failure.task].label, pass_name(op.pass), op.m, op.n, op.k, op.bytes);
    FAIL_CHECK(failure.reason);
  }
  CHECK(measured.not_reached == 0);
  const DeviceFacts facts = with_measured_rates(gpu.facts, tasks, measured);
  // One sample that something interrupted is no failure of the device, but several are.
  leave_out_impossible(measured, tasks, facts);
  CHECK(measured.failures.size() <= 2);
  const Profile profile = measured_profile(
      measurement_table(tasks, measured, facts.gpu),
      {.device = facts, .made_by = "a test", .table_name = "table.csv"}, measured_launch_s(gpu));
  Problems problems;
  const auto read = read_profile(write_profile(profile), "profile.json", problems);
  CAPTURE(problems.text());
  CHECK(read);
  // Some are of one operator and size, such as gradient norms, which all are of fp32; and no step
  // has a third of the others by themselves.
  CHECK(profile.samples.size() > tasks.size() / 2);
  CHECK(!profile.gemm.empty());
}
