#include "planner/framework_defaults.h"

#include <algorithm>

#include "plan/json_document.h"
#include "plan/model_catalogue.h"
#include "plan/noun_tables.h"
#include "planner/evaluate.h"
#include "planner/framework_notes.h"
#include "tests/catch.h"

using namespace rehearse;

namespace {

Plan plan_of(const std::string& text) {
  Problems problems;
  const JsonDocument document = parse_json(text, "plan", problems);
  Reading reading(document.source, problems);
  Plan plan;
  REQUIRE(plan_table().read(document.root, reading, plan));
  REQUIRE(problems.empty());
  return plan;
}

Cluster dgx_cluster() {
  ClusterSpec spec;
  spec.groups.push_back({.node = *find_node("dgx-h100"), .count = 1});
  Problems problems;
  Cluster cluster = Cluster::build(spec, problems);
  REQUIRE(problems.empty());
  return cluster;
}

PlanOutcome outcome_of(const Plan& plan, const EvaluationOptions& options = {}) {
  return evaluate(*find_model("gpt3-1.3b"), {.global_batch = 16, .seq_len = 1024}, dgx_cluster(),
                  plan, options);
}

bool says(const PlanOutcome& outcome, const std::string& begin) {
  return std::any_of(outcome.assumptions.begin(), outcome.assumptions.end(),
                     [&](const std::string& text) { return text.rfind(begin, 0) == 0; });
}

}  // namespace

TEST_CASE("a framework fills what the file leaves open, and says so") {
  const PlanOutcome outcome = outcome_of(plan_of(R"({"framework": "megatron", "pp": 2, "tp": 2})"));
  REQUIRE(outcome.faults.empty());
  CHECK(outcome.plan.dropout == 0.1);
  CHECK_FALSE(outcome.plan.overlap.gradients);
  CHECK_FALSE(outcome.plan.overlap.pipeline);
  CHECK(says(outcome, "megatron: dropout = 0.1, because "));
  CHECK(says(outcome, "megatron: overlap/gradients = false, because "));
  CHECK(says(outcome, "megatron: overlap/pipeline = false, because "));
}

TEST_CASE("what the file says itself wins over every framework, nested fields one by one") {
  const std::string framework =
      GENERATE("megatron", "megatron-deepspeed", "fsdp", "torchtitan", "nanotron");
  const PlanOutcome outcome =
      outcome_of(plan_of(R"({"framework": ")" + framework +
                         R"(", "tp": 2, "pp": 2, "zero": 1, "dropout": 0, "attention": "flash",
               "schedule": "1f1b", "recompute": "none", "gradient_precision": "bf16",
               "sequence_parallel": true, "bucket": "50 MB", "overlap": {"gradients": true}})"));
  REQUIRE(outcome.faults.empty());
  CHECK(outcome.plan.zero == 1);
  CHECK(outcome.plan.dropout == 0);
  CHECK(outcome.plan.attention == AttentionKernel::Flash);
  CHECK(outcome.plan.schedule == ScheduleKind::OneFOneB);
  CHECK(outcome.plan.recompute == Recompute::None);
  CHECK(outcome.plan.gradient_precision == Precision::Bf16);
  CHECK(outcome.plan.sequence_parallel);
  CHECK(outcome.plan.bucket_bytes == 50e6);
  CHECK(outcome.plan.overlap.gradients);
  for (const char* field :
       {"zero", "dropout", "attention", "schedule", "recompute", "gradient_precision",
        "sequence_parallel", "bucket", "overlap/gradients"})
    CHECK_FALSE(says(outcome, framework + ": " + field + " = "));
}

TEST_CASE("without a framework nothing is filled and no result changes") {
  const std::string sizes = R"("pp": 2, "tp": 2, "zero": 1)";
  const PlanOutcome unsaid = outcome_of(plan_of("{" + sizes + "}"));
  const PlanOutcome generic = outcome_of(plan_of(R"({"framework": "generic", )" + sizes + "}"));
  CHECK(unsaid.metrics.step_time_s == generic.metrics.step_time_s);
  CHECK(unsaid.assumptions == generic.assumptions);
  Plan plan = plan_of("{" + sizes + "}");
  CHECK(fill_framework_defaults(plan, *find_gpu("h100-sxm-80gb")).empty());
}

TEST_CASE("torchtitan shards weights, keeps them over a pipeline, and splits the sequence") {
  Plan alone = plan_of(R"({"framework": "torchtitan", "tp": 2})");
  fill_framework_defaults(alone, *find_gpu("h100-sxm-80gb"));
  CHECK(alone.zero == 3);
  CHECK(alone.reshard_after_forward);
  CHECK(alone.sequence_parallel);
  CHECK(alone.recompute == Recompute::Operators);
  Plan piped = plan_of(R"({"framework": "torchtitan", "pp": 2})");
  fill_framework_defaults(piped, *find_gpu("h100-sxm-80gb"));
  CHECK_FALSE(piped.reshard_after_forward);
  CHECK_FALSE(piped.reduce_every_micro_batch);
}

TEST_CASE("Megatron-LM sums fp16 gradients in fp16, and has no flash kernel before Ampere") {
  Plan plan = plan_of(R"({"framework": "megatron", "precision": "fp16"})");
  fill_framework_defaults(plan, *find_gpu("v100-sxm-32gb"));
  CHECK(plan.gradient_precision == Precision::Fp16);
  CHECK(plan.attention == AttentionKernel::Plain);
}

