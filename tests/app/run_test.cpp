#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/app/program.h"
#include "tests/catch.h"
#include "tests/places.h"

using namespace rehearse;
using Json = nlohmann::ordered_json;

namespace {

const std::string& small() {
  static const std::string path = test_file("small.json");
  return path;
}

/// The whole result of the small scenario, simulated once for all tests.
const std::string& small_json() {
  static const std::string text = rehearse_program({"run", small(), "--json", "-"}).out;
  return text;
}

double sum_of(const Json& breakdown) {
  double sum = 0;
  for (const auto& [group, parts] : breakdown.items())
    for (const auto& [part, seconds] : parts.items()) sum += seconds.get<double>();
  return sum;
}

std::size_t longest_line(const std::string& text) {
  std::istringstream lines(text);
  std::size_t longest = 0;
  for (std::string line; std::getline(lines, line);) {
    std::size_t width = 0;
    for (char c : line) width += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    longest = std::max(longest, width);
  }
  return longest;
}

}  // namespace

TEST_CASE("run prints the plans compared, the winner's step, memory, links and what-ifs") {
  const ChildResult printed = rehearse_program({"run", small(), "--quiet"});
  CHECK(printed.exit_code == 0);
  CHECK(printed.err.empty());
  CHECK(printed.out == golden("run_small.txt", printed.out));
  CHECK(longest_line(printed.out) <= 100);
}

TEST_CASE("run says next steps on stderr in at most two lines, and nothing when quiet") {
  const ChildResult result = rehearse_program({"run", small(), "--no-what-if"});
  CHECK(std::count(result.err.begin(), result.err.end(), '\n') <= 2);
  CHECK(result.err.find("--trace") != std::string::npos);
}

TEST_CASE("the JSON result is versioned and its parts add up to the step for every rank") {
  const Json result = Json::parse(small_json());
  CHECK(result["schema"] == "result/1");
  REQUIRE(result["variants"].size() == 4);
  int measured = 0;
  for (const Json& variant : result["variants"]) {
    for (const Json& plan : variant["plans"]) {
      if (!plan["possible"].get<bool>()) {
        CHECK_FALSE(plan["faults"].empty());
        continue;
      }
      const double step_s = plan["step_time_s"];
      CHECK(sum_of(plan["mean_breakdown_s"]) == Approx(step_s).epsilon(1e-9));
      int ranks = 0;
      for (const Json& rank : plan["ranks"]) {
        CHECK(sum_of(rank["breakdown_s"]) == Approx(step_s).epsilon(1e-9));
        ranks += rank["ranks_alike"].get<int>();
      }
      CHECK(ranks == variant["gpus"]);
      for (const Json& stage : plan["stages"]) {
        double bytes = 0;
        for (const auto& [name, part] : stage["memory_bytes"].items()) bytes += part.get<double>();
        CHECK(bytes == Approx(stage["peak_memory_bytes"].get<double>()));
      }
      ++measured;
    }
  }
  CHECK(measured >= 12);
}

TEST_CASE("every possible plan's step has its interval, where that is from, and its evidence") {
  const Json result = Json::parse(small_json());
  int possible = 0;
  for (const Json& variant : result["variants"])
    for (const Json& plan : variant["plans"]) {
      if (!plan["possible"].get<bool>()) continue;
      ++possible;
      const double step_s = plan["step_time_s"].get<double>();
      const Json& error = plan["expected_error"];
      const double factor = 1 + error["relative_error"].get<double>();
      CHECK(factor > 1);
      CHECK(error["step_time_interval_s"][0].get<double>() == Approx(step_s / factor));
      CHECK(error["step_time_interval_s"][1].get<double>() == Approx(step_s * factor));
      CHECK(error["source"].get<std::string>().find("published runs") != std::string::npos);
      double share = 0;
      for (const auto& [source, part] : plan["compute_time_by_evidence"].items())
        share += part.get<double>();
      CHECK(share == Approx(1));
      CHECK(plan["price_error"].get<double>() > 0);
      REQUIRE(plan["least_evidence"].size() > 0);
      CHECK(plan["least_evidence"][0].contains("operator"));
      CHECK(plan["least_evidence"][0]["expected_error"].get<double>() > 0);
    }
  CHECK(possible > 1);
}

TEST_CASE("the winner of each variant is the fastest plan that fits") {
  const Json result = Json::parse(small_json());
  for (const Json& variant : result["variants"]) {
    double best_s = 1e300;
    std::string best;
    for (const Json& plan : variant["plans"]) {
      if (!plan["possible"].get<bool>() || !plan["fits"].get<bool>()) continue;
      if (plan["step_time_s"] < best_s) {
        best_s = plan["step_time_s"];
        best = plan["name"];
      }
    }
    CHECK(variant["winner"] == best);
  }
}

TEST_CASE("the same run prints the same bytes, with any number of jobs") {
  CHECK(rehearse_program({"run", small(), "--json", "-", "--jobs", "1"}).out == small_json());
  CHECK(rehearse_program({"run", small(), "--json", "-", "--jobs", "4"}).out == small_json());
}

TEST_CASE("shares of a run join to the whole") {
  const int count = GENERATE(2, 3, 7);
  Json whole;
  for (int i = 1; i <= count; ++i) {
    const std::string share = std::to_string(i) + "/" + std::to_string(count);
    const ChildResult result = rehearse_program({"run", small(), "--json", "-", "--shard", share});
    REQUIRE(result.exit_code == 0);
    Json document = Json::parse(result.out);
    if (i == 1) {
      whole = document;
      continue;
    }
    for (const Json& variant : document["variants"]) whole["variants"].push_back(variant);
    document["variants"] = Json::array();
    Json frame = whole;
    frame["variants"] = Json::array();
    CHECK(document == frame);
  }
  CHECK(whole.dump(2) + "\n" == small_json());
}

