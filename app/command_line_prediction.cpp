#include <CLI/CLI.hpp>

#include "app/command_line_parser.h"
#include "app/overview.h"
#include "planner/framework.h"

// Commands that predict, and those that look at what was predicted or measured.

namespace rehearse {
namespace {

const Choices kFidelities{"folded", "replicas", "full"};
const Choices kCollectives{"fluid", "stepwise"};

Choices framework_choices() {
  Choices names;
  for (const auto& [name, framework] : framework_names()) names.push_back(name);
  return names;
}

}  // namespace

void CommandLineParser::add_run() {
  CLI::App* app = command(
      "run", "Simulate a scenario: its plans, what-ifs and sweeps",
      "Prints a table of the plans and why the fastest wins. --json and --csv without FILE\n"
      "print to stdout in place of the table. Files are written whole or not at all.");
  CLI::Option* scenarios = app->add_option("SCENARIO", run_.scenarios, "Scenario files");
  scenarios->required()->type_name("FILE");
  takes_file_.push_back(scenarios);
  file(app, "-o,--output", run_.output, "Write the table to FILE in place of stdout");
  file(app, "--json", run_.json, "Write all results as result/1")->expected(0, 1);
  file(app, "--csv", run_.csv, "Write one row a plan and variant as CSV")->expected(0, 1);
  file(app, "--trace", run_.trace, "Write the fastest plan's timeline for Perfetto");
  file(app, "--timeline", run_.timeline, "Write the fastest plan's timeline as timeline/1");
  file(app, "--plan-out", run_.plan_out, "Write the fastest plan as plan/1");
  file(app, "--calibration", run_.calibration, "Factors made by `rehearse calibrate`");
  choice(app, "--fidelity", texts_.fidelity, kFidelities,
         "Simulate one of identical replicas, every replica, or every GPU");
  choice(app, "--collectives", texts_.collectives, kCollectives,
         "Collectives as one long flow an edge, or step by step");
  value(app, "--shard", texts_.shard, "I/N", "Only the I-th of N shares of the variants");
  value(app, "-j,--jobs", run_.jobs, "N", "Worker processes (default: all cores)")
      ->check(count_fault);
  app->add_flag("--no-what-if", run_.no_what_if, "Leave out what-ifs and sweeps");
  app->add_flag("-v,--verbose", run_.verbose, "Say where the program's own time goes");
  app->add_flag("-q,--quiet", run_.quiet, "No progress, notes or hints");
  app->add_flag("--wide", run_.wide, "All columns, however wide");
  app->add_flag("-f,--force", run_.force, "Overwrite existing files");
  color(app);
}

void CommandLineParser::add_check() {
  CLI::App* app =
      command("check", "Validate scenario files without simulating",
              "Prints every problem with its place, and what follows from the files: parameters,\n"
              "ranks per node, memory per rank.");
  CLI::Option* files = app->add_option("FILE", check_.files, "Scenario files");
  files->type_name("FILE");
  takes_file_.push_back(files);
  app->add_flag("--schema", check_.schema, "Print the JSON Schema of scenario files");
  app->add_flag("--reference", check_.reference, "Print the reference of scenario files");
  app->add_flag("-q,--quiet", check_.quiet, "Only problems");
  app->add_flag("--wide", check_.wide, "All columns, however wide");
  color(app);
}

void CommandLineParser::add_list() {
  CLI::App* app = command("list", "Name the models, GPUs, nodes, … that are known", "");
  choice(app, "WHAT", list_.what, listable(), "What to list");
  app->add_flag("--wide", list_.wide, "All columns, however wide");
  color(app);
}

void CommandLineParser::add_topology() {
  CLI::App* app = command("topology", "Analyse the cluster of a scenario as a graph", "");
  CLI::Option* scenario = app->add_option("SCENARIO", topology_.scenario, "Scenario file");
  scenario->required()->type_name("FILE");
  takes_file_.push_back(scenario);
  file(app, "--dot", topology_.dot, "Write the graph for Graphviz");
  app->add_flag("-f,--force", topology_.force, "Overwrite an existing file");
  color(app);
}

void CommandLineParser::add_fit() {
  CLI::App* app = command(
      "fit", "Make a cost profile of a GPU from measured tables",
      "Prints how well the fit predicts shapes that were left out of it. The columns of tables\n"
      "are described in docs/profiles.md. Without -o the profile goes to stdout.");
  CLI::Option* tables = app->add_option(
      "TABLE", fit_.tables, "Tables of operators (CSV), torch.profiler traces, nccl-tests output");
  tables->required()->type_name("FILE");
  takes_file_.push_back(tables);
  value(app, "--gpu", fit_.gpu, "GPU", "The GPU measured: a name of `rehearse list gpus`")
      ->required();
  value(app, "--stack", fit_.stack, "NAME", "The software measured (default: megatron)");
  file(app, "-o,--output", fit_.output, "Write the profile/1 to FILE and a summary to stdout");
  value(app, "--knots", fit_.knots, "N", "Most corrections of a family (default: 600)")
      ->check(CLI::Range(1, 100'000));
  value(app, "--sustained-rate", fit_.sustained_rate, "X",
        "Computing rate of long steps over the measured one")
      ->check(CLI::Range(0.05, 2.0));
  app->add_flag("--keep-samples", fit_.keep_samples,
                "Price measured operators exactly as measured");
  app->add_flag("--no-cross-validation", fit_.no_cross_validation,
                "Leave nothing out to measure errors");
  app->add_flag("-f,--force", fit_.force, "Overwrite an existing file");
}

void CommandLineParser::add_validate() {
  CLI::App* app = command(
      "validate", "Predict measured runs and print how wrong that is",
      "RUNS is a measured-runs/1 file: configurations with their measured step time, memory or\n"
      "failure. Runs that cannot be expressed count as 100 % in the mean of their family.");
  CLI::Option* runs = app->add_option("RUNS", validate_.runs, "Measured runs");
  runs->required()->type_name("FILE");
  takes_file_.push_back(runs);
  file(app, "--json", validate_.json, "Write all errors as JSON")->expected(0, 1);
  file(app, "--markdown", validate_.markdown, "Write the per-family tables as Markdown");
  value(app, "--families", validate_.families, "NAME,…", "Only runs of these families")
      ->delimiter(',');
  file(app, "--calibration", validate_.calibration, "Factors made by `rehearse calibrate`");
  choice(app, "--framework", validate_.framework, framework_choices(),
         "Only runs of this framework");
  value(app, "--tolerance", validate_.tolerance, "X",
        "Exit 4 where the mean error over families is larger (0.1: 10 %)")
      ->check(CLI::Range(0.0, 1e3));
  value(app, "-j,--jobs", validate_.jobs, "N", "Worker processes (default: all cores)")
      ->check(CLI::Range(1, 4096));
  app->add_flag("--summary", validate_.summary, "Families only, not every run");
  app->add_flag("-q,--quiet", validate_.quiet, "No progress or notes");
  app->add_flag("--wide", validate_.wide, "All columns, however wide");
  app->add_flag("-f,--force", validate_.force, "Overwrite existing files");
  color(app);
}

void CommandLineParser::add_calibrate() {
  CLI::App* app = command(
      "calibrate", "Fit a system's factors to its own measured runs",
      "Fits the time of computing, of the network and of the host to a part of the runs and\n"
      "prints how wrong the rest is predicted then. `run` and `validate` take the file with\n"
      "--calibration. RUNS is a measured-runs/1 file.");
  CLI::Option* runs = app->add_option("RUNS", calibrate_.runs, "Measured runs");
  runs->required()->type_name("FILE");
  takes_file_.push_back(runs);
  file(app, "-o,--output", calibrate_.output, "Write the calibration/1 to FILE");
  value(app, "--left-out", calibrate_.left_out, "X",
        "Share of the runs kept to check with (default: 0.33)")
      ->check(CLI::Range(0.1, 0.9));
  value(app, "-j,--jobs", calibrate_.jobs, "N", "Worker processes (default: all cores)")
      ->check(CLI::Range(1, 4096));
  app->add_flag("-q,--quiet", calibrate_.quiet, "No progress or notes");
  app->add_flag("-f,--force", calibrate_.force, "Overwrite an existing file");
}

void CommandLineParser::add_compare() {
  CLI::App* app = command(
      "compare", "Lay a measured run beside its prediction, part by part",
      "PREDICTED is a timeline of `rehearse run --timeline`, MEASURED one of `rehearse train`, "
      "or\nthe folder where each rank left its own.");
  file(app, "PREDICTED", compare_.predicted, "The predicted timeline")->required();
  file(app, "MEASURED", compare_.measured, "The measured timelines")->required();
  file(app, "--json", compare_.json, "Write all parts as JSON")->expected(0, 1);
  file(app, "--trace", compare_.trace, "Write both timelines for Perfetto");
  app->add_flag("--wide", compare_.wide, "All columns, however wide");
  app->add_flag("-f,--force", compare_.force, "Overwrite existing files");
  color(app);
}

}  // namespace rehearse
