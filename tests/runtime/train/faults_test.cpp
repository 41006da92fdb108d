// What happens when a rank dies, hangs, or cannot write: the run ends in time with one message,
// no process is left, and it goes on from its checkpoint. Deadlines are long, since these tests
// share a busy machine with others; nothing depends on how fast anything is.
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <iterator>
#include <random>
#include <thread>

#include "tests/catch.h"
#include "tests/runtime/train/train_program.h"

using namespace rehearse;

namespace {

/// Does something to the second rank of a run of `plan` while the run lasts: once `when` is true,
/// and up to `within_ms` later.
class Mischief {
 public:
  Mischief(std::string plan, std::function<bool()> when, int within_ms,
           std::function<void(int pid)> what)
      : seed_(std::random_device{}()),
        thread_([this, plan = std::move(plan), when = std::move(when), within_ms,
                 what = std::move(what)] {
          std::minstd_rand random(seed_);
          const auto pause = std::chrono::milliseconds(2);
          while (!over_ && !when()) std::this_thread::sleep_for(pause);
          std::this_thread::sleep_for(std::chrono::milliseconds(random() % within_ms));
          while (!over_) {
            const auto ranks = processes_with(plan, "OMPI_COMM_WORLD_RANK=1");
            if (!ranks.empty()) {
              what(ranks.front());
              done_ = true;
              return;
            }
            std::this_thread::sleep_for(pause);
          }
        }) {}
  ~Mischief() { end(); }
  Mischief(const Mischief&) = delete;
  Mischief& operator=(const Mischief&) = delete;

  /// Call after the run; true where it was done.
  bool end() {
    over_ = true;
    if (thread_.joinable()) thread_.join();
    return done_;
  }
  unsigned seed() const { return seed_; }

