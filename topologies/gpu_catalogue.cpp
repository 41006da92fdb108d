#include "topologies/hardware.h"

// Facts of GPUs. Compute rates are dense tensor-core rates with fp32 accumulation; the clock is the
// one that reproduces them (H100 SXM: 132 SMs · 4096 FLOP/cycle · 1830 MHz = 989 TFLOP/s).
// Memory is what the driver reports as total (nvidia-smi, NVML), which people can check on their
// own machine, not the round figure on the box: NVIDIA's "80 GB" is close to 80 GiB on A100 and
// 79.65 GiB on H100. Prices are rounded rentals of one GPU-hour on demand, 2026.

namespace rehearse {
namespace {

constexpr double kTera = 1e12;
constexpr double kGiga = 1e9;
constexpr double kMega = 1e6;
constexpr double kMiB = 1024.0 * 1024.0;

// x16 slots, one direction, as data sheets round them: 8, 16 and 32 GT/s a lane.
constexpr double kPcieGen3 = 16 * kGiga;
constexpr double kPcieGen4 = 32 * kGiga;
constexpr double kPcieGen5 = 64 * kGiga;

GpuSpec v100() {
  return {.id = "v100-sxm-32gb",
          .name = "NVIDIA V100 SXM2 32 GB",
          .memory_bytes = 32510 * kMiB,
          .memory_bandwidth_bytes_per_s = 900 * kGiga,
          .l2_bytes = 6 * kMiB,
          .fp32_flops = 15.7 * kTera,
          .bf16_flops = 0,
          .fp16_flops = 125 * kTera,
          .fp8_flops = 0,
          .nvlink_bandwidth_bytes_per_s = 150 * kGiga,
          .pcie_bandwidth_bytes_per_s = kPcieGen3,
          .streaming_multiprocessors = 80,
          .boost_clock_hz = 1530 * kMega,
          .power_w = 300,
          .compute_capability = 70,
          .price_usd_per_hour = 1.0,
          .source =
              "NVIDIA V100 data sheet (2020) and Volta whitepaper (2017): 125 TFLOP/s fp16, "
              "900 GB/s, NVLink 2 300 GB/s both directions, 6 MB L2, 300 W; memory as "
              "nvidia-smi reports, assumed; price assumed"};
}

GpuSpec a100(const char* id, const char* name) {
  return {.id = id,
          .name = name,
          .l2_bytes = 40 * kMiB,
          .fp32_flops = 19.5 * kTera,
          .bf16_flops = 312 * kTera,
          .fp16_flops = 312 * kTera,
          .fp8_flops = 0,
          .nvlink_bandwidth_bytes_per_s = 300 * kGiga,
          .pcie_bandwidth_bytes_per_s = kPcieGen4,
          .streaming_multiprocessors = 108,
          .boost_clock_hz = 1410 * kMega,
          .power_w = 400,
          .compute_capability = 80};
}

GpuSpec a100_sxm_40gb() {
  GpuSpec gpu = a100("a100-sxm-40gb", "NVIDIA A100 SXM4 40 GB");
  gpu.memory_bytes = 40960 * kMiB;
  gpu.memory_bandwidth_bytes_per_s = 1555 * kGiga;
  gpu.price_usd_per_hour = 1.2;
  gpu.source =
      "NVIDIA A100 data sheet (2021): 312 TFLOP/s bf16, 1,555 GB/s, NVLink 3 600 GB/s both "
      "directions, 400 W; Ampere whitepaper: 108 SMs, 40 MB L2; memory: NVML total; price assumed "
      "from 0.8-2 USD/h";
  return gpu;
}

GpuSpec a100_sxm_80gb() {
  GpuSpec gpu = a100("a100-sxm-80gb", "NVIDIA A100 SXM4 80 GB");
  gpu.memory_bytes = 81920 * kMiB;
  gpu.memory_bandwidth_bytes_per_s = 2039 * kGiga;
  gpu.price_usd_per_hour = 1.6;
  gpu.source =
      "NVIDIA A100 data sheet (2021): 312 TFLOP/s bf16, 2,039 GB/s, NVLink 3 600 GB/s both "
      "directions, 400 W; Ampere whitepaper: 108 SMs, 40 MB L2; memory: NVML total; price: "
      "0.80-3.00 USD/h (mercatus-ai.com, May 2026)";
  return gpu;
}

GpuSpec a100_pcie_80gb() {
  GpuSpec gpu = a100("a100-pcie-80gb", "NVIDIA A100 PCIe 80 GB");
  gpu.memory_bytes = 81920 * kMiB;
  gpu.memory_bandwidth_bytes_per_s = 1935 * kGiga;
  gpu.nvlink_bandwidth_bytes_per_s = 0;
  gpu.power_w = 300;
  gpu.price_usd_per_hour = 1.4;
  gpu.source =
      "NVIDIA A100 data sheet (2021), PCIe column: 1,935 GB/s, 300 W, PCIe Gen4; NVLink bridges "
      "between pairs of cards are left out; memory: NVML total; price assumed from 0.80-3.00 USD/h";
  return gpu;
}

GpuSpec h100_sxm_80gb() {
  return {.id = "h100-sxm-80gb",
          .name = "NVIDIA H100 SXM5 80 GB",
          .memory_bytes = 81559 * kMiB,
          .memory_bandwidth_bytes_per_s = 3350 * kGiga,
          .l2_bytes = 50 * kMiB,
          .fp32_flops = 66.9 * kTera,
          .bf16_flops = 989.4 * kTera,
          .fp16_flops = 989.4 * kTera,
          .fp8_flops = 1978.9 * kTera,
          .nvlink_bandwidth_bytes_per_s = 450 * kGiga,
          .pcie_bandwidth_bytes_per_s = kPcieGen5,
          .streaming_multiprocessors = 132,
          .boost_clock_hz = 1830 * kMega,
          .power_w = 700,
          .compute_capability = 90,
          .price_usd_per_hour = 3.0,
          .source =
              "NVIDIA H100 data sheet (2023), sparse rates halved: 989 TFLOP/s bf16, 3.35 "
              "TB/s, NVLink 4 900 GB/s both directions, 700 W; Hopper whitepaper: 132 SMs, "
              "50 MB L2; memory: NVML total; price: 1.99-5.00 USD/h (mercatus-ai.com, May "
              "2026)"};
}

GpuSpec h100_pcie_80gb() {
  GpuSpec gpu = h100_sxm_80gb();
  gpu.id = "h100-pcie-80gb";
  gpu.name = "NVIDIA H100 PCIe 80 GB";
  gpu.memory_bandwidth_bytes_per_s = 2039 * kGiga;
  gpu.fp32_flops = 51.2 * kTera;
  gpu.bf16_flops = 756 * kTera;
  gpu.fp16_flops = 756 * kTera;
  gpu.fp8_flops = 1513 * kTera;
  gpu.nvlink_bandwidth_bytes_per_s = 0;
  gpu.streaming_multiprocessors = 114;
  gpu.boost_clock_hz = 1620 * kMega;
  gpu.power_w = 350;
  gpu.price_usd_per_hour = 2.4;
  gpu.source =
      "NVIDIA H100 data sheet (2022), PCIe column, sparse rates halved: 756 TFLOP/s bf16, 2 TB/s "
      "HBM2e, 350 W; Hopper whitepaper: 114 SMs, 50 MB L2; NVLink bridges between pairs of cards "
      "are left out; memory: as H100 SXM, assumed; price assumed";
  return gpu;
}

GpuSpec h100_hbm2e_96gb_500w() {
  GpuSpec gpu = h100_sxm_80gb();
  gpu.id = "h100-hbm2e-96gb-500w";
  gpu.name = "NVIDIA H100 SXM 96 GB HBM2e, 500 W";
  gpu.memory_bytes = 95.0 * 1024 * kMiB;
  gpu.memory_bandwidth_bytes_per_s = 2400 * kGiga;
  gpu.power_w = 500;
  gpu.price_usd_per_hour = 0;
  gpu.source =
      "The part of torchtitan's published benchmarks (2024-12): H100 with 96 GB HBM2e, lower "
      "memory bandwidth and a 500 W limit; 95.0 GiB as in its logs; 2.4 TB/s assumed; rates of "
      "the H100 SXM data sheet, which 500 W does not sustain";
  return gpu;
}

GpuSpec h800_sxm_80gb() {
  GpuSpec gpu = h100_sxm_80gb();
  gpu.id = "h800-sxm-80gb";
  gpu.name = "NVIDIA H800 SXM5 80 GB";
  gpu.nvlink_bandwidth_bytes_per_s = 200 * kGiga;
  gpu.price_usd_per_hour = 0;
  gpu.source =
      "As the H100 SXM but NVLink 400 GB/s both directions (DeepSeek-V3 hardware paper, arXiv "
      "2505.09343, section 4.1); its cut fp64 rate does not matter here";
  return gpu;
}

GpuSpec h200_sxm() {
  GpuSpec gpu = h100_sxm_80gb();
  gpu.id = "h200-sxm";
  gpu.name = "NVIDIA H200 SXM 141 GB";
  gpu.memory_bytes = 143771 * kMiB;
  gpu.memory_bandwidth_bytes_per_s = 4800 * kGiga;
  gpu.price_usd_per_hour = 4.5;
  gpu.source =
      "NVIDIA H200 data sheet (2024), sparse rates halved: as H100 SXM with 141 GB HBM3e at 4.8 "
      "TB/s, 700 W; memory: NVML total; price: 4.54 USD/h (spheron.network, 2026-03-17)";
  return gpu;
}

GpuSpec b200_sxm() {
  return {.id = "b200-sxm",
          .name = "NVIDIA B200 SXM 180 GB",
          .memory_bytes = 183359 * kMiB,
          .memory_bandwidth_bytes_per_s = 8000 * kGiga,
          .l2_bytes = 126 * kMiB,
          .fp32_flops = 75 * kTera,
          .bf16_flops = 2250 * kTera,
          .fp16_flops = 2250 * kTera,
          .fp8_flops = 4500 * kTera,
          .nvlink_bandwidth_bytes_per_s = 900 * kGiga,
          .pcie_bandwidth_bytes_per_s = kPcieGen5,
          .streaming_multiprocessors = 148,
          .boost_clock_hz = 1965 * kMega,
          .power_w = 1000,
          .compute_capability = 100,
          .price_usd_per_hour = 6.0,
          .source =
              "NVIDIA Blackwell architecture brief and DGX B200 data sheet (2024), sparse "
              "rates halved: 2.25 PFLOP/s bf16, 8 TB/s, NVLink 5 1.8 TB/s both directions, "
              "1,000 W; 148 SMs, 126 MB L2 and driver memory assumed; price: 6.03 USD/h "
              "(spheron.network, 2026-03-17)"};
}

GpuSpec gb200() {
  GpuSpec gpu = b200_sxm();
  gpu.id = "gb200";
  gpu.name = "NVIDIA GB200 (one GPU of the superchip) 186 GB";
  gpu.memory_bytes = 189471 * kMiB;
  gpu.fp32_flops = 80 * kTera;
  gpu.bf16_flops = 2500 * kTera;
  gpu.fp16_flops = 2500 * kTera;
  gpu.fp8_flops = 5000 * kTera;
  gpu.streaming_multiprocessors = 152;
  gpu.boost_clock_hz = 2062 * kMega;
  gpu.power_w = 1200;
  gpu.price_usd_per_hour = 4.5;
  gpu.source =
      "NVIDIA GB200 NVL72 data sheet (2024), per GPU, sparse rates halved: 2.5 PFLOP/s bf16, 8 "
      "TB/s, NVLink 5 1.8 TB/s both directions, 1,200 W; PCIe is Grace's Gen5 x16 towards the "
      "NIC; 152 SMs, 126 MB L2 and driver memory assumed; price: 9.08 USD/h for the superchip of "
      "two GPUs (spheron.network, 2026-03-17)";
  return gpu;
}

GpuSpec l40s() {
  return {.id = "l40s",
          .name = "NVIDIA L40S 48 GB",
          .memory_bytes = 46068 * kMiB,
          .memory_bandwidth_bytes_per_s = 864 * kGiga,
          .l2_bytes = 96 * kMiB,
          .fp32_flops = 91.6 * kTera,
          .bf16_flops = 362.05 * kTera,
          .fp16_flops = 362.05 * kTera,
          .fp8_flops = 733 * kTera,
          .nvlink_bandwidth_bytes_per_s = 0,
          .pcie_bandwidth_bytes_per_s = kPcieGen4,
          .streaming_multiprocessors = 142,
          .boost_clock_hz = 2520 * kMega,
          .power_w = 350,
          .compute_capability = 89,
          .price_usd_per_hour = 1.2,
          .source =
              "NVIDIA L40S data sheet (2023): 362.05 TFLOP/s bf16 and 733 fp8 dense, 864 "
              "GB/s, PCIe Gen4 x16, 350 W; memory: NVML total; 96 MB L2 and price assumed"};
}

GpuSpec rtx_4090() {
  return {.id = "rtx-4090",
          .name = "NVIDIA GeForce RTX 4090 24 GB",
          .memory_bytes = 24564 * kMiB,
          .memory_bandwidth_bytes_per_s = 1008 * kGiga,
          .l2_bytes = 72 * kMiB,
          .fp32_flops = 82.6 * kTera,
          .bf16_flops = 165.2 * kTera,
          .fp16_flops = 165.2 * kTera,
          .fp8_flops = 330.3 * kTera,
          .nvlink_bandwidth_bytes_per_s = 0,
          .pcie_bandwidth_bytes_per_s = kPcieGen4,
          .streaming_multiprocessors = 128,
          .boost_clock_hz = 2520 * kMega,
          .power_w = 450,
          .compute_capability = 89,
          .price_usd_per_hour = 0.45,
          .source =
              "NVIDIA Ada GPU architecture whitepaper (2023), appendix A: 165.2 TFLOP/s "
              "fp16/bf16 with fp32 accumulation, 1,008 GB/s, 72 MB L2, 450 W; memory as "
              "nvidia-smi reports and price assumed"};
}

}  // namespace

const std::vector<GpuSpec>& gpu_catalogue() {
  static const std::vector<GpuSpec> catalogue = {v100(),
                                                 a100_sxm_40gb(),
                                                 a100_sxm_80gb(),
                                                 a100_pcie_80gb(),
                                                 h100_sxm_80gb(),
                                                 h100_pcie_80gb(),
                                                 h100_hbm2e_96gb_500w(),
                                                 h800_sxm_80gb(),
                                                 h200_sxm(),
                                                 b200_sxm(),
                                                 gb200(),
                                                 l40s(),
                                                 rtx_4090()};
  return catalogue;
}

const GpuSpec* find_gpu(const std::string& id) {
  for (const GpuSpec& gpu : gpu_catalogue())
    if (gpu.id == id) return &gpu;
  return nullptr;
}

}  // namespace rehearse
