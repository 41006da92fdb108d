#pragma once
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "app/terminal.h"
#include "strategies/lower.h"

namespace rehearse {

/// The i-th of n shares of a run's variants; 1 ≤ index ≤ count.
struct Shard {
  int index = 1;
  int count = 1;
};

// What each command was asked to do. File names are as typed; "-" is stdout; empty: not asked.

struct RunOptions {
  std::vector<std::string> scenarios;
  std::string output, json, csv, trace, timeline, plan_out;
  std::string calibration;  ///< calibration/1
  LoweringOptions lowering;
  Shard shard;
  int jobs = 0;  ///< 0: all cores
  bool no_what_if = false;
  bool verbose = false, quiet = false, wide = false, force = false;
  ColorMode color = ColorMode::Auto;
};

struct CheckOptions {
  std::vector<std::string> files;
  bool schema = false, reference = false, quiet = false, wide = false;
  ColorMode color = ColorMode::Auto;
};

struct ListOptions {
  std::string what;  ///< empty: what can be listed
  bool wide = false;
  ColorMode color = ColorMode::Auto;
};

struct TopologyOptions {
  std::string scenario, dot;
  bool force = false;
  ColorMode color = ColorMode::Auto;
};

struct ValidateOptions {
  std::string runs;  ///< measured-runs/1
  std::string json, markdown;
  std::string calibration;            ///< calibration/1
  std::vector<std::string> families;  ///< empty: all
  std::string framework;              ///< empty: all
  double tolerance = 0;               ///< of the mean over families, a fraction; 0: none
  int jobs = 0;                       ///< 0: all cores
  bool summary = false, quiet = false, wide = false, force = false;
  ColorMode color = ColorMode::Auto;
};

struct CalibrateOptions {
  std::string runs, output;
  double left_out = 0.33;  ///< share of the runs that the fit does not see
  int jobs = 0;
  bool quiet = false, force = false;
};

struct DoctorOptions {
  bool json = false;
};

struct FitCommandOptions {
  std::vector<std::string> tables;
  std::string gpu, output, stack = "megatron";
  int knots = 600;
  double sustained_rate = 0;  ///< 0: from the tables, or judged
  bool keep_samples = false, no_cross_validation = false, force = false;
};

struct CompareOptions {
  std::string predicted, measured;  ///< timelines; `measured` may be a folder of them
  std::string json, trace;
  bool wide = false, force = false;
  ColorMode color = ColorMode::Auto;
};

struct DataOptions {
  std::string action, text, output;
  bool force = false;
};

struct ProfileOptions {
  std::string device, budget, plan, output;  ///< as typed; empty: rehearse-device's own defaults
  int threads = 0;                           ///< 0: as many as this process may use
  int ranks = 1;                             ///< processes that measure a CPU at once
  bool force = false;
};

struct TrainCommandOptions {
  std::string plan, data, device, checkpoint, timeline;
  std::string steps, threads, deadline, seed, rate, rate_schedule, rate_batch, warmup, clip;
  std::string weight_decay, checkpoint_every, restarts;
  std::string partition;  ///< all as typed; empty: rehearse-device's own defaults
  bool resume = false, json = false, local = false, no_predict = false;
};

struct CompletionOptions {
  std::string shell;
};

struct ManOptions {};

/// `--help`, `--version` and a bare `rehearse`: text for stdout.
struct ShowText {
  std::string text;
};

using Command =
    std::variant<ShowText, RunOptions, CheckOptions, ListOptions, TopologyOptions, ValidateOptions,
                 CalibrateOptions, DoctorOptions, FitCommandOptions, CompareOptions, DataOptions,
                 ProfileOptions, TrainCommandOptions, CompletionOptions, ManOptions>;

/// A command line that cannot be understood; `hint` may be empty.
class UsageError : public std::runtime_error {
 public:
  UsageError(const std::string& message, std::string hint)
      : std::runtime_error(message), hint_(std::move(hint)) {}
  const std::string& hint() const { return hint_; }

 private:
  std::string hint_;
};

/// Throws UsageError. Arguments as in main, the program's name first.
Command parse_command_line(const std::vector<std::string>& arguments);

/// The option tree as data: completions and the manual page are printed from it.
struct OptionInfo {
  std::vector<std::string> names;  ///< "--json", "-o"; empty: positional
  std::string value;               ///< "FILE"; empty: a switch
  std::string help;
  std::vector<std::string> choices;
  bool takes_file = false;
};
struct CommandInfo {
  std::string name, help, details;
  std::vector<OptionInfo> options;
};
struct CommandTree {
  CommandInfo program;
  std::vector<CommandInfo> commands;
};
CommandTree command_tree();

/// "rehearse 0.1.0 (Release; SimGrid 3.32; Boost 1.74)".
std::string version_text();
std::string program_version();
std::string boost_version();

}  // namespace rehearse
