#include "strategies/collective_cost.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <vector>

#include "strategies/edge_traffic.h"
#include "tests/catch.h"
#include "tests/strategies/collective_shapes.h"

namespace rehearse {
namespace {

using Algorithm = CollectiveAlgorithm;
using Kind = CollectiveKind;
using shapes::a100;
using shapes::b200;
using shapes::h100;

constexpr double kMib = 1024 * 1024, kGib = 1024 * kMib;
constexpr Kind kKinds[] = {Kind::AllReduce, Kind::AllGather, Kind::ReduceScatter,
                           Kind::Broadcast, Kind::AllToAll,  Kind::SendReceive};

double seconds(Kind kind, const CommunicatorShape& shape, double bytes) {
  return nccl_choice(kind, shape, bytes).seconds(bytes);
}

/// All-reduce bus bandwidth as nccl-tests prints it, GB/s.
double bus_gbps(const CommunicatorShape& shape, double bytes) {
  const double n = shape.ranks();
  return bytes * 2 * (n - 1) / n / seconds(Kind::AllReduce, shape, bytes) * 1e-9;
}

/// Edges of each node in NCCL's binary tree over n nodes, by its definition: the parent of i
/// flips i's lowest set bit and sets the next, or only clears it where that leaves the range.
std::vector<int> degrees(int n) {
  std::vector<int> degree(static_cast<std::size_t>(n), 0);
  for (int i = 1; i < n; ++i) {
    const int bit = i & -i;
    int parent = (i ^ bit) | (bit << 1);
    if (parent >= n) parent = i ^ bit;
    ++degree[static_cast<std::size_t>(i)];
    ++degree[static_cast<std::size_t>(parent)];
  }
  return degree;
}

/// The most any node sends when both trees carry half: the second is mirrored for an even
/// number of nodes, shifted by one for an odd number.
double most_sent_by_trees(int n) {
  const std::vector<int> degree = degrees(n);
  int most = 0;
  for (int i = 0; i < n; ++i) {
    const int other = n % 2 == 0 ? n - 1 - i : (i + 1) % n;
    most = std::max(most,
                    degree[static_cast<std::size_t>(i)] + degree[static_cast<std::size_t>(other)]);
  }
  return .5 * most;
}

}  // namespace

TEST_CASE("What leaves a node is what the edges of its ring or trees carry") {
  for (int nodes = 2; nodes <= 300; ++nodes) {
    CAPTURE(nodes);
    for (const int per_node : {1, 4, 8}) {
      const CommunicatorShape shape = h100(nodes, per_node);
      const double n = shape.ranks();
      for (const Algorithm tree : {Algorithm::Tree, Algorithm::NvlsTree})
        CHECK(edge_traffic(Kind::AllReduce, tree, shape).node_sent == most_sent_by_trees(nodes));
      CHECK(edge_traffic(Kind::AllReduce, Algorithm::Ring, shape).node_sent ==
            Approx(2 * (n - 1) / n).epsilon(1e-14));
      CHECK(edge_traffic(Kind::ReduceScatter, Algorithm::Ring, shape).ring_edge ==
            Approx((n - 1) / n).epsilon(1e-14));
      const EdgeTraffic all = edge_traffic(Kind::AllToAll, Algorithm::Direct, shape);
      CHECK(all.node_sent == Approx(all.pair * per_node * (n - per_node)).epsilon(1e-14));
    }
  }
  CHECK(edge_traffic(Kind::AllReduce, Algorithm::Ring, h100(1, 8)).node_sent == 0);
}

TEST_CASE("Large messages between nodes run at the rate of the NICs") {
  // A ring's bus bandwidth: 8 · 25 GB/s · 0.96 = 192 on DGX A100 (NCCL issue 812), 384 with
  // 8 · 50 GB/s (16 × H100: 384 to 391, nccl-tests).
  const double bytes = 64 * kGib;
  CHECK(bus_gbps(a100(2, 8), bytes) == Approx(192).epsilon(.01));
  const CollectiveChoice gather = nccl_choice(Kind::AllGather, a100(4, 8), bytes);
  CHECK(gather.algorithm == Algorithm::Ring);
  CHECK(gather.bandwidth_bytes_per_s == Approx(192e9 * 32 / 31).epsilon(1e-9));
  // On Hopper the NVLinks inside the nodes are as busy as the NICs: within 2 % of 384.
  CHECK(nccl_choice(Kind::AllGather, h100(4, 8), bytes).bandwidth_bytes_per_s ==
        Approx(384e9 * 32 / 31).epsilon(.02));
  CHECK(nccl_choice(Kind::SendReceive, h100(2, 1), bytes).bandwidth_bytes_per_s ==
        Approx(48e9).epsilon(1e-9));
  // All-to-all: each GPU sends (n − R)/n of its buffer through its NIC.
  CHECK(nccl_choice(Kind::AllToAll, h100(4, 8), bytes).bandwidth_bytes_per_s ==
        Approx(48e9 * 32 / 24).epsilon(1e-9));
}

TEST_CASE("Collectives that go both ways get what NICs keep of their rate then") {
  const double bytes = 64 * kGib;
  const auto rate = [&](Kind kind, int nodes, double duplex) {
    CommunicatorShape shape = a100(nodes, 8);
    shape.nic_goodput = .5;
    shape.nic_duplex = duplex;
    return nccl_choice(kind, shape, bytes).bandwidth_bytes_per_s;
  };
  for (const Kind kind :
       {Kind::AllReduce, Kind::AllGather, Kind::ReduceScatter, Kind::AllToAll, Kind::Broadcast})
    CHECK(rate(kind, 4, .75) == Approx(.75 * rate(kind, 4, 1)).epsilon(1e-9));
  // A message, and a broadcast to the only other node, go one way.
  CHECK(rate(Kind::SendReceive, 2, .75) == rate(Kind::SendReceive, 2, 1));
  CHECK(rate(Kind::Broadcast, 2, .75) == rate(Kind::Broadcast, 2, 1));
}

TEST_CASE("Two nodes of H200 with NVLS trees take what was published") {
  // Bus bandwidth of 2 × 8 H200, 8 × 400 Gbit/s, GB/s (Dell H200 with BlueField-3; Run:ai).
  const struct {
    double mib, gbps;
  } published[] = {{32, 227},  {64, 273},   {128, 339}, {256, 395},
                   {512, 433}, {1024, 459}, {8192, 486}};
  for (const auto& row : published) {
    CAPTURE(row.mib);
    CHECK(nccl_choice(Kind::AllReduce, h100(2, 8), row.mib * kMib).algorithm ==
          Algorithm::NvlsTree);
    CHECK(bus_gbps(h100(2, 8), row.mib * kMib) == Approx(row.gbps).epsilon(.10));
  }
}

TEST_CASE("A longer way between nodes adds to every step") {
  CommunicatorShape near = h100(16, 1), far = near;
  near.nic_latency_s = 2.3e-6;
  far.nic_latency_s = 12.3e-6;
  const auto extra = [&](Kind kind, double bytes) {
    return nccl_choice(kind, far, bytes).latency_s - nccl_choice(kind, near, bytes).latency_s;
  };
  CHECK(extra(Kind::SendReceive, 1024) == Approx(1e-5).epsilon(1e-9));
  REQUIRE(nccl_choice(Kind::AllReduce, far, 8).algorithm == Algorithm::Tree);
  CHECK(extra(Kind::AllReduce, 8) == Approx(2 * 4 * 1e-5).epsilon(1e-9));
  REQUIRE(nccl_choice(Kind::AllGather, far, kGib).algorithm == Algorithm::Ring);
  CHECK(extra(Kind::AllGather, kGib) == Approx(15 * 1e-5).epsilon(1e-9));
}

TEST_CASE("Every choice is a time that grows with the message and never falls far back") {
  const std::vector<CommunicatorShape> all = {
      h100(1, 2),  h100(1, 8),  h100(2, 8), h100(16, 8),     h100(128, 8),
      h100(16, 1), h100(2, 1),  a100(1, 4), a100(4, 8),      a100(64, 1),
      b200(1, 8),  b200(1, 72), b200(8, 8), shapes::l40s(2), shapes::l40s(8)};
  for (std::size_t s = 0; s < all.size(); ++s)
    for (const Kind kind : kKinds) {
      if (kind == Kind::SendReceive && all[s].ranks() != 2) continue;
      double longest = 0;
      for (double bytes = 8; bytes < 64 * kGib; bytes *= 1.3) {
        CAPTURE(s, collective_name(kind), bytes);
        const CollectiveChoice choice = nccl_choice(kind, all[s], bytes);
        REQUIRE(std::isfinite(choice.seconds(bytes)));
        REQUIRE(choice.latency_s > 1e-6);
        REQUIRE(choice.bandwidth_bytes_per_s > 0);
        REQUIRE(choice.channels >= 1);
        // NCCL's switches of protocol may shorten a call, as its measured curves show too.
        CHECK(choice.seconds(bytes) > .75 * longest);
        longest = std::max(longest, choice.seconds(bytes));
      }
    }
}

TEST_CASE("Faster links never slow a large message down") {
  for (const Kind kind : kKinds) {
    CommunicatorShape slow = h100(2, 1), fast = slow;
    fast.nic_bandwidth_bytes_per_s *= 2;
    CAPTURE(collective_name(kind));
    CHECK(seconds(kind, fast, kGib) <= seconds(kind, slow, kGib));
    CommunicatorShape narrow = h100(1, 2), wide = narrow;
    narrow.nvlink_bandwidth_bytes_per_s = 200e9;  // H800
    CHECK(seconds(kind, wide, kGib) < seconds(kind, narrow, kGib));
  }
}

TEST_CASE("A choice costs microseconds at most") {
  const CommunicatorShape shape = h100(128, 8);
  constexpr int kCalls = 20000;
  double sum = 0;
  const std::clock_t begin = std::clock();  // processor time: other programs do not count
  for (int i = 0; i < kCalls; ++i) sum += seconds(Kind::AllReduce, shape, 1e6 + i);
  const double each_s = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC / kCalls;
  CHECK(sum > 0);
  WARN("a choice takes " << each_s * 1e9 << " ns");
  CHECK(each_s < 20e-6);  // generous: debug builds and sanitizers
}

}  // namespace rehearse
