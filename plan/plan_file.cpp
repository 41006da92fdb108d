#include "plan/plan_file.h"

#include <charconv>
#include <numeric>

#include "plan/noun_tables.h"
#include "plan/plan_schedule.h"

namespace rehearse {
namespace {

constexpr std::pair<char, ActionKind> kActionLetters[] = {{'F', ActionKind::Forward},
                                                          {'B', ActionKind::Backward},
                                                          {'I', ActionKind::InputGradient},
                                                          {'W', ActionKind::WeightGradient}};

/// Reads a count at the front of the text and removes it.
bool take_count(std::string_view& text, std::int32_t& count) {
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (error != std::errc() || count < 0) return false;
  text.remove_prefix(static_cast<std::size_t>(rest - text.data()));
  return true;
}

bool parse_action(std::string_view text, Action& action) {
  if (text.empty()) return false;
  bool known = false;
  for (const auto& [letter, kind] : kActionLetters) {
    if (letter != text.front()) continue;
    action.kind = kind;
    known = true;
  }
  text.remove_prefix(1);
  if (!known || !take_count(text, action.micro_batch)) return false;
  if (text.empty()) return true;
  if (text.front() != '.') return false;
  text.remove_prefix(1);
  return take_count(text, action.chunk) && text.empty();
}

const FieldTable<ExpectedStage>& stage_table() {
  static const FieldTable<ExpectedStage> table =
      FieldTable<ExpectedStage>("stage", "What was expected of the ranks of a pipeline stage")
          .integer("stage", &ExpectedStage::stage, {0, kMostRanks}, "which one, from 0")
          .required()
          .quantity("memory", &ExpectedStage::memory_bytes, Dimension::Bytes, {0, 1e18},
                    "peak of its fullest rank")
          .required()
          .quantity("capacity", &ExpectedStage::capacity_bytes, Dimension::Bytes, {0, 1e18},
                    "memory of its smallest GPU");
  return table;
}

/// Micro-batches that a replica handles in a step; 0 where the batch does not divide.
std::int64_t step_micro_batches(const PlanFile& file, int replica) {
  const std::vector<int>& shares = file.plan.replica_micro_batches;
  if (!shares.empty()) return shares[static_cast<std::size_t>(replica)];
  const std::int64_t each = std::int64_t{file.plan.dp} * file.plan.micro_batch;
  return file.workload.global_batch % each == 0 ? file.workload.global_batch / each : 0;
}

void check_ranks(const PlanFile& file, ObjectCheck& check) {
  const auto ranks = static_cast<std::size_t>(world_size(file.plan));
  if (file.rank_to_device.size() != ranks) {
    check.problem("rank_to_device", "the plan has " + std::to_string(ranks) +
                                        " ranks, but devices are given for " +
                                        std::to_string(file.rank_to_device.size()));
    return;
  }
  std::vector<bool> used(static_cast<std::size_t>(file.gpus));
  for (const int device : file.rank_to_device) {
    if (device >= file.gpus) {
      check.problem("rank_to_device", "device " + std::to_string(device) + " is none of the " +
                                          std::to_string(file.gpus) + " GPUs");
      return;
    }
    if (used[static_cast<std::size_t>(device)]) {
      check.problem("rank_to_device",
                    "device " + std::to_string(device) + " is given to two ranks");
      return;
    }
    used[static_cast<std::size_t>(device)] = true;
  }
}

void check_layers(const PlanFile& file, ObjectCheck& check) {
  const std::size_t chunks =
      static_cast<std::size_t>(file.plan.pp) * static_cast<std::size_t>(file.plan.virtual_stages);
  const std::int64_t sum =
      std::accumulate(file.layer_split.begin(), file.layer_split.end(), std::int64_t{0});
  if (file.layer_split.size() != chunks)
    check.problem("layer_split", "pp·virtual_stages makes " + std::to_string(chunks) +
                                     " chunks, but layers are given for " +
                                     std::to_string(file.layer_split.size()));
  else if (sum != file.model.layers)
    check.problem("layer_split", "the chunks have " + std::to_string(sum) +
                                     " layers together, but the model has " +
                                     std::to_string(file.model.layers));
}

/// The plan with the document's explicit actions, where it has its own.
Plan scheduled_plan(const PlanFile& file) {
  Plan plan = file.plan;
  if (!file.actions.empty()) plan.actions = file.actions;
  return plan;
}

/// False, and says so, where given shares are not shares of the batch.
bool check_shares(const PlanFile& file, ObjectCheck& check) {
  const std::vector<int>& shares = file.plan.replica_micro_batches;
  if (shares.empty()) return true;
  const auto wrong = [&](std::string message) {
    check.problem("plan", "replica_micro_batches: " + std::move(message));
    return false;
  };
  if (shares.size() != static_cast<std::size_t>(file.plan.dp))
    return wrong(std::to_string(shares.size()) + " numbers for " + std::to_string(file.plan.dp) +
                 " replicas");
  const std::int64_t sequences =
      std::accumulate(shares.begin(), shares.end(), std::int64_t{0}) * file.plan.micro_batch;
  if (sequences != file.workload.global_batch)
    return wrong("together they are " + std::to_string(sequences) +
                 " sequences, but global_batch is " + std::to_string(file.workload.global_batch));
  if (!file.actions.empty() || !file.plan.actions.empty())
    return wrong("an explicit order of work has one number of micro-batches for all replicas");
  return true;
}

void check_schedule(const PlanFile& file, int replica, ObjectCheck& check) {
  const std::int64_t micro_batches = step_micro_batches(file, replica);
  if (micro_batches == 0 || static_cast<double>(micro_batches) > kMostGlobalBatch) {
    check.problem("workload",
                  "global_batch = " + std::to_string(file.workload.global_batch) +
                      " is no multiple of dp·micro_batch = " +
                      std::to_string(std::int64_t{file.plan.dp} * file.plan.micro_batch));
    return;
  }
  const bool has_own = !file.actions.empty();
  for (const ScheduleFault& fault :
       plan_schedule_faults(scheduled_plan(file), static_cast<int>(micro_batches)))
    check.problem(has_own ? "actions" : "plan", fault.message, fault.hint);
}

void check_plan_file(PlanFile& file, ObjectCheck& check) {
  if (file.plan.dp == 0) {
    check.problem("plan", "dp is not given, so the plan is not resolved", "give dp");
    return;
  }
  if (file.workload.seq_len == 0) file.workload.seq_len = file.model.max_seq_len;
  check_ranks(file, check);
  check_layers(file, check);
  if (!check_shares(file, check)) return;
  const std::vector<int>& shares = file.plan.replica_micro_batches;
  check_schedule(file, 0, check);
  for (std::size_t replica = 1; replica < shares.size(); ++replica)
    if (shares[replica] != shares[replica - 1])
      check_schedule(file, static_cast<int>(replica), check);
}

const FieldTable<PlanFile>& plan_file_table() {
  static const FieldTable<PlanFile> table =
      FieldTable<PlanFile>("plan/1", "A resolved plan, ready to run")
          .constant("schema", "plan/1", "name of the format")
          .required()
          .text("title", &PlanFile::title, "what it is for")
          .object("model", &PlanFile::model, model_table(), "the model")
          .required()
          .object("workload", &PlanFile::workload, workload_table(), "what is to be trained")
          .required()
          .object("plan", &PlanFile::plan, plan_table(), "how it is spread over ranks")
          .required()
          .text("cluster_digest", &PlanFile::cluster_digest,
                "FNV-1a of the cluster it was made for")
          .integer("gpus", &PlanFile::gpus, {1, kMostRanks}, "GPUs of that cluster")
          .required()
          .integers("rank_to_device", &PlanFile::rank_to_device, {0, kMostRanks}, {1, kMostRanks},
                    "GPU of each rank, in order of ranks")
          .required()
          .integers("layer_split", &PlanFile::layer_split, {0, kMostLayers}, {1, kMostLayers},
                    "layers of each chunk in model order")
          .required()
          .objects("stages", &PlanFile::stages, stage_table(), {0, kMostRanks},
                   "what was expected of each pipeline stage")
          .quantity("step_time", &PlanFile::step_time_s, Dimension::Seconds, {0, 1e9},
                    "expected time of a step")
          .default_note("not predicted")
          .texts("actions", &PlanFile::actions, {0, kMostRanks},
                 "explicit order of work, one text a stage: \"F0 F1 B0 B1\"")
          .omit_default()
          .default_note("the schedule the plan names")
          .check(check_plan_file);
  return table;
}

}  // namespace

std::string actions_text(const std::vector<Action>& actions, int chunks) {
  std::string text;
  bool joined = false;
  for (const Action& action : actions) {
    if (!text.empty()) text += joined ? '&' : ' ';
    joined = action.joined;
    for (const auto& [letter, kind] : kActionLetters)
      if (kind == action.kind) text += letter;
    text += std::to_string(action.micro_batch);
    if (chunks > 1) text.append(".").append(std::to_string(action.chunk));
  }
  return text;
}

bool parse_actions(std::string_view text, std::vector<Action>& actions) {
  actions.clear();
  while (!text.empty()) {
    const std::size_t end = std::min(text.find_first_of(" &"), text.size());
    const bool joins = end < text.size() && text[end] == '&';
    if (end > 0 && !parse_action(text.substr(0, end), actions.emplace_back())) return false;
    if (joins && (end == 0 || end + 1 == text.size())) return false;
    if (joins) actions.back().joined = true;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return true;
}

std::string write_plan_file(const PlanFile& file) {
  return to_text(plan_file_table().to_json(file));
}

std::optional<PlanFile> read_plan_file(std::string_view text, const std::string& path,
                                       Problems& problems) {
  // A million ranks and explicit actions of many micro-batches are more than a scenario needs.
  const JsonLimits limits{.bytes = std::size_t{64} << 20, .values = 4'000'000, .depth = 16};
  const std::size_t before = problems.count();
  const JsonDocument document = parse_json(text, path, problems, limits);
  PlanFile file;
  Reading reading(document.source, problems, std::filesystem::path(path).parent_path());
  if (document.parsed) plan_file_table().read(document.root, reading, file);
  if (problems.count() > before) return std::nullopt;
  return file;
}

Schedule schedule_of(const PlanFile& file, int replica) {
  const int micro_batches = static_cast<int>(step_micro_batches(file, replica));
  return plan_schedule(scheduled_plan(file), micro_batches);
}

}  // namespace rehearse
