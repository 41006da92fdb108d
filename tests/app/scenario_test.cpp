#include "app/scenario.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "kernels/profile_file.h"
#include "plan/noun_tables.h"
#include "tests/golden.h"
#include "tests/places.h"
#include "topologies/cluster_reader.h"

namespace rehearse {
namespace {

ScenarioFile read(const std::string& text) {
  Problems problems;
  auto file = read_scenario(text, "x.json", problems);
  INFO(problems.text());
  REQUIRE(file.has_value());
  return *file;
}

std::string problems_of(const std::string& text) {
  Problems problems;
  CHECK_FALSE(read_scenario(text, "x.json", problems).has_value());
  return problems.text();
}

/// A scenario with more members at its end.
std::string with(const std::string& more) {
  return R"({"schema": "scenario/1", "model": "gpt3-175b",
             "cluster": {"node": "dgx-h100", "nodes": 128, "fabric": {"kind": "rail-optimized"}},
             "workload": {"global_batch": 1536, "tokens": "300e9"})" +
         more + "}";
}

TEST_CASE("A scenario names profiles from its own folder; each has to be of a GPU that it has") {
  const auto folder =
      std::filesystem::temp_directory_path() / ("rehearse-profiles-" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  Profile profile;
  profile.gpu = "cpu";
  profile.stack = "test";
  profile.device.gpu = "cpu";
  profile.device.streaming_multiprocessors = 1;
  profile.device.fp32_flops = 1e10;
  profile.device.memory_bandwidth_bytes_per_s = 1e10;
  std::ofstream(folder / "cpu.json") << write_profile(profile);
  std::ofstream(folder / "broken.json") << "{\"schema\": \"profile/2\"}";
  const auto read_with = [&](const std::string& gpu, const std::string& file, Problems& problems) {
    return read_scenario(
        R"({"schema": "scenario/1", "model": "gpt2", "workload": {"global_batch": 8},
            "cluster": {"node": {"gpus": 1, "nics": 0, "nvswitch": false, "gpu": {"id": ")" +
            gpu +
            R"(", "memory": "4 GB", "memory_bandwidth": 1e10, "fp32_rate": 1e10,
            "pcie_bandwidth": 1e9}}},
            "plan": {"precision": "fp32"}, "profiles": [")" +
            file + "\"]}",
        folder / "scenario.json", problems);
  };
  Problems none;
  const auto good = read_with("cpu", "cpu.json", none);
  INFO(none.text());
  REQUIRE(good);
  CHECK(good->variants[0].scenario.profile_files ==
        std::vector<std::string>{(folder / "cpu.json").string()});
  const auto refused = [&](const std::string& gpu, const std::string& file) {
    Problems problems;
    CHECK_FALSE(read_with(gpu, file, problems));
    return problems.text();
  };
  CHECK(refused("gpu", "cpu.json").find("the cluster has none with this id") != std::string::npos);
  CHECK(refused("cpu", "missing.json").find("there is no file") != std::string::npos);
  CHECK(refused("cpu", "missing.json").find("/profiles/0") != std::string::npos);
  CHECK(refused("cpu", "broken.json").find("broken.json") != std::string::npos);
  std::filesystem::remove_all(folder);
}

TEST_CASE("The shortest scenario takes names from the catalogue and defaults for the rest") {
  const ScenarioFile file = read(with(""));
  REQUIRE(file.variants.size() == 1);
  CHECK(file.variants[0].name == "as described");
  const Scenario& scenario = file.variants[0].scenario;
  CHECK(scenario.model.layers == 96);
  CHECK(scenario.workload.global_batch == 1536);
  CHECK(scenario.workload.seq_len == 2048);
  CHECK(scenario.workload.tokens == 300e9);
  REQUIRE(scenario.cluster.groups.size() == 1);
  CHECK(scenario.cluster.groups[0].count == 128);
  CHECK(scenario.cluster.groups[0].node.id == "dgx-h100");
  CHECK(scenario.cluster.fabric.kind == FabricKind::RailOptimized);
  REQUIRE(scenario.plans.size() == 1);
  CHECK(scenario.plans[0].name == "data parallel");
  CHECK(scenario.plans[0].dp == 0);
}

TEST_CASE("Every field of a plan can be said") {
  const Plan plan = read(with(R"(, "plan": {"name": "all", "dp": 2, "tp": 8, "cp": 1, "pp": 8,
      "ep": 1, "virtual_stages": 3, "micro_batch": 2, "schedule": "interleaved-1f1b", "zero": 1,
      "sequence_parallel": true, "vocabulary_parallel": false, "recompute": "selective",
      "attention": "plain", "precision": "fp16", "gradient_precision": "bf16", "dropout": 0.1,
      "bucket": "40 MB", "overlap": {"gradients": false, "parameters": true, "pipeline": false},
      "rank_order": "dp-tp-cp-pp", "layer_split": [1, 2, 3], "embedding_slot": true,
      "loss_slot": true})"))
                        .variants[0]
                        .scenario.plans[0];
  CHECK(plan.name == "all");
  CHECK(plan.dp == 2);
  CHECK(plan.virtual_stages == 3);
  CHECK(plan.schedule == ScheduleKind::OneFOneB);
  CHECK(plan.recompute == Recompute::Selective);
  CHECK(plan.attention == AttentionKernel::Plain);
  CHECK(plan.precision == Precision::Fp16);
  CHECK(plan.gradient_precision == Precision::Bf16);
  CHECK(plan.bucket_bytes == 40e6);
  CHECK(plan.overlap == Overlap{false, true, false});
  CHECK(plan.rank_order[0] == Axis::Data);
  CHECK(plan.layer_split == std::vector<int>{1, 2, 3});
  CHECK((plan.sequence_parallel && !plan.vocabulary_parallel && plan.embedding_slot));
  CHECK(plan.loss_slot);
}

TEST_CASE("Several plans are compared, and those without a name are called by their sizes") {
  const auto plans = read(with(R"(, "plans": [{"tp": 8, "pp": 8, "zero": 1}, {}, {"tp": 8,
      "pp": 8, "zero": 1, "loss_slot": true}, {"name": "mine", "recompute": "full"}])"))
                         .variants[0]
                         .scenario.plans;
  REQUIRE(plans.size() == 4);
  CHECK(plans[0].name == "tp 8, pp 8, ZeRO-1");
  CHECK(plans[1].name == "data parallel");
  CHECK(plans[2].name == "tp 8, pp 8, ZeRO-1 (2)");
  CHECK(plans[3].name == "mine");
}

TEST_CASE("What-ifs change what they name and nothing else") {
  const ScenarioFile file = read(with(R"(, "plan": {"tp": 8},
      "what_if": [
        {"name": "half the network", "set": {"/cluster/node/nic_bandwidth": "200 Gbit/s"}},
        {"name": "A100 with more memory", "set": {"/cluster/node": "dgx-a100",
             "/cluster/node/gpu/memory": "160 GB", "/plan/overlap/parameters": true}},
        {"name": "another model", "set": {"/model": {"base": "gpt3-13b", "layers": 44}}}])"));
  REQUIRE(file.variants.size() == 4);
  const NodeSpec& base = file.variants[0].scenario.cluster.groups[0].node;
  const Scenario& half = file.variants[1].scenario;
  CHECK(file.variants[1].name == "half the network");
  CHECK(half.cluster.groups[0].node.nic_bandwidth_bytes_per_s == 25e9);
  CHECK(half.cluster.groups[0].node.gpu.memory_bytes == base.gpu.memory_bytes);
  CHECK(half.plans[0].tp == 8);
  const Scenario& other = file.variants[2].scenario;
  CHECK(other.cluster.groups[0].node.id == "dgx-a100");
  CHECK(other.cluster.groups[0].node.gpu.memory_bytes == 160e9);
  CHECK(other.plans[0].overlap.parameters);
  CHECK(other.plans[0].tp == 8);
  const Scenario& third = file.variants[3].scenario;
  CHECK(third.model.layers == 44);
  CHECK(third.model.hidden == 5120);
  CHECK(file.variants[0].scenario.model.layers == 96);
}

TEST_CASE("A sweep is every combination, and zipped lists advance together") {
  const ScenarioFile file = read(with(R"(, "plan": {"pp": 2}, "sweep": {
      "/cluster/nodes": [64, 128, 256],
      "zip": {"/plan/tp": [4, 8], "/workload/seq_len": [1024, 2048]}})"));
  REQUIRE(file.variants.size() == 7);
  CHECK(file.variants[1].name == "nodes = 64, tp = 4, seq_len = 1024");
  CHECK(file.variants[2].name == "nodes = 64, tp = 8, seq_len = 2048");
  CHECK(file.variants[6].name == "nodes = 256, tp = 8, seq_len = 2048");
  const Scenario& last = file.variants[6].scenario;
  CHECK(last.cluster.groups[0].count == 256);
  CHECK(last.plans[0].tp == 8);
  CHECK(last.plans[0].pp == 2);
  CHECK(file.variants[1].scenario.workload.seq_len == 1024);
}

TEST_CASE("Swept fields with the same last name are told apart") {
  const ScenarioFile file = read(with(R"(, "plans": [{"tp": 2}, {"tp": 4}],
      "sweep": {"/plans/0/tp": [1], "/plans/1/tp": [8], "/model/name": ["a long name"]})"));
  CHECK(file.variants.at(1).name == "0/tp = 1, 1/tp = 8, name = a long name");
}

TEST_CASE("The largest sweep is read, and one more variant is refused") {
  std::string hundred = "1", ninety_nine = "1";
  for (int i = 2; i <= 100; ++i) hundred.append(",").append(std::to_string(i));
  for (int i = 2; i <= 99; ++i) ninety_nine.append(",").append(std::to_string(i));
  const std::string sweep =
      R"(, "sweep": {"/plan/micro_batch": [)" + hundred + R"(], "/workload/global_batch": [)";
  CHECK(read(with(sweep + ninety_nine + "]}")).variants.size() == 9901);
  CHECK(
      problems_of(with(sweep + hundred + "]}")).find("the sweep makes more than 10000 variants") !=
      std::string::npos);
}

TEST_CASE("Node groups, slow nodes and inline graphs are read") {
  const ScenarioFile groups = read(R"({"schema": "scenario/1", "model": "gpt2",
      "cluster": {"groups": [{"node": "dgx-h100", "nodes": 3},
                             {"node": {"base": "dgx-h100", "gpu": "h200-sxm"}, "speed": 0.9}]},
      "workload": {"global_batch": 32}})");
  const ClusterSpec& cluster = groups.variants[0].scenario.cluster;
  REQUIRE(cluster.groups.size() == 2);
  CHECK(cluster.groups[0].count == 3);
  CHECK(cluster.groups[1].count == 1);
  CHECK(cluster.groups[1].speed == 0.9);
  CHECK(cluster.groups[1].node.gpu.id == "h200-sxm");

  const ScenarioFile custom = read(R"({"schema": "scenario/1", "model": "gpt2",
      "cluster": {"node": {"base": "dgx-h100", "gpus": 1}, "nodes": 2,
                  "fabric": {"kind": "custom"},
                  "vertices": [{"name": "a", "gpu": true}, {"name": "b", "gpu": true, "node": 1}],
                  "edges": [{"from": "a", "to": "b", "bandwidth": "100 Gbit/s",
                             "latency": "2 us"}]},
      "workload": {"global_batch": 32}})");
  const ClusterSpec& graph = custom.variants[0].scenario.cluster;
  REQUIRE(graph.custom_edges.size() == 1);
  CHECK(graph.custom_edges[0].bandwidth_bytes_per_s == 12.5e9);
  CHECK(graph.custom_edges[0].latency_s == Approx(2e-6));
  CHECK(graph.custom_vertices[1].node == 1);
}

TEST_CASE("What is wrong with a cluster as a whole is found where it is written") {
  const std::string text = with(R"(,
"what_if": [{"name": "torus",
  "set": {"/cluster/fabric/kind": "torus",
          "/cluster/fabric/torus_dimensions": [5, 5]}}])");
  Problems problems;
  CHECK_FALSE(read_scenario(text, "x.json", problems).has_value());
  INFO(problems.text());
  REQUIRE(problems.count() >= 1);
  CHECK(problems.all()[0].pointer == "/cluster/fabric/torus_dimensions");
  CHECK(problems.all()[0].line == 6);
  CHECK(problems.all()[0].column == 47);
  CHECK(problems.all()[0].message.find("in the what-if \"torus\": ") == 0);
}

TEST_CASE("The expanded scenario holds no names and reads to the same variants") {
  const std::string text = with(R"(, "plan": {"tp": 8, "pp": 8},
      "what_if": [{"name": "half", "set": {"/cluster/node/nic_bandwidth": "200 Gbit/s"}}],
      "sweep": {"/cluster/nodes": [64, 256]})");
  const ScenarioFile file = read(text);
  CHECK(file.expanded_json.find("\"dgx-h100\",\n      \"name\"") != std::string::npos);
  const ScenarioFile again = read(file.expanded_json);
  CHECK(again.expanded_json == file.expanded_json);
  REQUIRE(again.variants.size() == file.variants.size());
  for (std::size_t i = 0; i < file.variants.size(); ++i) {
    const Scenario &a = file.variants[i].scenario, &b = again.variants[i].scenario;
    CHECK(file.variants[i].name == again.variants[i].name);
    CHECK(to_text(model_table().to_json(a.model)) == to_text(model_table().to_json(b.model)));
    CHECK(to_text(cluster_json(a.cluster)) == to_text(cluster_json(b.cluster)));
    CHECK(to_text(plan_table().to_json(a.plans[0])) == to_text(plan_table().to_json(b.plans[0])));
  }
  CHECK(read(text).expanded_json == file.expanded_json);
}

TEST_CASE("A cluster has the same digest however it is written") {
  const auto digest = [](const std::string& cluster) {
    return cluster_digest(read(R"({"schema": "scenario/1", "model": "gpt2", "cluster": )" +
                               cluster + R"(, "workload": {"global_batch": 8}})")
                              .variants[0]
                              .scenario.cluster);
  };
  const std::string one = digest(R"({"node": "dgx-h100", "nodes": 4})");
  CHECK(one == digest(R"({"groups": [{"nodes": 4, "node": {"base": "dgx-h100"}}]})"));
  CHECK(one == digest(R"({"node": {"base": "dgx-h100", "nic_bandwidth": 50e9, "name": "mine"},
                          "nodes": 4, "fabric": {"oversubscription": 1.0}})"));
  CHECK(one != digest(R"({"node": "dgx-h100", "nodes": 5})"));
  CHECK(one != digest(R"({"node": "dgx-h100", "nodes": 4, "speed": 0.99})"));
}

TEST_CASE("Every node and GPU of the catalogue can be written out and read back") {
  for (const NodeSpec& node : node_catalogue()) {
    const std::string text = to_text(node_table().to_json(node));
    Problems problems;
    const JsonDocument document = parse_json(text, node.id, problems);
    Reading reading(document.source, problems);
    NodeSpec again;
    node_table().read(document.root, reading, again);
    INFO(problems.text());
    CHECK(problems.empty());
    CHECK(to_text(node_table().to_json(again)) == text);
  }
  for (const GpuSpec& gpu : gpu_catalogue()) {
    Problems problems;
    const JsonDocument document = parse_json(to_text(gpu_table().to_json(gpu)), gpu.id, problems);
    Reading reading(document.source, problems);
    GpuSpec again;
    CHECK(gpu_table().read(document.root, reading, again));
    CHECK(again.bf16_flops == gpu.bf16_flops);
  }
}

TEST_CASE("A model may come from a configuration file beside the scenario") {
  const std::filesystem::path folder = std::filesystem::temp_directory_path();
  const std::filesystem::path config = folder / "rehearse-scenario-test-config.json";
  std::ofstream(config) << R"({"model_type": "llama", "hidden_size": 4096,
      "intermediate_size": 11008, "num_attention_heads": 32, "num_hidden_layers": 32,
      "num_key_value_heads": 8, "vocab_size": 32000, "max_position_embeddings": 4096,
      "rms_norm_eps": 1e-5, "tie_word_embeddings": false, "hidden_act": "silu"})";
  const std::string text = R"({"schema": "scenario/1",
      "model": {"hugging_face": "rehearse-scenario-test-config.json", "layers": 16},
      "cluster": {"node": "dgx-h100"}, "workload": {"global_batch": 8}})";
  Problems problems;
  const auto file = read_scenario(text, folder / "x.json", problems);
  INFO(problems.text());
  REQUIRE(file.has_value());
  CHECK(file->variants[0].scenario.model.layers == 16);
  CHECK(file->variants[0].scenario.model.ffn == 11008);
  std::filesystem::remove(config);

  Problems missing;
  CHECK_FALSE(read_scenario(text, folder / "x.json", missing).has_value());
  CHECK(missing.text().find("rehearse-scenario-test-config.json") != std::string::npos);
}

TEST_CASE("The reference page is the one the tables print") {
  check_golden(source_directory() + "/docs/scenario-reference.md", scenario_reference());
}

}  // namespace
}  // namespace rehearse
