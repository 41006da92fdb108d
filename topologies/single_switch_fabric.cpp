#include "topologies/fabric.h"

namespace rehearse {
namespace {

/// Every port on one ideal switch, whatever its number of ports.
class SingleSwitch : public Fabric {
 public:
  explicit SingleSwitch(double hop_latency) : hop_latency_s_(hop_latency) {}

  void append_way(std::int32_t, std::int32_t, std::uint64_t, Route&) const override {}
  std::int32_t switch_of(std::int32_t) const override { return 0; }
  void append_graph(const std::vector<Link>&, GraphParts& parts) const override {
    parts.vertices.push_back({.kind = VertexKind::Switch, .index = 0});
  }
  double exit_latency_s() const override { return hop_latency_s_; }

 private:
  double hop_latency_s_;
};

}  // namespace

std::unique_ptr<Fabric> make_single_switch(const FabricSpec& spec) {
  return std::make_unique<SingleSwitch>(hop_latency_s(spec));
}

}  // namespace rehearse
