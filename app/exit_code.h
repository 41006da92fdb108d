#pragma once

namespace rehearse {

/// What the program's exit status says; part of its interface.
enum class ExitCode : int {
  Done = 0,
  Environment = 1,  ///< a file, a library or a worker process failed
  BadInput = 2,     ///< a scenario or a command line that cannot be understood
  Infeasible = 3,   ///< everything is valid, but no plan fits or can be
  Tolerance = 4,    ///< a comparison lies outside its tolerance
  Interrupted = 130,
};

}  // namespace rehearse
