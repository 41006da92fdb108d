// Which operators a profile measures, and what becomes of them.
#include <algorithm>
#include <array>
#include <set>

#include "kernels/fit/measured_labels.h"
#include "kernels/profile_file.h"
#include "kernels/profiler/measure.h"
#include "kernels/profiler/model_shapes.h"
#include "kernels/profiler/profile_report.h"
#include "tests/catch.h"

using namespace rehearse;

namespace {

/// The call of a task over tensors that are nowhere.
OperatorCall call_of(const ProfileTask& task) {
  std::vector<TensorView> views;
  for (const TaskTensor& tensor : task.tensors)
    views.emplace_back(reinterpret_cast<void*>(256), tensor.dtype, tensor.shape);
  return task.call(views);
}

}  // namespace

TEST_CASE("every kind of call is among what is measured, on CPUs and on GPUs") {
  for (const ProfileScope& scope : {cpu_scope(), gpu_scope()}) {
    std::set<std::size_t> kinds;
    bool batched = false, epilogues[4] = {}, varlen = false, layer_norm = false, residual = false;
    for (const ProfileTask& task : profile_tasks(scope)) {
      const OperatorCall call = call_of(task);
      kinds.insert(call.index());
      CHECK((task.label == "gemm" || task.label == "attention" || task.label == "grouped_gemm" ||
             measured_label(task.label)));
      varlen = varlen || task.label == "attention_varlen";
      if (const auto* gemm = std::get_if<Gemm>(&call)) {
        batched = batched || gemm->out.shape.rank == 3;
        epilogues[static_cast<int>(gemm->epilogue)] = true;
      }
      if (const auto* norm = std::get_if<NormForward>(&call)) {
        layer_norm = layer_norm || norm->kind == Norm::LayerNorm;
        residual = residual || norm->residual.given();
      }
    }
    CHECK(kinds.size() == std::variant_size_v<OperatorCall>);
    CHECK((batched && varlen && layer_norm && residual));
    for (const bool epilogue : epilogues) CHECK(epilogue);
  }
}

TEST_CASE("a GPU measures 1,500 shapes in three layouts, layers cut over tensor ranks among them") {
  const std::vector<ProfileTask> bf16 = product_tasks(gpu_scope(), DType::Bf16);
  CHECK(bf16.size() == 3 * 1500);
  std::set<std::array<std::int64_t, 3>> shapes;
  for (std::size_t i = 0; i < bf16.size(); i += 3)
    shapes.insert({bf16[i].op.m, bf16[i].op.n, bf16[i].op.k});
  CHECK(shapes.size() > 1480);  // hardly one twice
  const auto& layers = model_linear_shapes();
  const auto has = [&](std::int64_t outputs, std::int64_t inputs) {
    return std::count(layers.begin(), layers.end(), LinearShape{outputs, inputs});
  };
  // GPT-2 124M whole; Llama 3 8B's QKV (32 + 2·8 heads of 128) whole and over 8 ranks, its down
  // projection of 14,336 over 2.
  CHECK(has(2304, 768) == 1);
  CHECK(has(6144, 4096) == 1);
  CHECK(has(768, 4096) == 1);
  CHECK(has(4096, 7168) == 1);
  std::size_t exact = 0;
  for (const auto& [m, n, k] : shapes) exact += (m == 2048 || m == 8192) && has(n, k) ? 1 : 0;
  CHECK(exact > 350);
  const std::vector<ProfileTask> fp8 = product_tasks(gpu_scope(), DType::F8E4m3);
  CHECK(fp8.size() == 3 * 200);
  CHECK(product_tasks(gpu_scope(false), DType::F8E4m3).empty());
}

TEST_CASE("attention is measured at odd lengths and many heads, and at the lengths of its bars") {
  std::set<std::int64_t> lengths, heads, sizes;
  bool bar = false;
  int odd = 0, powers = 0;
  for (const ProfileTask& task : attention_tasks(gpu_scope(), DType::Bf16)) {
    const Operator& op = task.op;
    if (task.label != "attention") continue;
    lengths.insert(op.query_len);
    heads.insert(op.heads);
    sizes.insert(op.head_dim);
    odd += op.query_len % 2 == 1 ? 1 : 0;
    powers += (op.query_len & (op.query_len - 1)) == 0 ? 1 : 0;
    bar = bar || (op.query_len == 8192 && op.head_dim == 128 && op.causal);
  }
  CHECK(lengths.size() > 40);
  CHECK(heads.size() >= 7);
  CHECK(sizes.size() == 3);
  CHECK(odd > 20);
  CHECK(powers < 40);
  CHECK(bar);
}

