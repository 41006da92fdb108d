#pragma once
#include "app/command_line.h"
#include "app/exit_code.h"

namespace rehearse {

// The commands other than `run`, one file each. All print results on stdout and throw for
// failures of the world.

ExitCode check_command(const CheckOptions& options);
ExitCode list_command(const ListOptions& options);
ExitCode topology_command(const TopologyOptions& options);
ExitCode fit_command(const FitCommandOptions& options);
ExitCode validate_command(const ValidateOptions& options);
ExitCode calibrate_command(const CalibrateOptions& options);
ExitCode compare_command(const CompareOptions& options);
ExitCode data_command(const DataOptions& options);
ExitCode profile_command(const ProfileOptions& options);
ExitCode train_command(const TrainCommandOptions& options);
ExitCode doctor_command(const DoctorOptions& options);
ExitCode completion_command(const CompletionOptions& options);
ExitCode man_command();

}  // namespace rehearse
