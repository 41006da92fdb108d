#include "strategies/layer_split.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <random>

#include "plan/model_catalogue.h"
#include "strategies/memory.h"
#include "strategies/split_backward.h"
#include "tests/catch.h"

using namespace rehearse;

namespace {

/// The smallest time of the slowest stage over every split there is.
double brute_force_s(const SplitProblem& problem, int pieces) {
  double best = -1;
  std::vector<int> split(static_cast<std::size_t>(pieces), 0);
  const std::function<void(int, int)> place = [&](int piece, int left) {
    const bool is_end = piece == 0 || piece + 1 == pieces;
    const int most = problem.most_layers.empty()
                         ? left
                         : std::min(left, problem.most_layers[static_cast<std::size_t>(piece)]);
    for (int count = is_end ? 0 : 1; count <= most; ++count) {
      split[static_cast<std::size_t>(piece)] = count;
      if (piece + 1 < pieces) {
        place(piece + 1, left - count);
      } else if (count == left) {
        const double seconds = slowest_stage_s(problem, split);
        if (best < 0 || seconds < best) best = seconds;
      }
    }
  };
  place(0, static_cast<int>(problem.layer_s.size()));
  return best;
}

int sum(const std::vector<int>& split) { return std::accumulate(split.begin(), split.end(), 0); }

StageMemory memory_of(ScheduleKind kind, int virtual_stages, int stage) {
  Plan plan;
  plan.dp = 1;
  plan.pp = 4;
  plan.virtual_stages = virtual_stages;
  plan.schedule = kind;
  Model model = *find_model("gpt3-1.3b");
  model.layers = 32;
  Workload workload;
  workload.seq_len = 1024;
  return stage_memory(model, plan, workload, make_schedule(kind, 4, virtual_stages, 16))
      .at(static_cast<std::size_t>(stage));
}

double part(const StageMemory& memory, const std::string& name) {
  for (const MemoryPart& p : memory.parts)
    if (p.name == name) return p.bytes;
  return 0;
}

}  // namespace

TEST_CASE("The balanced split is the best of all splits") {
  std::mt19937 random(4);
  const auto draw = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  for (int round = 0; round < 200; ++round) {
    SplitProblem problem;
    problem.stages = draw(1, 4);
    const bool equal = round % 2 == 0;
    problem.chunks = equal && problem.stages > 1 ? draw(1, 2) : 1;
    const int pieces = problem.stages * problem.chunks;
    const int layers = draw(std::max(1, pieces - 2), 9);
    for (int i = 0; i < layers; ++i) problem.layer_s.push_back(equal ? 1 : 0.1 * draw(1, 30));
    problem.embedding_s = 0.1 * draw(0, 30);
    problem.head_s = 0.1 * draw(0, 50);
    if (problem.chunks == 2 && draw(0, 1) == 1) problem.placement = Placement::Vee;
    if (draw(0, 1) == 1)
      for (int s = 0; s < problem.stages; ++s) problem.stage_pace.push_back(0.5 * draw(1, 4));
    CAPTURE(round, problem.stages, problem.chunks, layers, problem.embedding_s, problem.head_s);
    const std::vector<int> split = balanced_split(problem);
    REQUIRE(static_cast<int>(split.size()) == pieces);
    CHECK(sum(split) == layers);
    CHECK(slowest_stage_s(problem, split) == Approx(brute_force_s(problem, pieces)).epsilon(1e-9));
  }
}

TEST_CASE("Unequal layers on a vee or both ways balance the sums of a stage's pieces") {
  std::mt19937 random(7);
  const auto draw = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  int better = 0;
  for (int round = 0; round < 200; ++round) {
    SplitProblem problem;
    const bool vee = round % 2 == 0;
    problem.placement = vee ? Placement::Vee : Placement::BothWays;
    problem.stages = vee ? draw(1, 3) : 2 * draw(1, 2);
    problem.chunks = 2;
    const int pieces = vee ? 2 * problem.stages : problem.stages;
    const int layers = draw(pieces, 9);
    for (int i = 0; i < layers; ++i) problem.layer_s.push_back(0.1 * draw(1, 30));
    problem.embedding_s = 0.1 * draw(0, 30);
    problem.head_s = 0.1 * draw(0, 50);
    if (draw(0, 1) == 1)
      for (int s = 0; s < problem.stages; ++s) problem.stage_pace.push_back(0.5 * draw(1, 4));
    if (draw(0, 3) == 0)
      problem.most_layers.assign(static_cast<std::size_t>(pieces), draw(1, layers));
    CAPTURE(round, vee, problem.stages, layers, problem.embedding_s, problem.head_s);
    const double best_s = brute_force_s(problem, pieces);
    const std::vector<int> split = balanced_split(problem);
    if (best_s < 0) {
      CHECK(split.empty());
      continue;
    }
    REQUIRE(static_cast<int>(split.size()) == pieces);
    CHECK(sum(split) == layers);
    CHECK(slowest_stage_s(problem, split) == Approx(best_s).epsilon(1e-9));
    better += best_s > 0;
  }
  CHECK(better > 100);
}

