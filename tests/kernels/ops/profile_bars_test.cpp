// What a table of measurements is held to, on tables that are made up: verdicts need no GPU.
#include <algorithm>

#include "kernels/profiler/floors.h"
#include "kernels/profiler/model_shapes.h"
#include "kernels/profiler/product_race.h"
#include "tests/catch.h"

using namespace rehearse;

namespace {

const std::string kHeader =
    "gpu,op,pass,dtype,s,kv_len,head_dim,causal,bytes,flops,least_bytes,mode,time_us\n";

/// Copies at 4,000 GB/s, 1 GB in 250 µs; a smaller one out of the cache, twice as fast.
const std::string kCopies =
    "h200-sxm,copy,,,,,,,1000000000,0,1e9,burst,250\n"
    "h200-sxm,copy,,,,,,,100000000,0,1e8,burst,12.5\n";

std::string memory_row(const std::string& op, const std::string& pass, double bytes,
                       double share_of_copies) {
  return "h200-sxm," + op + "," + pass + ",bf16,,,,," +
         std::to_string(static_cast<std::int64_t>(bytes)) + ",0,0,burst," +
         std::to_string(bytes / (4e12 * share_of_copies) * 1e6) + "\n";
}

std::string attention_row(const std::string& pass, double tflops, const std::string& causal = "1") {
  const double flops = 1e12;
  return "h200-sxm,attention," + pass + ",bf16,8192,8192,128," + causal + ",," + "1e12,1e9,burst," +
         std::to_string(flops / tflops * 1e-6) + "\n";
}

FloorReport report_of(const std::string& rows) {
  Problems problems;
  const auto measured = read_measured_rows(kHeader + rows, "table.csv", problems);
  CAPTURE(problems.text());
  REQUIRE(measured);
  return floors_of(*measured);
}

const Bar& bar_of(const FloorReport& report, const std::string& beginning) {
  for (const Bar& bar : report.bars)
    if (bar.what.rfind(beginning, 0) == 0) return bar;
  FAIL("no bar begins with " << beginning);
  return report.bars.front();
}

const std::string kGood =
    kCopies + attention_row("forward", 310) + attention_row("input_gradient", 205) +
    memory_row("adam", "update", 1e9, 0.82) + memory_row("norm", "forward", 2e8, 0.9);

}  // namespace

TEST_CASE("a table that reaches every bar passes, and each verdict is said") {
  const FloorReport report = report_of(kGood);
  CHECK(report.copy_bytes_per_s == Approx(4e12));
  CHECK(report.passes());
  CHECK(report.bars.size() == 4);
  const std::string text = floors_text(report);
  CHECK(text.find("Copies: 4000 GB/s") != std::string::npos);
  CHECK(text.find("- pass: adam update bf16, 64 MiB and more: 82 % of copies; at least 80\n") !=
        std::string::npos);
  CHECK(text.find("- pass: attention forward bf16, 8,192 causal, head size 128: 310 TFLOP/s; at "
                  "least 200, for 300\n") != std::string::npos);
  CHECK(text.find("FAIL") == std::string::npos);
}

TEST_CASE("each bar is missed by what lies below it, and by the worst of several") {
  CHECK_FALSE(report_of(kGood + memory_row("rope", "forward", 1e8, 0.74)).passes());
  CHECK(report_of(kGood + memory_row("rope", "forward", 1e8, 0.76)).passes());
  // Adam is held to more than the others; small operators to nothing.
  CHECK_FALSE(report_of(kGood + memory_row("adam", "update", 2e9, 0.78)).passes());
  CHECK(report_of(kGood + memory_row("rope", "forward", 6e7, 0.1)).passes());
  const FloorReport slow = report_of(kGood + attention_row("forward", 199));
  CHECK_FALSE(slow.passes());
  CHECK(*bar_of(slow, "attention forward").measured == Approx(199));
  CHECK_FALSE(report_of(kGood + attention_row("input_gradient", 119)).passes());
  // Full attention has no bar of its own.
  CHECK(report_of(kGood + attention_row("forward", 10, "0")).passes());
  CHECK(floors_text(report_of(kGood + attention_row("forward", 250)))
            .find("pass, short of the goal: attention forward") != std::string::npos);
}

TEST_CASE("what was not measured does not pass") {
  CHECK_FALSE(report_of("").passes());
  CHECK_FALSE(report_of(kCopies).passes());
  const FloorReport no_copies = report_of(kGood.substr(kCopies.size()));
  CHECK_FALSE(no_copies.passes());
  CHECK(floors_text(no_copies).find("NOT MEASURED: adam") != std::string::npos);
  const FloorReport no_adam =
      report_of(kCopies + memory_row("norm", "forward", 1e9, 1) + attention_row("forward", 310) +
                attention_row("input_gradient", 205));
  CHECK_FALSE(no_adam.passes());
  CHECK_FALSE(bar_of(no_adam, "adam").measured);
}

