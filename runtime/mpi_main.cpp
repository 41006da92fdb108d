#include <mpi.h>

#include <array>
#include <string>
#include <vector>

#include "runtime/shard_run.h"

namespace {

std::string version_line() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  MPI_Get_library_version(text.data(), &length);  // allowed before MPI_Init (MPI 3.1, §8.1.1)
  const std::string library(text.data(), static_cast<std::size_t>(length));
  return "rehearse-mpi " REHEARSE_VERSION " (" + library.substr(0, library.find_first_of(",\n")) +
         "; " REHEARSE_BUILD_TYPE ")";
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const rehearse::Program program{
      .name = "rehearse-mpi",
      .summary = "spreads the variants of a scenario over MPI ranks",
      .version = version_line(),
      .verbs = {{"run", "SCENARIO… [--program PATH] [--json FILE] [--force] [OPTION…]",
                 "each rank simulates its share; prints what one process would print as --json",
                 rehearse::command_shard_run}},
  };
  return rehearse::run_program(program, arguments);
}
