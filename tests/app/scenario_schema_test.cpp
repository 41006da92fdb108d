#include <algorithm>
#include <filesystem>

#include "app/scenario.h"
#include "plan/json_document.h"
#include "tests/app/schema_checker.h"
#include "tests/golden.h"
#include "tests/places.h"

namespace rehearse {
namespace {

namespace fs = std::filesystem;

JsonDocument parsed(const std::string& text) {
  Problems problems;
  JsonDocument document = parse_json(text, "x.json", problems);
  INFO(problems.text());
  REQUIRE(document.parsed);
  return document;
}

TEST_CASE("The JSON Schema is valid JSON in which every reference leads to a definition") {
  const JsonDocument schema = parsed(scenario_json_schema());
  CHECK(schema.root.find("$schema")->text == "https://json-schema.org/draft/2020-12/schema");
  const JsonValue* definitions = schema.root.find("$defs");
  REQUIRE(definitions != nullptr);
  std::vector<const JsonValue*> open = {&schema.root};
  int references = 0;
  while (!open.empty()) {
    const JsonValue* value = open.back();
    open.pop_back();
    if (const JsonValue* reference = value->find("$ref"); reference && reference->is_text()) {
      ++references;
      const std::string prefix = "#/$defs/";
      REQUIRE(reference->text.rfind(prefix, 0) == 0);
      CHECK(definitions->find(reference->text.substr(prefix.size())) != nullptr);
    }
    for (const JsonMember& member : value->members) open.push_back(&member.value);
    for (const JsonValue& item : value->items) open.push_back(&item);
  }
  CHECK(references > 8);
}

TEST_CASE("The schema accepts good scenarios and their expanded form") {
  const JsonDocument schema = parsed(scenario_json_schema());
  SchemaChecker checker(schema.root);
  std::vector<fs::path> paths;
  if (fs::exists(source_directory() + "/scenarios"))
    for (const auto& entry : fs::directory_iterator(source_directory() + "/scenarios"))
      if (entry.path().extension() == ".json") paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  std::vector<std::string> texts = {
      R"({"schema": "scenario/1", "model": "gpt2", "cluster": {"node": "desktop"},
          "workload": {"global_batch": 8}})",
      R"({"schema": "scenario/1", "model": {"base": "gpt2", "layers": 3},
          "cluster": {"node": {"base": "desktop", "gpu": {"memory": "30 GB"}}},
          "workload": {"global_batch": 8, "tokens": "300 B"}, "plans": [{"tp": 2}]})"};
  for (const fs::path& path : paths) texts.push_back(read_whole_file(path.string()));
  for (const std::string& text : texts) {
    INFO(text);
    CHECK(checker.fault(parsed(text).root).empty());
    Problems problems;
    const auto file = read_scenario(text, source_directory() + "/scenarios/x.json", problems);
    INFO(problems.text());
    REQUIRE(file.has_value());
    CHECK(checker.fault(parsed(file->expanded_json).root).empty());
  }
}

TEST_CASE("The schema refuses what the reader refuses about single fields") {
  const JsonDocument schema = parsed(scenario_json_schema());
  SchemaChecker checker(schema.root);
  const auto fault = [&checker](const std::string& model, const std::string& cluster,
                                const std::string& rest) {
    return checker.fault(parsed(R"({"schema": "scenario/1", "model": )" + model +
                                R"(, "cluster": )" + cluster + ", " + rest + "}")
                             .root);
  };
  const std::string model = "\"gpt2\"", cluster = R"({"node": "desktop"})",
                    work = R"("workload": {"global_batch": 8})";
  CHECK(fault(model, cluster, work).empty());
  CHECK(fault("\"gpt9\"", cluster, work) == "/model: anyOf");
  CHECK(fault("{\"layers\": 3}", cluster, work) == "/model: anyOf");
  CHECK(fault(model, R"({"node": "desktop", "nodes": 0})", work) == "/cluster/nodes: minimum");
  CHECK(fault(model, R"({"nod": "desktop"})", work) == "/cluster/nod: additionalProperties");
  CHECK(fault(model, cluster, R"("workload": {})") == "/workload: required global_batch");
  CHECK(fault(model, cluster, R"("workload": {"global_batch": 1.5})") ==
        "/workload/global_batch: type");
  CHECK(fault(model, cluster, R"("workload": {"global_batch": 8, "tokens": "8 GB/s"})") ==
        "/workload/tokens: anyOf");
  CHECK(fault(model, cluster, work + R"(, "plan": {"schedule": "fast"})") ==
        "/plan/schedule: enum");
}

}  // namespace
}  // namespace rehearse
