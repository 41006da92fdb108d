#include "app/overview.h"

namespace rehearse {

std::string overview_text() {
  return R"(rehearse: rehearse a distributed LLM training run before paying for it

  rehearse run scenarios/gpt3-175b-dgx-h100.json     compare plans on 128 DGX H100
  rehearse run scenarios/desktop.json --trace t.json see where a step's time goes
  rehearse check my-scenario.json                    find mistakes before simulating

  run         simulate a scenario: its plans, what-ifs and sweeps
  check       validate scenario files, print what follows from them
  topology    analyse a scenario's cluster as a graph
  list        models, GPUs, nodes, topologies, strategies, scenarios
  fit         make a cost profile of a GPU from measured tables
  validate    predict measured runs and print the errors
  calibrate   fit a system's factors to its own measured runs
  compare     a measured run beside its prediction
  profile     measure this machine's GPU or CPU
  data        make a token file of a text, for training
  doctor      what this machine offers

rehearse COMMAND --help says more; so do --version, and man and completion for shells.
)";
}

const std::vector<std::string>& listable() {
  static const std::vector<std::string> names{"models",     "gpus",       "nodes",
                                              "topologies", "strategies", "scenarios"};
  return names;
}

}  // namespace rehearse
