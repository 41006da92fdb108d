#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "app/command_line.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace rehearse {

using Choices = std::vector<std::string>;

/// The parser with the targets of its options, built once per use. Its commands' options are made
/// in command_line_prediction.cpp and command_line_machine.cpp.
class CommandLineParser {
 public:
  CommandLineParser();
  ~CommandLineParser();
  CommandLineParser(const CommandLineParser&) = delete;
  CommandLineParser& operator=(const CommandLineParser&) = delete;
  Command parse(const std::vector<std::string>& arguments);
  CommandTree tree();

 private:
  CLI::App* command(const std::string& name, const std::string& help, const std::string& details);
  /// `App` is CLI::App, which this header does without.
  template <class App, class T>
  static auto* value(App* app, const std::string& names, T& target, const std::string& value_name,
                     const std::string& help) {
    return app->add_option(names, target, help)->type_name(value_name);
  }
  CLI::Option* file(CLI::App* app, const std::string& names, std::string& target,
                    const std::string& help);
  CLI::Option* choice(CLI::App* app, const std::string& names, std::string& target,
                      const Choices& choices, const std::string& help);
  void color(CLI::App* app);
  /// Why a text is not a number of at least 1, for a check of CLI11; empty if it is.
  static std::string count_fault(const std::string& text);

  void add_run();
  void add_check();
  void add_list();
  void add_topology();
  void add_fit();
  void add_validate();
  void add_calibrate();
  void add_compare();
  void add_data();
  void add_profile();
  void add_train();
  void add_doctor();
  void add_shell_help();

  CLI::App* active();
  std::string help_text();
  std::string help_command();
  /// Something on the line that is neither a known command nor a known option.
  UsageError unexpected();
  Command chosen();
  ColorMode color_mode() const;
  Command finish_run();
  CommandInfo describe(const CLI::App& app) const;

  /// Where strings are kept until they become options of their types.
  struct Texts {
    std::string fidelity = "folded", collectives = "fluid", color = "auto", shard;
  };

  std::unique_ptr<CLI::App> app_;
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

}  // namespace rehearse
