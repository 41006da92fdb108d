// Predictions against a small selection of published runs, and the sums over errors.

#include "planner/validation.h"

#include <cmath>
#include <fstream>
#include <iterator>

#include "tests/catch.h"
#include "tests/places.h"

namespace rehearse {
namespace {

std::string published_text() {
  std::ifstream file(source_directory() + "/tests/planner/published_runs.json");
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<MeasuredRun> published_runs() {
  Problems problems;
  auto runs = read_measured_runs(published_text(), "published_runs.json", problems);
  REQUIRE(problems.text().empty());
  return std::move(*runs);
}

std::string problems_of(const std::string& text) {
  Problems problems;
  CHECK_FALSE(read_measured_runs(text, "runs.json", problems).has_value());
  return problems.text();
}

std::string with(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

MeasuredRun timed(const std::string& id, const std::string& family, double step_time_s) {
  MeasuredRun run;
  run.id = id;
  run.family = family;
  run.cluster.groups.push_back({});
  run.measured.step_time_s = step_time_s;
  return run;
}

RunPrediction predicted(double step_time_s, double relative_error = 0.1) {
  RunPrediction prediction;
  prediction.step_time_s = step_time_s;
  prediction.relative_error = relative_error;
  prediction.contributions = {{"matrix products", step_time_s}};
  return prediction;
}

}  // namespace

TEST_CASE("published runs are read as model, cluster, workload and plan") {
  const auto runs = published_runs();
  REQUIRE(runs.size() == 30);
  const MeasuredRun& run = runs.front();
  CHECK(run.id == "sc21-t1-1.7B");
  CHECK(run.framework == Framework::Megatron);
  CHECK(run.model.hidden == 2304);
  CHECK(run.model.tied_embeddings);
  CHECK(run.cluster.groups.at(0).count == 4);
  CHECK(run.cluster.groups.at(0).node.nic_bandwidth_bytes_per_s == Approx(25e9));
  CHECK(run.workload.global_batch == 512);
  CHECK(run.plan.recompute == Recompute::Full);
  CHECK(run.plan.attention == AttentionKernel::Plain);
  CHECK(run.measured.step_time_s == Approx(3.528));
}

TEST_CASE("mistakes in measured runs are told with their places, all at once") {
  std::string text = with(published_text(), "\"step_time_s\": 3.528", "\"step_time_s\": -3");
  text = with(text, "a100-sxm-80gb", "a100-sxm-80g");
  const std::string told = problems_of(text);
  CHECK(told.find("/runs/0/measured/step_time_s") != std::string::npos);
  CHECK(told.find("/runs/0/cluster/gpu") != std::string::npos);
  CHECK(told.find("did you mean \"a100-sxm-80gb\"") != std::string::npos);
  CHECK(problems_of("{\"schema\": \"measured-runs/1\"}").find("runs") != std::string::npos);
  CHECK_FALSE(
      problems_of(with(published_text(), "\"out_of_memory\": false", "\"out_of_memory\": true"))
          .empty());
}

TEST_CASE("a mixture of experts is read with its experts") {
  Problems problems;
  const auto runs = read_measured_runs(
      with(published_text(), "\"attention\": \"gqa\"", "\"moe\": {\"experts\": 8, \"topk\": 2}"),
      "runs.json", problems);
  REQUIRE(runs.has_value());
  CHECK(runs->front().not_expressible.empty());
  CHECK(runs->front().model.experts.count == 8);
  CHECK(runs->front().model.experts.active == 2);
}

TEST_CASE("latent attention is read with its widths, in either spelling, or as DeepSeek's") {
  const auto read = [](const std::string& given) {
    Problems problems;
    auto runs = read_measured_runs(with(published_text(), "\"attention\": \"gqa\"", given),
                                   "runs.json", problems);
    REQUIRE(problems.text().empty());
    CHECK(runs->front().not_expressible.empty());
    return runs->front().model;
  };
  const Model named = read("\"attention\": \"mla\"");
  CHECK(named.latent == LatentAttention{512, 1536, 64, 128});
  CHECK(named.head_dim == 128);
  const Model hub = read(R"("mla": {"kv_lora_rank": 256, "q_lora_rank": 0, "qk_rope_head_dim": 32,
                            "qk_nope_head_dim": 64, "v_head_dim": 96})");
  CHECK(hub.latent == LatentAttention{256, 0, 32, 96});
  CHECK(hub.head_dim == 64);
  const Model own = read(R"("latent_attention": {"kv_rank": 256, "rope_dim": 32,
                            "value_dim": 96})");
  CHECK(own.latent == LatentAttention{256, 0, 32, 96});
}

TEST_CASE("a measured run may say what plans, nodes and workloads of scenarios can") {
  Problems problems;
  std::string text = with(published_text(), "\"recompute\": \"full\"", R"("recompute": "full",
      "attention": "flash", "fp8": {"scaling": "block"}, "offload": {"optimizer": true},
      "context": "all-to-all", "gradient_precision": "bf16", "experts": {"capacity": 1.5},
      "schedule": "zb-h1")");
  text = with(text, "\"schedule\": \"1f1b\",", "");
  text =
      with(text, "\"overlap\": {", "\"overlap\": {\"tensor\": true, \"ep\": true, \"cp\": false, ");
  text = with(text, "\"gpus\":", "\"nic_latency\": \"2 us\", \"gpus\":");
  text = with(text, "\"family\":", R"("workload": {"routing": {"imbalance": 1.2}}, "family":)");
  const auto runs = read_measured_runs(text, "runs.json", problems);
  CAPTURE(problems.text());
  REQUIRE(runs.has_value());
  const MeasuredRun& run = runs->front();
  CHECK(run.not_expressible.empty());
  CHECK(run.plan.attention == AttentionKernel::Flash);
  CHECK(run.plan.fp8.scaling == Fp8Scaling::Block);
  CHECK(run.plan.offload.optimizer);
  CHECK(run.plan.context == ContextKind::AllToAll);
  CHECK(run.plan.gradient_precision == Precision::Bf16);
  CHECK(run.plan.experts.capacity == Approx(1.5));
  CHECK(run.plan.schedule == ScheduleKind::ZbH1);
  CHECK(run.plan.overlap.tensor);
  CHECK(run.plan.overlap.experts);
  CHECK_FALSE(run.plan.overlap.context);
  CHECK(run.cluster.groups.front().node.nic_latency_s == Approx(2e-6));
  CHECK(runs->at(1).plan.attention == AttentionKernel::Plain);
  CHECK(runs->at(1).cluster.groups.front().node.nic_latency_s == Approx(1e-6));
}

TEST_CASE("keys of a measured run that nothing here knows: slips are mistakes, others a reason") {
  CHECK(problems_of(with(published_text(), "\"hidden\"", "\"hiden\": 1, \"hidden\""))
            .find("/runs/0/model/hiden") != std::string::npos);
  CHECK(problems_of(with(published_text(), "\"recompute\": \"full\"",
                         "\"recompute\": \"full\", \"dropout\": \"a lot\""))
            .find("/runs/0/plan/dropout") != std::string::npos);
  const auto reason = [](const std::string& given) {
    Problems problems;
    const auto runs = read_measured_runs(
        with(published_text(), "\"hidden\"", given + ", \"hidden\""), "runs.json", problems);
    REQUIRE(runs.has_value());
    return runs->front().not_expressible;
  };
  CHECK(reason("\"state_space_width\": 128") == "model/state_space_width is not known here");
  CHECK(reason("\"state_space_mixer\": false").empty());
}

TEST_CASE("an NVLink domain of several servers is one node with all their cards") {
  Problems problems;
  const std::string text = with(published_text(), "\"nvlink_domain\": 8", "\"nvlink_domain\": 16");
  const auto runs = read_measured_runs(text, "runs.json", problems);
  REQUIRE(runs.has_value());
  CHECK(runs->at(0).cluster.groups.at(0).count == 2);
  CHECK(runs->at(0).cluster.groups.at(0).node.gpus == 16);
  CHECK(runs->at(0).cluster.groups.at(0).node.nics ==
        2 * runs->at(1).cluster.groups.at(0).node.nics);
  // 32 GPUs in domains of 24: two servers of eight in each of two.
  const auto uneven =
      read_measured_runs(with(published_text(), "\"nvlink_domain\": 8", "\"nvlink_domain\": 24"),
                         "runs.json", problems);
  REQUIRE(uneven.has_value());
  CHECK(uneven->at(0).cluster.groups.at(0).node.gpus == 16);
}

TEST_CASE("recomputation by parts is read as the plan's names for them") {
  const auto read = [](const std::string& recompute) {
    Problems problems;
    const std::string text =
        with(published_text(), "\"recompute\": \"full\"", "\"recompute\": \"" + recompute + "\"");
    auto runs = read_measured_runs(text, "runs.json", problems);
    REQUIRE(runs.has_value());
    return runs->front();
  };
  const MeasuredRun run = read("norm + activation");
  CHECK(run.not_expressible.empty());
  CHECK(run.plan.recompute == Recompute::Selective);
  CHECK(run.plan.recompute_operators == std::vector<std::string>{"norm", "ffn-activation"});
  CHECK(read("moe_act,layernorm").plan.recompute_operators ==
        std::vector<std::string>{"ffn-activation", "norm"});
  CHECK(read("norm + router").not_expressible.find("norm + router") != std::string::npos);
}

TEST_CASE("launches block where the run says so, and over Omni-Path") {
  Problems problems;
  const std::string text =
      with(published_text(), "\"gpus\":", "\"blocking_launches\": true, \"gpus\":");
  const auto runs = read_measured_runs(text, "runs.json", problems);
  REQUIRE(runs.has_value());
  CHECK(runs->at(0).blocking_launches);
  CHECK_FALSE(runs->at(1).blocking_launches);
}

TEST_CASE("steps of Megatron-LM on up to 1,536 A100 are predicted within 15 percent") {
  // Narayanan et al. 2021, table 1, and Korthikanti et al. 2022, table 5.
  auto runs = published_runs();
  std::erase_if(runs, [](const MeasuredRun& run) {
    return run.family != "sc21_table1" && run.family != "korthikanti_table5";
  });
  REQUIRE(runs.size() == 11);
  const auto predictions = predict_all(runs, 2, {});
  double sum = 0;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    CAPTURE(runs[i].id, runs[i].measured.step_time_s, predictions[i].step_time_s);
    double error = 0;
    REQUIRE(step_time_error(runs[i], predictions[i], error));
    CHECK(std::abs(error) < 0.15);
    sum += std::abs(error);
    double parts_s = 0;
    for (const Contribution& part : predictions[i].contributions) parts_s += part.seconds;
    CHECK(parts_s == Approx(predictions[i].step_time_s).epsilon(1e-9));
  }
  CHECK(sum / static_cast<double>(runs.size()) < 0.08);
}

