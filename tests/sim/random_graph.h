#pragma once
#include "sim/simulate.h"
#include "strategies/step_graph.h"

namespace rehearse {

/// What a random graph may contain.
struct RandomGraphOptions {
  bool launches = false;  ///< segments whose items the host issues one by one
  bool speeds = false;    ///< devices of different speed
};

/// A step graph drawn from a seed that keeps all promises of `StepGraph`: chains on every stream,
/// no cycle, wrap edges from each chain's end to its begin and from some transfers to
/// computation. Two to eight devices, some hundred tasks, flows with weights.
StepGraph random_graph(unsigned seed, const RandomGraphOptions& options);

/// Shares of every kind of communication, drawn from a seed.
Interference random_interference(unsigned seed);

}  // namespace rehearse
