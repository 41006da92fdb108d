// What happens when a rank dies, hangs, or cannot write: the run ends in time with one message,
// no process is left, and it goes on from its checkpoint. Deadlines are long, since these tests
// share a busy machine with others; nothing depends on how fast anything is.
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <iterator>
#include <map>
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

TEST_CASE("a checkpoint that is passed over is set aside, and the run's own are kept") {
  const RunFolder folder;
  const std::string plan = folder.write("plan.json", small_plan(2, 1));
  const std::string text = folder.write("text.txt", some_text());
  const std::string checkpoints = folder.file("checkpoints");
  const auto words = [&](const std::string& steps, const std::string& every) {
    return std::vector<std::string>{
        plan,  "--data",       text,        "--steps",         steps,     "--checkpoint-every",
        every, "--checkpoint", checkpoints, "--rate-schedule", "constant"};
  };
  REQUIRE(train(words("40", "20")).exit_code == 0);  // checkpoints of steps 20 and 40
  cut_latest(checkpoints);
  auto going_on = words("26", "2");
  going_on.push_back("--resume");
  const ChildResult rest = train(going_on);
  INFO(rest.err);
  REQUIRE(rest.exit_code == 0);
  CHECK(rest.err.find("it is kept as " + checkpoints + "/passed-over-step-00000040") !=
        std::string::npos);
  for (const auto& [name, there] : std::map<std::string, bool>{{"step-00000020", false},
                                                               {"step-00000024", true},
                                                               {"step-00000026", true},
                                                               {"step-00000040", false},
                                                               {"passed-over-step-00000040", true}})
    CHECK(fs::exists(fs::path(checkpoints) / name) == there);
}

TEST_CASE("a run that begins anew does not write among another run's checkpoints") {
  const RunFolder folder;
  const std::string plan = folder.write("plan.json", small_plan(2, 1));
  const std::string text = folder.write("text.txt", some_text());
  const std::string checkpoints = folder.file("checkpoints");
  const std::vector<std::string> words{plan,           "--data",    text,         "--steps", "4",
                                       "--checkpoint", checkpoints, "--restarts", "3"};
  REQUIRE(train(words).exit_code == 0);
  const std::string manifest = contents(fs::path(checkpoints) / "step-00000004/manifest.json");
  const std::string expected = "rehearse-device: error: " + checkpoints +
                               " has another run's checkpoint, of step 4\n"
                               "help: --resume goes on from it; or name another folder\n";
  const ChildResult again = train(words);
  CHECK(again.exit_code == 2);
  CHECK(again.err == expected);
  std::vector<std::string> launched{kDevice, "train"};
  launched.insert(launched.end(), words.begin(), words.end());
  const ChildResult ranks = run_child(mpirun(2, launched));
  CHECK(ranks.exit_code == 2);
  CHECK(ranks.err.find(expected) != std::string::npos);
  CHECK(count_of(ranks.err, "rehearse-device: error:") == 1);
  CHECK(contents(fs::path(checkpoints) / "step-00000004/manifest.json") == manifest);
}

TEST_CASE("a checkpoint of another model, corpus, batch, order or seed is refused in one message") {
  const RunFolder folder;
  const std::string plan = folder.write("plan.json", small_plan(2, 1));
  const std::string text = folder.write("text.txt", some_text());
  const std::string checkpoints = folder.file("checkpoints");
  REQUIRE(train({plan, "--data", text, "--steps", "2", "--checkpoint", checkpoints}).exit_code ==
          0);
  const auto changed = [&](const char* name, const std::string& from, const std::string& to) {
    std::string other = small_plan(2, 1);
    const auto at = other.find(from);
    REQUIRE(at != std::string::npos);
    return folder.write(name, other.replace(at, from.size(), to));
  };
  std::string edited = some_text();
  edited[100] = '!';
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases{
      {{changed("wider.json", "\"ffn\": 32", "\"ffn\": 64")}, "of another model"},
      {{changed("heads.json", "\"norm\": \"layer-norm\"", "\"norm\": \"rms-norm\"")},
       "of another model"},
      {{changed("batch.json", "\"global_batch\": 4", "\"global_batch\": 8")},
       "of global batch 4, not 8"},
      {{changed("short.json", "\"seq_len\": 16", "\"seq_len\": 8")},
       "of sequence length 16, not 8"},
      {{plan, "--data", folder.write("longer.txt", some_text() + "more")}, "tokens, and this one"},
      {{plan, "--data", folder.write("edited.txt", edited)}, "another corpus of as many tokens"},
      {{plan, "--partition", "range"}, "in a random order, not in the order of the file"},
      {{plan, "--seed", "9"}, "of seed 1, not of 9"}};
  for (const auto& [words, reason] : cases) {
    auto all = words;
    if (std::find(all.begin(), all.end(), "--data") == all.end())
      all.insert(all.end(), {"--data", text});
    all.insert(all.end(),
               {"--steps", "3", "--checkpoint", checkpoints, "--resume", "--restarts", "2"});
    const ChildResult result = train(all);
    INFO(result.err);
    CHECK(result.exit_code == 2);
    CHECK(result.err.find(reason) != std::string::npos);
    CHECK(count_of(result.err, "rehearse-device: error:") == 1);
  }
}
