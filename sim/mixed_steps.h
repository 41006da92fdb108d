#pragma once
#include "sim/metrics.h"

namespace rehearse {

/// Of every `period` steps, one is as `metrics` says and the others as `usual`: afterwards
/// `metrics` are the mean. Parts still add up to the step. REQUIRES: the same devices and links.
void mix_metrics(const StepMetrics& usual, int period, StepMetrics& metrics);

}  // namespace rehearse
