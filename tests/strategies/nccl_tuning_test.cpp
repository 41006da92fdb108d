#include "strategies/nccl_tuning.h"

#include <string>

#include "tests/catch.h"
#include "tests/strategies/collective_shapes.h"

namespace rehearse {
namespace {

using Algorithm = CollectiveAlgorithm;
using Kind = CollectiveKind;
using Protocol = CollectiveProtocol;
using shapes::a100;
using shapes::b200;
using shapes::h100;

constexpr double kKib = 1024, kMib = 1024 * kKib, kGib = 1024 * kMib;

NcclPrediction predict(const CommunicatorShape& shape, Algorithm algorithm, Protocol protocol,
                       double bytes, Kind kind = Kind::AllReduce) {
  return nccl_prediction(kind, shape, nccl_graphs(shape), algorithm, protocol, bytes);
}

std::string choice(const CommunicatorShape& shape, double bytes, Kind kind = Kind::AllReduce) {
  const NcclPrediction best = nccl_fastest(kind, shape, nccl_graphs(shape), bytes);
  return std::string(algorithm_name(best.algorithm)) + " " + protocol_name(best.protocol);
}

}  // namespace

TEST_CASE("The graph search finds the channels that NCCL's logs show") {
  // 8 × H100: "Pattern 4 … nChannels 12, bw 30/30", "Pattern 5 … nChannels 8, bw 40" (NCCL issue
  // 1197); 8 × A100: "nChannels 12, bw 20/20".
  const NcclGraphs hopper = nccl_graphs(h100(1, 8));
  CHECK(hopper.ring.channels == 12);
  CHECK(hopper.ring.intra_gbps == 30);
  CHECK(hopper.tree.channels == 12);
  CHECK(hopper.tree.intra_gbps == 30);
  CHECK(hopper.nvls.channels == 8);
  CHECK(hopper.nvls.intra_gbps == 40);
  CHECK(hopper.channels_used == 24);
  const NcclGraphs ampere = nccl_graphs(a100(1, 8));
  CHECK(ampere.ring.channels == 12);
  CHECK(ampere.ring.intra_gbps == 20);
  CHECK(ampere.nvls.channels == 0);
  CHECK(nccl_graphs(a100(1, 2)).ring.channels == 12);
}

TEST_CASE("Between nodes the NICs limit the graphs") {
  // One A100 a node with HDR: "Pattern 4 … nChannels 1, bw 24/24", "Pattern 3 … bw 48/24".
  const NcclGraphs single = nccl_graphs(a100(2, 1));
  CHECK(single.ring.channels == 1);
  CHECK(single.ring.inter_gbps == 24);
  CHECK(single.tree.intra_gbps == 48);
  CHECK(single.tree.inter_gbps == 24);
  // Two H20 with two NICs of 400 Gbit/s: "nChannels 4, bw 24/24" (NCCL issue 1189).
  const NcclGraphs pair = nccl_graphs(h100(2, 2));
  CHECK(pair.ring.channels == 4);
  CHECK(pair.ring.inter_gbps == 24);
  // 2 × DGX A100 measure a ring of 8 · 24 = 192 GB/s (NCCL issue 812).
  const NcclGraphs dgx = nccl_graphs(a100(2, 8));
  CHECK(dgx.ring.channels * dgx.ring.inter_gbps == 192);
}

TEST_CASE("GPUs without NVLink ring over the host bridge") {
  // Two RTX 4090 on one host: "Pattern 4 … nChannels 1, bw 20/20, type PHB".
  const NcclGraphs graphs = nccl_graphs(shapes::l40s(2));
  CHECK(graphs.ring.channels == 1);
  CHECK(graphs.ring.intra_gbps == 20);
  CHECK(!graphs.intra_is_nvlink);
}

TEST_CASE("One node of H100 is predicted as NCCL's own model does") {
  const CommunicatorShape shape = h100(1, 8);
  const NcclPrediction nvls = predict(shape, Algorithm::Nvls, Protocol::Simple, kGib);
  CHECK(nvls.latency_s == Approx(25e-6));
  CHECK(nvls.bandwidth_bytes_per_s == Approx(272e9).epsilon(1e-3));
  const NcclPrediction ring = predict(shape, Algorithm::Ring, Protocol::Simple, kGib);
  CHECK(ring.latency_s == Approx(56e-6));
  CHECK(ring.bandwidth_bytes_per_s == Approx(205.7e9).epsilon(1e-3));  // 360 on the bus
  CHECK(predict(shape, Algorithm::Tree, Protocol::LL, kKib).latency_s == Approx(15.2e-6));
  CHECK(predict(a100(1, 8), Algorithm::Ring, Protocol::Simple, kGib).bandwidth_bytes_per_s ==
        Approx(240e9 * 8 / 14));
}

TEST_CASE("Latencies over nodes grow as NCCL's tables say") {
  const auto tree = [](int nodes) {
    return predict(h100(nodes, 8), Algorithm::Tree, Protocol::LL, 8).latency_s * 1e6;
  };
  CHECK(tree(2) == Approx(25.2));
  CHECK(tree(4) == Approx(35.2));
  CHECK(tree(16) == Approx(55.2));
  CHECK(tree(64) == Approx(75.2));
  // Messages below 64 bytes a rank and channel keep the plain latency, others pay 1.4 times.
  const auto ring = [](int nodes, bool amd, double bytes) {
    CommunicatorShape shape = h100(nodes, 8);
    shape.amd_host = amd;
    return predict(shape, Algorithm::Ring, Protocol::Simple, bytes).latency_s * 1e6;
  };
  CHECK(ring(2, false, 8) == Approx(131.6));
  CHECK(ring(4, false, 8) == Approx(282.8));
  CHECK(ring(16, false, 8) == Approx(1190).epsilon(1e-3));
  CHECK(ring(64, false, 8) == Approx(4819).epsilon(1e-3));
  CHECK(ring(2, true, 8) == Approx(204).epsilon(2e-3));
  CHECK(ring(16, true, 8) == Approx(1772).epsilon(1e-3));
  CHECK(ring(2, false, kGib) == Approx(1.4 * 131.6));
}

TEST_CASE("A tree's bandwidth is corrected by the size of the message") {
  const CommunicatorShape shape = h100(16, 8);
  const auto rate = [&](double bytes) {
    return predict(shape, Algorithm::Tree, Protocol::LL, bytes).bandwidth_bytes_per_s;
  };
  CHECK(rate(64 * kKib) == Approx(.6 * rate(64)));   // index 10
  CHECK(rate(512 * kKib) == Approx(.4 * rate(64)));  // index 13
  CHECK(rate(kGib) == Approx(rate(64)));             // beyond the table
}

TEST_CASE("NCCL switches protocol and algorithm where measured curves jump") {
  // Jumps of published curves (aiconfigurator): all-reduce on 8 H100 at 2 MiB (NVLS; H200 "from
  // 2 MiB", stas00), on 2 H100 at 2 MiB, on 2 A100 at 1 MiB; all-gather on 4 H100 at 4 MiB, on 2
  // A100 at 2 MiB; all-reduce on 8 B200 at 4 MiB.
  CHECK(choice(h100(1, 8), kMib) == "ring ll");
  CHECK(choice(h100(1, 8), 2 * kMib) == "nvls simple");
  CHECK(choice(h100(1, 2), kMib) == "ring ll");
  CHECK(choice(h100(1, 2), 2 * kMib) == "ring simple");
  CHECK(choice(a100(1, 2), 512 * kKib) == "ring ll");
  CHECK(choice(a100(1, 2), kMib) == "ring simple");
  CHECK(choice(h100(1, 4), 2 * kMib, Kind::AllGather) == "ring ll");
  CHECK(choice(h100(1, 4), 4 * kMib, Kind::AllGather) == "ring simple");
  CHECK(choice(a100(1, 2), kMib, Kind::AllGather) == "ring ll");
  CHECK(choice(a100(1, 2), 2 * kMib, Kind::AllGather) == "ring simple");
  CHECK(choice(b200(1, 8), 2 * kMib) == "ring ll");
  CHECK(choice(b200(1, 8), 4 * kMib) == "nvls simple");
}

TEST_CASE("NVLS serves 5 to 8 GPUs of a Hopper node, rings 2 to 4") {
  // 8 GiB on H200 (stas00/ml-engineering, GPU count table): ring at 4, NVLS from 5.
  for (int n = 2; n <= 8; ++n) {
    CAPTURE(n);
    CHECK(choice(h100(1, n), 8 * kGib) == (n < 5 ? "ring simple" : "nvls simple"));
  }
}

TEST_CASE("Only the pairs that NCCL has are offered") {
  const auto offered = [](const CommunicatorShape& shape, Kind kind, Algorithm a, Protocol p) {
    return predict(shape, a, p, kMib, kind).bandwidth_bytes_per_s > 0;
  };
  CHECK(!offered(h100(4, 8), Kind::AllGather, Algorithm::Tree, Protocol::LL));
  CHECK(!offered(h100(4, 8), Kind::AllGather, Algorithm::Pat, Protocol::Simple));
  CHECK(offered(h100(4, 1), Kind::AllGather, Algorithm::Pat, Protocol::Simple));
  CHECK(!offered(h100(1, 8), Kind::AllReduce, Algorithm::NvlsTree, Protocol::Simple));
  CHECK(!offered(h100(2, 8), Kind::AllReduce, Algorithm::Nvls, Protocol::Simple));
  CHECK(!offered(a100(1, 8), Kind::AllReduce, Algorithm::Nvls, Protocol::Simple));
  CHECK(!offered(shapes::l40s(4), Kind::AllReduce, Algorithm::Ring, Protocol::LL128));
  CHECK(!offered(h100(2, 8), Kind::Broadcast, Algorithm::Tree, Protocol::Simple));
}

}  // namespace rehearse
