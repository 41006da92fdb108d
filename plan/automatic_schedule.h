#pragma once
#include "plan/schedule.h"

namespace rehearse {

/// What an automatic schedule is made for: times of one micro-batch on any stage, in seconds, and
/// what it keeps there in units of the activations of one micro-batch.
struct AutomaticTimes {
  double forward_s = 1, input_gradient_s = 1, weight_gradient_s = 1;
  double hop_s = 0;  ///< a transfer between neighbours
  /// Kept between the two halves of a backward: inputs and output gradients of the products.
  double kept_for_weights = 1;
};

/// The schedule of the heuristic of Qi et al. 2023 (arXiv 2401.10241, §3.1) for split backwards
/// on `stages` stages with one chunk each: as many forwards before the first backward as neither
/// the memory limit nor the first backward forbids, then forward and backward in turn, weight
/// gradients where a stage would idle at least their time or memory runs out, and shorter gaps
/// filled where they would else be the longest (both ways of filling are tried, and the schedule
/// whose slowest stage is the fastest is taken).
/// `memory_limit` in activations of a micro-batch: the number of stages makes ZB-1p, twice that
/// ZB-2p. O(stages · actions).
Schedule automatic_schedule(const AutomaticTimes& times, int stages, int micro_batches,
                            double memory_limit);

}  // namespace rehearse
