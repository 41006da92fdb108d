#pragma once
#include <functional>
#include <string>
#include <vector>

#include "app/result.h"

namespace rehearse {

/// The scenario files of a run with the variants that are asked for.
struct RunRequest {
  std::vector<ScenarioFile> files;
  EvaluationOptions evaluation;
  int shard_index = 1, shard_count = 1;
  bool what_if = true;
  int jobs = 1;
};

/// What keeps a run from a result: mistakes of clusters that only building them shows, as text.
struct RunFaults {
  std::string text;
};

/// Evaluates every plan of every variant of this shard in worker processes. Faults are filled
/// instead where a cluster cannot be built.
RunResult evaluate_all(const RunRequest& request, const std::function<void(std::size_t)>& on_done,
                       RunFaults& faults);

/// How many evaluations `evaluate_all` will do.
std::size_t evaluation_count(const RunRequest& request);

/// The timeline of one plan of a variant as a Chrome trace, simulated again in a worker process.
std::string trace_of(const VariantResult& variant, std::size_t plan,
                     const EvaluationOptions& options);

/// The same as timeline/1 (plan/timeline_file.h).
std::string timeline_of(const VariantResult& variant, std::size_t plan,
                        const EvaluationOptions& options);

/// Builds a variant's cluster. Problems get the file and pointers into it.
std::optional<Cluster> build_cluster(const ClusterSpec& spec, const std::string& path,
                                     Problems& problems);

}  // namespace rehearse
