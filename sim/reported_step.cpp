#include "sim/reported_step.h"

#include "plan/ensure.h"

namespace rehearse {

ReportedStep::ReportedStep(const StepGraph& graph, const SimulationRecord& record)
    : graph_(graph), record_(record) {
  const std::size_t devices = graph.devices.size();
  ensure(record.start_s.size() == graph.tasks.size(), "a record belongs to its graph");
  first_compute_.assign(devices + 1, 0);
  for (const Task& task : graph.tasks)
    if (task.kind == TaskKind::Compute) ++first_compute_[task.device + 1];
  for (std::size_t d = 0; d < devices; ++d) first_compute_[d + 1] += first_compute_[d];
  compute_.resize(first_compute_[devices]);
  std::vector<std::int32_t> next(first_compute_.begin(), first_compute_.end() - 1);
  for (std::size_t t = 0; t < graph.tasks.size(); ++t)
    if (graph.tasks[t].kind == TaskKind::Compute)
      compute_[next[graph.tasks[t].device]++] = static_cast<std::int32_t>(t);

  // Tasks without duration begin with their successor, and so are told apart by their end.
  const auto earlier = [&record](std::int32_t a, std::int32_t b) {
    if (record.start_s[a] != record.start_s[b]) return record.start_s[a] < record.start_s[b];
    return record.finish_s[a] < record.finish_s[b];
  };
  for (std::size_t d = 0; d < devices; ++d) {
    const auto from = compute_.begin() + first_compute_[d];
    const auto to = compute_.begin() + first_compute_[d + 1];
    if (!std::is_sorted(from, to, earlier)) std::stable_sort(from, to, earlier);
  }

  first_change_.assign(devices + 1, 0);
  for (const RateChange& change : record.rate_changes) ++first_change_[change.device + 1];
  for (std::size_t d = 0; d < devices; ++d) first_change_[d + 1] += first_change_[d];
}

std::vector<ReportedPiece> ReportedStep::pieces(std::int32_t device) const {
  std::vector<ReportedPiece> pieces;
  double done_s = begin_s();
  const auto tasks = computes(device);
  for (const std::int32_t task : tasks) {
    if (record_.start_s[task] < begin_s() && record_.finish_s[task] <= begin_s()) continue;
    pieces.push_back({task, clip(record_.start_s[task]), clip(record_.finish_s[task]), 0});
    done_s = std::max(done_s, pieces.back().to_s);
  }
  for (const std::int32_t task : tasks) {
    if (record_.start_s[task] >= begin_s()) break;
    const double from_s = std::max(record_.start_s[task], done_s - length_s());
    const double to_s = std::min(record_.finish_s[task], begin_s());
    if (to_s <= from_s) continue;
    pieces.push_back({task, from_s, to_s, length_s()});
  }
  return pieces;
}

std::vector<ReportedPiece> ReportedStep::comm_pieces(std::int32_t task) const {
  std::vector<ReportedPiece> pieces;
  const double start_s = record_.start_s[task], finish_s = record_.finish_s[task];
  if (finish_s > begin_s() || start_s >= begin_s())
    pieces.push_back({task, clip(start_s), clip(finish_s), 0});
  if (start_s < begin_s())
    pieces.push_back({task, std::max(start_s, begin_s() - length_s()),
                      std::min(finish_s, begin_s()), length_s()});
  return pieces;
}

std::int32_t ReportedStep::first_inside(std::int32_t device) const {
  for (const std::int32_t task : computes(device))
    if (record_.start_s[task] >= begin_s()) return task;
  return -1;
}

const SimulationRecord::RateChange* ReportedStep::change_after(std::int32_t device,
                                                               double at_s) const {
  const RateChange* const changes = record_.rate_changes.data();
  return std::upper_bound(
      changes + first_change_[device], changes + first_change_[device + 1], at_s,
      [](double date_s, const RateChange& change) { return date_s < change.at_s; });
}

bool ReportedStep::undisturbed(std::int32_t task) const {
  const std::int32_t device = graph_.tasks[task].device;
  if (first_change_[device] == first_change_[device + 1]) return true;
  const RateChange* const changes = record_.rate_changes.data();
  const RateChange* const after = change_after(device, record_.start_s[task]);
  const bool full_rate = after == changes + first_change_[device] || after[-1].rate == 1.0;
  return full_rate &&
         (after == changes + first_change_[device + 1] || after->at_s >= record_.finish_s[task]);
}

}  // namespace rehearse
