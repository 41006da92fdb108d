#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "plan/timeline_file.h"

namespace rehearse {

/// What a measured event is; the times come with it.
struct EventPlace {
  Stream stream = Stream::Compute;
  std::string_view tag;
  std::int32_t stage = 0, chunk = -1, micro_batch = -1, layer = -1;
};

/// Records what one rank's streams did in the steps of a run, as the simulation's own timeline.
/// Keeps the latest `most_steps` steps, so that a long run does not fill the memory. Times are
/// those of `now_s`, and are written relative to the begin of their step.
class EventLog {
 public:
  explicit EventLog(int rank, std::size_t most_steps = 20);

  /// Seconds of the monotonic clock, the same for all processes of a machine.
  static double now_s();

  void begin_step(std::int64_t step, double at_s);
  /// Ignored outside of a step. REQUIRES: start_s ≤ end_s.
  void add(const EventPlace& place, double start_s, double end_s, double bytes = 0);
  void end_step(double at_s);

  std::size_t steps() const { return file_.steps.size(); }
  /// Peak memory of the rank, for the file.
  void set_memory(RankMemory memory) { file_.memory = {std::move(memory)}; }

  /// REQUIRES: at least one step has ended.
  TimelineFile file(const std::string& made_by, const std::string& plan) const;
  /// Writes FOLDER/rank-00003.timeline.json. Throws std::runtime_error.
  void write(const std::filesystem::path& folder, const std::string& made_by,
             const std::string& plan) const;

 private:
  int rank_;
  std::size_t most_steps_;
  bool in_step_ = false;
  std::int64_t step_ = 0;
  double begin_s_ = 0;
  std::vector<std::string> tags_;
  std::map<std::string, std::int32_t, std::less<>> tag_numbers_;
  std::vector<TimelineEvent> events_;  ///< of the step under way
  TimelineFile file_;                  ///< steps that have ended; tags are filled in at the end
};

}  // namespace rehearse
