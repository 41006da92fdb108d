// `rehearse-device train` from its command line: what it prints, what it refuses, and what happens
// when a rank dies.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "plan/plan_file.h"
#include "runtime/child_process.h"
#include "tests/catch.h"
#include "tests/runtime/train/mpirun.h"

using namespace rehearse;

namespace {

namespace fs = std::filesystem;

class Folder {
 public:
  Folder() : path_(fs::temp_directory_path() / ("rehearse-train-" + std::to_string(getpid()))) {
    fs::remove_all(path_);
    fs::create_directories(path_);
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string file(const std::string& name) const { return (path_ / name).string(); }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name) << text;
    return file(name);
  }

 private:
  fs::path path_;
};

std::string small_plan(int dp, int pp, int zero = 0) {
  PlanFile file;
  file.model.layers = 2;
  file.model.hidden = 16;
  file.model.heads = file.model.kv_heads = 2;
  file.model.head_dim = 8;
  file.model.ffn = 32;
  file.model.vocab = 256;
  file.model.max_seq_len = 16;
  file.workload = {.global_batch = 4, .seq_len = 16};
  file.plan.dp = dp;
  file.plan.pp = pp;
  file.plan.zero = zero;
  file.plan.precision = Precision::Fp32;
  file.gpus = dp * pp;
  for (int r = 0; r < file.gpus; ++r) file.rank_to_device.push_back(r);
  for (int s = 0; s < pp; ++s) file.layer_split.push_back(2 / pp);
  return write_plan_file(file);
}

std::string some_text() {
  std::string text;
  for (int i = 0; i < 200; ++i)
    text += "the lamp was lit at " + std::to_string(i % 12) + " bells. ";
  return text;
}

const std::string kDevice = std::string(REHEARSE_BINARY_DIR) + "/rehearse-device";

ChildResult train(std::vector<std::string> arguments) {
  mpirun(1, {});  // sets the environment
  arguments.insert(arguments.begin(), {kDevice, "train"});
  return run_child(arguments);
}

/// A checkpoint's manifest is written last; before the first, there is none to go on from.
bool has_whole_checkpoint(const fs::path& folder) {
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error))
    if (fs::exists(entry->path() / "manifest.json", error)) return true;
  return false;
}

/// The losses as printed, digit by digit.
std::vector<std::string> losses(const std::string& json) {
  std::vector<std::string> out;
  const std::string key = "\"loss\": ";
  for (auto at = json.find(key); at != std::string::npos; at = json.find(key, at + 1)) {
    const auto begin = at + key.size();
    out.push_back(json.substr(begin, json.find_first_of(",\n", begin) - begin));
  }
  return out;
}

}  // namespace

TEST_CASE("train starts the plan's ranks and says loss, rate and time") {
  const Folder folder;
  const std::string plan = folder.write("plan.json", small_plan(2, 1));
  const std::string text = folder.write("text.txt", some_text());
  const ChildResult result = train({plan, "--data", text, "--steps", "5"});
  INFO(result.err);
  CHECK(result.exit_code == 0);
  CHECK(result.out.find("at step 5") != std::string::npos);
  CHECK(result.out.find("tokens/s on 2 ranks") != std::string::npos);
  CHECK(result.err.empty());
}

TEST_CASE("train says in one message what it cannot train") {
  const Folder folder;
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

  const ChildResult no_plan = train({folder.file("absent.json"), "--data", text});
  CHECK(no_plan.exit_code == 1);
  const ChildResult no_json = train({text, "--data", text});
  CHECK(no_json.exit_code == 2);
  const ChildResult no_data = train({plan});
  CHECK(no_data.exit_code == 2);
  const ChildResult unknown = train({plan, "--data", text, "--stpes", "5"});
  CHECK(unknown.exit_code == 2);
  CHECK(unknown.err.find("did you mean '--steps'?") != std::string::npos);

  const ChildResult wrong_size =
      run_child(mpirun(3, {kDevice, "train", plan, "--data", text, "--steps", "1"}));
  CHECK(wrong_size.exit_code == 2);
  CHECK(wrong_size.err.find("the plan needs 2 ranks, but 3 were started") != std::string::npos);
}

TEST_CASE("a run that goes on from a checkpoint gives the same digits as one that never stopped") {
  const Folder folder;
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

TEST_CASE("when a rank is killed the run stops, names it, and goes on from its checkpoint") {
  const Folder folder;
  const std::string plan = folder.write("plan.json", small_plan(2, 1));
  const std::string text = folder.write("text.txt", some_text());
  const std::string checkpoints = folder.file("checkpoints");
  const unsigned seed = std::random_device{}();
  INFO("seed " << seed);
  std::atomic<bool> over{false};
  std::string victim;
  // Kills the second rank at a random moment after the first checkpoint.
  std::thread killer([&] {
    std::minstd_rand random(seed);
    while (!over && !has_whole_checkpoint(checkpoints))
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 200));
    for (const auto& entry : fs::directory_iterator("/proc")) {
      const std::string pid = entry.path().filename();
      if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
      std::ifstream stream(entry.path() / "environ");
      const std::string environment((std::istreambuf_iterator<char>(stream)),
                                    std::istreambuf_iterator<char>());
      std::ifstream words(entry.path() / "cmdline");
      const std::string command((std::istreambuf_iterator<char>(words)),
                                std::istreambuf_iterator<char>());
      if (command.find(plan) == std::string::npos ||
          environment.find("OMPI_COMM_WORLD_RANK=1") == std::string::npos)
        continue;
      victim = pid;
      kill(std::stoi(pid), SIGKILL);
      return;
    }
  });
  const ChildResult result = train({plan, "--data", text, "--steps", "100000", "--checkpoint",
                                    checkpoints, "--checkpoint-every", "20", "--deadline", "20s"});
  over = true;
  killer.join();
  INFO(result.out << result.err);
  REQUIRE(!victim.empty());
  CHECK(result.exit_code == 1);
  CHECK(result.err.find("rank 1 vanished") != std::string::npos);

  const ChildResult rest =
      train({plan, "--data", text, "--steps", "1", "--checkpoint", checkpoints, "--resume"});
  INFO(rest.err);
  CHECK(rest.exit_code == 0);
  CHECK(rest.out == "nothing was left to train\n");
}
