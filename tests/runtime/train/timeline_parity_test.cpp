// A simulated step and the real one lie side by side: the same parts under the same names, and the
// same bytes given to each kind of transfer.
#include <algorithm>

#include "plan/json_document.h"
#include "tests/catch.h"
#include "tests/runtime/train/train_program.h"

using namespace rehearse;

namespace {

std::string scenario(int ranks, const std::string& model, const std::string& plan) {
  return R"({"schema": "scenario/1",
    "model": {"name": "small", "layers": 4, "hidden": 32, "heads": 4, "ffn": 64, "vocab": 256,
              "max_seq_len": 32)" +
         model + R"(},
    "cluster": {"nodes": 1, "node": {"id": "here", "name": "this machine", "nvswitch": false,
      "nics": 0, "gpus": )" +
         std::to_string(ranks) + R"(, "gpu": {"id": "cpu", "name": "a core", "memory": "4 GB",
      "memory_bandwidth": "10 GB/s", "fp32_rate": "50 GFLOP/s", "pcie_bandwidth": "5 GB/s"}}},
    "workload": {"kind": "training", "global_batch": 8, "seq_len": 32},
    "plan": {"name": "small", "framework": "rehearse", "precision": "fp32", "micro_batch": 2, )" +
         plan + "}}";
}

/// The comparison/1 document of a plan simulated and trained.
JsonValue compared(int ranks, const std::string& model, const std::string& plan) {
  const RunFolder folder;
  const std::string at = folder.write("scenario.json", scenario(ranks, model, plan));
  const std::string timeline = folder.file("predicted.json"), made = folder.file("plan.json");
  const ChildResult simulated = run_child({REHEARSE_PROGRAM, "run", at, "--quiet", "--plan-out",
                                           made, "--timeline", timeline, "-o", folder.file("out")});
  INFO(simulated.err);
  REQUIRE(simulated.exit_code == 0);
  const ChildResult trained = train({made, "--steps", "3", "--timeline", folder.file("measured")});
  INFO(trained.err);
  REQUIRE(trained.exit_code == 0);
  const ChildResult result =
      run_child({REHEARSE_PROGRAM, "compare", timeline, folder.file("measured"), "--json"});
  INFO(result.err);
  REQUIRE(result.exit_code == 0);
  Problems problems;
  JsonDocument document = parse_json(result.out, "comparison", problems);
  REQUIRE(problems.empty());
  return std::move(document.root);
}

void check_pairs(int ranks, const std::string& model, const std::string& plan) {
  const JsonValue comparison = compared(ranks, model, plan);
  CAPTURE(plan, model);
  CHECK(comparison.find("paired_share")->number > 0.95);
  for (const JsonValue& part : comparison.find("parts")->items) {
    CAPTURE(part.find("tag")->text);
    if (part.find("predicted_bytes")->number > 0)
      CHECK(part.find("measured_bytes")->number == Approx(part.find("predicted_bytes")->number));
  }
}

}  // namespace

TEST_CASE("a step of one rank has the parts that were simulated") {
  check_pairs(1, "", R"("dp": 1)");
  check_pairs(1, R"(, "norm": "rms-norm", "activation": "swiglu", "positions": "rotary")",
              R"("dp": 1, "recompute": "full")");
}

TEST_CASE("a step of data ranks has the parts and bytes that were simulated") {
  check_pairs(2, "", R"("dp": 2)");
  check_pairs(2, "", R"("dp": 2, "zero": 1)");
}

TEST_CASE("a step of tensor ranks has the parts and bytes that were simulated") {
  check_pairs(2, "", R"("tp": 2)");
  check_pairs(2, R"(, "norm": "rms-norm", "activation": "swiglu", "positions": "rotary")",
              R"("tp": 2, "sequence_parallel": true)");
}

TEST_CASE("a step of context ranks has the parts and bytes that were simulated") {
  check_pairs(2, R"(, "norm": "rms-norm", "activation": "swiglu", "positions": "rotary")",
              R"("cp": 2)");
  check_pairs(2, "", R"("cp": 2, "context": "all-to-all")");
  check_pairs(4, "", R"("cp": 4, "context_balanced": false, "recompute": "full")");
}

TEST_CASE("a step of a pipeline has the parts and bytes that were simulated") {
  check_pairs(2, "", R"("pp": 2, "schedule": "1f1b")");
  check_pairs(2, "", R"("pp": 2, "schedule": "zb-h1")");
  check_pairs(4, "", R"("pp": 2, "tp": 2, "schedule": "gpipe", "recompute": "full")");
}
