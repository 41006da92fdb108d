#include "sim/simulate.h"

#include "sim/executor.h"

namespace rehearse {

SimulationRecord simulate(const StepGraph& graph, const SimulationOptions& options) {
  return Executor(graph, options).run();
}

}  // namespace rehearse
