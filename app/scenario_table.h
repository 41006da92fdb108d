#pragma once
#include "app/scenario.h"
#include "plan/field_table.h"
#include "topologies/cluster_reader.h"

namespace rehearse {

/// A named variation; its "set" is read where variants are made (app/variants.h).
struct WhatIf {
  std::string name;
};

/// A scenario/1 document as it is written.
struct ScenarioText {
  std::string title;
  std::string description;
  Model model;
  ClusterFile cluster;
  Workload workload;
  Spread spread;
  Plan plan;
  std::vector<Plan> plans;
  std::vector<WhatIf> what_if;
  std::vector<std::string> profiles;
};
const FieldTable<ScenarioText>& scenario_table();

}  // namespace rehearse
