// What the simulation says a rank of a real run holds, beside what its pool took.
#include <numeric>

#include "plan/plan_schedule.h"
#include "plan/rank_map.h"
#include "runtime/train/runnable.h"
#include "runtime/train/solo_world.h"
#include "runtime/train/trainer.h"
#include "strategies/memory.h"
#include "tests/catch.h"

using namespace rehearse;

namespace {

PlanFile small_file() {
  PlanFile file;
  file.model.layers = 4;
  file.model.hidden = 64;
  file.model.heads = file.model.kv_heads = 4;
  file.model.head_dim = 16;
  file.model.ffn = 192;
  file.model.vocab = 320;
  file.model.max_seq_len = 64;
  file.workload = {.global_batch = 8, .seq_len = 64};
  file.plan.dp = 1;
  file.plan.micro_batch = 2;
  file.plan.framework = Framework::Rehearse;
  return file;
}

void be_llama(Model& model) {
  model.activation = Activation::Swiglu;
  model.norm = Norm::RmsNorm;
  model.positions = Positions::Rotary;
  model.linear_bias = false;
  model.kv_heads = 2;
}

SampleReader numbers(int vocab) {
  return [vocab](std::int64_t sample, TokenRange, std::span<std::int32_t> tokens,
                 std::span<std::int32_t> labels) {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = static_cast<std::int32_t>((sample * 31 + static_cast<std::int64_t>(i)) % vocab);
      labels[i] = (tokens[i] + 1) % vocab;
    }
  };
}

/// Bytes that the pool of one rank holds after two steps.
double taken_bytes(const PlanFile& file, int rank) {
  const auto device = cpu_device(1);
  const auto world = solo_world(rank, world_size(file.plan), *device);
  Trainer trainer(file, {}, *world, *device, 8 * 64 * 8, numbers(file.model.vocab));
  for (int step = 0; step < 2; ++step) trainer.step();
  return static_cast<double>(trainer.allocated_bytes());
}

/// Of the tensors alone.
double simulated_bytes(const PlanFile& file, int stage) {
  const Schedule schedule = schedule_of(file);
  const auto stages = stage_memory(file.model, file.plan, file.workload, schedule);
  double bytes = 0;
  for (const MemoryPart& part : stages.at(static_cast<std::size_t>(stage)).parts)
    if (part.name != "workspace" && part.name != "framework") bytes += part.bytes;
  return bytes;
}

void check_each_stage(PlanFile file) {
  file.layer_split.assign(static_cast<std::size_t>(piece_count(plan_schedule(file.plan, 4))), 0);
  for (int layer = 0; layer < file.model.layers; ++layer)
    ++file.layer_split[static_cast<std::size_t>(layer) % file.layer_split.size()];
  file.plan.layer_split = file.layer_split;
  REQUIRE(why_not_runnable(file).empty());
  const RankMap map(file.plan);
  for (int stage = 0; stage < file.plan.pp; ++stage) {
    CAPTURE(stage);
    // The last context rank of a ring without balance has the most to do.
    const Rank rank = map.rank({.context = file.plan.cp - 1, .pipeline = stage});
    const double taken = taken_bytes(file, rank.value), simulated = simulated_bytes(file, stage);
    CHECK(simulated == Approx(taken).epsilon(0.01));
  }
}

/// In both types, of a GPT and of a Llama.
template <class Change>
void check_models(Change change) {
  for (const Precision precision : {Precision::Fp32, Precision::Bf16})
    for (const bool llama : {false, true}) {
      PlanFile file = small_file();
      if (llama) be_llama(file.model);
      file.plan.precision = precision;
      change(file.plan);
      CAPTURE(llama, precision == Precision::Bf16);
      check_each_stage(file);
    }
}

}  // namespace

TEST_CASE("the memory of one rank is what its pool takes") {
  check_models([](Plan&) {});
  check_models([](Plan& plan) { plan.micro_batch = 8; });
}

TEST_CASE("the memory of a rank that repeats layers is what its pool takes") {
  check_models([](Plan& plan) { plan.recompute = Recompute::Full; });
  check_models([](Plan& plan) {
    plan.recompute = Recompute::Full;
    plan.recompute_layers = 2;
  });
  check_models([](Plan& plan) { plan.recompute = Recompute::Selective; });
}

TEST_CASE("the memory of data ranks is what their pools take") {
  check_models([](Plan& plan) { plan.dp = 2; });
  check_models([](Plan& plan) {
    plan.dp = 2;
    plan.zero = 1;
  });
}

TEST_CASE("the memory of tensor ranks is what their pools take") {
  check_models([](Plan& plan) { plan.tp = 2; });
  check_models([](Plan& plan) {
    plan.tp = 2;
    plan.vocabulary_parallel = false;
  });
  check_models([](Plan& plan) {
    plan.tp = 2;
    plan.sequence_parallel = true;
  });
}

TEST_CASE("the memory of context ranks is what their pools take") {
  check_models([](Plan& plan) { plan.cp = 2; });
  check_models([](Plan& plan) {
    plan.cp = 4;
    plan.context_balanced = false;
  });
  check_models([](Plan& plan) {
    plan.cp = 2;
    plan.context = ContextKind::AllToAll;
  });
}

TEST_CASE("the memory of each stage is what its pool takes") {
  check_models([](Plan& plan) {
    plan.pp = 2;
    plan.overlap.pipeline = false;
  });
  check_models([](Plan& plan) {
    plan.pp = 2;
    plan.schedule = ScheduleKind::Gpipe;
    plan.recompute = Recompute::Full;
  });
  check_models([](Plan& plan) {
    plan.pp = 2;
    plan.virtual_stages = 2;
    plan.tp = 2;
    plan.sequence_parallel = true;
  });
  check_models([](Plan& plan) {
    plan.pp = 2;
    plan.schedule = ScheduleKind::ZbH1;
  });
}
