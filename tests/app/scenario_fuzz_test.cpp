// Mutates scenarios at random and holds the reader to its promise: a scenario or located problems,
// never a crash or a hang, and nothing accepted that the published schema refuses.
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <random>

#include "app/scenario.h"
#include "plan/json_document.h"
#include "tests/app/schema_checker.h"
#include "tests/golden.h"

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

/// Pieces that are likely to hurt: numbers at edges, brackets, quotes, broken UTF-8, names.
const char* const kPieces[] = {"0",
                               "-1",
                               "1e400",
                               "NaN",
                               "9223372036854775808",
                               "-9223372036854775809",
                               "1e308",
                               "0.1",
                               "null",
                               "true",
                               "[]",
                               "{}",
                               "[[[[[[[",
                               "}}",
                               "\"",
                               "\\",
                               "\\u0000",
                               "\\ud800",
                               "\xFF",
                               "\xE2\x82",
                               ",",
                               ":",
                               "//",
                               "/*",
                               "\"base\"",
                               "\"zip\"",
                               "\"/plan/tp\"",
                               "\"/cluster/node/gpu/memory\"",
                               "\"400 Gbit/s\"",
                               "\"x\": 1,",
                               "\"groups\"",
                               "\"torus\"",
                               "\"dragonfly\"",
                               "\"leaf-spine\"",
                               "1048576",
                               "65536",
                               "\"interleaved-1f1b\"",
                               "\"switch_ports\": 4,",
                               "\"oversubscription\": 3,",
                               "\"torus_dimensions\": [2, 2],"};

class Mutator {
 public:
  explicit Mutator(std::uint64_t seed) : random_(seed) {}

  std::string mutate(std::string text) {
    // One change often leaves a readable scenario, several rarely do: both are wanted.
    const int changes = below(2) == 0 ? 1 : 1 + static_cast<int>(below(4));
    for (int i = 0; i < changes && !text.empty(); ++i) change(text);
    return text;
  }

 private:
  std::size_t below(std::size_t bound) { return random_() % bound; }

  /// The begin of a token, so that many mutants stay JSON.
  std::size_t token(const std::string& text) {
    const std::size_t at = text.find_first_of("\"0123456789[{", below(text.size()));
    return at == std::string::npos ? below(text.size()) : at;
  }

  void change(std::string& text) {
    const std::size_t at = below(text.size());
    switch (below(9)) {
      case 0:
        text[at] = static_cast<char>(random_());
        break;
      case 1:
        text.erase(at, 1 + below(8));
        break;
      case 2:
        text.insert(token(text), kPieces[below(std::size(kPieces))]);
        break;
      case 3: {  // a token becomes another
        const std::size_t begin = token(text);
        const std::size_t end = std::min(text.find_first_of(",:]}", begin), text.size());
        text.replace(begin, end - begin, kPieces[below(std::size(kPieces))]);
        break;
      }
      case 4: {  // a piece of the text comes twice
        const std::string piece = text.substr(at, 1 + below(60));
        text.insert(token(text), piece);
        break;
      }
      case 5:
      case 6:
      case 7: {  // digits change, everything else stays
        const std::size_t digit = text.find_first_of("0123456789", at);
        if (digit != std::string::npos) text[digit] = static_cast<char>('0' + below(10));
        break;
      }
      default:
        text.resize(at);
    }
  }

  std::mt19937_64 random_;
};

std::vector<std::string> seeds() {
  std::vector<std::string> texts(std::begin(kSeeds), std::end(kSeeds));
  std::vector<fs::path> paths;
  for (const char* folder : {"/scenarios", "/tests/app/broken"})
    if (fs::exists(REHEARSE_SOURCE_DIR + std::string(folder)))
      for (const auto& entry : fs::directory_iterator(REHEARSE_SOURCE_DIR + std::string(folder)))
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
  const auto begin = std::chrono::steady_clock::now();
  for (int round = 0; round < rounds; ++round) {
    const auto started = std::chrono::steady_clock::now();
    const std::string text = mutator.mutate(texts[static_cast<std::size_t>(round) % texts.size()]);
    check_one(text, checker, tally);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - started;
    INFO(text);
    CHECK(took.count() < 20);
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  WARN(tally.read << " mutants read, " << tally.refused << " refused, in " << took.count() << " s");
  // If nearly all or nearly none were refused, the mutations would test nothing.
  CHECK(tally.read > rounds / 100);
  CHECK(tally.refused > rounds / 4);
}

}  // namespace
}  // namespace rehearse
