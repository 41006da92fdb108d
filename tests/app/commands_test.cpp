#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "app/overview.h"
#include "tests/app/program.h"
#include "tests/catch.h"
#include "tests/places.h"

using namespace rehearse;

TEST_CASE("every scenario of the project can be checked, and most of its plans fit") {
  const std::string folder = source_directory() + "/scenarios";
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".json") continue;
    CAPTURE(entry.path().string());
    const ChildResult result = rehearse_program({"check", entry.path().string()});
    CHECK(result.exit_code == 0);
    CHECK(result.err.empty());
    CHECK(result.out.find("parameters") != std::string::npos);
    ++count;
  }
  CHECK(count >= 10);
}

TEST_CASE("check prints every problem of every file and exits with 2") {
  const TemporaryFolder folder;
  write_text(folder.file("a.json"), "{\"schema\": \"scenario/1\"}");
  write_text(folder.file("b.json"), "{\"schema\": \"scenario/1\", \"model\": \"gtp2\"}");
  const ChildResult result =
      rehearse_program({"check", folder.file("a.json"), folder.file("b.json")});
  CHECK(result.exit_code == 2);
  CHECK(result.err.find("a.json") != std::string::npos);
  CHECK(result.err.find("b.json") != std::string::npos);
  CHECK(result.err.find("gpt2") != std::string::npos);
}

TEST_CASE("check tells what follows from a scenario without simulating it") {
  const ChildResult result = rehearse_program({"check", test_file("small.json")});
  CHECK(result.exit_code == 0);
  CHECK(result.out.find("16 GPUs on 2 nodes, 8 ranks a node") != std::string::npos);
  CHECK(result.out.find("cannot be:") != std::string::npos);
  CHECK(rehearse_program({"check", test_file("no_plan_fits.json")}).exit_code == 3);
}

TEST_CASE("clusters that cannot be built are located problems of check and run") {
  const TemporaryFolder folder;
  write_text(folder.file("torus.json"), R"({
    "schema": "scenario/1", "model": "gpt2",
    "cluster": {"node": "dgx-a100", "nodes": 5,
                "fabric": {"kind": "torus", "torus_dimensions": [2, 2]}},
    "workload": {"global_batch": 40}, "plan": {}})");
  for (const std::string command : {"check", "run", "topology"}) {
    const ChildResult result = rehearse_program({command, folder.file("torus.json")});
    CAPTURE(command, result.err);
    CHECK(result.exit_code == 2);
    CHECK(result.err.find("torus.json") != std::string::npos);
    CHECK(result.out.empty());
  }
}

TEST_CASE("the schema is JSON and the reference is Markdown") {
  const ChildResult schema = rehearse_program({"check", "--schema"});
  CHECK(nlohmann::json::parse(schema.out).contains("$schema"));
  CHECK(rehearse_program({"check", "--reference"}).out.find("# ") == 0);
}

TEST_CASE("everything that can be listed is listed in at most 100 columns") {
  for (const std::string& what : listable()) {
    CAPTURE(what);
    const ChildResult result = rehearse_program({"list", what});
    CHECK(result.exit_code == 0);
    CHECK(std::count(result.out.begin(), result.out.end(), '\n') >= 3);
  }
  CHECK(rehearse_program({"list", "models"}).out.find("gpt3-175b") != std::string::npos);
  CHECK(rehearse_program({"list"}).out.find("topologies") != std::string::npos);
}

TEST_CASE("topology analyses the cluster and draws it") {
  const ChildResult result = rehearse_program({"topology", test_file("small.json")});
  CHECK(result.exit_code == 0);
  CHECK(result.out.find("bisection") != std::string::npos);
  CHECK(result.out.find("16 on 2 nodes") != std::string::npos);
  const ChildResult dot = rehearse_program({"topology", test_file("small.json"), "--dot", "-"});
  CHECK(dot.out.find("graph") != std::string::npos);
  CHECK(dot.out.find("bisection") == std::string::npos);
}

TEST_CASE("doctor tells what the program is built from") {
  const ChildResult result = rehearse_program({"doctor"});
  CHECK(result.out.find("SimGrid") != std::string::npos);
  const ChildResult json = rehearse_program({"doctor", "--json"});
  CHECK(nlohmann::json::parse(json.out)["rehearse"].contains("simgrid"));
}

