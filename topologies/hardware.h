#pragma once
#include <string>
#include <vector>

namespace rehearse {

/// Data-sheet facts of one GPU. Rates are dense (no structured sparsity); bandwidths are per
/// direction; 0 means the part does not have it. `source` says where each figure comes from.
struct GpuSpec {
  std::string id{};         ///< "h100-sxm-80gb"
  std::string name{};       ///< "NVIDIA H100 SXM 80 GB"
  double memory_bytes = 0;  ///< as the driver reports it
  double memory_bandwidth_bytes_per_s = 0;
  double l2_bytes = 0;
  double fp32_flops = 0;  ///< FLOP/s outside tensor cores
  double bf16_flops = 0;  ///< FLOP/s, tensor cores, fp32 accumulation; 0: no bf16
  double fp16_flops = 0;
  double fp8_flops = 0;
  double nvlink_bandwidth_bytes_per_s = 0;  ///< all its NVLinks, one direction
  double pcie_bandwidth_bytes_per_s = 0;    ///< its host link, one direction
  int streaming_multiprocessors = 0;
  double boost_clock_hz = 0;
  double power_w = 0;             ///< board limit
  int compute_capability = 0;     ///< 10 · major + minor: 80, 90, 100
  double price_usd_per_hour = 0;  ///< typical rental; 0: not stated
  std::string source{};
};

/// Payload that NICs carry, as a share of their rate: a 400 Gbit/s port delivers 48 GB/s to NCCL, a
/// 200 Gbit/s port 24, eight 384 (NVIDIA's slides and NCCL issues 252 and 290, as collected in
/// stas00/ml-engineering).
inline constexpr double kNicGoodput = 0.96;

/// A server, or an NVLink rack where `gpus` share one NVLink domain over several trays.
struct NodeSpec {
  std::string id{};  ///< "dgx-h100"
  std::string name{};
  GpuSpec gpu{};
  int gpus = 8;
  /// True: every GPU reaches every other of the node through NVSwitch at its full NVLink rate.
  /// False: GPUs of a node talk over PCIe through the host.
  bool nvswitch = true;
  int nics = 8;  ///< shared by the GPUs in order: GPU i uses NIC i·nics/gpus
  double nic_bandwidth_bytes_per_s = 0;  ///< each, one direction
  double nic_latency_s = 0;              ///< of one message through NIC and driver, one end
  double nic_goodput = kNicGoodput;      ///< share of its rate that payload gets, one way
  double nic_duplex = 1;  ///< share that each way keeps beside the other: 1 full duplex, ½ half
  double host_memory_bytes = 0;                  ///< of its CPUs; 0: not stated
  double host_memory_bandwidth_bytes_per_s = 0;  ///< nominal, all channels; 0: not stated
  double power_w = 0;                            ///< whole node under load; 0: not stated
  std::string source{};
};

/// Facts shipped with the program. The order is that of the lists people see.
const std::vector<GpuSpec>& gpu_catalogue();
const std::vector<NodeSpec>& node_catalogue();
/// nullptr where the id is unknown; the caller adds the did-you-mean.
const GpuSpec* find_gpu(const std::string& id);
const NodeSpec* find_node(const std::string& id);

}  // namespace rehearse
