#pragma once
#include <atomic>
#include <string>
#include <vector>

#include "kernels/collective_curve.h"
#include "kernels/memory_overheads.h"

namespace rehearse {

/// What the GPUs of one machine do together.
struct NodeMeasurements {
  std::vector<CollectiveCurve> curves;  ///< of every number of ranks measured: 2, 4, … and all
  /// Time of a product beside an all-reduce, over that on the multiprocessors it leaves; 0: not
  /// measured.
  double overlap_slowdown = 0;
  std::string overlap_source;
  MemoryOverheads overheads;  ///< of communicators, on the first GPU
  std::string problem;        ///< what ended the measuring before its time; empty: nothing
};

/// Measures NCCL's collectives among the GPUs of this machine on buffers from 512 bytes to 1 GiB,
/// and large products beside one of them. Nothing where there are fewer than two GPUs, or where
/// this program was built without NCCL. Ends after `budget_s`, or soon after `interrupt` is set,
/// with what there is; also where a collective fails, or does not end within a minute: `problem`
/// then says so.
NodeMeasurements measure_gpu_node(double budget_s, const std::atomic<bool>& interrupt);

}  // namespace rehearse
