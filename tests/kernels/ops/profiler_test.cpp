#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "kernels/profile_file.h"
#include "kernels/profiler/measure.h"
#include "kernels/profiler/profile_device.h"
#include "kernels/profiler/profile_report.h"
#include "tests/catch.h"

using namespace rehearse;

TEST_CASE("percentiles are interpolated between the sorted values") {
  const SampleStatistics of = statistics_of({5, 1, 4, 2, 3});
  CHECK(of.median == 3);
  CHECK(of.p10 == Approx(1.4));
  CHECK(of.p90 == Approx(4.6));
  CHECK(of.count == 5);
  CHECK(statistics_of({7}).median == 7);
  CHECK(mean_difference({4, 1, 2}) == Approx(2.0));  // of 3, 2 and 1
  CHECK(mean_difference({3, 3, 3, 3}) == 0);
}

TEST_CASE("quasi-random shapes cover the logarithm evenly and are seldom powers of two") {
  int low = 0, powers = 0;
  std::set<std::int64_t> distinct;
  for (std::int64_t i = 0; i < 400; ++i) {
    const std::int64_t size = log_uniform(quasi_random(i, 0), 16, 4096, 8);
    REQUIRE((size >= 16 && size <= 4096));
    low += size < 256 ? 1 : 0;
    powers += (size & (size - 1)) == 0 ? 1 : 0;
    distinct.insert(size);
  }
  CHECK(low == Approx(200).margin(15));
  CHECK(powers < 60);
  CHECK(distinct.size() > 120);
}

TEST_CASE("products are measured in three layouts, within the scope's limits") {
  const std::vector<ProfileTask> tasks = product_tasks(cpu_scope(), DType::F32);
  REQUIRE(tasks.size() % 3 == 0);
  CHECK(tasks.size() >= 180);
  bool odd = false, exact = false;
  for (std::size_t i = 0; i < tasks.size(); i += 3) {
    const Operator& forward = tasks[i].op;
    CHECK(forward.flops <= cpu_scope().most_flops);
    CHECK(tasks[i + 1].op.flops == forward.flops);
    CHECK(tasks[i + 2].op.flops == forward.flops);
    CHECK(tasks[i + 2].op.accumulate_fp32);
    odd = odd || forward.m % 2 == 1;
    exact = exact || (forward.n == 2304 && forward.k == 768);
  }
  CHECK(odd);
  CHECK(exact);
}

namespace {

/// A stopwatch that says how long an operator should take: 1 ns a kFLOP, with 1 % of noise.
class FakeStopwatch final : public Stopwatch {
 public:
  double slower = 1;

  std::unique_ptr<TimedBatch> prepare(const std::vector<OperatorCall>& calls) override {
    class Batch final : public TimedBatch {
     public:
      Batch(double seconds, int& runs) : seconds_(seconds), runs_(runs) {}
      double run_s() override { return seconds_ * (1 + 0.01 * (++runs_ % 3 - 1)); }

     private:
      double seconds_;
      int& runs_;
    };
    double seconds = 0;
    for (const OperatorCall& call : calls) {
      check(call);  // every task is a valid call
      const auto* gemm = std::get_if<Gemm>(&call);
      seconds += gemm == nullptr ? 1e-4
                                 : 2e-12 * static_cast<double>(gemm->out.elements()) *
                                       static_cast<double>(gemm->a.size(
                                           gemm->a.shape.rank - (gemm->transpose_a ? 2 : 1)));
    }
    return std::make_unique<Batch>(seconds * slower, runs_);
  }
  std::map<std::string, std::string> remarks(const OperatorCall&, bool) override {
    return {{"sm_clock_mhz", "1755"}};
  }

 private:
  int runs_ = 0;
};

ProfileScope small_scope() {
  ProfileScope scope = cpu_scope();
  scope.most_flops = scope.most_plain_flops = 5e7;
  scope.products = 40;
  scope.memory_sizes = 2;
  scope.most_elements = 1 << 18;
  scope.sequence_lengths = {16, 64};
  scope.model_tokens = {};
  return scope;
}

}  // namespace

TEST_CASE("every task of every scope is a valid call") {
  for (const ProfileScope& scope : {cpu_scope(), gpu_scope()})
    for (const ProfileTask& task : profile_tasks(scope)) {
      std::vector<TensorView> views;
      // Checks look at addresses, never at what lies there.
      for (const TaskTensor& tensor : task.tensors)
        views.emplace_back(reinterpret_cast<void*>(256 * (views.size() + 1)), tensor.dtype,
                           tensor.shape);
      REQUIRE_NOTHROW(check(task.call(views)));
    }
}

