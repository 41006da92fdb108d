// The operators of a plan, measured at work: all that the simulation asks for is there.
#include "runtime/plan_profile.h"

#include <cmath>

#include "kernels/profile_file.h"
#include "runtime/train/solo_world.h"
#include "tests/catch.h"

using namespace rehearse;

namespace {

PlanFile plan_with(const std::function<void(Model&, Plan&)>& change) {
  PlanFile file;
  Model& model = file.model;
  model.layers = 4;
  model.hidden = 32;
  model.heads = model.kv_heads = 4;
  model.head_dim = 8;
  model.ffn = 64;
  model.vocab = 100;
  model.max_seq_len = 16;
  file.workload = {.global_batch = 4, .seq_len = 16};
  file.plan.dp = 1;
  file.plan.framework = Framework::Rehearse;
  file.plan.precision = Precision::Fp32;
  change(model, file.plan);
  const int pieces = file.plan.pp * file.plan.virtual_stages;
  for (int piece = 0; piece < pieces; ++piece) file.layer_split.push_back(model.layers / pieces);
  file.gpus = world_size(file.plan);
  for (int rank = 0; rank < file.gpus; ++rank) file.rank_to_device.push_back(rank);
  return file;
}

void as_llama(Model& model) {
  model.kv_heads = 2;
  model.activation = Activation::Swiglu;
  model.norm = Norm::RmsNorm;
  model.positions = Positions::Rotary;
  model.linear_bias = model.tied_embeddings = false;
}

Profile measured(const PlanFile& file) {
  const auto device = [] { return profiled_cpu(1, "a processor"); };
  return measure_plan(file,
                      {.budget_s = 0, .device = device, .interrupt = nullptr, .progress = {}});
}

/// What the simulation prices of a step: every list, and the optimizer's work.
std::vector<Operator> operators_of(const PlanFile& file) {
  const LayerShape shape = layer_shape(file.model, file.plan, file.workload.seq_len);
  std::vector<Operator> out =
      optimizer_operators(1e4, 1e4, file.plan.precision, file.plan.gradient_precision);
  for (const auto& list :
       {embedding_forward(shape), embedding_backward(shape), layer_forward(shape),
        layer_backward(shape), head_forward(shape), head_backward(shape)})
    for (const LayerItem& item : list)
      if (!item.is_collective) out.push_back(item.op);
  return out;
}

void check_all_measured(const PlanFile& file) {
  const Profile profile = measured(file);
  Problems problems;
  const auto again = read_profile(write_profile(profile), "cpu.json", problems);
  INFO(problems.text());
  REQUIRE(again.has_value());
  const auto prices = profile_cost_model(*again, again->device);
  int varying = 0;
  for (const Operator& op : operators_of(file)) {
    CAPTURE(operator_name(op.name), pass_name(op.pass), op.m, op.n, op.k, op.bytes);
    const Cost cost = prices->cost(op);
    CHECK(cost.source == CostSource::Measured);
    CHECK(cost.seconds > 0);
    CHECK(cost.seconds < 10);
    varying += cost.deviation > 0;
  }
  CHECK(varying > 10);  // no operator on a CPU takes the same time twice
}

}  // namespace

TEST_CASE("every operator of a plan has a measured price, in each layout") {
  check_all_measured(plan_with([](Model&, Plan&) {}));
  check_all_measured(plan_with([](Model& model, Plan& plan) {
    as_llama(model);
    plan.precision = Precision::Bf16;
    plan.recompute = Recompute::Full;
  }));
  check_all_measured(plan_with([](Model&, Plan& plan) { plan.tp = 2; }));
  check_all_measured(plan_with([](Model& model, Plan& plan) {
    as_llama(model);
    plan.tp = 2;
    plan.sequence_parallel = true;
    plan.zero = 1;
    plan.dp = 2;
  }));
}

TEST_CASE("the operators of a pipeline are measured on its first and its last stage") {
  check_all_measured(plan_with([](Model&, Plan& plan) { plan.pp = 2; }));
  check_all_measured(plan_with([](Model&, Plan& plan) {
    plan.pp = 2;
    plan.schedule = ScheduleKind::ZbH1;
  }));
}

TEST_CASE("the operators of context ranks are measured without the others") {
  check_all_measured(plan_with([](Model&, Plan& plan) { plan.cp = 2; }));
}

TEST_CASE("a rank whose others are not there repeats its own part and gets made-up messages") {
  const auto device = cpu_device(1);
  const auto world = solo_world(1, 3, *device);
  TrafficCount count;
  const auto all = world->group({0, 1, 2}, count, {{0, 1, 1}});
  CHECK(all->rank() == 1);
  std::vector<float> own{1, 2}, whole(6), part(2), message(1000);
  all->all_gather({own.data(), DType::F32, {2}}, {whole.data(), DType::F32, {6}}, Traffic::Data);
  CHECK(whole == std::vector<float>{1, 2, 1, 2, 1, 2});
  whole = {0, 1, 2, 3, 4, 5};
  all->reduce_scatter({whole.data(), DType::F32, {6}}, {part.data(), DType::F32, {2}},
                      Traffic::Data);
  CHECK(part == std::vector<float>{2, 3});
  Transfer arrives = all->start_receive({message.data(), DType::F32, {1000}}, 0, 1);
  finish(arrives);
  double squares = 0;
  for (const float number : message) {
    REQUIRE(std::abs(number) <= 1);
    squares += static_cast<double>(number) * static_cast<double>(number);
  }
  CHECK(squares / 1000 == Approx(1.0 / 3).epsilon(0.1));  // evenly spread between −1 and 1
}
