#include "tests/sim/random_graph.h"

#include <algorithm>
#include <array>
#include <map>
#include <random>
#include <vector>

#include "tests/sim/graph_builder.h"

namespace rehearse {
namespace {

class Draw {
 public:
  explicit Draw(unsigned seed) : random_(seed) {}
  int whole(int from, int to) { return std::uniform_int_distribution<int>(from, to)(random_); }
  double real(double from, double to) {
    return std::uniform_real_distribution<double>(from, to)(random_);
  }
  bool chance(double p) { return real(0, 1) < p; }

 private:
  std::mt19937_64 random_;
};

class RandomGraph {
 public:
  RandomGraph(unsigned seed, const RandomGraphOptions& options) : draw_(seed), options_(options) {}

  StepGraph make() {
    const int devices = draw_.whole(2, 8);
    for (int i = 0; i < devices; ++i)
      build_.device(draw_.whole(0, 2), options_.speeds ? draw_.real(0.5, 1.5) : 1.0, i);
    last_compute_.assign(static_cast<std::size_t>(devices), -1);
    for (const char* name : {"forward", "backward", "reduce"}) build_.label(name);
    for (int i = draw_.whole(2, 8); i > 0; --i) build_.link(1e9 * draw_.whole(1, 50));
    for (int i = draw_.whole(2, 6); i > 0; --i) make_segment();
    for (int i = draw_.whole(1, 5); i > 0; --i) make_pattern();
    for (int i = draw_.whole(20, 120); i > 0; --i) {
      if (draw_.chance(0.65))
        add_compute();
      else
        add_comm();
    }
    for (const std::int32_t comm : comms_)
      if (draw_.chance(0.3)) build_.wrap(comm, computes_[draw_.whole(0, count(computes_) - 1)]);
    for (const auto& [stream, ends] : streams_) build_.wrap(ends.second, ends.first);
    return build_.finish();
  }

 private:
  template <class Values>
  static int count(const Values& values) {
    return static_cast<int>(values.size());
  }

  void make_segment() {
    std::vector<SegmentItem> items;
    for (int i = draw_.whole(1, 12); i > 0; --i)
      items.push_back({.seconds = draw_.chance(0.05) ? 0.0 : draw_.real(2e-6, 80e-6),
                       .bytes = draw_.real(1, 1e6),
                       .label = draw_.whole(0, 2),
                       .layer = draw_.whole(-1, 9),
                       .work = static_cast<WorkKind>(draw_.whole(0, kWorkKindCount - 1))});
    const double launch_s = options_.launches && draw_.chance(0.8) ? draw_.real(1e-6, 40e-6) : 0;
    segments_.push_back(build_.segment(items, launch_s));
  }

  void make_pattern() {
    std::vector<GraphBuilder::FlowSpec> flows(static_cast<std::size_t>(draw_.whole(0, 4)));
    const int links = count(build_.graph().links);
    for (auto& flow : flows) {
      flow.bytes_factor = draw_.real(0.1, 2);
      for (int l = 0; l < links; ++l)
        if (draw_.chance(0.4)) flow.hops.push_back({l, draw_.whole(1, 4)});
    }
    patterns_.push_back(build_.pattern(flows));
  }

  void add_compute() {
    const int device = draw_.whole(0, count(last_compute_) - 1);
    const std::int32_t task =
        build_.compute_segment(device, segments_[draw_.whole(0, count(segments_) - 1)]);
    last_compute_[device] = task;
    computes_.push_back(task);
    if (!comms_.empty() && draw_.chance(0.5))
      build_.edge(comms_[draw_.whole(std::max(0, count(comms_) - 6), count(comms_) - 1)], task);
  }

  void add_comm() {
    if (computes_.empty()) return;
    std::vector<std::int32_t> group;
    for (int d = 0; d < count(last_compute_); ++d)
      if (draw_.chance(0.4)) group.push_back(d);
    if (group.empty()) group.push_back(0);
    const auto kind = static_cast<CommKind>(draw_.whole(0, kCommKindCount - 1));
    const std::int32_t task =
        build_.comm(kind, build_.group(group), draw_.chance(0.1) ? 0 : draw_.real(1e-6, 200e-6),
                    draw_.chance(0.6) ? patterns_[draw_.whole(0, count(patterns_) - 1)] : -1,
                    draw_.real(1, 1e6));
    const auto stream = static_cast<Stream>(draw_.whole(1, 4));
    build_.graph().tasks[task].stream = stream;
    for (const std::int32_t device : group) {
      if (last_compute_[device] >= 0 && draw_.chance(0.7)) build_.edge(last_compute_[device], task);
      auto& ends = streams_.try_emplace({device, stream}, task, -1).first->second;
      if (ends.second >= 0) build_.edge(ends.second, task);
      ends.second = task;
    }
    comms_.push_back(task);
  }

  Draw draw_;
  RandomGraphOptions options_;
  GraphBuilder build_;
  std::vector<std::int32_t> segments_, patterns_, computes_, comms_, last_compute_;
  /// First and last Comm of each device's streams.
  std::map<std::pair<std::int32_t, Stream>, std::pair<std::int32_t, std::int32_t>> streams_;
};

}  // namespace

StepGraph random_graph(unsigned seed, const RandomGraphOptions& options) {
  return RandomGraph(seed, options).make();
}

Interference random_interference(unsigned seed) {
  Draw draw(seed + 1000003);
  Interference interference;
  for (double& share : interference.compute_share)
    share = draw.chance(0.2) ? 0 : draw.real(0.01, 0.4);
  interference.max_share = draw.real(0.3, 0.7);
  return interference;
}

}  // namespace rehearse