TEST_CASE("measurements become a profile that prices each shape as it was measured") {
  const std::vector<ProfileTask> tasks = profile_tasks(small_scope());
  const auto device = cpu_device(1);
  FakeStopwatch stopwatch;
  const std::atomic<bool> interrupt{false};
  const Measurements measured =
      measure(tasks, *device, stopwatch, {.budget_s = 1000, .memory_bytes = 1e7}, interrupt,
              [](const MeasureProgress&) {});
  REQUIRE(measured.operators.size() == tasks.size());
  CHECK(measured.not_reached == 0);
  DeviceFacts facts;
  facts.gpu = "cpu";
  facts.streaming_multiprocessors = 1;
  facts.l2_bytes = 1e6;
  facts = with_measured_rates(facts, tasks, measured);
  CHECK(facts.fp32_flops == Approx(1e12).epsilon(0.02));
  const std::string table = measurement_table(tasks, measured, "cpu");
  CHECK(table.find("sm_clock_mhz") != std::string::npos);
  const Profile profile = measured_profile(
      table, {.device = facts, .made_by = "a test", .table_name = "table.csv"}, 1e-6);
  Problems problems;
  const auto read = read_profile(write_profile(profile), "profile.json", problems);
  CAPTURE(problems.text());
  REQUIRE(read);
  const auto costs = profile_cost_model(*read, facts, ClockRegime::Burst);
  for (const MeasuredOperator& one : measured.operators) {
    const Operator& op = tasks[one.task].op;
    if (tasks[one.task].label != "gemm") continue;
    const Cost cost = costs->cost(op);
    CAPTURE(op.m, op.n, op.k, pass_name(op.pass));
    CHECK(cost.source == CostSource::Measured);
    CHECK(cost.seconds == Approx(one.seconds.median).epsilon(0.02));
  }
}

TEST_CASE("an interruption or a spent budget leaves what was measured") {
  const std::vector<ProfileTask> tasks = profile_tasks(small_scope());
  const auto device = cpu_device(1);
  FakeStopwatch stopwatch;
  std::atomic<bool> interrupt{false};
  const Measurements measured =
      measure(tasks, *device, stopwatch, {.budget_s = 1000, .memory_bytes = 1e7}, interrupt,
              [&](const MeasureProgress& at) { interrupt = at.done == 7; });
  CHECK(measured.interrupted);
  CHECK(measured.operators.size() == 7);
  CHECK(measured.not_reached == tasks.size() - 7);
  const Measurements none =
      measure(tasks, *device, stopwatch, {.budget_s = 0}, interrupt, [](const MeasureProgress&) {});
  CHECK(none.operators.empty());
}

TEST_CASE("the least operator of each kind comes first, and what would outlast the budget not") {
  std::vector<ProfileTask> tasks = product_tasks(small_scope(), DType::F32);
  const auto device = cpu_device(1);
  FakeStopwatch stopwatch;
  const std::atomic<bool> interrupt{false};
  // By its own account a call of the fake takes up to 50 µs, and 100 million times as long when
  // slowed; in truth it takes none.
  const auto reached = [&](double slower) {
    stopwatch.slower = slower;
    return measure(tasks, *device, stopwatch, {.budget_s = 1000, .memory_bytes = 1e7}, interrupt,
                   [](const MeasureProgress&) {});
  };
  CHECK(reached(1).not_reached == 0);
  const double most_call_s = 1000.0 / 3;
  const Measurements some = reached(1e8);
  CHECK(some.not_reached > 0);
  CHECK(some.operators.size() + some.not_reached == tasks.size());
  for (const MeasuredOperator& one : some.operators) CHECK(one.seconds.median <= 1.1 * most_call_s);
  std::set<Pass> passes;
  for (const MeasuredOperator& one : some.operators) passes.insert(tasks[one.task].op.pass);
  CHECK(passes.size() == 3);
}

namespace {

/// Refuses products whose results have a multiple of 32 columns.
class FailingStopwatch final : public Stopwatch {
 public:
  std::unique_ptr<TimedBatch> prepare(const std::vector<OperatorCall>& calls) override {
    const auto& gemm = std::get<Gemm>(calls.front());
    if (gemm.out.size(1) % 32 == 0) throw OperatorError("no such product");
    return inner_.prepare(calls);
  }
  std::map<std::string, std::string> remarks(const OperatorCall&, bool) override { return {}; }

 private:
  FakeStopwatch inner_;
};

/// Sees that every set of operands holds what the first one does.
class LookingStopwatch final : public Stopwatch {
 public:
  std::unique_ptr<TimedBatch> prepare(const std::vector<OperatorCall>& calls) override {
    most_calls = std::max(most_calls, calls.size());
    const auto& first = std::get<Gemm>(calls.front());
    for (const OperatorCall& call : calls) {
      const auto& one = std::get<Gemm>(call);
      alike = alike && same(one.a, first.a) && same(one.b, first.b);
      aligned = aligned && reinterpret_cast<std::uintptr_t>(one.b.data) % 256 == 0;
    }
    const auto* values = static_cast<const float*>(first.a.data);
    double squares = 0;
    for (std::int64_t i = 0; i < first.a.elements(); ++i)
      squares += static_cast<double>(values[i]) * static_cast<double>(values[i]);
    deviation = std::sqrt(squares / static_cast<double>(first.a.elements()));
    return inner_.prepare(calls);
  }
  std::map<std::string, std::string> remarks(const OperatorCall&, bool) override { return {}; }

