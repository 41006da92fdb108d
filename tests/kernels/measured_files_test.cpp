// Measurements written by other programs: traces of torch.profiler and outputs of nccl-tests. The
// files here are made up for the tests.
#include "kernels/fit/measured_files.h"

#include <algorithm>
#include <string>

#include "kernels/fit/fit_profile.h"
#include "kernels/layer.h"
#include "tests/catch.h"
#include "tests/kernels/profile_support.h"

using namespace rehearse;

namespace {

DeviceFacts h100() {
  DeviceFacts facts;
  facts.fp32_flops = 67e12;
  facts.bf16_flops = facts.fp16_flops = 989e12;
  facts.fp8_flops = 1979e12;
  facts.memory_bandwidth_bytes_per_s = 3.35e12;
  facts.streaming_multiprocessors = 132;
  facts.compute_capability = 90;
  facts.gpu = "h100-sxm-80gb";
  facts.l2_bytes = 50e6;
  return facts;
}

std::optional<OperatorTable> read(const std::string& text, const std::string& path,
                                  Problems& problems) {
  return read_operator_table(text, path, h100(), problems);
}

OperatorTable good(const std::string& text, const std::string& path) {
  Problems problems;
  auto table = read(text, path, problems);
  INFO(problems.text());
  REQUIRE(table.has_value());
  REQUIRE(problems.empty());
  return std::move(*table);
}

std::string told(const std::string& text, const std::string& path) {
  Problems problems;
  CHECK_FALSE(read(text, path, problems).has_value());
  return problems.text();
}

std::string with(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

/// y = x · w of 4,096 tokens, 2,048 to 8,192; its two gradients; attention; a norm; and what is
/// not priced by shape.
const std::string kTrace = R"({
"displayTimeUnit": "ms",
"traceEvents": [
{"ph": "X", "cat": "cpu_op", "name": "aten::mm", "tid": 1, "ts": 10, "dur": 20, "args":
  {"External id": 1, "Input Dims": [[4096, 2048], [2048, 8192]],
   "Input type": ["c10::BFloat16", "c10::BFloat16"]}},
{"ph": "X", "cat": "cpu_op", "name": "aten::_flash_attention_forward", "tid": 1, "ts": 40,
  "dur": 20, "args": {"External id": 2,
   "Input Dims": [[2, 2048, 16, 128], [2, 2048, 4, 128], [2, 2048, 4, 128]],
   "Input type": ["c10::BFloat16", "c10::BFloat16", "c10::BFloat16"]}},
{"ph": "X", "cat": "cpu_op", "name": "aten::native_layer_norm", "tid": 1, "ts": 70, "dur": 9,
  "args": {"External id": 3, "Input Dims": [[2, 2048, 2048], [], [2048], [2048], []],
   "Input type": ["c10::BFloat16", "", "c10::BFloat16", "c10::BFloat16", "Scalar"]}},
{"ph": "X", "cat": "cpu_op", "name": "autograd::engine::evaluate_function: MmBackward0",
  "tid": 2, "ts": 100, "dur": 100, "args": {"External id": 4}},
{"ph": "X", "cat": "cpu_op", "name": "aten::mm", "tid": 2, "ts": 110, "dur": 20, "args":
  {"External id": 5, "Input Dims": [[4096, 8192], [8192, 2048]],
   "Input type": ["c10::BFloat16", "c10::BFloat16"]}},
{"ph": "X", "cat": "cpu_op", "name": "aten::mm", "tid": 2, "ts": 140, "dur": 20, "args":
  {"External id": 6, "Input Dims": [[8192, 4096], [4096, 2048]],
   "Input type": ["c10::BFloat16", "c10::BFloat16"]}},
{"ph": "X", "cat": "cpu_op", "name": "aten::add_", "tid": 1, "ts": 210, "dur": 5, "args":
  {"External id": 7, "Input Dims": [[4096, 2048], [4096, 2048]]}},
{"ph": "X", "cat": "kernel", "name": "gemm", "tid": 7, "ts": 30, "dur": 180,
  "args": {"External id": 1}},
{"ph": "X", "cat": "kernel", "name": "splitk", "tid": 7, "ts": 210, "dur": 20,
  "args": {"External id": 1}},
{"ph": "X", "cat": "kernel", "name": "flash", "tid": 7, "ts": 230, "dur": 120,
  "args": {"External id": 2}},
{"ph": "X", "cat": "kernel", "name": "norm", "tid": 7, "ts": 350, "dur": 15,
  "args": {"External id": 3}},
{"ph": "X", "cat": "kernel", "name": "gemm", "tid": 7, "ts": 370, "dur": 210,
  "args": {"External id": 5}},
{"ph": "X", "cat": "kernel", "name": "gemm", "tid": 7, "ts": 590, "dur": 220,
  "args": {"External id": 6}},
{"ph": "X", "cat": "kernel", "name": "add", "tid": 7, "ts": 820, "dur": 12,
  "args": {"External id": 7}},
{"ph": "X", "cat": "kernel", "name": "ncclDevKernel", "tid": 9, "ts": 820, "dur": 900, "args": {}}
]})";

