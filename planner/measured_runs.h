#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "plan/model.h"
#include "plan/plan.h"
#include "plan/problem.h"
#include "plan/workload.h"
#include "planner/framework.h"
#include "topologies/cluster.h"

namespace rehearse {

/// What was measured. 0: not published.
struct Measured {
  double step_time_s = 0;        ///< one optimizer step
  double peak_memory_bytes = 0;  ///< the framework's own figure, on the fullest rank
  double reserved_memory_bytes = 0;
  bool out_of_memory = false;
};

/// A training run that somebody made: its configuration and what came out.
struct MeasuredRun {
  std::string id, family, source, note;
  std::string configuration;  ///< digest of all that the file says of it but the outcome
  Framework framework = Framework::Generic;
  Model model;
  ClusterSpec cluster;
  int gpus = 0;
  Workload workload;
  Plan plan;
  Measured measured;
  /// Factors of the system's own calibration (planner/calibration.h) and the interval it states;
  /// 0: that of the framework.
  double computing = 1, host = 1, relative_error = 0;
  bool blocking_launches = false;  ///< the host waited for each operator
  std::string not_expressible;  ///< what of it has no counterpart here, a sentence; empty: nothing
};

/// Reads a measured-runs/1 document; every problem is reported at once, and the result is empty if
/// there is any. Nulls mean "not stated". Beside the format's own keys, model, plan, cluster and
/// workload may have those of scenarios. What is well-formed but unknown to the model (another kind
/// of attention, a key that nothing here is called like) is no problem: the run says that it is not
/// expressible.
std::optional<std::vector<MeasuredRun>> read_measured_runs(std::string_view text,
                                                           const std::string& path,
                                                           Problems& problems);

}  // namespace rehearse
