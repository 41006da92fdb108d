// Mutates scenarios at random and holds the reader to its promise: a scenario or located problems,
// never a crash or a hang, and nothing accepted that the published schema refuses.
#include <algorithm>
#include <ctime>
#include <filesystem>

#include "app/scenario.h"
#include "plan/json_document.h"
#include "tests/app/schema_checker.h"
#include "tests/golden.h"
#include "tests/mutator.h"
#include "tests/places.h"

namespace rehearse {
namespace {

namespace fs = std::filesystem;

const char* const kSeeds[] = {
    R"({"schema": "scenario/1", "title": "t", "model": "gpt3-175b",
 "cluster": {"node": "dgx-h100", "nodes": 128, "fabric": {"kind": "rail-optimized"}},
 "workload": {"kind": "training", "global_batch": 1536, "tokens": "300e9"},
 "plan": {"tp": 8, "pp": 8, "virtual_stages": 3, "zero": 1, "recompute": "selective"},
 "what_if": [{"name": "half", "set": {"/cluster/node/nic_bandwidth": "200 Gbit/s"}}],
 "sweep": {"/cluster/nodes": [64, 128]}})",
    R"({"schema": "scenario/1", "model": {"layers": 4, "hidden": 256, "heads": 8, "ffn": 1024,
 "vocab": 1000, "activation": "swiglu", "norm": "rms-norm", "positions": "rotary"},
 "cluster": {"groups": [{"node": {"base": "dgx-a100", "gpu": {"memory": "80 GiB"}}, "nodes": 3},
   {"node": "dgx-a100", "speed": 0.9}], "fabric": {"kind": "fat-tree", "spreading": "ecmp"}},
 "workload": {"global_batch": 64, "seq_len": 512},
 "plans": [{"name": "a", "pp": 2, "schedule": "gpipe", "layer_split": [2, 2]}, {"tp": 2}],
 "sweep": {"zip": {"/plans/0/pp": [1, 2], "/plans/1/tp": [1, 4]}}})",
    R"({"schema": "scenario/1", "model": {"base": "llama3-8b", "layers": 8},
 "cluster": {"node": {"base": "desktop", "gpus": 1}, "nodes": 2, "fabric": {"kind": "custom"},
  "vertices": [{"name": "a", "gpu": true}, {"name": "b", "gpu": true, "node": 1}],
  "edges": [{"from": "a", "to": "b", "bandwidth": "10 Gbit/s", "latency": "5 us"}]},
 "workload": {"global_batch": 8}})",
};

std::vector<std::string> seeds() {
  std::vector<std::string> texts(std::begin(kSeeds), std::end(kSeeds));
  std::vector<fs::path> paths;
  for (const char* folder : {"/scenarios", "/tests/app/broken"})
    if (fs::exists(source_directory() + std::string(folder)))
      for (const auto& entry : fs::directory_iterator(source_directory() + std::string(folder)))
        if (entry.path().extension() == ".json") paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  for (const fs::path& path : paths) {
    const std::string text = read_whole_file(path.string());
    // Large sweeps cost time and teach the fuzzer nothing.
    if (text.size() < 4000 && text.find("too_many") == std::string::npos) texts.push_back(text);
  }
  return texts;
}

struct Tally {
  int read = 0, refused = 0;
};

void check_one(const std::string& text, SchemaChecker& schema, Tally& tally) {
  Problems problems;
  const auto file = read_scenario(text, "fuzz.json", problems);
  if (file) {
    REQUIRE(problems.empty());
    REQUIRE(!file->variants.empty());
    Problems none;
    const JsonDocument document = parse_json(text, "fuzz.json", none);
    const std::string fault = schema.fault(document.root);
    INFO(text);
    CHECK(fault.empty());
    ++tally.read;
    return;
  }
  ++tally.refused;
  REQUIRE(problems.count() > 0);
  const std::string shown = problems.text();
  for (const Problem& problem : problems.all()) {
    INFO(text << '\n' << shown);
    REQUIRE(problem.line >= 1);
    REQUIRE(problem.column >= 1);
    REQUIRE(!problem.message.empty());
  }
}

TEST_CASE("Mutated scenarios are read or refused with located problems, and never crash or hang") {
  std::uint64_t seed = 20240811;
  if (const char* given = std::getenv("REHEARSE_FUZZ_SEED"))
    seed = std::strtoull(given, nullptr, 10);
  int rounds = 3000;
  if (const char* given = std::getenv("REHEARSE_FUZZ_ROUNDS")) rounds = std::atoi(given);
  INFO("REHEARSE_FUZZ_SEED=" << seed << " repeats this");

  Problems problems;
  const JsonDocument schema = parse_json(scenario_json_schema(), "schema", problems);
  REQUIRE(problems.empty());
  SchemaChecker checker(schema.root);
  const std::vector<std::string> texts = seeds();
  Mutator mutator(seed);
  Tally tally;
  const std::clock_t begin = std::clock();
  for (int round = 0; round < rounds; ++round) {
    const std::clock_t started = std::clock();  // of this process: the machine may be busy
    const std::string text = mutator.mutate(texts[static_cast<std::size_t>(round) % texts.size()]);
    check_one(text, checker, tally);
    const auto took_s = static_cast<double>(std::clock() - started) / CLOCKS_PER_SEC;
    INFO(text);
    CHECK(took_s < 5);
  }
  const auto took_s = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  WARN(tally.read << " mutants read, " << tally.refused << " refused, in " << took_s << " s");
  // If nearly all or nearly none were refused, the mutations would test nothing.
  CHECK(tally.read > rounds / 100);
  CHECK(tally.refused > rounds / 4);
}

}  // namespace
}  // namespace rehearse