const std::string kReduceText = R"(# Collective test starting: all_reduce_perf
# nThread 1 nGpus 2 minBytes 1048576 maxBytes 4194304 step: 2(factor)
# Using devices
#  Rank  0 Group  0 Pid  11 on somewhere device  0 [0000:04:00] NVIDIA H100
#  Rank  1 Group  0 Pid  11 on somewhere device  1 [0000:05:00] NVIDIA H100
#
#                                                 out-of-place                 in-place
#       size   count  type redop root   time  algbw  busbw #wrong   time  algbw  busbw #wrong
#        (B) (elements)                 (us) (GB/s) (GB/s)          (us) (GB/s) (GB/s)
     1048576  262144 float   sum   -1  20.00  52.43  52.43      0  19.00  55.19  55.19      0
     2097152  524288 float   sum   -1  30.00  69.91  69.91      0  29.00  72.32  72.32      0
     4194304 1048576 float   sum   -1  50.00  83.89  83.89      0  49.00  85.60  85.60      0
# Out of bounds values : 0 OK
# Avg bus bandwidth    : 70.0
)";

const std::string kGatherJson = R"({"version": 3, "args": ["./all_gather_perf", "-g", "4"],
"config": {"nthreads": 1, "ngpus": 4},
"devices": [{"rank": 0, "hostname": "a"}, {"rank": 1, "hostname": "a"},
            {"rank": 2, "hostname": "a"}, {"rank": 3, "hostname": "a"}],
"results": [
 {"size": 1048576, "type": "float", "out_of_place": {"time": 25.0, "alg_bw": 41.94, "nwrong": 0}},
 {"size": 1048576, "type": "float", "out_of_place": {"time": 27.0, "alg_bw": 38.84, "nwrong": 0}},
 {"size": 8388608, "type": "float", "out_of_place": {"time": 60.0, "alg_bw": 139.8, "nwrong": 0}}
]})";

}  // namespace

TEST_CASE("a trace's kernels are the times of the operators that launched them") {
  const OperatorTable table = good(kTrace, "step.json");
  REQUIRE(table.samples.size() == 5);
  const OperatorSample& product = table.samples[0];
  CHECK(product.op.family == OperatorFamily::Gemm);
  CHECK(product.op.pass == Pass::Forward);
  CHECK(product.op.m == 4096);
  CHECK(product.op.n == 8192);
  CHECK(product.op.k == 2048);
  CHECK(product.seconds == Approx(200e-6));  // of both its kernels
  CHECK(product.sustained);
  CHECK(table.samples[1].op.family == OperatorFamily::Attention);
  CHECK(table.samples[1].op.batch == 2);
  CHECK(table.samples[1].op.query_len == 2048);
  CHECK(table.samples[1].op.heads == 16);
  CHECK(table.samples[1].op.kv_heads == 4);
  CHECK(table.samples[1].op.causal);
  CHECK(table.samples[2].op.name == OperatorName::Norm);
  CHECK(table.samples[2].op.bytes == Approx(2 * 2.0 * 2 * 2048 * 2048));
  CHECK(table.samples[3].op.pass == Pass::InputGradient);
  CHECK(table.samples[4].op.pass == Pass::WeightGradient);
  REQUIRE(table.notes.size() == 2);
  CHECK(table.notes[0].find("aten::add_") != std::string::npos);
  CHECK(table.notes[1].find("1 kernels that no operator launched") != std::string::npos);
}

TEST_CASE("a trace's operators can be priced exactly as they were measured") {
  FitRequest request{.device = h100(), .stack = "own", .made_by = "a test"};
  request.keep_samples = true;
  const Profile profile = fit_profile({good(kTrace, "step.json")}, request);
  CHECK(profile.samples.size() == 5);
  const auto costs = profile_cost_model(profile, profile.device);
  const Cost cost =
      costs->cost(gemm(OperatorName::FfnUp, Pass::Forward, Precision::Bf16, 4096, 8192, 2048));
  CHECK(cost.seconds == Approx(200e-6));
  CHECK(cost.source == CostSource::Measured);
}