TEST_CASE("folded, replica by replica and fully simulated runs agree") {
  const std::string fidelity = GENERATE("replicas", "full");
  // Exactly, where GPUs of a kind are alike; one slowest replica stands for all where they are not.
  const bool alike = GENERATE(true, false);
  const std::string path = (std::filesystem::temp_directory_path() /
                            ("rehearse-alike-" + std::to_string(getpid()) + ".json"))
                               .string();
  Json scenario = Json::parse(std::ifstream(small()), nullptr, true, true);
  if (alike) scenario["spread"] = {{"deviation", 0}};
  std::ofstream(path) << scenario;
  const auto run = [&](const std::string& as) {
    return rehearse_program({"run", path, "--no-what-if", "--json", "-", "--fidelity", as});
  };
  const ChildResult folded = run("folded"), result = run(fidelity);
  std::filesystem::remove(path);
  REQUIRE(result.exit_code == 0);
  const Json base = Json::parse(folded.out)["variants"][0];
  const Json other = Json::parse(result.out)["variants"][0];
  CHECK(other["winner"] == base["winner"]);
  for (std::size_t i = 0; i < base["plans"].size(); ++i) {
    if (!base["plans"][i]["possible"].get<bool>()) continue;
    CAPTURE(base["plans"][i]["name"].get<std::string>());
    CHECK(other["plans"][i]["step_time_s"].get<double>() ==
          Approx(base["plans"][i]["step_time_s"].get<double>()).epsilon(alike ? 1e-9 : 0.0033));
  }
}

TEST_CASE("the CSV has a row for every plan of every variant, as wide as its head") {
  const std::string csv = rehearse_program({"run", small(), "--csv", "-"}).out;
  std::istringstream lines(csv);
  std::string line;
  std::size_t rows = 0, commas = 0;
  while (std::getline(lines, line)) {
    std::size_t count = 0;
    bool quoted = false;
    for (char c : line) {
      if (c == '"') quoted = !quoted;
      if (c == ',' && !quoted) ++count;
    }
    if (rows++ == 0) commas = count;
    CHECK(count == commas);
  }
  CHECK(rows == 1 + 4 * 5);
  CHECK(csv.find("step_time_s") != std::string::npos);
}

TEST_CASE("files are written, and never over existing ones without --force") {
  const TemporaryFolder folder;
  const std::string json = folder.file("r.json"), csv = folder.file("r.csv"),
                    table = folder.file("r.txt");
  const std::vector<std::string> command{"run",   small(), "--no-what-if", "--json", json,
                                         "--csv", csv,     "-o",           table};
  const ChildResult first = rehearse_program(command);
  CHECK(first.exit_code == 0);
  CHECK(first.out.empty());
  CHECK(Json::parse(text_of_file(json))["schema"] == "result/1");
  CHECK(text_of_file(table).find("A small model") != std::string::npos);

  write_text(json, "precious");
  const ChildResult refused = rehearse_program(command);
  CHECK(refused.exit_code == 1);
  CHECK(refused.err.find("--force") != std::string::npos);
  CHECK(text_of_file(json) == "precious");

  std::vector<std::string> forced = command;
  forced.push_back("--force");
  CHECK(rehearse_program(forced).exit_code == 0);
  CHECK(Json::parse(text_of_file(json))["schema"] == "result/1");
}

TEST_CASE("two results for one file are refused") {
  const TemporaryFolder folder;
  const ChildResult result =
      rehearse_program({"run", small(), "--json", folder.file("x"), "--csv", folder.file("x")});
  CHECK(result.exit_code == 2);
}

TEST_CASE("the winner is written as a plan with its memory and devices") {
  const ChildResult result = rehearse_program({"run", small(), "--no-what-if", "--plan-out", "-"});
  REQUIRE(result.exit_code == 0);
  const Json plan = Json::parse(result.out);
  CHECK(plan["schema"] == "plan/1");
}

TEST_CASE("exit codes tell what happened") {
  CHECK(rehearse_program({"run", test_file("no_plan_fits.json")}).exit_code == 3);
  CHECK(rehearse_program({"run", "no-such-file.json"}).exit_code == 1);
  CHECK(rehearse_program({"run"}).exit_code == 2);
  CHECK(rehearse_program({}).exit_code == 0);
  const TemporaryFolder folder;
  write_text(folder.file("bad.json"), "{\"schema\": \"scenario/1\", \"modle\": 3}");
  const ChildResult bad = rehearse_program({"run", folder.file("bad.json")});
  CHECK(bad.exit_code == 2);
  CHECK(bad.out.empty());
  CHECK(bad.err.find("bad.json:1:") != std::string::npos);
}

TEST_CASE("where no plan fits, each row says why and no winner is named") {
  const ChildResult result = rehearse_program({"run", test_file("no_plan_fits.json"), "--quiet"});
  CHECK(result.out.find("No plan fits.") != std::string::npos);
  CHECK(result.out.find("odd cannot be:") != std::string::npos);
  CHECK(result.out.find("does not fit: stage 0 needs") != std::string::npos);
}

TEST_CASE("a full disk behind stdout is an error, not a success") {
  const ChildResult result =
      run_child({"/bin/sh", "-c",
                 binary_directory() + "/rehearse run " + small() + " --no-what-if > /dev/full"});
  CHECK(result.exit_code == 1);
}

TEST_CASE("verbose shows pricing, lowering and simulation apart, on stderr") {
  const ChildResult result = rehearse_program({"run", small(), "--no-what-if", "--verbose"});
  CHECK(result.err.find("pricing") != std::string::npos);
  CHECK(result.err.find("lowering") != std::string::npos);
  CHECK(result.out.find("lowering") == std::string::npos);
}
