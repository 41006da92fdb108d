#include <set>
#include <string>

#include "tests/catch.h"
#include "topologies/cluster.h"
#include "topologies/hardware.h"

namespace rehearse {
namespace {

TEST_CASE("The GPU catalogue holds every part that scenarios may name") {
  for (const char* id : {"v100-sxm-32gb", "a100-sxm-40gb", "a100-sxm-80gb", "a100-pcie-80gb",
                         "h100-sxm-80gb", "h100-pcie-80gb", "h100-hbm2e-96gb-500w", "h800-sxm-80gb",
                         "h200-sxm", "b200-sxm", "gb200", "l40s", "rtx-4090"}) {
    CAPTURE(id);
    REQUIRE(find_gpu(id) != nullptr);
    CHECK(find_gpu(id)->id == id);
  }
  CHECK(find_gpu("h100") == nullptr);
}

TEST_CASE("Every GPU's figures lie where physics and markets put them") {
  std::set<std::string> ids;
  for (const GpuSpec& gpu : gpu_catalogue()) {
    CAPTURE(gpu.id);
    CHECK(ids.insert(gpu.id).second);
    CHECK_FALSE(gpu.name.empty());
    CHECK(gpu.source.size() > 40);
    CHECK((gpu.memory_bytes >= 20e9 && gpu.memory_bytes <= 300e9));
    CHECK(
        (gpu.memory_bandwidth_bytes_per_s >= 0.8e12 && gpu.memory_bandwidth_bytes_per_s <= 10e12));
    CHECK((gpu.l2_bytes >= 6e6 && gpu.l2_bytes <= 200e6));
    CHECK((gpu.fp32_flops >= 15e12 && gpu.fp32_flops <= 100e12));
    CHECK(gpu.fp16_flops >= 4 * gpu.fp32_flops / 2.5);
    CHECK((gpu.bf16_flops == gpu.fp16_flops || gpu.compute_capability < 80));
    CHECK((gpu.fp8_flops == 0) == (gpu.compute_capability < 89));
    if (gpu.fp8_flops > 0) CHECK(gpu.fp8_flops == Approx(2 * gpu.fp16_flops).epsilon(0.02));
    CHECK((gpu.nvlink_bandwidth_bytes_per_s == 0 || gpu.nvlink_bandwidth_bytes_per_s >= 150e9));
    CHECK((gpu.pcie_bandwidth_bytes_per_s >= 16e9 && gpu.pcie_bandwidth_bytes_per_s <= 128e9));
    CHECK((gpu.power_w >= 250 && gpu.power_w <= 1500));
    CHECK((gpu.price_usd_per_hour >= 0 && gpu.price_usd_per_hour < 15));
  }
}

TEST_CASE("Tensor-core rates follow from SMs, clock and FLOPs a cycle of the generation") {
  for (const GpuSpec& gpu : gpu_catalogue()) {
    CAPTURE(gpu.id);
    // Dense fp16 FLOPs of an SM in a cycle, from the architecture whitepapers.
    double per_cycle = 0;
    if (gpu.compute_capability == 70) per_cycle = 1024;
    if (gpu.compute_capability == 80) per_cycle = 2048;
    if (gpu.compute_capability == 89) per_cycle = gpu.id == "rtx-4090" ? 512 : 1024;
    if (gpu.compute_capability == 90) per_cycle = 4096;
    if (gpu.compute_capability == 100) per_cycle = 8192;
    REQUIRE(per_cycle > 0);
    // Blackwell's data sheets quote a clock 6 % below the highest.
    CHECK(gpu.streaming_multiprocessors * gpu.boost_clock_hz * per_cycle ==
          Approx(gpu.fp16_flops).epsilon(0.07));
  }
}

TEST_CASE("The node catalogue holds every server that scenarios may name") {
  for (const char* id : {"dgx-a100", "dgx-h100", "dgx-h200", "dgx-b200", "gb200-nvl72", "aws-p4d",
                         "aws-p5", "pcie-8", "desktop"}) {
    CAPTURE(id);
    REQUIRE(find_node(id) != nullptr);
  }
  CHECK(find_node("dgx") == nullptr);
}

TEST_CASE("Every node of the catalogue is plausible and makes a cluster of two") {
  std::set<std::string> ids;
  for (const NodeSpec& node : node_catalogue()) {
    CAPTURE(node.id);
    CHECK(ids.insert(node.id).second);
    CHECK(node.source.size() > 30);
    CHECK((node.gpus >= 2 && node.gpus <= 72));
    CHECK((node.nic_bandwidth_bytes_per_s >= 1e9 && node.nic_bandwidth_bytes_per_s <= 100e9));
    CHECK((node.nic_latency_s >= 0.5e-6 && node.nic_latency_s <= 50e-6));
    CHECK((node.power_w == 0 || node.power_w > node.gpus * node.gpu.power_w));
    CHECK((node.nvswitch ? node.gpu.nvlink_bandwidth_bytes_per_s > 0
                         : node.gpu.pcie_bandwidth_bytes_per_s > 0));
    REQUIRE(find_gpu(node.gpu.id) != nullptr);

    ClusterSpec spec;
    NodeGroup group;
    group.node = node;
    group.count = 2;
    spec.groups.push_back(group);
    Problems problems;
    const Cluster cluster = Cluster::build(spec, problems);
    REQUIRE(problems.empty());
    CHECK(cluster.gpu_count() == 2 * node.gpus);
    CHECK(cluster.route(GpuId{0}, cluster.first_gpu(1)).latency_s < 100e-6);
  }
}

TEST_CASE("A cloud node's NICs add up to what the provider states") {
  const NodeSpec& p4d = *find_node("aws-p4d");
  CHECK(p4d.nics * p4d.nic_bandwidth_bytes_per_s == Approx(400e9 / 8));
  const NodeSpec& p5 = *find_node("aws-p5");
  CHECK(p5.nics * p5.nic_bandwidth_bytes_per_s == Approx(3200e9 / 8));
}

}  // namespace
}  // namespace rehearse
