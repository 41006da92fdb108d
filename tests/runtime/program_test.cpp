// Each executable of the project links and starts, and refuses what it does not know.
#include <nlohmann/json.hpp>

#include "runtime/child_process.h"
#include "tests/catch.h"

using namespace rehearse;

namespace {

std::vector<std::string> programs() { return {REHEARSE_PROGRAMS}; }

ChildResult run(const std::string& program, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), std::string(REHEARSE_BINARY_DIR) + "/" + program);
  return run_child(arguments);
}

}  // namespace

TEST_CASE("each program starts and tells its version") {
  for (const auto& program : programs()) {
    CAPTURE(program);
    const ChildResult child = run(program, {"--version"});
    CHECK(child.exit_code == 0);
    CHECK(child.out.rfind(program + " " REHEARSE_VERSION " (", 0) == 0);
    CHECK(child.err == "");
  }
}

TEST_CASE("each program explains itself when asked nothing") {
  for (const auto& program : programs()) {
    CAPTURE(program);
    const ChildResult child = run(program, {});
    CHECK(child.exit_code == 0);
    CHECK(child.out.find("--version") != std::string::npos);
  }
}

TEST_CASE("rehearse-device suggests the command that was meant") {
  const ChildResult child = run("rehearse-device", {"docter"});
  CHECK(child.exit_code == 2);
  CHECK(child.out == "");
  CHECK(child.err.find("no command 'docter'") != std::string::npos);
  CHECK(child.err.find("did you mean 'doctor'?") != std::string::npos);
}

TEST_CASE("rehearse-device doctor refuses options that it does not have") {
  const ChildResult child = run("rehearse-device", {"doctor", "--jsno"});
  CHECK(child.exit_code == 2);
  CHECK(child.err.find("did you mean '--json'?") != std::string::npos);
}

TEST_CASE("rehearse-device doctor prints one document with what it finds") {
  const ChildResult child = run("rehearse-device", {"doctor", "--json"});
  REQUIRE(child.exit_code == 0);
  const auto document = nlohmann::json::parse(child.out);
  CHECK(document["schema"] == "doctor/1");
  CHECK(document["cpu"]["usable_threads"].get<int>() >= 1);
  CHECK(document["nccl"]["built_in"].is_boolean());
}
