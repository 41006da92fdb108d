#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "sim/event_queue.h"
#include "sim/network.h"
#include "sim/segment_run.h"
#include "sim/simulate.h"
#include "strategies/step_graph.h"

namespace rehearse {

/// Walks a step graph several steps in a row. Ends of computation and of latencies are events of
/// its own queue; only transfers go to the network, and while none runs the network's clock is
/// not consulted. A task is one counter of missing predecessors and, at the end, one record.
///
/// A task may be signalled before the step before it is over, so each step has its own counters;
/// they live from the first signal to the last task of the step.
class Executor : private NetworkListener {
 public:
  Executor(const StepGraph& graph, const SimulationOptions& options);
  SimulationRecord run();

 private:
  struct Instance {
    std::int32_t task, step;
  };
  /// Counters of one step.
  struct Step {
    std::vector<std::int32_t> missing;  // predecessors of each task that are not done
    std::int64_t left = 0;              // tasks that are not done
  };
  /// A GPU's compute stream and host.
  struct DeviceState {
    std::int32_t task = -1;       // running, −1: idle
    std::int32_t step = -1;       // of the running or last task
    std::int32_t generation = 0;  // of the prediction of its end; older events are void
    double last_finish_s = 0;
    double host_clock_s = 0;
    double start_s = 0;        // of the running task
    HostIssue host;            // likewise
    bool followed = false;     // likewise: its items are in runs_
    double rate = 1;           // computing rate that running transfers leave
    double recorded_rate = 1;  // as of the last RateChange
    std::int32_t running[kCommKindCount] = {};
  };
  /// A Comm whose flows run.
  struct Transfer {
    Instance instance{};
    std::int32_t flows_left = 0;
  };

  void woken() override;
  void flow_done(std::int32_t transfer) override;

  void prepare();
  void signal(Step& step, Instance successor, std::int32_t predecessor);
  void start_ready();
  void start_compute(Instance instance);
  void start_comm(Instance instance);
  void end_comm_phase(Instance instance);
  void start_flows();
  void finish(Instance instance);
  void step_finished(std::int32_t step);
  void handle(const Event& event);
  void drain();

  HostIssue issue(Instance instance, const Segment& segment);
  void follow(std::int32_t device, double start_rate);
  void predict(std::int32_t device);
  void change_interference(const Task& task, std::int32_t by);
  void record_rate(std::int32_t device);
  Step& step_state(std::int32_t step);
  Network& network();
  bool reported(std::int32_t step) const { return step == options_.steps - 1; }

  const StepGraph& graph_;
  const SimulationOptions options_;
  const std::int32_t task_count_;
  bool has_host_ = false;
  bool interferes_ = false;
  SimulationRecord record_;

  std::vector<SegmentWork> works_;               // by segment
  std::vector<std::int32_t> predecessors_;       // in the same step
  std::vector<std::int32_t> wrap_predecessors_;  // in the step before
  std::vector<std::int32_t> roots_;              // tasks without any predecessor
  std::deque<Step> steps_;                       // from first_step_ on; references stay valid
  std::int32_t first_step_ = 0;

  double now_s_ = 0;
  EventQueue queue_;
  std::vector<Instance> ready_;
  std::size_t next_ready_ = 0;
  std::vector<DeviceState> devices_;
  std::vector<SegmentRun> runs_;  // by device; only where rates change or items are events
  std::vector<Transfer> transfers_;
  std::vector<std::int32_t> free_transfers_;
  std::vector<Instance> pending_flows_;  // to start at now_s_, once the network's clock is there
  std::unique_ptr<Network> network_;     // made for the first flow
};

}  // namespace rehearse