TEST_CASE("means over families pool small ones and count what is not expressible as 100 percent") {
  std::vector<MeasuredRun> runs;
  std::vector<RunPrediction> predictions;
  for (int i = 0; i < 5; ++i) {
    runs.push_back(timed("big " + std::to_string(i), "big", 1));
    predictions.push_back(predicted(1.1));
  }
  runs.push_back(timed("one", "small", 1));
  predictions.push_back(predicted(0.8));
  runs.push_back(timed("two", "tiny", 2));
  predictions.emplace_back().not_expressible = "because";
  const Validation summary = compare(runs, predictions);
  REQUIRE(summary.families.size() == 3);
  CHECK(summary.families[0].step_time.mean_abs == Approx(0.1));
  CHECK(summary.families[1].step_time.bias == Approx(-0.2));
  CHECK(summary.families[2].step_time.mean_abs == Approx(1));
  CHECK(summary.families[2].step_time.missing == 1);
  CHECK(summary.step_time_family_mean == Approx((0.1 + (0.2 + 1) / 2) / 2));
  CHECK(summary.step_time.median_abs == Approx(0.1));
  CHECK(summary.step_time.worst_id == "one");
  CHECK(summary.inside_interval == Approx(5.0 / 6));
}

TEST_CASE("runs that nothing stated tells apart bound the error from below") {
  std::vector<MeasuredRun> runs{timed("a", "f", 2), timed("b", "f", 3), timed("c", "f", 5),
                                timed("d", "f", 5)};
  runs[0].configuration = runs[1].configuration = "same";
  runs[2].configuration = "other";
  const Validation summary = compare(runs, std::vector<RunPrediction>(4, predicted(2)));
  CHECK(summary.families.at(0).twins.runs == 2);
  // 2 s for both: the second is a third too short. 3 s: the first is a half too long.
  CHECK(summary.families.at(0).twins.least_error == Approx(1.0 / 3 / 4));

  const auto published = published_runs();
  CHECK(published[0].configuration != published[1].configuration);
  Problems problems;
  const auto renamed =
      read_measured_runs(with(published_text(), "sc21-t1-1.7B", "another"), "runs.json", problems);
  CHECK(renamed->front().configuration == published.front().configuration);
}

