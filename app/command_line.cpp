#include "app/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <map>

#include "app/overview.h"
#include "plan/edit_distance.h"
#include "planner/framework.h"

namespace rehearse {
namespace {

using Choices = std::vector<std::string>;

const Choices kFidelities{"folded", "replicas", "full"};
const Choices kCollectives{"fluid", "stepwise"};
const Choices kColors{"auto", "always", "never"};
const Choices kDataActions{"tokenize"};
const Choices kRateSchedules{"constant", "linear", "cosine", "adaptive"};
const Choices kPartitions{"range", "random", "round-robin"};
const Choices kShells{"bash", "zsh", "fish"};

/// Where the strings of a command line are kept until they become options of their types.
struct Texts {
  std::string fidelity = "folded", collectives = "fluid", color = "auto", shard;
};

/// The parser with the targets of its options, built once per use.
class Parser {
 public:
  Parser() : app_("Rehearse a distributed LLM training run before paying for it.", "rehearse") {
    app_.set_version_flag("--version", version_text(), "Print versions and leave");
    app_.set_help_flag("-h,--help", "Print this help and leave");
    app_.require_subcommand(0, 1);
    app_.footer(
        "Exit codes: 0 done, 1 environment, 2 bad input or usage, 3 no plan fits,\n"
        "4 outside tolerance, 130 interrupted. Results go to stdout, all else to stderr.");
    add_run();
    add_check();
    add_list();
    add_topology();
    add_fit();
    add_validate();
    add_calibrate();
    add_compare();
    add_data();
    add_profile();
    add_train();
    add_doctor();
    add_shell_help();
  }

  Command parse(const std::vector<std::string>& arguments) {
    if (arguments.size() < 2) return ShowText{overview_text()};
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend() - 1);
    try {
      app_.parse(reversed);
    } catch (const CLI::CallForHelp&) {
      return ShowText{help_text()};
    } catch (const CLI::CallForVersion&) {
      return ShowText{version_text() + "\n"};
    } catch (const CLI::ExtrasError&) {
      throw unexpected();
    } catch (const CLI::ParseError& error) {
      throw UsageError(first_line(error.what()), "see: " + help_command());
    }
    return chosen();
  }

  CommandTree tree() {
    CommandTree tree;
    tree.program = describe(app_);
    for (CLI::App* command : app_.get_subcommands({})) tree.commands.push_back(describe(*command));
    return tree;
  }

 private:
  CLI::App* command(const std::string& name, const std::string& help, const std::string& details) {
    CLI::App* command = app_.add_subcommand(name, help);
    command->set_help_flag("-h,--help", "Print this help and leave");
    command->footer(details);
    return command;
  }

  template <class T>
  CLI::Option* value(CLI::App* app, const std::string& names, T& target,
                     const std::string& value_name, const std::string& help) {
    return app->add_option(names, target, help)->type_name(value_name);
  }

  CLI::Option* file(CLI::App* app, const std::string& names, std::string& target,
                    const std::string& help) {
    CLI::Option* option = value(app, names, target, "FILE", help);
    takes_file_.push_back(option);
    return option;
  }

  CLI::Option* choice(CLI::App* app, const std::string& names, std::string& target,
                      const Choices& choices, const std::string& help) {
    CLI::Option* option = app->add_option(names, target, help);
    std::string joined;
    for (const std::string& text : choices) joined += (joined.empty() ? "" : "|") + text;
    option->type_name(joined);
    option->check([choices, joined](const std::string& text) -> std::string {
      if (std::find(choices.begin(), choices.end(), text) != choices.end()) return "";
      const std::string near = did_you_mean(text, choices);
      return "\"" + printable(text) + "\" is not one of " + joined +
             (near.empty() ? "" : "; did you mean " + near + "?");
    });
    choices_[option] = choices;
    return option;
  }

  void color(CLI::App* app) {
    choice(app, "--color", texts_.color, kColors, "Colours: on a terminal, always or never");
  }