TEST_CASE("experts' products have a fit of their own, and steps price by it") {
  ProfileScope scope = cpu_scope();
  scope.most_flops = scope.most_plain_flops = 5e7;
  scope.most_elements = 1 << 18;
  scope.products = scope.expert_products = 40;
  scope.model_tokens = {};
  std::vector<ProfileTask> tasks = product_tasks(scope, DType::F32);
  for (ProfileTask& task : expert_tasks(scope, DType::F32)) tasks.push_back(std::move(task));
  for (ProfileTask& task : memory_tasks(scope, DType::F32)) tasks.push_back(std::move(task));
  // Experts' kernel at half the rate of other products.
  Measurements measured;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    const Operator& op = tasks[i].op;
    const double rate = is_expert_gemm(op) ? 0.5e12 : 1e12;
    measured.operators.push_back(
        {.task = i, .seconds = {.median = op.flops / rate + op.bytes / 1e11 + 1e-6, .count = 5}});
  }
  DeviceFacts facts;
  facts.gpu = "cpu";
  facts.streaming_multiprocessors = 1;
  facts.l2_bytes = 1e6;
  facts = with_measured_rates(facts, tasks, measured);
  const Profile profile =
      measured_profile(measurement_table(tasks, measured, "cpu"),
                       {.device = facts, .made_by = "a test", .table_name = "table.csv"}, 1e-6);
  REQUIRE(profile.gemm.size() == 1);
  REQUIRE(profile.expert_gemm.size() == 1);
  Problems problems;
  const auto read = read_profile(write_profile(profile), "profile.json", problems);
  CAPTURE(problems.text());
  REQUIRE(read);
  const auto costs = profile_cost_model(*read, facts, ClockRegime::Burst);
  const Operator plain =
      batched_gemm(OperatorName::Qkv, Pass::Forward, Precision::Fp32, 8, 67, 150, 140);
  const Operator experts = expert_gemm(Pass::Forward, Precision::Fp32, 8, 67, 150, 140);
  const double ratio = costs->cost(experts).seconds / costs->cost(plain).seconds;
  CHECK((ratio > 1.4 && ratio < 2.4));
  // A measured one is priced as it was, and not as a batch of plain products.
  const ProfileTask* grouped = nullptr;
  for (const ProfileTask& task : tasks)
    if (task.label == "grouped_gemm" && task.op.pass == Pass::Forward) grouped = &task;
  REQUIRE(grouped);
  Operator down = grouped->op;
  down.name = OperatorName::ExpertDown;
  CHECK(costs->cost(down).source == CostSource::Measured);
  // Routing and tokens on their way have prices too.
  for (const OperatorName name : {OperatorName::Router, OperatorName::TokenPermute,
                                  OperatorName::ExpertActivation, OperatorName::FfnUp}) {
    const Pass pass = name == OperatorName::FfnUp ? Pass::WeightGradient : Pass::Forward;
    CAPTURE(operator_name(name));
    CHECK(costs->cost(memory_operator(name, pass, 1e6)).source != CostSource::DataSheet);
  }
}

TEST_CASE(
    "small operators rotate over more than the cache, and batches last as long as they should") {
  /// A call alone takes 8 µs, one among many 2 µs.
  class StartingStopwatch final : public Stopwatch {
   public:
    std::size_t distinct = 0;
    double longest_s = 0;
    std::unique_ptr<TimedBatch> prepare(const std::vector<OperatorCall>& calls) override {
      class Batch final : public TimedBatch {
       public:
        explicit Batch(double seconds) : seconds_(seconds) {}
        double run_s() override { return seconds_; }

       private:
        double seconds_;
      };
      std::set<const void*> operands;
      for (const OperatorCall& call : calls) operands.insert(std::get<Add>(call).a.data);
      distinct = std::max(distinct, operands.size());
      const double seconds = 6e-6 + 2e-6 * static_cast<double>(calls.size());
      longest_s = std::max(longest_s, seconds);
      return std::make_unique<Batch>(seconds);
    }
    std::map<std::string, std::string> remarks(const OperatorCall&, bool) override { return {}; }
  };
  const TaskTensor small{.dtype = DType::F32, .shape = {1024}};
  const ProfileTask task{
      .op = memory_operator(OperatorName::ResidualAdd, Pass::Forward, 12288),
      .label = "residual_add",
      .tensors = {small, small, small},
      .call = [](const auto& t) -> OperatorCall { return Add{.a = t[0], .b = t[1], .out = t[2]}; }};
  const auto device = cpu_device(1);
  StartingStopwatch stopwatch;
  const std::atomic<bool> interrupt{false};
  const MeasureOptions options{
      .cache_bytes = 5e6, .memory_bytes = 1e8, .most_sets = 1024, .rotation_s = 20e-3};
  const Measurements measured =
      measure({task}, *device, stopwatch, options, interrupt, [](const MeasureProgress&) {});
  REQUIRE(measured.operators.size() == 1);
  CHECK(static_cast<double>(stopwatch.distinct) * 12288 > 2 * options.cache_bytes);
  CHECK(stopwatch.longest_s >= 0.8 * options.batch_s);
  CHECK(measured.operators[0].seconds.median == Approx(2e-6).epsilon(0.02));
}

TEST_CASE("all that a GPU measures can be read back into a profile") {
  const std::vector<ProfileTask> tasks = profile_tasks(gpu_scope());
  DeviceFacts facts;
  facts.gpu = "h200-sxm";
  facts.bf16_flops = facts.fp16_flops = 989e12;
  facts.fp8_flops = 1979e12;
  facts.fp32_flops = 67e12;
  facts.memory_bandwidth_bytes_per_s = 4.8e12;
  facts.l2_bytes = 50e6;
  facts.streaming_multiprocessors = 132;
  facts.compute_capability = 90;
  Measurements measured;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    const Operator& op = tasks[i].op;
    const bool computes = op.family != OperatorFamily::Memory;
    const double computing_s = computes ? op.flops / (0.8 * peak_flops(facts, op.precision)) : 0;
    measured.operators.push_back(
        {.task = i, .seconds = {.median = computing_s + op.bytes / 3.8e12 + 3e-6, .count = 5}});
  }
  const Profile profile =
      measured_profile(measurement_table(tasks, measured, facts.gpu),
                       {.device = facts, .made_by = "a test", .table_name = "table.csv"}, 5e-6);
  CHECK(profile.gemm.size() == 3);  // bf16, fp8, fp32
  CHECK(profile.expert_gemm.size() == 2);
  CHECK(profile.samples.size() > 6000);
}
