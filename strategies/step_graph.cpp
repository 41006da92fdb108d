#include "strategies/step_graph.h"

#include <algorithm>

#include "plan/ensure.h"

namespace rehearse {

const char* comm_kind_name(CommKind kind) {
  switch (kind) {
    case CommKind::Tensor:
      return "tensor";
    case CommKind::Context:
      return "context";
    case CommKind::Data:
      return "data";
    case CommKind::Parameter:
      return "parameter";
    case CommKind::Pipeline:
      return "pipeline";
    case CommKind::Control:
      return "control";
    case CommKind::Expert:
      return "expert";
    case CommKind::Host:
      return "host_memory";
  }
  ensure(false, "a communication kind has a name");
  return "";
}

const char* work_kind_name(WorkKind kind) {
  switch (kind) {
    case WorkKind::Gemm:
      return "gemm";
    case WorkKind::Attention:
      return "attention";
    case WorkKind::Elementwise:
      return "elementwise";
    case WorkKind::Recompute:
      return "recompute";
    case WorkKind::Optimizer:
      return "optimizer";
    case WorkKind::TensorComm:
      return "tensor_comm";
  }
  ensure(false, "a kind of work has a name");
  return "";
}

namespace {

/// Counting sort of the edges by source; stable, so insertion order stays within a source.
template <class Edge>
void sort_by_source(const std::vector<Edge>& edges, std::size_t task_count,
                    std::vector<std::int32_t>& first, std::vector<std::int32_t>& to) {
  first.assign(task_count + 1, 0);
  to.resize(edges.size());
  for (const Edge& edge : edges) {
    ensure(edge.from >= 0 && static_cast<std::size_t>(edge.from) < task_count && edge.to >= 0 &&
               static_cast<std::size_t>(edge.to) < task_count,
           "an edge joins two tasks of the graph");
    ++first[edge.from + 1];
  }
  for (std::size_t task = 0; task < task_count; ++task) first[task + 1] += first[task];
  // `first[from]` serves as the place of the next edge, and is shifted back afterwards: no
  // second array for graphs of millions of tasks.
  for (const Edge& edge : edges) to[first[edge.from]++] = edge.to;
  for (std::size_t task = task_count; task > 0; --task) first[task] = first[task - 1];
  first[0] = 0;
}

}  // namespace

void EdgeList::finish(StepGraph& graph) {
  sort_by_source(edges_, graph.tasks.size(), graph.first_successor, graph.successor);
  edges_ = {};
  sort_by_source(wraps_, graph.tasks.size(), graph.first_wrap, graph.wrap);
  wraps_ = {};
}

std::int32_t add_segment(StepGraph& graph, const std::vector<SegmentItem>& items, double launch_s) {
  Segment segment;
  segment.first_item = static_cast<std::int32_t>(graph.items.size());
  segment.item_count = static_cast<std::int32_t>(items.size());
  segment.launch_s = launch_s;
  graph.items.insert(graph.items.end(), items.begin(), items.end());
  SegmentItem* const own = graph.items.data() + segment.first_item;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (own[i].work != WorkKind::TensorComm) ++segment.launch_count;
    own[i].launches = segment.launch_count;
  }
  // From the last item to the first: Σ_{j≥i} seconds_j grows by one item at a time.
  double rest_s = 0;
  for (std::size_t i = items.size(); i > 0; --i) {
    rest_s += own[i - 1].seconds;
    if (launch_s > 0)
      segment.host_path_s = std::max(segment.host_path_s, own[i - 1].launches * launch_s + rest_s);
  }
  segment.seconds = rest_s;
  graph.segments.push_back(segment);
  return static_cast<std::int32_t>(graph.segments.size()) - 1;
}

}  // namespace rehearse
