#include "sim/executor.h"

#include <algorithm>
#include <utility>

#include "plan/ensure.h"

namespace rehearse {

Executor::Executor(const StepGraph& graph, const SimulationOptions& options)
    : graph_(graph), options_(options), task_count_(static_cast<std::int32_t>(graph.tasks.size())) {
  ensure(options.steps >= 1, "a simulation has at least one step");
  ensure(options.interference.max_share >= 0 && options.interference.max_share < 1,
         "communication leaves computation a part of the GPU");
  ensure(graph.first_successor.size() == graph.tasks.size() + 1 &&
             graph.first_wrap.size() == graph.tasks.size() + 1,
         "the edges of a step graph are finished before it is simulated");
  prepare();
}

void Executor::prepare() {
  const std::size_t tasks = graph_.tasks.size();
  predecessors_.assign(tasks, 0);
  for (const std::int32_t to : graph_.successor) ++predecessors_[to];
  if (options_.steps > 1) {
    wrap_predecessors_.assign(tasks, 0);
    for (const std::int32_t to : graph_.wrap) ++wrap_predecessors_[to];
    for (std::int32_t task = 0; task < task_count_; ++task)
      if (predecessors_[task] == 0 && wrap_predecessors_[task] == 0) roots_.push_back(task);
  }
  for (const double share : options_.interference.compute_share) {
    ensure(share >= 0, "communication never speeds computation up");
    if (share > 0) interferes_ = true;
  }
  has_host_ = options_.host_step_s > 0;
  works_.reserve(graph_.segments.size());
  for (const Segment& segment : graph_.segments) {
    if (segment.launch_s > 0) has_host_ = true;
    works_.push_back(segment_work(graph_, segment));
  }

  devices_.resize(graph_.devices.size());
  if (interferes_ || options_.one_by_one) runs_.resize(graph_.devices.size());
  record_.start_s.assign(tasks, 0);
  record_.finish_s.assign(tasks, 0);
  record_.last_predecessor.assign(tasks, -1);
  if (has_host_) record_.host_begin_s.assign(tasks, 0);
  record_.previous_finish_s.assign(graph_.devices.size(), 0);
  record_.step_finish_s.assign(graph_.devices.size() * static_cast<std::size_t>(options_.steps), 0);
  record_.link_bytes.assign(graph_.links.size(), 0);
}

SimulationRecord Executor::run() {
  step_state(0);
  for (std::int32_t task = 0; task < task_count_; ++task)
    if (predecessors_[task] == 0) ready_.push_back({task, 0});
  drain();
  if (network_) network_->run();
  ensure(task_count_ == 0 || (steps_.empty() && first_step_ == options_.steps),
         "every task of a step graph runs: it has no cycle");
  std::stable_sort(record_.rate_changes.begin(), record_.rate_changes.end(),
                   [](const auto& a, const auto& b) { return a.device < b.device; });
  return std::move(record_);
}

Executor::Step& Executor::step_state(std::int32_t step) {
  while (first_step_ + static_cast<std::int32_t>(steps_.size()) <= step) {
    const bool first = first_step_ == 0 && steps_.empty();
    Step& added = steps_.emplace_back();
    added.missing = predecessors_;
    added.left = task_count_;
    if (!first)
      for (std::int32_t task = 0; task < task_count_; ++task)
        added.missing[task] += wrap_predecessors_[task];
  }
  return steps_[static_cast<std::size_t>(step - first_step_)];
}

Network& Executor::network() {
  NetworkListener& listener = *this;
  if (!network_) network_ = std::make_unique<Network>(graph_, listener);
  return *network_;
}

void Executor::woken() { drain(); }

void Executor::flow_done(std::int32_t transfer) {
  ++record_.event_count;
  now_s_ = std::max(now_s_, network_->now_s());
  Transfer& of = transfers_[transfer];
  if (--of.flows_left == 0) {
    free_transfers_.push_back(transfer);
    finish(of.instance);
  }
  drain();
}

/// Handles everything up to the date that the network may have reached, then asks to be woken.
/// While no flow runs nothing can come from the network, and the executor runs ahead of it.
void Executor::drain() {
  for (;;) {
    start_ready();
    if (!queue_.empty() && queue_.next_s() <= now_s_) {
      handle(queue_.pop());
      continue;
    }
    if (!pending_flows_.empty()) {
      if (network().now_s() < now_s_) {
        network().wake_at(now_s_);
        return;
      }
      start_flows();
      continue;
    }
    if (queue_.empty()) return;
    if (network_ && network_->live_flows() > 0 && network_->now_s() < queue_.next_s()) {
      network_->wake_at(queue_.next_s());
      return;
    }
    now_s_ = queue_.next_s();
  }
}

void Executor::handle(const Event& event) {
  if (event.kind == EventKind::CommPhase) {
    ++record_.event_count;
    end_comm_phase({event.target, event.detail});
    return;
  }
  DeviceState& device = devices_[event.target];
  if (event.detail != device.generation) return;  // predicted at another rate
  ++record_.event_count;
  if (options_.one_by_one) {
    SegmentRun& run = runs_[event.target];
    if (!run.done()) run.finish_item(now_s_);
    if (!run.done()) {
      predict(event.target);
      return;
    }
  }
  device.last_finish_s = now_s_;
  record_.step_finish_s[static_cast<std::size_t>(device.step) * devices_.size() +
                        static_cast<std::size_t>(event.target)] = now_s_;
  finish({std::exchange(device.task, -1), device.step});
}

void Executor::start_ready() {
  while (next_ready_ < ready_.size()) {
    const Instance instance = ready_[next_ready_++];
    if (reported(instance.step)) record_.start_s[instance.task] = now_s_;
    if (graph_.tasks[instance.task].kind == TaskKind::Compute)
      start_compute(instance);
    else
      start_comm(instance);
  }
  ready_.clear();
  next_ready_ = 0;
}

void Executor::signal(Step& step, Instance successor, std::int32_t predecessor) {
  if (--step.missing[successor.task] > 0) return;
  if (reported(successor.step)) record_.last_predecessor[successor.task] = predecessor;
  ready_.push_back(successor);
}

void Executor::finish(Instance instance) {
  const auto [task, step] = instance;
  if (reported(step)) record_.finish_s[task] = now_s_;
  if (graph_.tasks[task].kind == TaskKind::Comm) change_interference(graph_.tasks[task], -1);
  Step& state = step_state(step);
  for (std::int32_t i = graph_.first_successor[task]; i < graph_.first_successor[task + 1]; ++i)
    signal(state, {graph_.successor[i], step}, task);
  const std::int32_t first_wrap = graph_.first_wrap[task], end_wrap = graph_.first_wrap[task + 1];
  if (first_wrap < end_wrap && step + 1 < options_.steps) {
    Step& next = step_state(step + 1);
    for (std::int32_t i = first_wrap; i < end_wrap; ++i)
      signal(next, {graph_.wrap[i], step + 1}, -2 - task);
  }
  if (--state.left == 0) step_finished(step);
}

/// Tasks that wait for nothing begin with their step: when the step before is over.
void Executor::step_finished(std::int32_t step) {
  if (reported(step)) record_.end_s = now_s_;
  if (reported(step + 1)) record_.begin_s = now_s_;
  if (!reported(step)) {
    step_state(step + 1);
    for (const std::int32_t task : roots_) ready_.push_back({task, step + 1});
  }
  while (!steps_.empty() && steps_.front().left == 0) {
    steps_.pop_front();
    ++first_step_;
  }
}

}  // namespace rehearse
