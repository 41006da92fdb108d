#include <exception>
#include <string>
#include <vector>

#include "app/command_line.h"
#include "app/commands.h"
#include "app/exit_code.h"
#include "app/output.h"
#include "app/run_command.h"
#include "planner/worker_pool.h"

namespace rehearse {
namespace {

struct Execute {
  ExitCode operator()(const ShowText& show) const {
    write_result("-", show.text, false);
    return ExitCode::Done;
  }
  ExitCode operator()(const RunOptions& options) const { return run_command(options); }
  ExitCode operator()(const CheckOptions& options) const { return check_command(options); }
  ExitCode operator()(const ListOptions& options) const { return list_command(options); }
  ExitCode operator()(const TopologyOptions& options) const { return topology_command(options); }
  ExitCode operator()(const FitCommandOptions& options) const { return fit_command(options); }
  ExitCode operator()(const ValidateOptions& options) const { return validate_command(options); }
  ExitCode operator()(const CalibrateOptions& options) const { return calibrate_command(options); }
  ExitCode operator()(const CompareOptions& options) const { return compare_command(options); }
  ExitCode operator()(const DataOptions& options) const { return data_command(options); }
  ExitCode operator()(const ProfileOptions& options) const { return profile_command(options); }
  ExitCode operator()(const TrainCommandOptions& options) const { return train_command(options); }
  ExitCode operator()(const DoctorOptions& options) const { return doctor_command(options); }
  ExitCode operator()(const CompletionOptions& options) const {
    return completion_command(options);
  }
  ExitCode operator()(const ManOptions&) const { return man_command(); }
};

/// The one place where errors become exit codes.
ExitCode run_program(const std::vector<std::string>& arguments) {
  try {
    return std::visit(Execute{}, parse_command_line(arguments));
  } catch (const UsageError& error) {
    report_error(error.what(), error.hint());
    return ExitCode::BadInput;
  } catch (const Interrupted&) {
    report_error("interrupted");
    return ExitCode::Interrupted;
  } catch (const std::exception& error) {
    report_error(error.what());
    return ExitCode::Environment;
  }
}

}  // namespace
}  // namespace rehearse

int main(int argc, char** argv) {
  return static_cast<int>(rehearse::run_program({argv, argv + argc}));
}
