#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace rehearse {

/// How each rank of a run on one machine is doing, in a small file that the ranks and whoever
/// started them map into memory: whoever looks can name the rank that vanished (a killed process
/// writes nothing any more, and those that are stopped because of it say so), and the rank that
/// hangs (a process that was stopped beats no more).
enum class RankState : char {
  NotStarted = '-',
  Running = 'r',
  Done = 'd',
  Failed = 'e',   ///< it has met an error of its own
  Stopped = 't',  ///< by SIGTERM or SIGINT
};

struct RankRecord {
  RankState state = RankState::NotStarted;
  std::int32_t pid = 0;
  std::uint32_t beats = 0;  ///< grows ten times a second for as long as the process runs
};

/// The launcher's side: makes the file, reads it, removes it.
class RankStates {
 public:
  /// Throws std::runtime_error.
  RankStates(std::string path, int ranks);
  ~RankStates();
  RankStates(const RankStates&) = delete;
  RankStates& operator=(const RankStates&) = delete;

  const std::string& path() const { return path_; }
  int ranks() const { return ranks_; }
  RankRecord record(int rank) const;
  /// True for the first who asks, among ranks and launcher: one message a failure.
  bool claim_voice();
  /// Whether somebody has told what happened.
  bool has_spoken() const;

 private:
  std::string path_;
  int ranks_;
  void* memory_ = nullptr;
};

/// A rank's side: from construction to destruction this process beats and keeps its own record up
/// to date, also when SIGTERM or SIGINT ends it. One a process; with an empty path it does nothing.
class RankSign {
 public:
  RankSign(const std::string& path, int rank);
  ~RankSign();
  RankSign(const RankSign&) = delete;
  RankSign& operator=(const RankSign&) = delete;

  static void set(RankState state);
  /// True where this rank shall tell what went wrong; always without a file.
  static bool claim_voice();
  /// The ranks whose processes did not beat for the last second, or ended without being done;
  /// nothing where there is no file to tell from. Takes a second.
  static std::optional<std::vector<int>> silent_ranks();
};

/// "rank 3", "ranks 0, 2 and 5".
std::string ranks_text(const std::vector<int>& ranks);

}  // namespace rehearse
