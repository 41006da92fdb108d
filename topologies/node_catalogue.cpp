#include "plan/ensure.h"
#include "topologies/hardware.h"

// Facts of servers. A NIC latency is what one end of a small GPUDirect message costs: NIC, PCIe and
// driver, without switches. Vendors do not state it:
// - InfiniBand (ConnectX-6, -7): 1 µs, half of the about 2 µs that one-way GPU-to-GPU RDMA writes
//   over one switch take; assumed.
// - EFA: 7.5 µs (first generation, about 15 µs one way) and 5 µs (second generation); assumed.
// - Ethernet with the host's TCP stack: 15 µs; assumed.

namespace rehearse {
namespace {

constexpr double kGbit = 1e9 / 8;
constexpr double kInfinibandLatency_s = 1e-6;
constexpr double kEfa1Latency_s = 7.5e-6;
constexpr double kEfa2Latency_s = 5e-6;
constexpr double kTcpLatency_s = 15e-6;

/// Host memory: sockets × channels × 8 bytes a transfer, and what the server is sold with.
constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
double channels_bandwidth(int channels, double transfers_per_s) {
  return 8 * channels * transfers_per_s;
}

NodeSpec with_host(NodeSpec node, double memory_bytes, double bandwidth_bytes_per_s) {
  node.host_memory_bytes = memory_bytes;
  node.host_memory_bandwidth_bytes_per_s = bandwidth_bytes_per_s;
  return node;
}

GpuSpec catalogued(const char* id) {
  const GpuSpec* gpu = find_gpu(id);
  ensure(gpu != nullptr, "the catalogue of nodes names only GPUs of the catalogue");
  return *gpu;
}

/// A server with one InfiniBand NIC a GPU.
NodeSpec dgx(const char* id, const char* name, const char* gpu, double nic_gbit_per_s,
             double power_w, const char* source) {
  return {.id = id,
          .name = name,
          .gpu = catalogued(gpu),
          .gpus = 8,
          .nvswitch = true,
          .nics = 8,
          .nic_bandwidth_bytes_per_s = nic_gbit_per_s * kGbit,
          .nic_latency_s = kInfinibandLatency_s,
          .power_w = power_w,
          .source = source};
}

NodeSpec dgx_2() {
  NodeSpec node = dgx("dgx-2", "NVIDIA DGX-2", "v100-sxm-32gb", 100, 10000,
                      "NVIDIA DGX-2 data sheet (2019): 16 V100 32 GB on NVSwitch, 8 x 100 Gbit/s "
                      "EDR, 10 kW; NIC latency assumed");
  node.gpus = 16;
  return with_host(node, 1536 * kGiB, channels_bandwidth(12, 2666e6));  // 2 Xeon 8168
}

NodeSpec gb200_nvl72() {
  NodeSpec node = dgx("gb200-nvl72", "NVIDIA GB200 NVL72 rack", "gb200", 400, 120000,
                      "NVIDIA GB200 NVL72 data sheet (2024): 72 GPUs in one NVLink domain, one "
                      "ConnectX-7 400 Gbit/s a GPU; 120 kW and NIC latency assumed");
  node.gpus = 72;
  node.nics = 72;
  return with_host(node, 36 * 480 * kGiB, 36 * 512e9);  // 36 Grace with LPDDR5X
}

NodeSpec aws_p4d() {
  NodeSpec node = dgx("aws-p4d", "AWS p4d.24xlarge", "a100-sxm-40gb", 100, 0,
                      "AWS EC2 P4d page: 8 A100 40 GB, 400 Gbit/s as 4 x 100 Gbit/s EFA, two GPUs "
                      "a NIC; NIC latency assumed");
  node.nics = 4;
  node.nic_latency_s = kEfa1Latency_s;
  return with_host(node, 1152 * kGiB, channels_bandwidth(12, 2933e6));  // 2 Cascade Lake
}

NodeSpec aws_p5() {
  NodeSpec node = dgx("aws-p5", "AWS p5.48xlarge", "h100-sxm-80gb", 100, 0,
                      "AWS EC2 P5 page: 8 H100 80 GB, 3,200 Gbit/s as 32 x 100 Gbit/s EFA, four "
                      "NICs a GPU; NIC latency assumed");
  node.nics = 32;
  node.nic_latency_s = kEfa2Latency_s;
  return with_host(node, 2048 * kGiB, channels_bandwidth(16, 3200e6));  // 2 EPYC 7R13
}

NodeSpec pcie_8() {
  return {.id = "pcie-8",
          .name = "PCIe server with 8 L40S",
          .gpu = catalogued("l40s"),
          .gpus = 8,
          .nvswitch = false,
          .nics = 2,
          .nic_bandwidth_bytes_per_s = 200 * kGbit,
          .nic_latency_s = kInfinibandLatency_s,
          .power_w = 4500,
          .source =
              "A common two-socket server: 8 L40S in Gen4 x16 slots, one 200 Gbit/s "
              "ConnectX-7 a socket; configuration, power and NIC latency assumed"};
}

NodeSpec desktop() {
  return {.id = "desktop",
          .name = "Desktop with 2 RTX 4090",
          .gpu = catalogued("rtx-4090"),
          .gpus = 2,
          .nvswitch = false,
          .nics = 1,
          .nic_bandwidth_bytes_per_s = 10 * kGbit,
          .nic_latency_s = kTcpLatency_s,
          .power_w = 1300,
          .source =
              "Two RTX 4090 in Gen4 x16 slots and 10 Gbit/s Ethernet; configuration, power "
              "and NIC latency assumed (most consumer boards give two cards x8 each)"};
}

}  // namespace

const std::vector<NodeSpec>& node_catalogue() {
  static const std::vector<NodeSpec> catalogue = {
      dgx_2(),
      // 2 EPYC 7742.
      with_host(
          dgx("dgx-a100", "NVIDIA DGX A100 80 GB", "a100-sxm-80gb", 200, 6500,
              "NVIDIA DGX A100 data sheet (2021): 8 A100 80 GB, 8 x 200 Gbit/s HDR, 6.5 kW; NIC "
              "latency assumed"),
          2048 * kGiB, channels_bandwidth(16, 3200e6)),
      // 2 Xeon 8480C.
      with_host(
          dgx("dgx-h100", "NVIDIA DGX H100", "h100-sxm-80gb", 400, 10200,
              "NVIDIA DGX H100/H200 user guide: 8 H100, 8 x 400 Gbit/s NDR, 10.2 kW; NIC latency "
              "assumed"),
          2048 * kGiB, channels_bandwidth(16, 4800e6)),
      // Host as that of DGX H100: assumed.
      with_host(
          dgx("hgx-h800", "HGX H800 server", "h800-sxm-80gb", 400, 10200,
              "DeepSeek-V3 hardware paper (arXiv 2505.09343): 8 H800, 8 x 400 Gbit/s ConnectX-7; "
              "power as DGX H100 and NIC latency assumed"),
          2048 * kGiB, channels_bandwidth(16, 4800e6)),
      // 2 Xeon 8480C.
      with_host(
          dgx("dgx-h200", "NVIDIA DGX H200", "h200-sxm", 400, 10200,
              "NVIDIA DGX H100/H200 user guide: 8 H200, 8 x 400 Gbit/s NDR, 10.2 kW; NIC latency "
              "assumed"),
          2048 * kGiB, channels_bandwidth(16, 4800e6)),
      // 2 Xeon 8570.
      with_host(
          dgx("dgx-b200", "NVIDIA DGX B200", "b200-sxm", 400, 14300,
              "NVIDIA DGX B200 user guide: 8 B200, 8 x 400 Gbit/s ConnectX-7; data sheet: 14.3 kW; "
              "NIC latency assumed"),
          2048 * kGiB, channels_bandwidth(16, 5600e6)),
      gb200_nvl72(), aws_p4d(), aws_p5(),
      // Assumed: two sockets of DDR4-3200 with 1 TiB, and two channels of DDR5-5200 with 64 GiB.
      with_host(pcie_8(), 1024 * kGiB, channels_bandwidth(16, 3200e6)),
      with_host(desktop(), 64 * kGiB, channels_bandwidth(2, 5200e6))};
  return catalogue;
}

const NodeSpec* find_node(const std::string& id) {
  for (const NodeSpec& node : node_catalogue())
    if (node.id == id) return &node;
  return nullptr;
}

}  // namespace rehearse
