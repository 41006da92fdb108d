#include "runtime/shard_run.h"

#include <exception>
#include <iostream>

#include "plan/write_file.h"
#include "runtime/child_process.h"
#include "runtime/mpi_gather.h"
#include "runtime/shard_merge.h"

namespace rehearse {
namespace {

/// Does this rank's share. A share that cannot be started is a report like any other, so that
/// the other ranks are not left waiting.
ShardReport work_on_share(const ShardRun& run, const MpiSession& mpi) {
  try {
    ChildResult child = run_child(shard_command(run, mpi.rank(), mpi.size()));
    return {.exit_code = child.exit_code,
            .document = std::move(child.out),
            .messages = std::move(child.err)};
  } catch (const std::exception& error) {
    return {.exit_code = kExitEnvironment,
            .document = {},
            .messages = "rehearse-mpi: error: " + std::string(error.what()) + "\n"};
  }
}

/// Prints what the shares came to and returns the exit code of the whole.
int conclude(const ShardRun& run, const std::vector<ShardReport>& shards) {
  std::cerr << merged_messages(shards);
  const int code = merged_exit_code(shards);
  if (code != kExitDone && code != kExitInfeasible) return code;
  const std::string document = merged_document(shards);
  if (run.json == "-")
    std::cout << document << std::flush;
  else
    write_file_whole(run.json, document, run.force);
  return code;
}

}  // namespace

int command_shard_run(Arguments arguments) {
  const MpiSession mpi;
  ShardRun run;
  try {
    run = parse_shard_run(arguments);
  } catch (const ArgumentError&) {
    if (mpi.rank() == 0) throw;  // one rank says what all of them see
    return kExitBadInput;
  }
  const std::vector<ShardReport> shards = mpi.gather(work_on_share(run, mpi));
  int code = kExitDone;
  if (mpi.rank() == 0) {
    try {
      code = conclude(run, shards);
    } catch (const std::exception& error) {
      std::cerr << "rehearse-mpi: error: " << error.what() << '\n';
      code = kExitEnvironment;
    }
  }
  return mpi.from_first(code);  // one code for all: mpirun passes on any of them
}

}  // namespace rehearse
