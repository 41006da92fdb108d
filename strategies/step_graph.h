#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "plan/ids.h"
#include "plan/timeline.h"

namespace rehearse {

/// What a transfer is for; exposed communication is reported by it.
enum class CommKind : std::uint8_t {
  Tensor,     ///< inside layers, between tensor ranks
  Context,    ///< inside attention, between context ranks
  Data,       ///< gradient reduction
  Parameter,  ///< gathers of sharded parameters
  Pipeline,   ///< activations and their gradients between stages
  Control,    ///< scalars: gradient norm, loss
  Expert,     ///< tokens to their experts and back
  Host,       ///< copies to and from host memory, and what the host does with them
};
inline constexpr int kCommKindCount = 8;
const char* comm_kind_name(CommKind kind);

/// What a piece of computation is for; compute time is reported by it.
enum class WorkKind : std::uint8_t {
  Gemm,
  Attention,
  Elementwise,
  Recompute,
  Optimizer,
  TensorComm /* a folded group's collective */
};
inline constexpr int kWorkKindCount = 6;
const char* work_kind_name(WorkKind kind);

/// One operator inside a segment, or one collective of a folded tensor group.
struct SegmentItem {
  double seconds = 0;      ///< alone on the device, launch excluded
  double bytes = 0;        ///< payload of a folded collective
  double hides_s = 0;      ///< of a tensor collective that runs beside this operator
  double per_load_s = 0;   ///< more seconds for each unit of the task's load
  std::int32_t label = 0;  ///< index into StepGraph::labels
  std::int32_t layer = -1;
  std::int32_t launches = 0;  ///< of the segment up to and with this item; filled by add_segment
  WorkKind work = WorkKind::Gemm;
  std::int32_t hidden_label = 0;  ///< of the collective beside it
};

/// Operators that a device does one after the other without waiting for anyone: one event of the
/// simulation. Shared by all tasks that do the same. With launches of λ seconds each, item i may
/// not start before host_begin + launches_i·λ; so the segment ends at
///   max(start + seconds, host_begin + host_path_s),
///   host_path_s = max over i of (launches_i·λ + Σ_{j≥i} seconds_j)   (max-plus form of the chain).
/// The collectives of a folded tensor group need no launch, as those of an unfolded one do not.
struct Segment {
  std::int32_t first_item = 0, item_count = 0;
  double seconds = 0;      ///< Σ of its items
  double host_path_s = 0;  ///< 0 when launches cost nothing
  double launch_s = 0;     ///< λ; the host is busy launch_count · launch_s
  std::int32_t launch_count = 0;
};

/// A GPU of the simulation. It stands for `members` GPUs that do the same at the same time:
/// one when nothing is folded.
struct Device {
  Rank representative;
  std::int32_t members = 1;
  std::int32_t stage = 0;
  std::int32_t replica = 0;  ///< data-parallel index of the representative
  double speed = 1;          ///< computing rate; segments take seconds / speed
  double mean_busy = 1;      ///< computing time of its average member, over that of the slowest
};

/// A capacity that flows share in the simulation. It stands for `members` links of the cluster
/// that carry the same traffic.
struct SimLink {
  double bandwidth_bytes_per_s = 0;
  std::int32_t members = 1;
  LinkId representative;
  /// Bytes a step of a link that can never be the narrowest on any flow's way: no hop names it,
  /// and its traffic is counted here instead (of one member).
  double carried_bytes = 0;
};

/// One flow of a pattern: `bytes_factor` · task bytes along `first_hop … first_hop+hop_count`.
struct PatternFlow {
  double bytes_factor = 1;
  std::int32_t first_hop = 0, hop_count = 0;
};
/// A flow's use of a link: it stands for `weight` equal flows over each link of the class, so it
/// consumes weight times its own rate there.
struct Hop {
  std::int32_t link = 0;
  std::int32_t weight = 1;
};

/// The network side of a transfer or collective: flows that start together and are done when
/// all are done. No flows: the task's own seconds are its whole duration.
struct Pattern {
  std::int32_t first_flow = 0, flow_count = 0;
};

enum class TaskKind : std::uint8_t { Compute, Comm };

/// A node of the graph. Compute occupies its device's compute stream. Comm first waits `seconds`
/// (latency, or its whole duration), then its pattern's flows run; while it runs it holds a share
/// of the SMs of every device of its group.
struct Task {
  TaskKind kind = TaskKind::Compute;
  CommKind comm = CommKind::Tensor;
  Stream stream = Stream::Compute;
  bool overlaps = false;  ///< Comm: meant to run beside computation (for the timeline only)
  /// Compute: the host begins to issue it no sooner than it may start. A synchronised transfer
  /// before it has kept the host from running ahead.
  bool host_waits = false;
  std::int16_t chunk = -1;
  std::int32_t micro_batch = -1;
  std::int32_t device = 0;    ///< Compute: the device. Comm: index into `groups`
  std::int32_t payload = -1;  ///< Compute: the segment. Comm: the pattern, −1 for none
  std::int32_t label = 0;     ///< index into labels: "forward", "backward", "grad_all_reduce", …
  double seconds = 0;         ///< Comm: latency before the flows, or the whole duration
  double bytes = 0;           ///< Comm: size that scales the flows
  double rank_bytes = 0;      ///< Comm: payload each member rank hands to its communicator
  double load = 0;  ///< Compute: of its micro-batch; items take seconds + load·per_load_s
};

/// Devices that take part in a communication (first = sender for a transfer).
struct Group {
  std::int32_t first_device = 0, device_count = 0;
};

/// One training step as a graph of tasks. A successor starts when all its predecessors are done;
/// `wrap` successors are those in the next step. The graph without wrap edges is acyclic, and the
/// compute tasks of a device form a chain (so do the tasks of each of its other streams).
/// All arrays are flat; a graph of 1,024 unfolded GPUs has some 4 million tasks.
struct StepGraph {
  std::vector<std::string> labels;
  std::vector<Device> devices;
  std::vector<SegmentItem> items;
  std::vector<Segment> segments;
  std::vector<SimLink> links;
  std::vector<Hop> hops;
  std::vector<PatternFlow> flows;
  std::vector<Pattern> patterns;
  std::vector<std::int32_t> group_devices;
  std::vector<Group> groups;
  std::vector<Task> tasks;
  /// Successors of task t: successor[first_successor[t] … first_successor[t+1]), likewise wrap.
  std::vector<std::int32_t> first_successor, successor;
  std::vector<std::int32_t> first_wrap, wrap;
};

/// Collects edges while tasks are made, then sorts them into the graph's flat arrays, keeping
/// insertion order within a source. O(tasks + edges).
class EdgeList {
 public:
  void add(std::int32_t from, std::int32_t to) { edges_.push_back({from, to}); }
  void add_wrap(std::int32_t from, std::int32_t to) { wraps_.push_back({from, to}); }
  void finish(StepGraph& graph);

 private:
  struct Edge {
    std::int32_t from, to;
  };
  std::vector<Edge> edges_, wraps_;
};

/// Appends a segment and fills its derived times from its items.
std::int32_t add_segment(StepGraph& graph, const std::vector<SegmentItem>& items, double launch_s);

}  // namespace rehearse
