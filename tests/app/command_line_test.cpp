#include "app/command_line.h"

#include "tests/catch.h"

using namespace rehearse;

namespace {

Command parse(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "rehearse");
  return parse_command_line(arguments);
}

RunOptions run_options(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "run");
  return std::get<RunOptions>(parse(std::move(arguments)));
}

/// Message and hint of the refusal.
std::pair<std::string, std::string> refusal(const std::vector<std::string>& arguments) {
  try {
    parse(arguments);
  } catch (const UsageError& error) {
    return {error.what(), error.hint()};
  }
  return {"accepted", ""};
}

}  // namespace

TEST_CASE("run takes its options in any order") {
  const RunOptions options =
      run_options({"--json", "r.json", "a.json", "b.json", "--fidelity", "full", "-j", "3",
                   "--shard", "2/4", "--no-what-if", "--collectives", "stepwise"});
  CHECK(options.scenarios == std::vector<std::string>{"a.json", "b.json"});
  CHECK(options.json == "r.json");
  CHECK(options.lowering.fidelity == Fidelity::Full);
  CHECK(options.lowering.collectives == CollectiveDetail::Stepwise);
  CHECK(options.jobs == 3);
  CHECK(options.shard.index == 2);
  CHECK(options.shard.count == 4);
  CHECK(options.no_what_if);
}

TEST_CASE("train takes every option of a run's rate, clipping and decay") {
  const Command command =
      parse_command_line({"rehearse", "train", "plan.json", "--rate", "1e-3", "--rate-batch", "64",
                          "--clip", "0.5", "--weight-decay", "0.01", "--warmup", "3"});
  const auto& options = std::get<TrainCommandOptions>(command);
  CHECK(options.rate_batch == "64");
  CHECK(options.clip == "0.5");
  CHECK(options.weight_decay == "0.01");
}

TEST_CASE("without a file, --json and --csv mean stdout") {
  CHECK(run_options({"a.json", "--json"}).json == "-");
  CHECK(run_options({"a.json", "--csv"}).csv == "-");
  CHECK(run_options({"a.json"}).json.empty());
  CHECK(refusal({"run", "a.json", "--json", "-", "--csv", "-"}).first ==
        "only one result can go to stdout");
}

TEST_CASE("mistyped commands and options are refused with what was probably meant") {
  CHECK(refusal({"rnu", "a.json"}) ==
        std::pair<std::string, std::string>{"unknown command \"rnu\"", "did you mean run?"});
  CHECK(refusal({"run", "a.json", "--jsno"}) ==
        std::pair<std::string, std::string>{"unknown option \"--jsno\"", "did you mean --json?"});
  CHECK(refusal({"run", "a.json", "--fidelity", "ful"}).first.find("did you mean full?") !=
        std::string::npos);
  CHECK(refusal({"list", "modles"}).first.find("did you mean models?") != std::string::npos);
  CHECK(refusal({"zzzzzzz"}).second == "see: rehearse --help");
}

TEST_CASE("values out of range and missing arguments are refused in a sentence") {
  CHECK(refusal({"run"}).first.find("SCENARIO") != std::string::npos);
  CHECK(refusal({"check"}).first == "check needs a scenario file");
  const std::string jobs = GENERATE("0", "-1", "two", "1.5", "99999999999");
  CHECK(refusal({"run", "a.json", "--jobs", jobs}).first.find("is not a positive number") !=
        std::string::npos);
  const std::string shard = GENERATE("0/2", "3/2", "1", "a/b", "/", "1/2/3");
  CHECK(refusal({"run", "a.json", "--shard", shard}).first.find("is not I/N") != std::string::npos);
}

TEST_CASE("without arguments the program introduces itself on one screen with examples") {
  const std::string text = std::get<ShowText>(parse({})).text;
  CHECK(std::count(text.begin(), text.end(), '\n') <= 24);
  CHECK(text.find("rehearse run scenarios/") != std::string::npos);
}

TEST_CASE("help and version are results, for the program and each command") {
  CHECK(std::get<ShowText>(parse({"--version"})).text.find("SimGrid") != std::string::npos);
  CHECK(std::get<ShowText>(parse({"--help"})).text.find("Exit codes") != std::string::npos);
  for (const CommandInfo& command : command_tree().commands) {
    CAPTURE(command.name);
    CHECK(std::get<ShowText>(parse({command.name, "--help"})).text.find(command.help) !=
          std::string::npos);
  }
}

TEST_CASE("the option tree tells each option's choices and files") {
  const CommandTree tree = command_tree();
  bool has_fidelity = false, has_trace = false;
  for (const OptionInfo& option : tree.commands.at(0).options) {
    if (option.names == std::vector<std::string>{"--fidelity"})
      has_fidelity = option.choices.size() == 3;
    if (option.names == std::vector<std::string>{"--trace"}) has_trace = option.takes_file;
  }
  CHECK(has_fidelity);
  CHECK(has_trace);
}
