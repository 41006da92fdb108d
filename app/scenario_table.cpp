#include "app/scenario_table.h"

#include <set>

#include "plan/choice_tables.h"
#include "plan/noun_tables.h"

namespace rehearse {
namespace {

constexpr double kMostPlans = 1000;
constexpr double kMostWhatIfs = 1000;
constexpr double kMostProfiles = 100;

const FieldTable<WhatIf>& what_if_table() {
  static const FieldTable<WhatIf> table =
      FieldTable<WhatIf>("what_if", "A variation of the scenario, shown beside it")
          .text("name", &WhatIf::name, "what reports call it")
          .required()
          .free("set", R"({"/cluster/node/nic_bandwidth": "200 Gbit/s"})",
                "new values by JSON pointers into the scenario")
          .required();
  return table;
}

void check_plans(ObjectCheck& check) {
  if (check.has("plan") && check.has("plans"))
    check.problem("plans", "the scenario has both plan and plans", "move the plan into plans");
  if (!check.has("plans")) return;
  std::set<std::string> names;
  for (const JsonValue& plan : check.value("plans")->items) {
    const JsonValue* name = plan.find("name");
    if (name && name->is_text() && !name->text.empty() && !names.insert(name->text).second)
      check.problem("plans", "two plans are called " + json_quoted(name->text));
  }
}

void check_scenario(const ScenarioText& text, ObjectCheck& check) {
  const int longest = text.model.max_seq_len;
  if (text.model.positions == Positions::Learned && text.workload.seq_len > longest)
    check.problem("workload",
                  "seq_len = " + std::to_string(text.workload.seq_len) +
                      " is longer than the model's learned positions, max_seq_len = " +
                      std::to_string(longest),
                  "set max_seq_len of the model, or shorten the sequences");
}

}  // namespace

const FieldTable<ScenarioText>& scenario_table() {
  static const FieldTable<ScenarioText> table =
      FieldTable<ScenarioText>("scenario",
                               "A question to rehearse: a model, a cluster, what is to be done, "
                               "and the plans to compare")
          .free("$schema", "\"scenario.schema.json\"", "for editors; not read")
          .constant("schema", "scenario/1", "name of the format")
          .required()
          .text("title", &ScenarioText::title, "one line for reports")
          .text("description", &ScenarioText::description, "the question that it answers")
          .constant("question", "run", "what is asked: how the plans do")
          .object("model", &ScenarioText::model, model_table(), "what is trained")
          .required()
          .object("cluster", &ScenarioText::cluster, cluster_table(), "the machine")
          .required()
          .object("workload", &ScenarioText::workload, workload_table(), "what is to be done")
          .required()
          .object("spread", &ScenarioText::spread, spread_table(),
                  "ordinary differences between GPUs of one kind")
          .object("plan", &ScenarioText::plan, plan_table(), "how the work is spread")
          .objects("plans", &ScenarioText::plans, plan_table(), {1, kMostPlans},
                   "several plans to compare, in place of plan")
          .texts("profiles", &ScenarioText::profiles, {0, kMostProfiles},
                 "files of own measurements (profile/1), from this file's folder; each prices the "
                 "GPUs whose id it has")
          .objects("what_if", &ScenarioText::what_if, what_if_table(), {0, kMostWhatIfs},
                   "variations, each simulated beside the scenario as described")
          .free("sweep", R"({"/cluster/nodes": [64, 128, 256]})",
                "values by JSON pointers, in every combination; lists inside \"zip\" advance "
                "together")
          .default_note("none")
          .shape(check_plans)
          .check(check_scenario);
  return table;
}

std::string scenario_json_schema() {
  return to_text(json_schema(scenario_table(), "rehearse scenario/1"));
}

std::string scenario_reference() {
  return R"(# Scenario reference

A scenario is a JSON file that `rehearse run` answers and `rehearse check` validates. Comments
(`//` and `/* */`) are welcome. Quantities are written with their unit, such as `"400 Gbit/s"`;
a plain number is in the SI unit (bytes, bytes/s, s, FLOP/s, W). Bandwidths are per direction. All
fields but `schema`, `model`, `cluster` and `workload` have defaults.

Where a name of the catalogue is allowed, `{"base": "dgx-h100", "nic_bandwidth": "200 Gbit/s"}`
starts from it and changes what is given beside it. JSON pointers in `what_if` and `sweep` address
the scenario after names are replaced by what they stand for: `/cluster/node/gpu/memory`.

This page is printed from the tables that read scenarios.

)" + markdown_reference(scenario_table());
}

}  // namespace rehearse
