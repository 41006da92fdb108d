#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "plan/model.h"
#include "plan/plan.h"
#include "plan/problem.h"
#include "plan/spread.h"
#include "plan/workload.h"
#include "topologies/cluster.h"

namespace rehearse {

/// One fully resolved question: model, cluster, workload and the plans to compare.
struct Scenario {
  std::string title;
  std::string description;
  Model model;
  ClusterSpec cluster;
  Workload workload;
  Spread spread;                           ///< ordinary differences between GPUs
  std::vector<Plan> plans;                 ///< one or more, each with a name
  std::vector<std::string> profile_files;  ///< checked; price the GPUs whose id they have
};

/// A variation of the scenario: a what-if or one point of its sweep.
struct Variant {
  std::string name;  ///< "as described" for the first; "half the network"; "nodes = 64"
  Scenario scenario;
};

/// A scenario file, its what-ifs and sweeps expanded. variants[0] is the file as it stands.
struct ScenarioFile {
  std::string path;
  std::vector<Variant> variants;
  std::string expanded_json;  ///< catalogue names replaced by what they stand for
};

/// Reads a scenario/1 document. Every problem of the text is reported at once; the result is
/// empty if there is any. `path` is for messages, and relative file names are taken from there.
std::optional<ScenarioFile> read_scenario(std::string_view text, const std::filesystem::path& path,
                                          Problems& problems);

/// JSON Schema (draft 2020-12) and the Markdown reference page of scenario/1, both printed from
/// the field tables that read it.
std::string scenario_json_schema();
std::string scenario_reference();

}  // namespace rehearse
