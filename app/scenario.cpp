#include "app/scenario.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <tuple>

#include "app/lengths_file.h"
#include "app/scenario_table.h"
#include "app/variants.h"
#include "kernels/profile_file.h"
#include "plan/choice_tables.h"
#include "plan/noun_tables.h"

namespace rehearse {
namespace {

/// What a plan without a name is called: the sizes and choices in which it departs from plain
/// data parallelism.
std::string plan_label(const Plan& plan) {
  const Plan plain;
  std::string label;
  const auto add = [&label](const std::string& part) {
    label.append(label.empty() ? "" : ", ").append(part);
  };
  const auto add_size = [&add](const char* what, int value, int unsaid) {
    if (value != unsaid) add(what + std::to_string(value));
  };
  if (plan.framework != plain.framework) add(name_of(framework_names(), plan.framework));
  add_size("dp ", plan.dp, plain.dp);
  add_size("tp ", plan.tp, plain.tp);
  add_size("rows ", plan.tensor_rows, plain.tensor_rows);
  add_size("cp ", plan.cp, plain.cp);
  add_size("pp ", plan.pp, plain.pp);
  add_size("ep ", plan.ep, plain.ep);
  add_size("chunks ", plan.virtual_stages, plain.virtual_stages);
  add_size("micro-batch ", plan.micro_batch, plain.micro_batch);
  add_size("ZeRO-", plan.zero, plain.zero);
  if (plan.schedule != plain.schedule) add(name_of(schedule_names(), plan.schedule));
  if (plan.recompute != plain.recompute)
    add("recompute " + name_of(recompute_names(), plan.recompute));
  if (plan.precision != plain.precision) add(name_of(precision_names(), plan.precision));
  return label.empty() ? "data parallel" : label;
}

/// Names the plans that have none; equal labels are numbered.
void name_plans(std::vector<Plan>& plans) {
  std::set<std::string> taken;
  for (const Plan& plan : plans) taken.insert(plan.name);
  for (Plan& plan : plans) {
    if (!plan.name.empty()) continue;
    const std::string label = plan_label(plan);
    plan.name = label;
    for (int number = 2; !taken.insert(plan.name).second; ++number)
      plan.name = label + " (" + std::to_string(number) + ")";
  }
}

Scenario resolved(const ScenarioText& text) {
  Scenario scenario{text.title,    text.description, text.model, cluster_spec(text.cluster),
                    text.workload, text.spread,      text.plans, {}};
  if (scenario.plans.empty()) scenario.plans.push_back(text.plan);
  if (scenario.workload.seq_len == 0) scenario.workload.seq_len = scenario.model.max_seq_len;
  name_plans(scenario.plans);
  return scenario;
}

/// The deepest value on the pointer's way that is in the tree.
const JsonValue& nearest(const JsonValue& tree, const std::string& pointer) {
  std::vector<std::string> tokens;
  split_pointer(pointer, tokens);
  const JsonValue* place = &tree;
  for (const std::string& token : tokens) {
    const JsonValue* next = place->find(token);
    const int item = place->is_list() ? item_number(token) : -1;
    if (item >= 0 && static_cast<std::size_t>(item) < place->items.size())
      next = &place->items[static_cast<std::size_t>(item)];
    if (!next) break;
    place = next;
  }
  return *place;
}

/// Reads a scenario document and its variations; every problem once, at its place.
class ScenarioReader {
 public:
  ScenarioReader(const JsonDocument& document, const std::filesystem::path& path,
                 Problems& problems)
      : document_(document), path_(path), problems_(problems) {}

  std::optional<ScenarioFile> read() {
    const Table& table = scenario_table();
    JsonValue expanded = document_.root;
    {
      Problems own;
      Reading reading(document_.source, own, path_.parent_path());
      table.expand(expanded, reading);
      read_variant(document_.root, expanded, "as described", reading);
      report(own, "");
    }
    const bool base_is_good = count_ == 0;
    Problems own;
    Reading reading(document_.source, own, path_.parent_path());
    const std::vector<Variation> variations =
        read_variations(document_.root, reading, !base_is_good);
    report(own, "");
    for (const Variation& variation : variations) {
      if (count_ >= Reading::kMostProblems) break;
      vary(expanded, variation, !base_is_good);
    }
    if (count_ > 0) return std::nullopt;
    return ScenarioFile{path_.string(), std::move(variants_), to_text(expanded)};
  }

 private:
  void vary(const JsonValue& expanded, const Variation& variation, bool lenient) {
    Problems own;
    Reading reading(document_.source, own, path_.parent_path());
    JsonValue tree = expanded;
    for (const Setting& setting : variation.settings) {
      apply_setting(setting, scenario_table(), tree, reading, lenient);
      // A name that was set is expanded before the next setting may change a part of it.
      scenario_table().expand(tree, reading);
    }
    read_variant(tree, tree, variation.name, reading);
    report(own, variation.context);
  }