TEST_CASE("A split keeps to the layers that fit, or says that none does") {
  SplitProblem problem;
  problem.stages = 3;
  problem.layer_s.assign(9, 1.0);
  CHECK(balanced_split(problem) == std::vector<int>{3, 3, 3});
  problem.head_s = 3;
  CHECK(balanced_split(problem) == std::vector<int>{4, 4, 1});
  problem.most_layers = {3, 4, 4};
  CHECK(balanced_split(problem) == std::vector<int>{3, 4, 2});
  problem.most_layers = {2, 4, 2};
  CHECK(balanced_split(problem).empty());
  CHECK(brute_force_s(problem, 3) < 0);
}

TEST_CASE("Both ways through a pipeline balance the pieces of a stage together") {
  SplitProblem problem;
  problem.stages = 4;
  problem.chunks = 2;
  problem.placement = Placement::BothWays;
  problem.layer_s.assign(14, 1.0);
  problem.embedding_s = 0.5;
  problem.head_s = 1.5;
  // Stages 0 and 3 hold the first and the last piece: 2 + 6 and 8 are as equal as it gets.
  const std::vector<int> split = balanced_split(problem);
  CHECK(split[0] + split[3] == 6);
  CHECK(split[1] + split[2] == 8);
  CHECK(slowest_stage_s(problem, split) == Approx(4.0));
}

TEST_CASE("What waits for weight gradients is the published 32 s·b·h bytes") {
  // Qi et al. 2023 (arXiv 2401.10241), table 1.
  Plan plan;
  plan.micro_batch = 2;
  const Model& model = *find_model("gpt3-1.3b");
  const LayerShape shape = layer_shape(model, plan, 1024);
  CHECK(layer_kept_for_weights_bytes(shape) == Approx(32.0 * 1024 * 2 * model.hidden));
}

TEST_CASE("Each schedule holds the activations that its description says") {
  const double micro_batch = part(memory_of(ScheduleKind::OneFOneB, 1, 3), "activations");
  // All of stage 3's activations are one micro-batch's; stage 0 of 1F1B holds four.
  const auto units = [&](ScheduleKind kind, int virtual_stages, int stage) {
    return part(memory_of(kind, virtual_stages, stage), "activations") / micro_batch;
  };
  CHECK(units(ScheduleKind::OneFOneB, 1, 0) == Approx(4).epsilon(0.01));
  // ZB-H1: p at stage 0; later stages keep less of those whose input gradient is done.
  CHECK(units(ScheduleKind::ZbH1, 1, 0) == Approx(4).epsilon(0.01));
  CHECK(units(ScheduleKind::ZbH1, 1, 3) < 4);
  CHECK(units(ScheduleKind::ZbH1, 1, 3) > 1);
  CHECK(units(ScheduleKind::ZbH2, 1, 0) == Approx(7).epsilon(0.01));
  CHECK(units(ScheduleKind::ZbV, 2, 0) == Approx(4).epsilon(0.05));
  CHECK(units(ScheduleKind::DualPipe, 1, 0) == Approx(5).epsilon(0.05));
}

TEST_CASE("DualPipe holds every piece twice, ZB-V embedding and head on one stage") {
  const auto weights = [](ScheduleKind kind, int virtual_stages) {
    double bytes = 0;
    for (int stage = 0; stage < 4; ++stage)
      bytes += part(memory_of(kind, virtual_stages, stage), "weights");
    return bytes;
  };
  const double once = weights(ScheduleKind::ZbH1, 1);
  // gpt3-1.3b ties its table to the head: 1F1B copies it on the last stage, ZB-V needs it once.
  const Model& model = *find_model("gpt3-1.3b");
  const double table =
      model.tied_embeddings
          ? 2.0 * head_parameters_per_rank(layer_shape(model, Plan(), 1024), true) -
                2.0 * head_parameters_per_rank(layer_shape(model, Plan(), 1024), false)
          : 0;
  CHECK(weights(ScheduleKind::ZbV, 2) == Approx(once - table));
  CHECK(weights(ScheduleKind::DualPipe, 1) == Approx(2 * (once - table)));
}
