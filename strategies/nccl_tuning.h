#pragma once
#include "strategies/collective_cost.h"
#include "strategies/nccl_graph.h"

namespace rehearse {

/// NCCL's own tuning model of one call: what `ncclGroupSimulateEnd` would answer. It decides the
/// algorithm and protocol; its time is optimistic (collective_cost.h says by how much).
/// Source of formulas and constants: NCCL 2.28.9 src/graph/tuning.cc, src/enqueue.cc.
struct NcclPrediction {
  CollectiveAlgorithm algorithm = CollectiveAlgorithm::Ring;
  CollectiveProtocol protocol = CollectiveProtocol::Simple;
  double latency_s = 0;
  double bandwidth_bytes_per_s = 0;  ///< 0: not available for this call
  double seconds(double bytes) const { return latency_s + bytes / bandwidth_bytes_per_s; }
};

/// One algorithm with one protocol for a call of `bytes`. REQUIRES: kind is one that NCCL tunes
/// (all-reduce, all-gather, reduce-scatter, broadcast).
NcclPrediction nccl_prediction(CollectiveKind kind, const CommunicatorShape& shape,
                               const NcclGraphs& graphs, CollectiveAlgorithm algorithm,
                               CollectiveProtocol protocol, double bytes);

/// The fastest of all, as NCCL picks it. Same requirement.
NcclPrediction nccl_fastest(CollectiveKind kind, const CommunicatorShape& shape,
                            const NcclGraphs& graphs, double bytes);

}  // namespace rehearse