TEST_CASE("a floor is what takes longer, moving or computing") {
  const FloorReport report =
      report_of(kCopies + "h200-sxm,gemm,forward,bf16,,,,,,1e12,1e6,burst,1250\n" +
                "h200-sxm,gemm,forward,bf16,,,,,,1e9,1e6,burst,10\n" +
                "h200-sxm,gemm_bias,forward,bf16,,,,,,8e11,1e6,burst,1250\n" +
                "h200-sxm,gemm_bias,input_gradient,bf16,,,,,,8e11,8e9,burst,2500\n");
  REQUIRE(report.floors.size() == 3);
  // The fastest product computes at 800 TFLOP/s; 8 GB move in 2 ms.
  CHECK(report.floors[0].floor_s == Approx(1250e-6));
  CHECK(report.floors[1].floor_s == Approx(1000e-6));
  CHECK(report.floors[2].floor_s == Approx(2000e-6));
}

TEST_CASE("a file that is no table of a profile is refused with its place") {
  Problems problems;
  CHECK_FALSE(read_measured_rows("m,n,k\n1,2,3\n", "table.csv", problems));
  CHECK(problems.text().find("table.csv:1:1") != std::string::npos);
}

namespace {

/// Takes the times of a list, one after the other, and tells when it ran.
class ListedBatch final : public TimedBatch {
 public:
  ListedBatch(std::vector<double> times, std::string name, std::string& order)
      : times_(std::move(times)), name_(std::move(name)), order_(order) {}
  double run_s() override {
    order_ += name_;
    return times_[runs_++ % times_.size()];
  }

 private:
  std::vector<double> times_;
  std::string name_;
  std::string& order_;
  std::size_t runs_ = 0;
};

/// Every call takes a microsecond, ours `slower` times that.
class EvenStopwatch final : public Stopwatch {
 public:
  explicit EvenStopwatch(double slower) : slower_(slower) {}
  std::unique_ptr<TimedBatch> prepare(const std::vector<OperatorCall>& calls) override {
    return std::make_unique<ListedBatch>(
        std::vector<double>{slower_ * 1e-6 * static_cast<double>(calls.size())}, "", order_);
  }
  std::map<std::string, std::string> remarks(const OperatorCall&, bool) override { return {}; }

 private:
  double slower_;
  std::string order_;
};

std::vector<RaceResult> raced(const std::vector<ProfileTask>& tasks, double slower) {
  ProfiledDevice device;
  device.device = cpu_device(1);
  device.stopwatch = std::make_unique<EvenStopwatch>(slower);
  device.cache_bytes = 1e5;
  device.memory_bytes = 1e7;
  EvenStopwatch bare(1);
  const std::atomic<bool> interrupt{false};
  return race_all(
      tasks, device, [&](const std::vector<OperatorCall>& calls) { return bare.prepare(calls); },
      0.03, 60, interrupt);
}

}  // namespace

TEST_CASE("a race runs both in turns, and compares them round by round") {
  std::string order;
  // A clock that falls by half midway slows both; round by round ours takes 1.02 times as long.
  ListedBatch ours({9, 1.02, 1.02, 2.04, 2.04}, "o", order);
  ListedBatch bare({9, 1, 1, 2, 2}, "b", order);
  const RaceResult result = race(ours, bare, 2, 4);
  CHECK(order == "obobboobbo");
  CHECK(result.ratio == Approx(1.02));
  CHECK(result.rounds == 4);
  CHECK(result.bare_s == Approx(0.75));
}

TEST_CASE("a race passes within its tolerance, fails beyond it, and fails unfinished") {
  ProfileScope scope = cpu_scope();
  scope.most_flops = 1e6;
  scope.most_elements = 1 << 14;
  scope.products = 2;
  scope.model_tokens = {};
  const std::vector<ProfileTask> tasks = product_tasks(scope, DType::F32);
  REQUIRE(tasks.size() == 6);
  const std::vector<RaceResult> within = raced(tasks, 1.02), beyond = raced(tasks, 1.05);
  REQUIRE(within.size() == tasks.size());
  CHECK(race_passes(tasks, within, 0.03));
  CHECK(race_text(tasks, within, 0.03).find("pass: 6 of 6 products are within 3 %") !=
        std::string::npos);
  CHECK_FALSE(race_passes(tasks, beyond, 0.03));
  CHECK(beyond.front().rounds == 33);  // raced again before it is said
  CHECK(race_text(tasks, beyond, 0.03).find("FAIL: 0 of 6 products") != std::string::npos);
  CHECK_FALSE(race_passes(tasks, {within.begin(), within.end() - 1}, 0.03));
  CHECK_FALSE(race_passes({}, {}, 0.03));
}

TEST_CASE("races are over products of the shipped models, in three layouts") {
  const std::vector<ProfileTask> tasks = race_tasks(gpu_scope());
  CHECK(tasks.size() % 3 == 0);
  CHECK(tasks.size() >= 90);
  const auto& layers = model_linear_shapes();
  bool exact = false, fp32 = false;
  for (const ProfileTask& task : tasks) {
    exact =
        exact || (task.op.pass == Pass::Forward && task.op.m == 4096 &&
                  std::count(layers.begin(), layers.end(), LinearShape{task.op.n, task.op.k}) > 0);
    fp32 = fp32 || task.dtype == DType::F32;
  }
  CHECK(exact);
  CHECK(fp32);
}