TEST_CASE("out of memory is counted by what was foretold and what was measured") {
  std::vector<MeasuredRun> runs(4, timed("r", "f", 0));
  std::vector<RunPrediction> predictions(4);
  runs[0].measured.out_of_memory = runs[1].measured.out_of_memory = true;
  predictions[0].fits = predictions[2].fits = false;
  const OutOfMemoryTable table = compare(runs, predictions).out_of_memory;
  CHECK(table.true_positive == 1);
  CHECK(table.false_negative == 1);
  CHECK(table.false_positive == 1);
  CHECK(table.true_negative == 1);
  CHECK(table.right() == Approx(0.5));
}

TEST_CASE("a common bias is mended from other families, one family's own is not") {
  std::vector<MeasuredRun> runs;
  std::vector<RunPrediction> predictions;
  for (const char* family : {"a", "b", "c", "d", "e", "f", "g"})
    for (int i = 0; i < 6; ++i) {
      runs.push_back(timed(std::string(family) + std::to_string(i), family, 1));
      predictions.push_back(predicted(0.8));
    }
  const CrossValidation common = cross_validate(runs, predictions);
  CHECK(common.leave_family_out < 0.02);
  CHECK(common.random_half < 0.02);
  CHECK(common.inside_interval == Approx(1));
  for (std::size_t i = 6; i < runs.size(); ++i) predictions[i] = predicted(1);
  CHECK(cross_validate(runs, predictions).leave_family_out > 0.02);
}

}  // namespace rehearse
