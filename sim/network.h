#pragma once
#include <cstdint>
#include <memory>

#include "strategies/step_graph.h"

namespace rehearse {

/// What the network tells the executor while it runs.
class NetworkListener {
 public:
  virtual void woken() = 0;                     ///< the date of `wake_at` has come
  virtual void flow_done(std::int32_t id) = 0;  ///< all bytes of a flow have arrived

 protected:
  ~NetworkListener() = default;
};

/// The links of a step graph in SimGrid, and the flows that share them max-min fairly. A flow of
/// weight w on a link takes w times its rate there. One network a process at a time; its clock
/// begins at 0.
///
/// Only this class knows SimGrid. `run` gives control to SimGrid's loop and returns when no flow
/// runs and no wake-up is set; everything else is called before it or from the listener.
class Network {
 public:
  Network(const StepGraph& graph, NetworkListener& listener);
  ~Network();
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  double now_s() const;
  int live_flows() const;

  /// Starts a flow now. False if it is over at once: nothing to send, or no link to cross.
  /// `id` comes back in `flow_done`.
  bool start(const PatternFlow& flow, double bytes, std::int32_t id);

  /// Asks for one call of `woken` at a date; replaces the wake-up asked for before.
  void wake_at(double date_s);

  void run();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace rehearse
