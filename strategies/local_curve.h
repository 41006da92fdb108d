#pragma once
#include "strategies/collective_cost.h"

namespace rehearse {

/// Time of a collective as a part that does not grow with the message and one that does:
/// start_s + ramp_s + bytes · per_byte_s. The ramp is what a message of this size loses while the
/// pipeline of chunks fills and drains; it grows with the root of the size.
struct CurveTime {
  double start_s = 0;
  double ramp_s = 0;
  double per_byte_s = 0;
};

/// Time inside one NVLink domain with nothing else on it, from curves fitted to measurements:
///   base + steps · hop + (bus_bytes · wire + bytes / n · copy) · (1 + √(ramp / bytes))
/// where a ring takes 2(n−1) or n−1 steps and bus_bytes = bytes · steps / n as nccl-tests counts
/// them; `copy` is the rank's own share, which stays on the GPU. One set of constants a GPU
/// generation; `wire` scales with the NVLink rate. Constants and their errors
/// are in the .cpp. Over several nodes it is the part of a node: what its NVLinks take when a ring
/// of all ranks, or an NVLS group of each node's, runs over them. REQUIRES: NVLink inside nodes.
CurveTime nvlink_time(CollectiveKind kind, const CommunicatorShape& shape,
                      CollectiveAlgorithm algorithm, CollectiveProtocol protocol, double bytes);

}  // namespace rehearse
