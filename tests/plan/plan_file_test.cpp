#include "plan/plan_file.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <numeric>

#include "plan/digest.h"
#include "plan/model_catalogue.h"
#include "plan/write_file.h"
#include "tests/golden.h"
#include "tests/mutator.h"

namespace rehearse {
namespace {

namespace fs = std::filesystem;

/// A folder of its own for a test, removed at its end.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string name = (fs::temp_directory_path() / "rehearse-test-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~ScratchFolder() { fs::remove_all(path_); }
  const fs::path& path() const { return path_; }
  std::size_t files() const {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(path_), fs::directory_iterator()));
  }

 private:
  fs::path path_;
};

std::string failure_of(const fs::path& path, bool force) {
  try {
    write_file_whole(path, "new", force);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

PlanFile example() {
  PlanFile file;
  file.title = "four layers on four GPUs";
  file.model = *find_model("gpt2");
  file.model.layers = 4;
  file.workload = {.global_batch = 8, .seq_len = 1024, .tokens = 1e9};
  file.plan.name = "hybrid";
  file.plan.dp = 2;
  file.plan.pp = 2;
  file.plan.micro_batch = 2;
  file.cluster_digest = digest_text("cluster");
  file.gpus = 8;
  file.rank_to_device = {0, 4, 1, 5};
  file.layer_split = {2, 2};
  file.stages = {{0, 1.5e9, 80e9}, {1, 1.25e9, 80e9}};
  file.step_time_s = 0.25;
  return file;
}

std::string problems_of(const PlanFile& file) {
  Problems problems;
  const bool read = read_plan_file(write_plan_file(file), "plan.json", problems).has_value();
  CHECK(read == problems.empty());
  return problems.text();
}

TEST_CASE("A plan file reads back to what was written") {
  const PlanFile file = example();
  const std::string text = write_plan_file(file);
  Problems problems;
  const auto read = read_plan_file(text, "plan.json", problems);
  INFO(problems.text());
  REQUIRE(read.has_value());
  CHECK(write_plan_file(*read) == text);
  CHECK(read->rank_to_device == file.rank_to_device);
  CHECK(read->stages.size() == 2);
  CHECK(read->step_time_s == 0.25);
  const Schedule schedule = schedule_of(*read);
  CHECK(schedule.micro_batches == 2);
  CHECK(schedule.actions == make_schedule(ScheduleKind::OneFOneB, 2, 1, 2).actions);
}

TEST_CASE("A plan file carries unequal shares of the batch, each with its schedule") {
  PlanFile file = example();
  REQUIRE(file.plan.dp == 2);
  file.workload.global_batch = 4 * file.plan.micro_batch;
  file.plan.replica_micro_batches = {3, 1};
  Problems problems;
  const auto read = read_plan_file(write_plan_file(file), "plan.json", problems);
  INFO(problems.text());
  REQUIRE(read.has_value());
  CHECK(schedule_of(*read, 0).micro_batches == 3);
  CHECK(schedule_of(*read, 1).micro_batches == 1);
  // Five do not divide by two replicas, and need not.
  file.workload.global_batch = 5 * file.plan.micro_batch;
  CHECK(problems_of(file).find("but global_batch is") != std::string::npos);
  file.plan.replica_micro_batches = {3, 2};
  CHECK(problems_of(file).empty());
  file.plan.replica_micro_batches = {5};
  CHECK(problems_of(file).find("1 numbers for 2 replicas") != std::string::npos);
}

TEST_CASE("A plan file carries an explicit schedule") {
  PlanFile file = example();
  file.actions = {"F0 F1 B0 B1", "F0 B0 F1 I1 W1"};
  Problems problems;
  const auto read = read_plan_file(write_plan_file(file), "plan.json", problems);
  INFO(problems.text());
  REQUIRE(read.has_value());
  const Schedule schedule = schedule_of(*read);
  CHECK(schedule.actions[0][2] == Action{ActionKind::Backward, 0, 0});
  CHECK(schedule.actions[1][4] == Action{ActionKind::WeightGradient, 1, 0});
  CHECK(actions_text(schedule.actions[1], 1) == file.actions[1]);
}

TEST_CASE("Actions with chunks are written and read") {
  const Schedule schedule = make_schedule(ScheduleKind::OneFOneB, 2, 2, 4);
  for (const auto& actions : schedule.actions) {
    std::vector<Action> again;
    REQUIRE(parse_actions(actions_text(actions, 2), again));
    CHECK(again == actions);
  }
  std::vector<Action> actions;
  for (const char* wrong : {"F", "X1", "F1.", "F1.x", "F-1", "F1x", "F99999999999", "1"})
    CHECK_FALSE(parse_actions(wrong, actions));
}

TEST_CASE("A plan file that contradicts itself is refused") {
  PlanFile file = example();
  SECTION("too few devices") {
    file.rank_to_device = {0, 1};
    CHECK(problems_of(file).find("the plan has 4 ranks, but devices are given for 2") !=
          std::string::npos);
  }
  SECTION("a device twice") {
    file.rank_to_device = {0, 1, 2, 1};
    CHECK(problems_of(file).find("device 1 is given to two ranks") != std::string::npos);
  }
  SECTION("a device that is not there") {
    file.rank_to_device = {0, 1, 2, 8};
    CHECK(problems_of(file).find("device 8 is none of the 8 GPUs") != std::string::npos);
  }
  SECTION("layers that do not add up") {
    file.layer_split = {2, 1};
    CHECK(problems_of(file).find("the chunks have 3 layers together") != std::string::npos);
  }
  SECTION("a chunk without layers given") {
    file.layer_split = {4};
    CHECK(problems_of(file).find("pp·virtual_stages makes 2 chunks") != std::string::npos);
  }
  SECTION("not resolved") {
    file.plan.dp = 0;
    CHECK(problems_of(file).find("not resolved") != std::string::npos);
  }
  SECTION("a batch that does not divide") {
    file.workload.global_batch = 6;
    CHECK(problems_of(file).find("global_batch = 6 is no multiple of") != std::string::npos);
  }
  SECTION("an action missing") {
    file.actions = {"F0 F1 B0 B1", "F0 B0 F1"};
    CHECK(problems_of(file).find("/actions") != std::string::npos);
  }
  SECTION("stages that wait for each other for ever") {
    file.actions = {"F0 B0 F1 B1", "F1 B1 F0 B0"};
    CHECK(problems_of(file).find("/actions") != std::string::npos);
  }
}

TEST_CASE("Mutated plan files are read or refused with located problems") {
  PlanFile file = example();
  file.actions = {"F0 F1 B0 B1", "F0 B0 F1 I1 W1"};
  const std::string explicit_actions = write_plan_file(file);
  const std::string by_name = write_plan_file(example());
  constexpr std::uint64_t kSeed = 77;
  Mutator mutator(kSeed);
  int read = 0;
  for (int round = 0; round < 2000; ++round) {
    const std::string text = mutator.mutate(round % 2 == 0 ? explicit_actions : by_name);
    Problems problems;
    INFO(text);
    if (const auto again = read_plan_file(text, "fuzz.json", problems)) {
      ++read;
      CHECK(schedule_faults(schedule_of(*again)).empty());
    } else {
      REQUIRE(!problems.empty());
      for (const Problem& problem : problems.all()) REQUIRE(problem.line >= 1);
    }
  }
  CHECK(read > 20);
  CHECK(read < 1500);
}

TEST_CASE("Files are written whole, and not over others unless forced") {
  const ScratchFolder folder;
  const fs::path path = folder.path() / "out.json";
  write_file_whole(path, "old", false);
  CHECK(read_whole_file(path) == "old");
  CHECK(failure_of(path, false) ==
        "cannot write " + path.string() + ": it exists; --force replaces it");
  CHECK(read_whole_file(path) == "old");
  CHECK(failure_of(path, true).empty());
  CHECK(read_whole_file(path) == "new");
  CHECK(failure_of(folder.path(), true).find("it is a directory") != std::string::npos);
  CHECK(failure_of(folder.path() / "none" / "x", true).find("No such file") != std::string::npos);
  CHECK(failure_of("/dev/null", true).find("no regular file") != std::string::npos);
  CHECK_FALSE(failure_of("", true).empty());
  CHECK(folder.files() == 1);

  const std::string large(3'000'000, 'x');
  write_file_whole(path, large, true);
  CHECK(read_whole_file(path) == large);
}

TEST_CASE("The digest is FNV-1a") {
  // Test vectors of the FNV draft (draft-eastlake-fnv, appendix): "" and "a" and "foobar".
  CHECK(digest_text("") == "cbf29ce484222325");
  CHECK(digest_text("a") == "af63dc4c8601ec8c");
  CHECK(digest_text("foobar") == "85944171f73967e8");
}

}  // namespace
}  // namespace rehearse
