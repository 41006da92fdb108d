// `rehearse-device train` from its command line: what it prints and what it refuses.
#include <algorithm>

#include "plan/json_document.h"
#include "tests/catch.h"
#include "tests/places.h"
#include "tests/runtime/train/train_program.h"

using namespace rehearse;

TEST_CASE("train starts the plan's ranks and says loss, rate and time") {
  const RunFolder folder;
  const std::string plan = folder.write("plan.json", small_plan(2, 1));
  const std::string text = folder.write("text.txt", some_text());
  const ChildResult result = train({plan, "--data", text, "--steps", "5"});
  INFO(result.err);
  CHECK(result.exit_code == 0);
  CHECK(result.out.find("at step 5") != std::string::npos);
  CHECK(result.out.find("tokens/s on 2 ranks") != std::string::npos);
  CHECK(result.err.empty());
}

TEST_CASE("train says exactly what of the data each rank has had") {
  // Rows between unequal replicas, columns between context ranks: blocks.
  const RunFolder folder;
  const std::string plan = folder.write("plan.json", uneven_plan({3, 1}, 2));
  const std::string text = folder.write("text.txt", some_text());
  const ChildResult result = train({plan, "--data", text, "--steps", "5", "--json"});
  INFO(result.err);
  REQUIRE(result.exit_code == 0);
  Problems problems;
  const JsonDocument document = parse_json(result.out, "training", problems);
  REQUIRE(problems.empty());
  const JsonValue& data = *document.root.find("data");
  CHECK(data.find("samples")->number == 20);
  CHECK(data.find("partition")->text == "random");
  const std::vector<JsonValue>& ranks = data.find("ranks")->items;
  REQUIRE(ranks.size() == 4);
  std::vector<int> owners(16);
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    const int samples = r < 2 ? 15 : 5;
    CHECK(ranks[r].find("replica")->number == (r < 2 ? 0 : 1));
    CHECK(ranks[r].find("samples")->number == samples);
    CHECK(ranks[r].find("tokens")->number == samples * 8);
    for (const JsonValue& range : ranks[r].find("columns")->items)
      for (auto at = range.items[0].number; at < range.items[1].number; ++at)
        ++owners[static_cast<std::size_t>(at)];
  }
  CHECK(owners == std::vector<int>(16, 2));  // once by each replica
  CHECK(result.out.back() == '\n');
  const ChildResult read = train({plan, "--data", text, "--steps", "5", "--partition", "range"});
  CHECK(read.out.find("20 samples of 16 tokens (range)") != std::string::npos);
  CHECK(read.out.find("5 to 15 a replica; 8 tokens of each a context rank") != std::string::npos);
}

TEST_CASE("train writes its progress over one line of a terminal, also through its launcher") {
  const RunFolder folder;
  const std::string plan = folder.write("plan.json", small_plan(2, 1));
  const std::string text = folder.write("text.txt", some_text());
  const ChildResult result = train({plan, "--data", text, "--steps", "3", "--on-terminal"});
  INFO(result.err);
  CHECK(result.exit_code == 0);
  CHECK(result.err.find("\rstep 1 of 3  loss ") == 0);
  CHECK(result.err.find("\rstep 3 of 3  loss ") != std::string::npos);
  CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
}

TEST_CASE("train says in one message what it cannot train") {
  const RunFolder folder;
  const std::string plan = folder.write("plan.json", small_plan(2, 1));
  const std::string text = folder.write("text.txt", some_text());
  const std::string shorter = folder.write("short.txt", "too short");

  const ChildResult missing = train({plan, "--data", folder.file("nothing")});
  CHECK(missing.exit_code == 1);
  CHECK(missing.err ==
        "rehearse-device: error: rank 0: cannot read " + folder.file("nothing") + "\n");
  const ChildResult too_short = train({plan, "--data", shorter});
  CHECK(too_short.exit_code == 1);
  CHECK(too_short.err.find(shorter) != std::string::npos);
  CHECK(std::count(too_short.err.begin(), too_short.err.end(), '\n') == 1);

  std::string larger = small_plan(2, 1);
  larger.replace(larger.find("\"ffn\": 32"), 9, "\"ffn\": 4000000");
  larger.replace(larger.find("\"hidden\": 16"), 12, "\"hidden\": 100000");
  const ChildResult too_large = train({folder.write("large.json", larger), "--data", text});
  INFO(too_large.err);
  CHECK(too_large.exit_code == 3);
  CHECK(too_large.err.find("the plan does not fit: its 2 ranks here would hold at least") !=
        std::string::npos);
  CHECK(std::count(too_large.err.begin(), too_large.err.end(), '\n') == 1);

  const ChildResult no_plan = train({folder.file("absent.json"), "--data", text});
  CHECK(no_plan.exit_code == 1);
  const ChildResult no_json = train({text, "--data", text});
  CHECK(no_json.exit_code == 2);
  const ChildResult unknown = train({plan, "--data", text, "--stpes", "5"});
  CHECK(unknown.exit_code == 2);
  CHECK(unknown.err.find("did you mean '--steps'?") != std::string::npos);

  const ChildResult wrong_size =
      run_child(mpirun(3, {kDevice, "train", plan, "--data", text, "--steps", "1"}));
  CHECK(wrong_size.exit_code == 2);
  CHECK(wrong_size.err.find("the plan needs 2 ranks, but 3 were started") != std::string::npos);
}

