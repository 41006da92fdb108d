// Each executable of the project links and starts, and refuses what it does not know.
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "runtime/child_process.h"
#include "tests/catch.h"
#include "tests/places.h"

using namespace rehearse;

namespace {

std::vector<std::string> programs() { return {REHEARSE_PROGRAMS}; }

ChildResult run(const std::string& program, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), binary_directory() + "/" + program);
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

TEST_CASE("profile says at once what it cannot do, and measures nothing") {
  struct Refusal {
    std::vector<std::string> arguments;
    int exit_code;
    const char* message;
  };
  const auto taken =
      std::filesystem::path(binary_directory()) / ("profile-" + std::to_string(getpid()) + ".json");
  std::ofstream(taken) << "mine";
  const Refusal refusals[] = {
      {{"--device", "tpu"}, 2, "there is no device 'tpu'"},
      {{"--device", "cpu", "--threads", "0"}, 2, "--threads is a whole number from 1"},
      {{"--device", "cpu", "--ranks", "0"}, 2, "--ranks is a whole number from 1"},
      {{"--device", "cuda", "--ranks", "2"}, 2, "--ranks is for processes that share a CPU"},
      {{"--device", "cpu", "--budget", "-3"}, 2, "--budget is at least a second"},
      {{"--device", "cpu", "-o", "/nowhere/cpu.json"}, 1, "/nowhere/cpu.json"},
      {{"--device", "cpu", "-o", taken.string()}, 1, "--force replaces it"}};
  for (const Refusal& refusal : refusals) {
    std::vector<std::string> arguments = refusal.arguments;
    arguments.insert(arguments.begin(), "profile");
    const auto start = std::chrono::steady_clock::now();
    const ChildResult child = run("rehearse-device", arguments);
    CAPTURE(refusal.message, child.err);
    CHECK(child.exit_code == refusal.exit_code);
    CHECK(child.err.find(refusal.message) != std::string::npos);
    CHECK(child.out.empty());
    // Measuring takes 100 s by default.
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(60));
  }
  std::ifstream kept(taken);
  CHECK(std::string(std::istreambuf_iterator<char>(kept), {}) == "mine");
  std::filesystem::remove(taken);
}