  /// `given` is what is read; `expanded` serves to find the places of cluster problems.
  void read_variant(const JsonValue& given, const JsonValue& expanded, const std::string& name,
                    Reading& reading) {
    ScenarioText text;
    if (!scenario_table().read(given, reading, text)) return;
    Scenario scenario = resolved(text);
    if (!read_profiles(given, text, reading, scenario)) return;
    if (!read_documents(given, reading, scenario.workload.documents)) return;
    if (check_cluster(scenario.cluster, expanded, reading))
      variants_.push_back({name, std::move(scenario)});
  }

  /// Finds the profiles' files and reads each to hear what is wrong with it.
  bool read_profiles(const JsonValue& given, const ScenarioText& text, Reading& reading,
                     Scenario& into) {
    const int before = reading.problem_count();
    for (std::size_t i = 0; i < text.profiles.size(); ++i) {
      const std::string path = (reading.folder() / text.profiles[i]).string();
      into.profile_files.push_back(path);
      if (!checked_profiles_.insert(path).second) continue;
      Problems found;
      const auto profile = read_file(path, found);
      const bool is_priced =
          profile && std::any_of(into.cluster.groups.begin(), into.cluster.groups.end(),
                                 [&](const auto& g) { return g.node.gpu.id == profile->gpu; });
      const Reading::Inside list(reading, "profiles");
      const Reading::Inside item(reading, i);
      const std::uint32_t offset = given.find("profiles")->items[i].offset;
      if (!profile && found.empty()) reading.problem(offset, "there is no file " + path);
      for (const Problem& problem : found.all()) reading.pass_on(problem);
      if (profile && !is_priced)
        reading.problem(offset, "it is of the GPU \"" + profile->gpu +
                                    "\", and the cluster has none with this id");
    }
    return reading.problem_count() == before;
  }

  /// Fills the lengths of documents that a file has; each file is read once.
  bool read_documents(const JsonValue& given, Reading& reading, Documents& documents) {
    if (documents.lengths_file.empty()) return true;
    const std::string path = (reading.folder() / documents.lengths_file).string();
    const auto [at, is_new] = lengths_.try_emplace(path);
    if (is_new) at->second.fault = read_lengths(path, at->second.lengths);
    documents.lengths = at->second.lengths;
    if (at->second.fault.empty()) return true;
    const Reading::At place(reading, "/workload/documents/lengths_file");
    reading.problem(nearest(given, "/workload/documents/lengths_file").offset, at->second.fault);
    return false;
  }

  static std::optional<Profile> read_file(const std::string& path, Problems& problems) {
    std::ifstream in(path, std::ios::binary);
    if (!in) return std::nullopt;
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    return read_profile(text, path, problems);
  }

  /// Builds the cluster once for each that differs, to hear what is wrong with it.
  bool check_cluster(const ClusterSpec& spec, const JsonValue& expanded, Reading& reading) {
    if (!checked_clusters_.insert(to_text(cluster_json(spec), JsonLayout::Compact)).second)
      return true;
    Problems found;
    Cluster::build(spec, found);
    const JsonValue* cluster = expanded.find("cluster");
    const bool groups = cluster && cluster->find("groups");
    for (const Problem& problem : found.all()) {
      const bool single = problem.pointer.rfind("/node", 0) == 0 || problem.pointer == "/speed";
      const std::string pointer =
          (groups && single ? "/cluster/groups/0" : "/cluster") + problem.pointer;
      Reading::At at(reading, pointer);
      reading.problem(nearest(expanded, pointer).offset, problem.message, problem.hint);
    }
    return found.empty();
  }

  /// Passes on what was not said before: most variants share most of their text.
  void report(const Problems& found, const std::string& context) {
    for (Problem problem : found.all()) {
      if (!said_.insert({problem.line, problem.column, problem.message}).second) continue;
      problem.message = context + problem.message;
      problems_.add(std::move(problem));
      ++count_;
    }
  }

  const JsonDocument& document_;
  const std::filesystem::path& path_;
  Problems& problems_;
  int count_ = 0;
  std::vector<Variant> variants_;
  std::set<std::tuple<int, int, std::string>> said_;
  std::set<std::string> checked_clusters_, checked_profiles_;
  struct Lengths {
    std::vector<int> lengths;
    std::string fault;
  };
  std::map<std::string, Lengths> lengths_;  ///< by file
};

}  // namespace

std::optional<ScenarioFile> read_scenario(std::string_view text, const std::filesystem::path& path,
                                          Problems& problems) {
  const std::size_t before = problems.count();
  const JsonDocument document = parse_json(text, path.string(), problems);
  const bool sound = problems.count() == before;
  if (!document.parsed) return std::nullopt;
  auto file = ScenarioReader(document, path, problems).read();
  return sound ? std::move(file) : std::nullopt;
}

}  // namespace rehearse
