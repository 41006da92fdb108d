#pragma once
#include "app/command_line.h"
#include "app/exit_code.h"

namespace rehearse {

/// `rehearse run`: simulates every plan of every variant and prints what came out. Throws for
/// failures of the world (files, worker processes) and Interrupted.
ExitCode run_command(const RunOptions& options);

}  // namespace rehearse