TEST_CASE("what is wrong with a trace is told with its line") {
  const std::string broken = with(kTrace, "\"dur\": 180", "\"dur\": -180");
  const std::string negative = told(broken, "step.json");
  const auto end = broken.begin() + static_cast<std::ptrdiff_t>(broken.find("-180"));
  const std::string line = std::to_string(1 + std::count(broken.begin(), end, '\n'));
  CHECK(negative.find("step.json:" + line + ":") != std::string::npos);
  CHECK(negative.find("negative") != std::string::npos);
  CHECK(told(with(kTrace, "\"dur\": 120,", ""), "step.json").find("no \"dur\"") !=
        std::string::npos);
  // Nanoseconds would be a thousand times too slow, milliseconds too fast.
  CHECK(told(with(kTrace, "\"dur\": 220", "\"dur\": 220000000"), "step.json")
            .find("thousand times slower") != std::string::npos);
  CHECK(told(with(kTrace, "\"dur\": 220", "\"dur\": 0.22"), "step.json").find("faster than") !=
        std::string::npos);
  CHECK(
      told(with(kTrace, "[2048, 8192]", "[2047, 8192]"), "step.json").find("do not fit together") !=
      std::string::npos);
  CHECK(told(R"({"traceEvents": []})", "step.json").find("no kernels of a GPU") !=
        std::string::npos);
  CHECK(
      told(R"({"traceEvents": [{"ph": "X", "cat": "kernel", "dur": 3, "args": {}}]})", "step.json")
          .find("record_shapes=True") != std::string::npos);
  CHECK(told(R"({"events": []})", "step.json").find("no measurements that are known") !=
        std::string::npos);
}

TEST_CASE("a table of nccl-tests becomes a curve of its collective") {
  const OperatorTable table = good(kReduceText, "out.txt");
  REQUIRE(table.collectives.size() == 1);
  const CollectiveCurve& curve = table.collectives[0];
  CHECK(curve.collective == CollectiveKind::AllReduce);
  CHECK(curve.ranks == 2);
  REQUIRE(curve.points.size() == 3);
  CHECK(curve.points[1].bytes == 2097152);
  CHECK(curve.points[1].seconds == Approx(30e-6));
  FitRequest request{.device = h100(), .stack = "own", .made_by = "a test"};
  CHECK(fit_profile({table}, request).collectives.size() == 1);
}

TEST_CASE("the collective of a table that does not name it is its file's") {
  const std::string unnamed =
      with(kReduceText, "# Collective test starting: all_reduce_perf\n", "");
  CHECK(good(unnamed, "logs/alltoall_perf.txt").collectives[0].collective ==
        CollectiveKind::AllToAll);
  CHECK(told(unnamed, "out.txt").find("not told which collective") != std::string::npos);
  CHECK(told(with(kReduceText, "all_reduce_perf", "gather_perf"), "out.txt")
            .find("not told which collective") != std::string::npos);
}

TEST_CASE("nccl-tests' JSON becomes a curve, and repeated sizes their mean") {
  const OperatorTable table = good(kGatherJson, "out.json");
  REQUIRE(table.collectives.size() == 1);
  CHECK(table.collectives[0].collective == CollectiveKind::AllGather);
  CHECK(table.collectives[0].ranks == 4);
  REQUIRE(table.collectives[0].points.size() == 2);
  CHECK(table.collectives[0].points[0].seconds == Approx(26e-6));
}

TEST_CASE("curves over several nodes are left out with a note") {
  const OperatorTable table =
      good(with(kReduceText, "on somewhere device  1", "on elsewhere device  1"), "out.txt");
  CHECK(table.collectives.empty());
  REQUIRE(table.notes.size() == 1);
  CHECK(table.notes[0].find("2 nodes") != std::string::npos);
}

TEST_CASE("what is wrong with an output of nccl-tests is told with its line") {
  const auto says = [](const std::string& from, const std::string& to, const std::string& what) {
    CAPTURE(from, to);
    CHECK(told(with(kReduceText, from, to), "out.txt").find(what) != std::string::npos);
  };
  says("-1  30.00", "-1 -30.00", "a time is not positive");
  says("-1  30.00", "-1 -30.00", "out.txt:11");
  says("-1  30.00", "-1  0.030", "another unit?");
  says("-1  30.00", "-1  fast", "a row has no time");
  says("(us) (GB/s) (GB/s)          (us)", "(us) (GB/s) (GB/s)          (ms)", "in two units");
  says("69.91  69.91      0", "69.91  69.91      7", "was wrong for this size");
  says(" time  algbw  busbw #wrong   time", " span  algbw  busbw #wrong   span",
       "no column of times");
  says("     2097152  524288 float   sum   -1  30.00  69.91",
       "    -2097152  524288 float   sum   -1  30.00  69.91", "negative size");
  CHECK(
      told(with(kGatherJson, "\"time\": 60.0", "\"time\": -60.0"), "out.json").find("out.json:8") !=
      std::string::npos);
  CHECK(told(with(kGatherJson, "\"time\": 60.0, ", ""), "out.json").find("lacks its") !=
        std::string::npos);
}
