#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "plan/problem.h"
#include "plan/timeline.h"

namespace rehearse {

/// Peak memory of a rank by what takes it.
struct RankMemory {
  std::int32_t rank = 0, stage = 0;
  std::vector<std::pair<std::string, double>> parts;  ///< name, bytes
};

/// What a file of the format timeline/1 holds: one step of a simulation with all its ranks, or
/// several measured steps of one rank. Tags, ranks and what they represent are those of each step.
struct TimelineFile {
  std::string made_by;              ///< "rehearse run", "rehearse train"
  std::string plan;                 ///< the plan's name
  std::vector<std::int64_t> steps;  ///< which steps; 0 for a simulated one
  std::vector<Timeline> timelines;  ///< of each step
  std::vector<RankMemory> memory;   ///< of its ranks; empty: not told
};

/// As JSON. Events are rows of numbers, named by `columns`; a tag is a number of `tags`. Equal
/// timelines give equal bytes. REQUIRES: at least one step; tags, ranks and represented are the
/// same in all.
std::string timeline_text(const TimelineFile& file);

/// Reads one; mistakes become problems with their places, and nothing is returned.
std::optional<TimelineFile> read_timeline(std::string_view text, const std::string& name,
                                          Problems& problems);

}  // namespace rehearse
