// Two ranks on one GPU that talk through NCCL over loopback (runtime/train/rank_place.h): each
// layout trains as one rank does. That is said of their results; their times mean nothing.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <functional>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/catch.h"
#include "tests/runtime/train/train_program.h"

using namespace rehearse;

namespace {

/// Heads of 64 run on the tensor cores in bf16. Two layers, so that two stages have one each.
PlanFile plan_for(const std::function<void(Plan&)>& layout, Precision precision) {
  PlanFile file;
  Model& model = file.model;
  model.layers = 2;
  model.hidden = 128;
  model.heads = model.kv_heads = 2;
  model.head_dim = 64;
  model.ffn = 256;
  model.vocab = 256;
  model.max_seq_len = 64;
  file.workload = {.global_batch = 4, .seq_len = 64};
  file.plan.dp = 1;
  file.plan.precision = precision;
  layout(file.plan);
  file.gpus = world_size(file.plan);
  for (int rank = 0; rank < file.gpus; ++rank) file.rank_to_device.push_back(rank);
  const int pieces = file.plan.pp * file.plan.virtual_stages;
  for (int piece = 0; piece < pieces; ++piece) file.layer_split.push_back(model.layers / pieces);
  return file;
}

struct Curve {
  std::vector<double> losses, norms;
};

/// What `rehearse-device train` says of a plan on the first GPU.
ChildResult train_on_gpu(const RunFolder& folder, const PlanFile& file,
                         std::vector<std::string> words) {
  const std::string plan = folder.write("plan.json", write_plan_file(file));
  const std::string text = folder.write("text.txt", some_text());
  words.insert(words.begin(), {kDevice, "train", plan, "--data", text, "--device", "cuda:0"});
  return run_child(words);
}

Curve curve_of(const PlanFile& file) {
  const RunFolder folder;
  const ChildResult result =
      train_on_gpu(folder, file, {"--steps", "10", "--json", "--deadline", "100s"});
  INFO(result.err);
  REQUIRE(result.exit_code == 0);
  Curve curve;
  for (const auto& step : nlohmann::json::parse(result.out).at("steps")) {
    curve.losses.push_back(step.at("loss"));
    curve.norms.push_back(step.at("gradient_norm"));
  }
  return curve;
}

bool has_gpu() {
  static const bool found = [] {
    const ChildResult doctor = run_child({kDevice, "doctor", "--json"});
    const auto facts = nlohmann::json::parse(doctor.out, nullptr, false);
    return facts.is_object() && facts.contains("cuda") && facts.at("cuda").contains("gpus") &&
           !facts.at("cuda").at("gpus").empty();
  }();
  if (!found) WARN("SKIPPED: no GPU is usable here");
  return found;
}

/// `rounds_shares`: ranks round their shares of sums to bf16 (docs/training.md, "How right").
void check_layout(const std::function<void(Plan&)>& layout, bool rounds_shares = false) {
  for (const Precision precision : {Precision::Fp32, Precision::Bf16}) {
    const bool bf16 = precision == Precision::Bf16;
    CAPTURE(bf16);
    const Curve one = curve_of(plan_for([](Plan&) {}, precision));
    const Curve two = curve_of(plan_for(layout, precision));
    REQUIRE(one.losses.size() == 10);
    REQUIRE(two.losses.size() == 10);
    for (std::size_t step = 0; step < 10; ++step)
      CHECK(two.losses[step] == Approx(one.losses[step]).epsilon(bf16 ? 1e-2 : 1e-4));
    const double norm_tolerance = bf16 && rounds_shares ? 1.1e-2 : 1e-4;
    CHECK(two.norms.front() == Approx(one.norms.front()).epsilon(norm_tolerance));
    CHECK(one.losses.back() < one.losses.front());
  }
}

}  // namespace

TEST_CASE("two data ranks on one GPU train like one") {
  if (!has_gpu()) return;
  check_layout([](Plan& plan) { plan.dp = 2; });
  check_layout([](Plan& plan) {
    plan.dp = 2;
    plan.zero = 1;
  });
}

TEST_CASE("two tensor ranks on one GPU train like one") {
  if (!has_gpu()) return;
  check_layout([](Plan& plan) { plan.tp = 2; }, true);
}

TEST_CASE("two sequence-parallel ranks on one GPU train like one") {
  if (!has_gpu()) return;
  const auto layout = [](Plan& plan) {
    plan.tp = 2;
    plan.sequence_parallel = true;
  };
  check_layout(layout, true);
}

TEST_CASE("two stages on one GPU train like one") {
  if (!has_gpu()) return;
  check_layout([](Plan& plan) { plan.pp = 2; });
  check_layout([](Plan& plan) {
    plan.pp = 2;
    plan.schedule = ScheduleKind::ZbH1;
  });
}

TEST_CASE("two context ranks on one GPU train like one") {
  if (!has_gpu()) return;
  check_layout([](Plan& plan) { plan.cp = 2; }, true);
  check_layout(
      [](Plan& plan) {
        plan.cp = 2;
        plan.context_balanced = false;
      },
      true);
  check_layout(
      [](Plan& plan) {
        plan.cp = 2;
        plan.context = ContextKind::AllToAll;
      },
      true);
}

TEST_CASE("a rank killed on a GPU ends the run, which names it") {
  if (!has_gpu()) return;
  const RunFolder folder;
  std::atomic<bool> over{false}, killed{false};
  std::thread killer([&] {
    // Its first checkpoint says that a run is at work.
    while (!over && !has_whole_checkpoint(folder.file("checkpoints")))
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    for (const int pid : processes_with(folder.file("plan.json"), "LOCAL_RANK=1")) {
      kill(pid, SIGKILL);
      killed = true;
    }
  });
  const ChildResult result =
      train_on_gpu(folder, plan_for([](Plan& plan) { plan.dp = 2; }, Precision::Fp32),
                   {"--steps", "10000000", "--deadline", "60s", "--checkpoint",
                    folder.file("checkpoints"), "--checkpoint-every", "5"});
  over = true;
  killer.join();
  INFO(result.err);
  CHECK(killed);
  CHECK(result.exit_code == 1);
  CHECK(result.err.find("rank 1") != std::string::npos);
  CHECK(processes_with(folder.file("plan.json")).empty());
}

TEST_CASE("ranks that find no GPU say so once") {
  const ChildResult doctor = run_child({kDevice, "doctor", "--json"});
  if (nlohmann::json::parse(doctor.out).at("cuda").at("gpus").size() > 0) {
    WARN("SKIPPED: there is a GPU");
    return;
  }
  const RunFolder folder;
  const ChildResult result = train_on_gpu(
      folder, plan_for([](Plan& plan) { plan.dp = 2; }, Precision::Fp32), {"--steps", "1"});
  INFO(result.err);
  CHECK(result.exit_code == 1);
  CHECK(result.err.find("there is no GPU to train on") != std::string::npos);
  CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
  CHECK(processes_with(folder.file("plan.json")).empty());
}
