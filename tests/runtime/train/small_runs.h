#pragma once
// What the programs that train a layout beside one rank share: small models and plans from words
// such as "dp=2 schedule=gpipe", a made-up text, and how tensors are compared.
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <map>
#include <sstream>
#include <string>

#include "runtime/train/trainer.h"

namespace rehearse {

using Words = std::map<std::string, std::string>;

inline int number(const Words& words, const std::string& name, int otherwise) {
  const auto found = words.find(name);
  return found == words.end() ? otherwise : std::atoi(found->second.c_str());
}

inline std::string word(const Words& words, const std::string& name, const std::string& otherwise) {
  const auto found = words.find(name);
  return found == words.end() ? otherwise : found->second;
}

inline Model small_model(const Words& words) {
  Model model;
  model.layers = number(words, "layers", 4);
  model.hidden = number(words, "hidden", 32);
  model.heads = model.kv_heads = 4;
  model.head_dim = model.hidden / 4;
  model.ffn = 2 * model.hidden;
  model.vocab = 100;  // padded by the plan
  model.max_seq_len = number(words, "seq", 16);
  if (word(words, "model", "gpt") == "gpt") return model;
  model.kv_heads = 2;
  model.ffn = 3 * model.hidden / 2;
  model.activation = Activation::Swiglu;
  model.norm = Norm::RmsNorm;
  model.positions = Positions::Rotary;
  model.linear_bias = false;
  model.tied_embeddings = number(words, "tied", 0) != 0;
  return model;
}

inline ScheduleKind schedule_kind(const std::string& name) {
  const std::map<std::string, ScheduleKind> kinds{
      {"gpipe", ScheduleKind::Gpipe},          {"1f1b", ScheduleKind::OneFOneB},
      {"layer-wise", ScheduleKind::LayerWise}, {"zb-h1", ScheduleKind::ZbH1},
      {"zb-h2", ScheduleKind::ZbH2},           {"zb-v", ScheduleKind::ZbV},
      {"dualpipe", ScheduleKind::DualPipe}};
  return kinds.at(name);
}

/// The order of work that goes through all micro-batches of a chunk before the next chunk: legal,
/// and the hardest for whoever waits for each message to leave.
inline std::vector<std::string> breadth_first(const Schedule& schedule) {
  std::vector<Action> actions;
  for (int chunk = 0; chunk < schedule.chunks; ++chunk)
    for (int m = 0; m < schedule.micro_batches; ++m)
      actions.push_back({ActionKind::Forward, m, chunk});
  for (int chunk = schedule.chunks; chunk-- > 0;)
    for (int m = 0; m < schedule.micro_batches; ++m)
      actions.push_back({ActionKind::Backward, m, chunk});
  return std::vector(static_cast<std::size_t>(schedule.stages),
                     actions_text(actions, schedule.chunks));
}

inline PlanFile plan_of(const Words& words) {
  PlanFile file;
  file.model = small_model(words);
  file.workload.global_batch = 8;
  file.workload.seq_len = file.model.max_seq_len;
  Plan& plan = file.plan;
  plan.dp = number(words, "dp", 1);
  plan.tp = number(words, "tp", 1);
  plan.cp = number(words, "cp", 1);
  plan.pp = number(words, "pp", 1);
  plan.virtual_stages = number(words, "chunks", 1);
  plan.micro_batch = number(words, "micro_batch", 1);
  plan.zero = number(words, "zero", 0);
  plan.sequence_parallel = number(words, "sp", 0) != 0;
  plan.vocabulary_parallel = number(words, "vp", 1) != 0;
  plan.recompute = number(words, "recompute", 0) != 0 ? Recompute::Full : Recompute::None;
  plan.precision = word(words, "precision", "fp32") == "bf16" ? Precision::Bf16 : Precision::Fp32;
  plan.schedule = schedule_kind(word(words, "schedule", "1f1b"));
  plan.bucket_bytes = number(words, "bucket_bytes", 40000);
  plan.overlap.gradients = number(words, "overlap", 1) != 0;
  plan.overlap.parameters = plan.overlap.pipeline = plan.overlap.gradients;
  plan.overlap.context = plan.overlap.gradients;
  plan.context_balanced = number(words, "balanced", 1) != 0;
  std::istringstream shares(word(words, "shares", ""));
  for (std::string share; std::getline(shares, share, ':');)
    plan.replica_micro_batches.push_back(std::atoi(share.c_str()));
  if (word(words, "context", "ring") == "all-to-all") plan.context = ContextKind::AllToAll;
  const int pieces =
      plan.schedule == ScheduleKind::DualPipe ? plan.pp : plan.pp * plan.virtual_stages;
  for (int i = 0; i < pieces; ++i)
    file.layer_split.push_back(file.model.layers / pieces +
                               (i < file.model.layers % pieces ? 1 : 0));
  if (number(words, "breadth", 0) != 0) file.actions = breadth_first(schedule_of(file));
  file.gpus = world_size(plan);
  for (int r = 0; r < file.gpus; ++r) file.rank_to_device.push_back(r);
  return file;
}

/// A text that can be learned: each token follows from the one before, with exceptions.
inline SampleReader made_up_text(int seq_len) {
  return [seq_len](std::int64_t sample, TokenRange range, std::span<std::int32_t> tokens,
                   std::span<std::int32_t> labels) {
    const auto token = [](std::int64_t i) {
      return static_cast<std::int32_t>((i * i / 7 + 3 * (i % 11)) % 97);
    };
    for (int i = range.begin; i < range.end; ++i) {
      const auto at = static_cast<std::size_t>(i - range.begin);
      tokens[at] = token(sample * seq_len + i);
      labels[at] = token(sample * seq_len + i + 1);
    }
  };
}

inline constexpr std::int64_t kCorpus = 2000;

/// The elements of a box, out of the whole tensor.
inline TensorPart cut(const NamedBox& box, const TensorPart& whole) {
  TensorPart part{box, std::vector<float>(static_cast<std::size_t>(box.elements()))};
  const bool is_matrix = box.shape.size() == 2;
  const std::int64_t columns = is_matrix ? box.extent[1] : 1;
  const std::int64_t width = is_matrix ? box.shape[1] : 1;
  for (std::int64_t i = 0; i < box.elements(); ++i) {
    const std::int64_t row = box.begin[0] + i / columns;
    const std::int64_t column = (is_matrix ? box.begin[1] : 0) + i % columns;
    part.values[static_cast<std::size_t>(i)] =
        whole.values[static_cast<std::size_t>(row * width + column)];
  }
  return part;
}

using TensorsByName = std::map<std::string, const TensorPart*>;
inline TensorsByName by_name(const std::vector<TensorPart>& tensors) {
  TensorsByName out;
  for (const TensorPart& tensor : tensors) out[tensor.box.name] = &tensor;
  return out;
}

/// The difference of a part from the same elements of the whole, and the size of the whole tensor.
struct Difference {
  double squared = 0, whole_squared = 0;
};
inline Difference compare(const TensorPart& part, const TensorPart& whole) {
  Difference difference;
  const TensorPart same = cut(part.box, whole);
  for (std::size_t i = 0; i < part.values.size(); ++i) {
    const double apart = static_cast<double>(part.values[i]) - static_cast<double>(same.values[i]);
    difference.squared += apart * apart;
  }
  for (const float value : whole.values)
    difference.whole_squared += static_cast<double>(value) * static_cast<double>(value);
  return difference;
}

inline std::atomic<int> failures{0};
inline void expect(bool condition, const std::string& what) {
  if (condition) return;
  ++failures;
  std::cerr << "differs: " << what << '\n';
}

/// A checkpoint written or read: checkpoint_layouts.cpp.
void write_layout(World& world, const Words& words);
void read_layouts(World& world, const Words& words);
void wait_for_disk(World& world, const Words& words);

}  // namespace rehearse
