#pragma once
// What tests of `rehearse-device train` from its command line share.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "plan/plan_file.h"
#include "runtime/child_process.h"
#include "tests/places.h"
#include "tests/runtime/train/mpirun.h"

namespace rehearse {

namespace fs = std::filesystem;

class RunFolder {
 public:
  RunFolder() : path_(fs::temp_directory_path() / ("rehearse-train-" + std::to_string(getpid()))) {
    fs::remove_all(path_);
    fs::create_directories(path_);
  }
  ~RunFolder() { fs::remove_all(path_); }
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;
  std::string file(const std::string& name) const { return (path_ / name).string(); }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name) << text;
    return file(name);
  }

 private:
  fs::path path_;
};

/// A plan that is all to be filled in but its shape.
inline PlanFile small_file(int dp, int cp, int pp) {
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
  file.plan.cp = cp;
  file.plan.pp = pp;
  file.plan.precision = Precision::Fp32;
  file.gpus = world_size(file.plan);
  for (int r = 0; r < file.gpus; ++r) file.rank_to_device.push_back(r);
  for (int s = 0; s < pp; ++s) file.layer_split.push_back(2 / pp);
  return file;
}

inline std::string small_plan(int dp, int pp, int zero = 0) {
  PlanFile file = small_file(dp, 1, pp);
  file.plan.zero = zero;
  return write_plan_file(file);
}

/// Replicas with these numbers of samples in a step, and context ranks.
inline std::string uneven_plan(std::vector<int> shares, int cp) {
  PlanFile file = small_file(static_cast<int>(shares.size()), cp, 1);
  file.plan.replica_micro_batches = std::move(shares);
  return write_plan_file(file);
}

inline std::string some_text() {
  std::string text;
  for (int i = 0; i < 200; ++i)
    text += "the lamp was lit at " + std::to_string(i % 12) + " bells. ";
  return text;
}

inline const std::string kDevice = binary_directory() + "/rehearse-device";

inline ChildResult train(std::vector<std::string> arguments) {
  mpirun(1, {});  // sets the environment
  arguments.insert(arguments.begin(), {kDevice, "train"});
  return run_child(arguments);
}

/// A checkpoint's manifest is written last; before the first, there is none to go on from.
inline bool has_whole_checkpoint(const fs::path& folder) {
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error))
    if (fs::exists(entry->path() / "manifest.json", error)) return true;
  return false;
}

inline std::string contents(const fs::path& path) {
  std::ifstream stream(path);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

/// Processes whose command line has `word`, and whose environment `setting`.
inline std::vector<int> processes_with(const std::string& word, const std::string& setting = {}) {
  std::vector<int> out;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string pid = entry.path().filename();
    if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
    if (contents(entry.path() / "cmdline").find(word) == std::string::npos) continue;
    if (contents(entry.path() / "environ").find(setting) == std::string::npos) continue;
    out.push_back(std::stoi(pid));
  }
  return out;
}

/// The losses as printed, digit by digit.
inline std::vector<std::string> losses(const std::string& json) {
  std::vector<std::string> out;
  const std::string key = "\"loss\": ";
  for (auto at = json.find(key); at != std::string::npos; at = json.find(key, at + 1)) {
    const auto begin = at + key.size();
    out.push_back(json.substr(begin, json.find_first_of(",\n", begin) - begin));
  }
  return out;
}

}  // namespace rehearse
