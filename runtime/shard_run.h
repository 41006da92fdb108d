#pragma once
#include <string>
#include <vector>

#include "runtime/command_line.h"

namespace rehearse {

/// `rehearse-mpi run`: what is to be done, the same on every rank.
struct ShardRun {
  std::string program;              ///< the rehearse to start
  std::vector<std::string> passed;  ///< scenarios and options that go to it as they are
  std::string json;                 ///< where the merged document goes; "-" is stdout
  bool force = false;               ///< overwrite it
};

/// Throws ArgumentError.
ShardRun parse_shard_run(Arguments arguments);

/// The command of the share that rank `rank` of `size` works on.
std::vector<std::string> shard_command(const ShardRun& run, int rank, int size);

/// The verb: starts MPI, one share a rank, and merges on rank 0.
int command_shard_run(Arguments arguments);

}  // namespace rehearse
