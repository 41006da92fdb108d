#pragma once
#include <string>

#include "runtime/train/trainer.h"

namespace rehearse {

/// What `rehearse-device train` was asked to do.
struct TrainRequest {
  std::string plan;             ///< a plan/1 file
  std::string data;             ///< a token file, or a text by its bytes; empty: the shipped one
  std::string device;           ///< "cpu", "cuda:0"; empty: GPUs where each rank can have one
  std::int64_t steps = 0;       ///< of the whole run; 0: what the plan's tokens make, or 100
  int threads = 0;              ///< of a rank; 0: this machine's, shared among its ranks
  double predicted_step_s = 0;  ///< by a simulation; 0: what the plan says, if anything
  double deadline_s = 120;      ///< of every wait for another rank
  bool json = false;
  bool local = false;                 ///< start all ranks here, whatever else
  std::string checkpoint;             ///< folder of checkpoints; empty: none are written
  std::int64_t checkpoint_every = 0;  ///< steps; 0: at the end only
  bool resume = false;
  int restarts = 0;            ///< times that a failed run goes on from its last checkpoint
  std::string timeline;        ///< folder for measured timelines; empty: none
  std::string states;          ///< file that tells the launcher how this rank is doing; empty: none
  bool on_terminal = false;    ///< whoever started the ranks writes to a terminal
  double reference_batch = 0;  ///< batch that the rate was chosen for; 0: the plan's
  TrainOptions options;
};

}  // namespace rehearse