 private:
  unsigned seed_;
  std::atomic<bool> over_{false}, done_{false};
  std::thread thread_;
};

int count_of(const std::string& text, const std::string& word) {
  int count = 0;
  for (auto at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++count;
  return count;
}

const auto kAtOnce = [] { return true; };

/// The shards of the latest checkpoint but for a hundred bytes.
void cut_latest(const fs::path& checkpoints) {
  fs::path latest;
  for (const auto& entry : fs::directory_iterator(checkpoints))
    if (entry.path() > latest) latest = entry.path();
  const fs::path shards = latest / "rank-00001.shards";
  fs::resize_file(shards, fs::file_size(shards) - 100);
}

}  // namespace

TEST_CASE("a rank killed at any moment ends the run, which names it") {
  const RunFolder folder;
  const std::string plan = folder.write("plan.json", small_plan(2, 1));
  const std::string text = folder.write("text.txt", some_text());
  Mischief killer(plan, kAtOnce, 2000, [](int pid) { kill(pid, SIGKILL); });
  const ChildResult result =
      train({plan, "--data", text, "--steps", "10000000", "--deadline", "60s"});
  REQUIRE(killer.end());
  INFO("seed " << killer.seed() << '\n' << result.out << result.err);
  CHECK(result.exit_code == 1);
  CHECK(result.err.find("rank 1 vanished") != std::string::npos);
  CHECK(count_of(result.err, "rehearse-device: error:") == 1);
  CHECK(processes_with(plan).empty());
}

TEST_CASE("a rank stopped at any moment ends the run within the deadline, which names it") {
  const RunFolder folder;
  const std::string plan = folder.write("plan.json", small_plan(1, 2));
  const std::string text = folder.write("text.txt", some_text());
  Mischief stopper(plan, kAtOnce, 2000, [](int pid) { kill(pid, SIGSTOP); });
  const ChildResult result =
      train({plan, "--data", text, "--steps", "10000000", "--deadline", "10s"});
  REQUIRE(stopper.end());
  INFO("seed " << stopper.seed() << '\n' << result.out << result.err);
  CHECK(result.exit_code == 1);
  CHECK(result.err.find("no sign of life") != std::string::npos);
  CHECK(result.err.find("rank 1") != std::string::npos);
  CHECK(count_of(result.err, "rehearse-device: error:") == 1);
  CHECK(processes_with(plan).empty());
}

TEST_CASE("ranks under a launcher of their own notice one that was stopped") {
  const RunFolder folder;
  const std::string plan = folder.write("plan.json", small_plan(2, 1));
  const std::string text = folder.write("text.txt", some_text());
  const std::string checkpoints = folder.file("checkpoints");
  Mischief stopper(
      plan, [&] { return has_whole_checkpoint(checkpoints); }, 200,
      [](int pid) { kill(pid, SIGSTOP); });
  const ChildResult result = run_child(
      mpirun(2, {kDevice, "train", plan, "--data", text, "--steps", "10000000", "--deadline", "5s",
                 "--checkpoint", checkpoints, "--checkpoint-every", "1000"}));
  REQUIRE(stopper.end());
  INFO("seed " << stopper.seed() << '\n' << result.out << result.err);
  CHECK(result.exit_code == 1);
  CHECK(result.err.find("no sign of life from rank 1") != std::string::npos);
  CHECK(processes_with(plan).empty());
}

TEST_CASE("a run whose rank is killed goes on by itself where it is told to") {
  const RunFolder folder;
  const std::string plan = folder.write("plan.json", small_plan(2, 1));
  const std::string text = folder.write("text.txt", some_text());
  const auto words = [&](const std::string& checkpoints, const std::string& restarts) {
    return std::vector<std::string>{plan,           "--data",     text,
                                    "--steps",      "400",        "--json",
                                    "--checkpoint", checkpoints,  "--checkpoint-every",
                                    "20",           "--restarts", restarts};
  };
  const ChildResult whole = train(words(folder.file("whole"), "0"));
  INFO(whole.err);
  REQUIRE(whole.exit_code == 0);
  const std::string checkpoints = folder.file("checkpoints");
  Mischief killer(
      plan, [&] { return has_whole_checkpoint(checkpoints); }, 1,
      [](int pid) { kill(pid, SIGKILL); });
  const ChildResult result = train(words(checkpoints, "2"));
  REQUIRE(killer.end());
  INFO(result.err);
  REQUIRE(result.exit_code == 0);
  CHECK(result.err.find("rank 1 vanished") != std::string::npos);
  CHECK(result.err.find("starting again from the last checkpoint (1 more to go)") !=
        std::string::npos);
  const auto expected = losses(whole.out), found = losses(result.out);
  REQUIRE(!found.empty());
  REQUIRE(found.size() < expected.size());
  CHECK(std::equal(found.rbegin(), found.rend(), expected.rbegin()));
}

TEST_CASE("a checkpoint that cannot be written ends the run and leaves the last one whole") {
  const RunFolder folder;
  const std::string plan = folder.write("plan.json", small_plan(2, 1));
  const std::string text = folder.write("text.txt", some_text());
  const std::string checkpoints = folder.file("checkpoints");
  // As if the disk were full: from the first checkpoint on, the second rank's files end at 4 KiB.
  Mischief filler(
      plan, [&] { return has_whole_checkpoint(checkpoints); }, 20,
      [](int pid) {
        const rlimit little{4096, 4096};
        prlimit(pid, RLIMIT_FSIZE, &little, nullptr);
      });
  const ChildResult result =
      train({plan, "--data", text, "--steps", "10000000", "--deadline", "60s", "--checkpoint",
             checkpoints, "--checkpoint-every", "20"});
  REQUIRE(filler.end());
  INFO(result.err);
  CHECK(result.exit_code == 1);
  CHECK(result.err.find("rank 1: ") != std::string::npos);
  CHECK(result.err.find("rank-00001.shards") != std::string::npos);
  CHECK(count_of(result.err, "rehearse-device: error:") == 1);
  CHECK(processes_with(plan).empty());
  const ChildResult rest =
      train({plan, "--data", text, "--steps", "1", "--checkpoint", checkpoints, "--resume"});
  INFO(rest.err);
  CHECK(rest.exit_code == 0);
  CHECK(rest.out == "nothing was left to train\n");
}

TEST_CASE("a checkpoint cut off is passed over, and one that is all there is is refused") {
  const RunFolder folder;
  const std::string plan = folder.write("plan.json", small_plan(2, 1));
  const std::string text = folder.write("text.txt", some_text());
  const std::string checkpoints = folder.file("checkpoints");
  const auto words = [&](const std::string& steps) {
    return std::vector<std::string>{plan,
                                    "--data",
                                    text,
                                    "--steps",
                                    steps,
                                    "--json",
                                    "--checkpoint-every",
                                    "2",
                                    "--checkpoint",
                                    checkpoints,
                                    "--rate-schedule",
                                    "constant"};
  };
  REQUIRE(train(words("4")).exit_code == 0);  // checkpoints of steps 2 and 4
  cut_latest(checkpoints);
  auto going_on = words("5");
  going_on.push_back("--resume");
  const ChildResult rest = train(going_on);
  INFO(rest.err);
  CHECK(rest.exit_code == 0);
  CHECK(losses(rest.out).size() == 3);
  CHECK(rest.err.find("step-00000004") != std::string::npos);

  fs::remove_all(checkpoints);
  REQUIRE(train(words("2")).exit_code == 0);
  cut_latest(checkpoints);
  const ChildResult refused = train(going_on);
  INFO(refused.err);
  CHECK(refused.exit_code == 1);
  CHECK(refused.err.find("no whole checkpoint") != std::string::npos);
  CHECK(count_of(refused.err, "rehearse-device: error:") == 1);
}

TEST_CASE("a checkpoint of another model or another seed is refused in one message") {
  const RunFolder folder;
  const std::string plan = folder.write("plan.json", small_plan(2, 1));
  const std::string text = folder.write("text.txt", some_text());
  const std::string checkpoints = folder.file("checkpoints");
  REQUIRE(train({plan, "--data", text, "--steps", "2", "--checkpoint", checkpoints}).exit_code ==
          0);
  std::string wider = small_plan(2, 1);
  wider.replace(wider.find("\"ffn\": 32"), 9, "\"ffn\": 64");
  const std::string other = folder.write("other.json", wider);
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{other, "--data", text, "--steps", "3"},
        std::vector<std::string>{plan, "--data", text, "--steps", "3", "--seed", "9"}}) {
    auto all = words;
    all.insert(all.end(), {"--checkpoint", checkpoints, "--resume"});
    const ChildResult result = train(all);
    INFO(result.err);
    CHECK(result.exit_code == 1);
    CHECK(count_of(result.err, "rehearse-device: error:") == 1);
  }
}
