#pragma once
#include <cstdlib>
#include <string>
#include <vector>

/// The starter that belongs to the MPI of the build, where the build says it.
#ifndef MPIRUN
#define MPIRUN "mpirun"
#endif

namespace rehearse {

/// The command that starts `ranks` processes. Open MPI refuses root, and more ranks than cores,
/// unless told otherwise; and binding ranks to cores makes tests beside each other share one.
inline std::vector<std::string> mpirun(int ranks, const std::vector<std::string>& program) {
  setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
  setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
  setenv("OMPI_MCA_rmaps_base_oversubscribe", "1", 1);
  setenv("OMPI_MCA_hwloc_base_binding_policy", "none", 1);
  // Open MPI unloads its modules with what they leak, which no suppression can name.
  setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
  std::vector<std::string> command{MPIRUN, "-n", std::to_string(ranks)};
  command.insert(command.end(), program.begin(), program.end());
  return command;
}

}  // namespace rehearse
