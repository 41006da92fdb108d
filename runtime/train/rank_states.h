#pragma once
#include <string>
#include <vector>

namespace rehearse {

/// How each rank is doing, in a file of one byte a rank, so that whoever started them can name the
/// rank that vanished: a killed process writes nothing any more, and those that are stopped because
/// of it say so.
enum class RankState : char {
  NotStarted = '-',
  Running = 'r',
  Done = 'd',
  Failed = 'e',   ///< it has told why
  Stopped = 't',  ///< by SIGTERM or SIGINT
};

/// Makes the file. Throws std::runtime_error.
void make_rank_states(const std::string& path, int ranks);
std::vector<RankState> read_rank_states(const std::string& path);

/// From now on this process keeps its own byte up to date, also when it is told to stop.
void begin_rank_state(const std::string& path, int rank);
void set_rank_state(RankState state);

}  // namespace rehearse