  bool alike = true, aligned = true;
  double deviation = 0;
  std::size_t most_calls = 0;

 private:
  static bool same(const ConstTensorView& a, const ConstTensorView& b) {
    return std::memcmp(a.data, b.data, static_cast<std::size_t>(a.elements()) * sizeof(float)) == 0;
  }
  FakeStopwatch inner_;
};

}  // namespace

TEST_CASE("an operator that the device refuses is reported, and the others are measured") {
  const std::vector<ProfileTask> tasks = product_tasks(small_scope(), DType::F32);
  std::size_t refused = 0;
  for (const ProfileTask& task : tasks) refused += task.op.n % 32 == 0 ? 1 : 0;
  REQUIRE((refused > 0 && refused < tasks.size()));
  const auto device = cpu_device(1);
  FailingStopwatch stopwatch;
  const std::atomic<bool> interrupt{false};
  const Measurements measured =
      measure(tasks, *device, stopwatch, {.budget_s = 1000, .memory_bytes = 1e7}, interrupt,
              [](const MeasureProgress&) {});
  CHECK(measured.failures.size() == refused);
  CHECK(measured.operators.size() == tasks.size() - refused);
  CHECK(measured.not_reached == 0);
  for (const MeasureFailure& failure : measured.failures) {
    CHECK(tasks[failure.task].op.n % 32 == 0);
    CHECK(failure.reason == "no such product");
  }
}

TEST_CASE("operands are normally distributed, and every set that a call rotates over holds them") {
  std::vector<ProfileTask> tasks = product_tasks(small_scope(), DType::F32);
  tasks.resize(9);
  const auto device = cpu_device(1);
  LookingStopwatch stopwatch;
  const std::atomic<bool> interrupt{false};
  const Measurements measured = measure(tasks, *device, stopwatch,
                                        {.budget_s = 1000, .cache_bytes = 1e6, .memory_bytes = 1e8},
                                        interrupt, [](const MeasureProgress&) {});
  CHECK(measured.operators.size() == tasks.size());
  CHECK(stopwatch.alike);
  CHECK(stopwatch.aligned);
  CHECK(stopwatch.deviation == Approx(1).epsilon(0.2));
  CHECK(stopwatch.most_calls > 1);
}

TEST_CASE("the processor is measured for real, and its operators take time") {
  ProfiledDevice cpu = profiled_cpu(1, "a processor");
  std::vector<ProfileTask> tasks = product_tasks(small_scope(), DType::F32);
  tasks.resize(6);
  const std::atomic<bool> interrupt{false};
  const Measurements measured =
      measure(tasks, *cpu.device, *cpu.stopwatch, {.budget_s = 5, .memory_bytes = 1e7}, interrupt,
              [](const MeasureProgress&) {});
  REQUIRE(!measured.operators.empty());
  for (const MeasuredOperator& one : measured.operators) {
    CHECK(one.seconds.median > 0);
    CHECK(one.seconds.p10 <= one.seconds.p90);
    CHECK(tasks[one.task].op.flops / one.seconds.median < 1e13);  // no processor is so fast
  }
  CHECK(measured_launch_s(cpu) > 0);
  cpu.cache_bytes = 1e6;
  const std::vector<CopyTime> copies = measured_copies(cpu);
  REQUIRE(copies.size() >= 3);
  CHECK(copies.back().bytes >= 2 * 0x1p26);
  for (const CopyTime& copy : copies) {
    const double rate = copy.bytes / copy.seconds;
    CHECK((rate > 1e7 && rate < 1e14));
  }
}

TEST_CASE("a time that the device cannot have taken is left out of the profile, and reported") {
  const std::vector<ProfileTask> tasks = product_tasks(small_scope(), DType::F32);
  Measurements measured;
  for (std::size_t i = 0; i < 3; ++i)
    measured.operators.push_back({.task = i, .seconds = {.median = tasks[i].op.flops / 1e12}});
  DeviceFacts facts;
  facts.gpu = "cpu";
  facts.fp32_flops = 1e12;
  facts.memory_bandwidth_bytes_per_s = 1e12;
  leave_out_impossible(measured, tasks, facts);
  CHECK(measured.operators.size() == 3);
  measured.operators[1].seconds.median /= 10;
  measured.operators[2].seconds.median = 1e4;
  leave_out_impossible(measured, tasks, facts);
  REQUIRE(measured.operators.size() == 1);
  CHECK(measured.operators[0].task == 0);
  REQUIRE(measured.failures.size() == 2);
  CHECK(measured.failures[0].task == 1);
  CHECK(measured.failures[0].reason.find("faster than the data sheet") != std::string::npos);
  CHECK(measured.failures[1].reason.find("thousand times slower") != std::string::npos);
}
