#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/app/program.h"
#include "tests/catch.h"
#include "tests/places.h"

using namespace rehearse;

namespace {

/// More variants than people write down are points of a sweep.
constexpr std::size_t kMostWhatIfs = 50;

}  // namespace

TEST_CASE("every scenario of the project runs with its what-ifs and finds a plan that fits") {
  const std::string folder = source_directory() + "/scenarios";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".json") continue;
    CAPTURE(entry.path().string());
    const ChildResult result =
        rehearse_program({"run", entry.path().string(), "--json", "-", "--quiet"});
    CHECK(result.exit_code == 0);
    CHECK(result.err.empty());
    const auto document = nlohmann::json::parse(result.out);
    CHECK_FALSE(document["scenarios"][0]["description"].get<std::string>().empty());
    // A what-if of a scenario asks about plans that run; a point of a sweep may find that none
    // does.
    const auto& variants = document["variants"];
    const bool is_sweep = variants.size() > kMostWhatIfs;
    std::size_t winners = 0;
    for (const auto& variant : variants) {
      CAPTURE(variant["name"].get<std::string>());
      winners += variant["winner"].is_string();
      if (!is_sweep) CHECK(variant["winner"].is_string());
    }
    CHECK(2 * winners > variants.size());
  }
}
