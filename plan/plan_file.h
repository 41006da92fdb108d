#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "plan/model.h"
#include "plan/plan.h"
#include "plan/problem.h"
#include "plan/schedule.h"
#include "plan/workload.h"

namespace rehearse {

/// What was predicted for the ranks of one pipeline stage.
struct ExpectedStage {
  int stage = 0;
  double memory_bytes = 0;    ///< peak of its fullest rank
  double capacity_bytes = 0;  ///< of its smallest GPU
};

/// A plan/1 document: a resolved plan with all that is needed to run it for real, and what was
/// expected of it. Everything that follows from choices is written out.
struct PlanFile {
  std::string title;
  Model model;
  Workload workload;           ///< seq_len given
  Plan plan;                   ///< dp given
  std::string cluster_digest;  ///< of the cluster it was made for (topologies/cluster_reader.h)
  int gpus = 0;                ///< of that cluster
  std::vector<int> rank_to_device;  ///< GPU number of each rank, in order of ranks
  std::vector<int> layer_split;     ///< layers of each chunk in model order
  std::vector<ExpectedStage> stages;
  double step_time_s = 0;  ///< expected; 0: not predicted
  /// Explicit order of work, one text a stage: "F0 F1 B0 …" (kind, micro-batch, and ".chunk"
  /// where a stage has several); empty: the schedule that the plan names.
  std::vector<std::string> actions;
};

/// The document's text; the same file gives the same bytes.
std::string write_plan_file(const PlanFile& file);

/// Reads a plan/1 document; every problem is reported at once. What comes back is consistent:
/// ranks = dp·tp·cp·pp on distinct GPUs, layer_split and shares of the batch add up, the schedule
/// can run.
std::optional<PlanFile> read_plan_file(std::string_view text, const std::string& path,
                                       Problems& problems);

/// The explicit actions, or the plan's schedule made, of a replica: the same for all whose share of
/// the batch is the same. REQUIRES: the file was read without problem.
Schedule schedule_of(const PlanFile& file, int replica = 0);

/// The actions of one stage as text, and back; false where the text is not of that form.
std::string actions_text(const std::vector<Action>& actions, int chunks);
bool parse_actions(std::string_view text, std::vector<Action>& actions);

}  // namespace rehearse