  void add_run() {
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
        ->check([](const std::string& text) -> std::string {
          return positive(text) ? "" : "\"" + text + "\" is not a positive number";
        });
    app->add_flag("--no-what-if", run_.no_what_if, "Leave out what-ifs and sweeps");
    app->add_flag("-v,--verbose", run_.verbose, "Say where the program's own time goes");
    app->add_flag("-q,--quiet", run_.quiet, "No progress, notes or hints");
    app->add_flag("--wide", run_.wide, "All columns, however wide");
    app->add_flag("-f,--force", run_.force, "Overwrite existing files");
    color(app);
  }

  void add_check() {
    CLI::App* app = command(
        "check", "Validate scenario files without simulating",
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

  void add_list() {
    CLI::App* app = command("list", "Name the models, GPUs, nodes, … that are known", "");
    choice(app, "WHAT", list_.what, listable(), "What to list");
    app->add_flag("--wide", list_.wide, "All columns, however wide");
    color(app);
  }

  void add_topology() {
    CLI::App* app = command("topology", "Analyse the cluster of a scenario as a graph", "");
    CLI::Option* scenario = app->add_option("SCENARIO", topology_.scenario, "Scenario file");
    scenario->required()->type_name("FILE");
    takes_file_.push_back(scenario);
    file(app, "--dot", topology_.dot, "Write the graph for Graphviz");
    app->add_flag("-f,--force", topology_.force, "Overwrite an existing file");
    color(app);
  }

  void add_fit() {
    CLI::App* app = command(
        "fit", "Make a cost profile of a GPU from measured tables",
        "Prints how well the fit predicts shapes that were left out of it. The columns of tables\n"
        "are described in docs/profiles.md. Without -o the profile goes to stdout.");
    CLI::Option* tables =
        app->add_option("TABLE", fit_.tables,
                        "Tables of operators (CSV), torch.profiler traces, nccl-tests output");
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

  void add_validate() {
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

  void add_calibrate() {
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

  static Choices framework_choices() {
    Choices names;
    for (const auto& [name, framework] : framework_names()) names.push_back(name);
    return names;
  }

  void add_compare() {
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

  void add_data() {
    CLI::App* app = command(
        "data", "Make a token file of a text, for training on it",
        "tokenize makes every byte of FILE a token; the format is described in docs/data.md.");
    choice(app, "ACTION", data_.action, kDataActions, "What to do")->required();
    file(app, "TEXT", data_.text, "The text")->required();
    file(app, "-o,--output", data_.output, "Write the tokens to FILE")->required();
    app->add_flag("-f,--force", data_.force, "Overwrite an existing file");
  }

  void add_profile() {
    CLI::App* app =
        command("profile", "Measure the operators of this machine's GPU or CPU into a profile",
                "Scenarios name the profile to be priced by it (docs/profiles.md).");
    value(app, "--device", profile_.device, "cpu|cuda[:N]",
          "What to measure (default: a GPU where there is one)");
    value(app, "--budget", profile_.budget, "TIME", "Time to take, for example 60s");
    value(app, "--threads", profile_.threads, "N", "Threads of a CPU (default: all usable)")
        ->check(CLI::Range(1, 4096));
    value(app, "--ranks", profile_.ranks, "N",
          "Measure a CPU while N - 1 other processes do so (default: 1)")
        ->check(CLI::Range(1, 4096));
    file(app, "--plan", profile_.plan, "Measure only what this plan/1 needs, on a CPU");
    file(app, "-o,--output", profile_.output, "Write the profile to FILE");
    app->add_flag("-f,--force", profile_.force, "Overwrite existing files");
  }

  void add_train() {
    CLI::App* app = command(
        "train", "Train a plan for real, in exactly its layout and order of work",
        "PLAN is what `rehearse run --plan-out` writes. Starts the plan's ranks here; under mpirun "
        "or srun,\nstart rehearse-device train instead (docs/training.md).");
    file(app, "PLAN", train_.plan, "The plan")->required();
    file(app, "--data", train_.data,
         "Train on FILE: tokens, or a text by its bytes (default: a text that ships with it)");
    value(app, "--steps", train_.steps, "N",
          "Steps of the whole run (default: the plan's, or 100)");
    app->add_flag("--no-predict", train_.no_predict,
                  "Do not measure and simulate first where the plan says no step time");
    app->add_flag("--local", train_.local, "Start all ranks here (the default)");
    value(app, "--device", train_.device, "cpu|cuda[:N]", "What one rank computes on");
    value(app, "--threads", train_.threads, "N", "Threads of a rank on a CPU");
    value(app, "--seed", train_.seed, "N", "Seed of weights and order of samples (default: 1)");
    value(app, "--rate", train_.rate, "X", "Largest learning rate (default: 1e-3)");
    choice(app, "--rate-schedule", train_.rate_schedule, kRateSchedules, "How the rate changes");
    value(app, "--warmup", train_.warmup, "N", "Steps in which the rate rises");
    choice(app, "--partition", train_.partition, kPartitions, "How replicas share the samples");
    file(app, "--checkpoint", train_.checkpoint, "Write checkpoints into this folder");
    value(app, "--checkpoint-every", train_.checkpoint_every, "N", "Steps between checkpoints");
    app->add_flag("--resume", train_.resume, "Go on from the last good checkpoint");
    value(app, "--restarts", train_.restarts, "N", "Go on by itself after so many failures");
    value(app, "--deadline", train_.deadline, "TIME", "Longest wait for another rank");
    file(app, "--timeline", train_.timeline,
         "Write each rank's measured timeline into this folder");
    app->add_flag("--json", train_.json, "Print all steps as JSON");
  }

  void add_doctor() {
    CLI::App* app = command("doctor", "Say what this machine offers and what is missing", "");
    app->add_flag("--json", doctor_.json, "Print as JSON");
  }

  void add_shell_help() {
    CLI::App* app = command("completion", "Print a completion script for a shell",
                            "bash: source <(rehearse completion bash)");
    choice(app, "SHELL", completion_.shell, kShells, "The shell")->required();
    command("man", "Print the manual page (rehearse man | man -l -)", "");
  }

  static bool positive(const std::string& text) {
    int number = 0;
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), number);
    return fault == std::errc() && end == text.data() + text.size() && number > 0;
  }

  static std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

  CLI::App* active() {
    const auto used = app_.get_subcommands();
    return used.empty() ? &app_ : used.front();
  }
  std::string help_text() { return active()->help(active() == &app_ ? "" : "rehearse"); }
  std::string help_command() {
    return active() == &app_ ? "rehearse --help" : "rehearse " + active()->get_name() + " --help";
  }

  /// Something on the line that is neither a known command nor a known option.
  UsageError unexpected() {
    const std::vector<std::string> rest = app_.remaining(true);
    const std::string word = rest.empty() ? "" : rest.front();
    const bool is_option = word.starts_with("-");
    std::vector<std::string> known;
    if (is_option) {
      for (const OptionInfo& option : describe(*active()).options)
        known.insert(known.end(), option.names.begin(), option.names.end());
    } else if (active() == &app_) {
      for (CLI::App* command : app_.get_subcommands({})) known.push_back(command->get_name());
    }
    const std::string what = is_option ? "option" : active() == &app_ ? "command" : "argument";
    const std::string near = did_you_mean(is_option ? word.substr(0, word.find('=')) : word, known);
    return UsageError("unknown " + what + " \"" + printable(word) + "\"",
                      near.empty() ? "see: " + help_command() : "did you mean " + near + "?");
  }

  Command chosen() {
    const std::string name = active()->get_name();
    if (name == "run") return finish_run();
    const ColorMode color = color_mode();
    check_.color = list_.color = topology_.color = validate_.color = color;
    compare_.color = color;
    if (name == "check") {
      if (check_.files.empty() && !check_.schema && !check_.reference)
        throw UsageError("check needs a scenario file", "or --schema, or --reference");
      return check_;
    }
    if (name == "list") return list_;
    if (name == "topology") return topology_;
    if (name == "fit") return fit_;
    if (name == "validate") {
      if (app_.get_subcommand("validate")->count("--json") > 0 && validate_.json.empty())
        validate_.json = "-";
      return validate_;
    }
    if (name == "calibrate") return calibrate_;
    if (name == "compare") {
      if (app_.get_subcommand("compare")->count("--json") > 0 && compare_.json.empty())
        compare_.json = "-";
      return compare_;
    }
    if (name == "data") return data_;
    if (name == "profile") return profile_;
    if (name == "train") return train_;
    if (name == "doctor") return doctor_;
    if (name == "completion") return completion_;
    if (name == "man") return ManOptions{};
    return ShowText{overview_text()};
  }

  ColorMode color_mode() const {
    return texts_.color == "always"  ? ColorMode::Always
           : texts_.color == "never" ? ColorMode::Never
                                     : ColorMode::Auto;
  }

  Command finish_run() {
    CLI::App* app = app_.get_subcommand("run");
    run_.color = color_mode();
    run_.lowering.fidelity = texts_.fidelity == "full"       ? Fidelity::Full
                             : texts_.fidelity == "replicas" ? Fidelity::Replicas
                                                             : Fidelity::Folded;
    run_.lowering.collectives =
        texts_.collectives == "stepwise" ? CollectiveDetail::Stepwise : CollectiveDetail::Fluid;
    // An option without its optional FILE prints to stdout.
    if (app->count("--json") > 0 && run_.json.empty()) run_.json = "-";
    if (app->count("--csv") > 0 && run_.csv.empty()) run_.csv = "-";
    if ((run_.json == "-") + (run_.csv == "-") + (run_.trace == "-") + (run_.timeline == "-") +
            (run_.plan_out == "-") >
        1)
      throw UsageError("only one result can go to stdout", "give the others a file");
    if (!texts_.shard.empty()) run_.shard = parse_shard(texts_.shard);
    return run_;
  }

  static Shard parse_shard(const std::string& text) {
    const std::size_t slash = text.find('/');
    const std::string index = text.substr(0, slash);
    const std::string count = slash == std::string::npos ? "" : text.substr(slash + 1);
    Shard shard;
    if (positive(index) && positive(count)) {
      shard = {std::stoi(index), std::stoi(count)};
      if (shard.index <= shard.count) return shard;
    }
    throw UsageError("--shard: \"" + printable(text) + "\" is not I/N with 1 <= I <= N",
                     "the second of four shares is --shard 2/4");
  }

  CommandInfo describe(const CLI::App& app) const {
    CommandInfo info{.name = app.get_name(),
                     .help = app.get_description(),
                     .details = app.get_footer(),
                     .options = {}};
    for (const CLI::Option* option : app.get_options()) {
      OptionInfo described;
      for (const std::string& name : option->get_snames()) described.names.push_back("-" + name);
      for (const std::string& name : option->get_lnames()) described.names.push_back("--" + name);
      if (option->get_expected_max() > 0) described.value = option->get_type_name();
      if (described.names.empty()) described.value = option->get_name();
      described.help = option->get_description();
      if (const auto known = choices_.find(option); known != choices_.end())
        described.choices = known->second;
      described.takes_file =
          std::find(takes_file_.begin(), takes_file_.end(), option) != takes_file_.end();
      info.options.push_back(std::move(described));
    }
    return info;
  }

  CLI::App app_;
  Texts texts_;
  RunOptions run_;
  CheckOptions check_;
  ListOptions list_;
  TopologyOptions topology_;
  ValidateOptions validate_;
  CalibrateOptions calibrate_;
  DoctorOptions doctor_;
  FitCommandOptions fit_;
  CompareOptions compare_;
  DataOptions data_;
  ProfileOptions profile_;
  TrainCommandOptions train_;
  CompletionOptions completion_;
  std::map<const CLI::Option*, Choices> choices_;
  std::vector<const CLI::Option*> takes_file_;
};

}  // namespace

Command parse_command_line(const std::vector<std::string>& arguments) {
  return Parser().parse(arguments);
}

CommandTree command_tree() { return Parser().tree(); }

}  // namespace rehearse