TEST_CASE("completion scripts are valid for their shells") {
  const TemporaryFolder folder;
  for (const std::string shell : {"bash", "zsh", "fish"}) {
    CAPTURE(shell);
    const ChildResult script = rehearse_program({"completion", shell});
    CHECK(script.out.find("fidelity") != std::string::npos);
    if (!std::filesystem::exists("/bin/" + shell) && !std::filesystem::exists("/usr/bin/" + shell))
      continue;
    write_text(folder.file(shell), script.out);
    CHECK(run_child({"/usr/bin/env", shell, "-n", folder.file(shell)}).exit_code == 0);
  }
}

TEST_CASE("bash completes commands, options and choices") {
  const TemporaryFolder folder;
  write_text(folder.file("c"), rehearse_program({"completion", "bash"}).out);
  const auto complete = [&](const std::string& words, int index) {
    return run_child({"/bin/bash", "-c",
                      ". " + folder.file("c") + "; COMP_WORDS=(" + words + "); COMP_CWORD=" +
                          std::to_string(index) + "; _rehearse; echo ${COMPREPLY[@]}"})
        .out;
  };
  CHECK(complete("rehearse to", 1) == "topology\n");
  CHECK(complete("rehearse run --fid", 2) == "--fidelity\n");
  CHECK(complete("rehearse run --fidelity f", 3) == "folded full\n");
  CHECK(complete("rehearse list mo", 2) == "models\n");
}

TEST_CASE("the manual page names every command") {
  const std::string text = rehearse_program({"man"}).out;
  CHECK(text.find(".TH REHEARSE 1") == 0);
  for (const std::string command : {"run", "check", "list", "topology", "doctor", "completion"})
    CHECK(text.find(".SS rehearse " + command) != std::string::npos);
}

namespace {

/// How long a run goes on after the SIGINT that it gets while it is at work.
double interrupted_run_s(const std::string& scenario, const std::string& output) {
  const std::string program = binary_directory() + "/rehearse";
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    signal(SIGINT, SIG_DFL);  // shells ignore it for what they start in the background
    execl(program.c_str(), "rehearse", "run", scenario.c_str(), "--json", output.c_str(), "--quiet",
          static_cast<char*>(nullptr));
    _exit(99);
  }
  usleep(700'000);
  kill(child, SIGINT);
  const auto begin = std::chrono::steady_clock::now();
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 130);
  return took.count();
}

}  // namespace

TEST_CASE("Ctrl-C ends a long run within a second with 130 and leaves no file behind") {
  const TemporaryFolder folder;
  std::string values;
  for (int i = 1; i <= 1000; ++i) values += (i > 1 ? "," : "") + std::to_string(i) + "e9";
  write_text(folder.file("long.json"), R"({
    "schema": "scenario/1", "model": "gpt3-1.3b",
    "cluster": {"node": "dgx-a100", "nodes": 8}, "workload": {"global_batch": 512},
    "plan": {"pp": 8, "tp": 2}, "sweep": {"/cluster/node/nic_bandwidth": [)" +
                                           values + "]}}");
  const std::string scenario = folder.file("long.json"), output = folder.file("out.json");
  // Where others use the machine, one try may be slow for their sake.
  double least_s = interrupted_run_s(scenario, output);
  for (int more = 0; more < 2 && least_s >= 1; ++more)
    least_s = std::min(least_s, interrupted_run_s(scenario, output));
  CHECK(least_s < 1);
  CHECK_FALSE(std::filesystem::exists(output));
}

TEST_CASE("data tokenizes a text through the device program, and passes its refusals on") {
  const TemporaryFolder folder;
  write_text(folder.file("text"), "one two");
  const std::string tokens = folder.file("tokens");
  const ChildResult made =
      rehearse_program({"data", "tokenize", folder.file("text"), "-o", tokens});
  CHECK(made.exit_code == 0);
  CHECK(made.out == tokens + ": 7 tokens, vocabulary 256\n");
  const ChildResult again =
      rehearse_program({"data", "tokenize", folder.file("text"), "-o", tokens});
  CHECK(again.exit_code == 1);
  CHECK(again.err.find("it exists; --force replaces it") != std::string::npos);
  const ChildResult profile = rehearse_program({"profile", "--device", "abacus"});
  CHECK(profile.exit_code == 2);
  CHECK(profile.err.find("there is no device 'abacus'") != std::string::npos);
}
