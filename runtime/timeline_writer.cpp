#include "runtime/timeline_writer.h"

#include <algorithm>
#include <cstdio>

#include "plan/ensure.h"
#include "plan/write_file.h"

namespace rehearse {

EventLog::EventLog(int rank, std::size_t most_steps) : rank_(rank), most_steps_(most_steps) {
  ensure(rank >= 0 && most_steps >= 1, "a log is of a rank and keeps at least one step");
}

double EventLog::now_s() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(since).count();
}

void EventLog::begin_step(std::int64_t step, double at_s) {
  in_step_ = true;
  step_ = step;
  begin_s_ = at_s;
  events_.clear();
}

void EventLog::add(const EventPlace& place, double start_s, double end_s, double bytes) {
  if (!in_step_) return;
  ensure(start_s <= end_s, "an event ends after it starts");
  auto known = tag_numbers_.find(place.tag);
  if (known == tag_numbers_.end()) {
    const auto number = static_cast<std::int32_t>(tags_.size());
    known = tag_numbers_.emplace(std::string(place.tag), number).first;
    tags_.emplace_back(place.tag);
  }
  events_.push_back({.rank = rank_,
                     .stream = place.stream,
                     .tag = known->second,
                     .stage = place.stage,
                     .chunk = place.chunk,
                     .micro_batch = place.micro_batch,
                     .layer = place.layer,
                     .start_s = start_s - begin_s_,
                     .end_s = end_s - begin_s_,
                     .bytes = bytes});
}

void EventLog::end_step(double at_s) {
  ensure(in_step_, "a step ends that has begun");
  in_step_ = false;
  std::stable_sort(events_.begin(), events_.end(), [](const auto& a, const auto& b) {
    return a.stream != b.stream ? a.stream < b.stream : a.start_s < b.start_s;
  });
  // Messages to two neighbours may be under way at once; on their stream the later of them begins
  // where the earlier ends, as in a simulated timeline.
  for (std::size_t i = 1; i < events_.size(); ++i) {
    if (events_[i].stream != events_[i - 1].stream) continue;
    events_[i].start_s = std::max(events_[i].start_s, events_[i - 1].end_s);
    events_[i].end_s = std::max(events_[i].end_s, events_[i].start_s);
  }
  if (file_.steps.size() == most_steps_) {
    file_.steps.erase(file_.steps.begin());
    file_.timelines.erase(file_.timelines.begin());
  }
  file_.steps.push_back(step_);
  file_.timelines.push_back({.step_time_s = at_s - begin_s_,
                             .tags = {},
                             .ranks = {rank_},
                             .represented = {1},
                             .events = std::move(events_)});
  events_ = {};
}

TimelineFile EventLog::file(const std::string& made_by, const std::string& plan) const {
  ensure(!file_.steps.empty(), "a log is written that has steps");
  TimelineFile file = file_;
  file.made_by = made_by;
  file.plan = plan;
  for (Timeline& timeline : file.timelines) timeline.tags = tags_;
  return file;
}

void EventLog::write(const std::filesystem::path& folder, const std::string& made_by,
                     const std::string& plan) const {
  char name[40];
  std::snprintf(name, sizeof name, "rank-%05d.timeline.json", rank_);
  std::filesystem::create_directories(folder);
  write_file_whole(folder / name, timeline_text(file(made_by, plan)), true);
}

}  // namespace rehearse
