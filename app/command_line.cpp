#include "app/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>

#include "app/command_line_parser.h"
#include "app/overview.h"
#include "plan/edit_distance.h"

namespace rehearse {
namespace {

const Choices kColors{"auto", "always", "never"};

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

bool is_positive(const std::string& text) {
  int number = 0;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), number);
  return fault == std::errc() && end == text.data() + text.size() && number > 0;
}

Shard parse_shard(const std::string& text) {
  const std::size_t slash = text.find('/');
  const std::string index = text.substr(0, slash);
  const std::string count = slash == std::string::npos ? "" : text.substr(slash + 1);
  Shard shard;
  if (is_positive(index) && is_positive(count)) {
    shard = {std::stoi(index), std::stoi(count)};
    if (shard.index <= shard.count) return shard;
  }
  throw UsageError("--shard: \"" + printable(text) + "\" is not I/N with 1 <= I <= N",
                   "the second of four shares is --shard 2/4");
}

}  // namespace

CommandLineParser::CommandLineParser()
    : app_(std::make_unique<CLI::App>(
          "Rehearse a distributed LLM training run before paying for it.", "rehearse")) {
  app_->set_version_flag("--version", version_text(), "Print versions and leave");
  app_->set_help_flag("-h,--help", "Print this help and leave");
  app_->require_subcommand(0, 1);
  app_->footer(
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

CommandLineParser::~CommandLineParser() = default;

Command CommandLineParser::parse(const std::vector<std::string>& arguments) {
  if (arguments.size() < 2) return ShowText{overview_text()};
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend() - 1);
  try {
    app_->parse(reversed);
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

CommandTree CommandLineParser::tree() {
  CommandTree tree;
  tree.program = describe(*app_);
  for (CLI::App* command : app_->get_subcommands({})) tree.commands.push_back(describe(*command));
  return tree;
}

CLI::App* CommandLineParser::command(const std::string& name, const std::string& help,
                                     const std::string& details) {
  CLI::App* command = app_->add_subcommand(name, help);
  command->set_help_flag("-h,--help", "Print this help and leave");
  command->footer(details);
  return command;
}

CLI::Option* CommandLineParser::file(CLI::App* app, const std::string& names, std::string& target,
                                     const std::string& help) {
  CLI::Option* option = value(app, names, target, "FILE", help);
  takes_file_.push_back(option);
  return option;
}

CLI::Option* CommandLineParser::choice(CLI::App* app, const std::string& names, std::string& target,
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

void CommandLineParser::color(CLI::App* app) {
  choice(app, "--color", texts_.color, kColors, "Colours: on a terminal, always or never");
}

CLI::App* CommandLineParser::active() {
  const auto used = app_->get_subcommands();
  return used.empty() ? app_.get() : used.front();
}

std::string CommandLineParser::help_text() {
  return active()->help(active() == app_.get() ? "" : "rehearse");
}

std::string CommandLineParser::help_command() {
  return active() == app_.get() ? "rehearse --help"
                                : "rehearse " + active()->get_name() + " --help";
}

UsageError CommandLineParser::unexpected() {
  const std::vector<std::string> rest = app_->remaining(true);
  const std::string word = rest.empty() ? "" : rest.front();
  const bool is_option = word.starts_with("-");
  std::vector<std::string> known;
  if (is_option) {
    for (const OptionInfo& option : describe(*active()).options)
      known.insert(known.end(), option.names.begin(), option.names.end());
  } else if (active() == app_.get()) {
    for (CLI::App* command : app_->get_subcommands({})) known.push_back(command->get_name());
  }
  const std::string what = is_option ? "option" : active() == app_.get() ? "command" : "argument";
  const std::string near = did_you_mean(is_option ? word.substr(0, word.find('=')) : word, known);
  return UsageError("unknown " + what + " \"" + printable(word) + "\"",
                    near.empty() ? "see: " + help_command() : "did you mean " + near + "?");
}

Command CommandLineParser::chosen() {
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
    if (app_->get_subcommand("validate")->count("--json") > 0 && validate_.json.empty())
      validate_.json = "-";
    return validate_;
  }
  if (name == "calibrate") return calibrate_;
  if (name == "compare") {
    if (app_->get_subcommand("compare")->count("--json") > 0 && compare_.json.empty())
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

ColorMode CommandLineParser::color_mode() const {
  return texts_.color == "always"  ? ColorMode::Always
         : texts_.color == "never" ? ColorMode::Never
                                   : ColorMode::Auto;
}

Command CommandLineParser::finish_run() {
  CLI::App* app = app_->get_subcommand("run");
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

CommandInfo CommandLineParser::describe(const CLI::App& app) const {
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

std::string CommandLineParser::count_fault(const std::string& text) {
  return is_positive(text) ? "" : "\"" + text + "\" is not a positive number";
}

Command parse_command_line(const std::vector<std::string>& arguments) {
  return CommandLineParser().parse(arguments);
}

CommandTree command_tree() { return CommandLineParser().tree(); }

}  // namespace rehearse