TEST_CASE("ranks start here if asked, whatever a launcher has said") {
  const RunFolder folder;
  const std::string plan = folder.write("plan.json", small_plan(2, 1));
  const std::string text = folder.write("text.txt", some_text());
  std::vector<std::string> command{"/usr/bin/env",
                                   "ASAN_OPTIONS=detect_leaks=0",  // MPI's own
                                   "RANK=1",
                                   "WORLD_SIZE=4",
                                   "SLURM_PROCID=0",
                                   "SLURM_NTASKS=4",
                                   "SLURM_STEP_ID=0",
                                   "SLURM_STEP_NUM_TASKS=4",
                                   kDevice,
                                   "train",
                                   plan,
                                   "--data",
                                   text,
                                   "--steps",
                                   "2",
                                   "--device",
                                   "cpu"};
  const ChildResult refused = run_child(command);
  INFO(refused.err);
  CHECK(refused.exit_code == 1);
  CHECK(refused.err.find("a launcher started 4 ranks, but none of MPI") != std::string::npos);
  command.emplace_back("--local");
  const ChildResult here = run_child(command);
  INFO(here.err);
  CHECK(here.exit_code == 0);
  CHECK(here.out.find("2 ranks") != std::string::npos);
  // Also from within a rank of mpirun.
  const ChildResult nested = run_child(mpirun(1, {command.begin() + 8, command.end()}));
  INFO(nested.err);
  CHECK(nested.exit_code == 0);
}

TEST_CASE("a run that goes on from a checkpoint gives the same digits as one that never stopped") {
  const RunFolder folder;
  const std::string plan = folder.write("plan.json", small_plan(2, 1, 1));
  const std::string text = folder.write("text.txt", some_text());
  const std::string all = folder.file("all"), part = folder.file("part");
  const auto words = [&](const std::string& steps, const std::string& checkpoints) {
    return std::vector<std::string>{plan,      "--data", text,     "--rate-schedule", "adaptive",
                                    "--steps", steps,    "--json", "--checkpoint",    checkpoints};
  };
  const ChildResult whole = train(words("8", all));
  REQUIRE(whole.exit_code == 0);
  REQUIRE(train(words("5", part)).exit_code == 0);
  auto going_on = words("8", part);
  going_on.push_back("--resume");
  const ChildResult rest = train(going_on);
  INFO(rest.err);
  REQUIRE(rest.exit_code == 0);
  const auto expected = losses(whole.out), found = losses(rest.out);
  REQUIRE(expected.size() == 8);
  REQUIRE(found.size() == 3);
  CHECK(std::vector(expected.begin() + 5, expected.end()) == found);

  // The same checkpoint in another layout: a pipeline instead of replicas.
  const std::string other = folder.write("other.json", small_plan(1, 2));
  const ChildResult moved = train({other, "--data", text, "--rate-schedule", "adaptive", "--steps",
                                   "9", "--json", "--checkpoint", all, "--resume"});
  INFO(moved.err);
  CHECK(moved.exit_code == 0);
  CHECK(losses(moved.out).size() == 1);
}

TEST_CASE("without data the shipped text is trained on, and the loss falls below 3") {
  // 256 bytes that are all as likely have an entropy of 5.55 nats; by their frequencies in the text
  // it is 3.15, so that a model below that has learnt more than these.
  const ChildResult result = train({source_directory() + "/scenarios/plans/demo-2-ranks.json",
                                    "--steps", "40", "--json", "--predicted-step", "50ms"});
  INFO(result.err);
  REQUIRE(result.exit_code == 0);
  CHECK(result.err.find("scenarios/data/lighthouse-log.txt") != std::string::npos);
  CHECK(result.out.find("\"predicted_step_time_s\": 0.05") != std::string::npos);
  const auto all = losses(result.out);
  REQUIRE(all.size() == 40);
  CHECK(std::stod(all.front()) > 5);
  CHECK(std::stod(all.back()) < 3.0);
}
