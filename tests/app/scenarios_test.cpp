#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/app/program.h"
#include "tests/catch.h"

using namespace rehearse;

TEST_CASE("every scenario of the project runs with its what-ifs and finds a plan that fits") {
  const std::string folder = std::string(REHEARSE_SOURCE_DIR) + "/scenarios";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".json") continue;
    CAPTURE(entry.path().string());
    const ChildResult result =
        rehearse_program({"run", entry.path().string(), "--json", "-", "--quiet"});
    CHECK(result.exit_code == 0);
    CHECK(result.err.empty());
    const auto document = nlohmann::json::parse(result.out);
    CHECK_FALSE(document["scenarios"][0]["description"].get<std::string>().empty());
    for (const auto& variant : document["variants"]) {
      CAPTURE(variant["name"].get<std::string>());
      CHECK(variant["winner"].is_string());
    }
  }
}