TEST_CASE("a framework's allocator and host time are in the memory and the step") {
  const std::string stated = R"("tp": 2, "zero": 0, "dropout": 0, "attention": "flash",
      "gradient_precision": "fp32", "bucket": "160 MB", "schedule": "1f1b", "recompute": "none",
      "overlap": {"gradients": true, "parameters": false, "pipeline": true, "tensor": true}})";
  const PlanOutcome generic = outcome_of(plan_of("{" + stated));
  const PlanOutcome other = outcome_of(plan_of(R"({"framework": "megatron-deepspeed", )" + stated));
  REQUIRE(generic.faults.empty());
  REQUIRE(other.faults.empty());
  double beside = 0;
  for (const MemoryPart& part : generic.stages[0].memory.parts)
    if (part.name == "framework") beside = part.bytes;
  const double tensors = generic.stages[0].memory.total_bytes() - beside;
  // A fifth is held beside the tensors (framework.cpp).
  CHECK(other.stages[0].memory.total_bytes() == Approx(beside + 1.2 * tensors));
  CHECK(other.metrics.step_time_s > generic.metrics.step_time_s);
  CHECK(says(other, "megatron-deepspeed: the host takes 70 µs"));
}

TEST_CASE("DeepSpeed copies 16-bit gradients to fp32, of sharded states a rank's share") {
  const auto parts = [](const std::string& plan, const std::string& name) {
    const PlanOutcome outcome = outcome_of(plan_of(plan));
    REQUIRE(outcome.faults.empty());
    double bytes = 0;
    for (const MemoryPart& part : outcome.stages[0].memory.parts)
      if (part.name == name) bytes += part.bytes;
    return bytes;
  };
  const std::string rest = R"("framework": "megatron-deepspeed", "precision": "fp16", "dropout": 0,
      "attention": "flash"})";
  for (const auto& [zero, ranks] : {std::pair{0, 1}, std::pair{1, 8}}) {
    const std::string plan = "{\"zero\": " + std::to_string(zero) + ", " + rest;
    double tensors = 0;
    for (const char* name :
         {"weights", "gradients", "optimizer", "activations", "logits and loss", "workspace"})
      tensors += parts(plan, name);
    const double copy = 4 * parts(plan, "gradients") / 2 / ranks;
    CHECK(parts(plan, "framework's copies and gaps") == Approx(1.2 * (tensors + copy) - tensors));
  }
}

TEST_CASE("calibrated factors stay beside a framework's costs") {
  EvaluationOptions options;
  options.framework.computing = 2;
  const Plan plan = plan_of(R"({"framework": "megatron"})");
  CHECK(outcome_of(plan, options).metrics.step_time_s > 1.5 * outcome_of(plan).metrics.step_time_s);
}

TEST_CASE("an fp8 plan of Megatron-LM holds the weights of fp8 products in fp8 alone") {
  const auto part = [](const Plan& plan, const std::string& name) {
    const PlanOutcome outcome = outcome_of(plan);
    REQUIRE(outcome.faults.empty());
    double bytes = 0;
    for (const MemoryPart& each : outcome.stages.at(0).memory.parts)
      if (each.name == name) bytes = each.bytes;
    return bytes;
  };
  const Plan plain = plan_of(R"({"dp": 8, "precision": "fp8"})");
  const Plan megatron = plan_of(R"({"dp": 8, "precision": "fp8", "framework": "megatron"})");
  const double fp8 = part(plain, "fp8 weights");
  CHECK(fp8 > 0);
  CHECK(part(megatron, "fp8 weights") == Approx(fp8));
  CHECK(part(megatron, "weights") == Approx(part(plain, "weights") - fp8));
}

TEST_CASE("what a framework does not do is simulated with a note, and physics alone refuses") {
  const auto notes = [](Framework framework, const Plan& like) {
    Plan plan = like;
    plan.framework = framework;
    return framework_notes(plan);
  };
  Plan sharded;
  sharded.dp = 4;
  sharded.pp = 2;
  sharded.zero = 3;
  CHECK(notes(Framework::Generic, sharded).empty());
  CHECK(notes(Framework::Torchtitan, sharded).empty());
  for (const Framework framework : {Framework::Megatron, Framework::MegatronDeepspeed,
                                    Framework::LlmFoundryFsdp, Framework::Nanotron}) {
    CAPTURE(static_cast<int>(framework));
    REQUIRE(notes(framework, sharded).size() == 1);
    CHECK(notes(framework, sharded)[0].find("it is simulated as if it did") != std::string::npos);
  }
  Plan usual;
  usual.dp = usual.tp = 2;
  usual.pp = 2;
  for (const Framework framework : {Framework::Megatron, Framework::MegatronDeepspeed,
                                    Framework::Torchtitan, Framework::Nanotron})
    CHECK(notes(framework, usual).empty());
  usual.schedule = ScheduleKind::ZbH2;
  for (const Framework framework : {Framework::Megatron, Framework::MegatronDeepspeed,
                                    Framework::Torchtitan, Framework::Nanotron})
    CHECK(notes(framework, usual).size() == 1);
  usual.schedule = ScheduleKind::OneFOneB;
  usual.store.ffn_activation = StoredAs::Fp8;
  CHECK(notes(Framework::Megatron, usual).empty());
  CHECK(notes(Framework::Nanotron, usual).size() == 1);
}
