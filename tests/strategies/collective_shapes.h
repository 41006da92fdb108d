#pragma once
#include "strategies/collective_cost.h"

namespace rehearse::shapes {

/// Communicators on DGX-like nodes with one NIC a GPU; rates from the data sheets.
inline CommunicatorShape a100(int nodes, int per_node) {
  return {.nodes = nodes,
          .ranks_per_node = per_node,
          .compute_capability = 80,
          .nvswitch = true,
          .nvlink_bandwidth_bytes_per_s = 300e9,
          .pcie_bandwidth_bytes_per_s = 32e9,
          .nic_bandwidth_bytes_per_s = 25e9,
          .nics_per_node = per_node};
}

inline CommunicatorShape h100(int nodes, int per_node) {
  return {.nodes = nodes,
          .ranks_per_node = per_node,
          .compute_capability = 90,
          .nvswitch = true,
          .nvlink_bandwidth_bytes_per_s = 450e9,
          .pcie_bandwidth_bytes_per_s = 64e9,
          .nic_bandwidth_bytes_per_s = 50e9,
          .nics_per_node = per_node};
}

inline CommunicatorShape b200(int nodes, int per_node) {
  CommunicatorShape shape = h100(nodes, per_node);
  shape.compute_capability = 100;
  shape.nvlink_bandwidth_bytes_per_s = 900e9;
  return shape;
}

/// GPUs of one host on PCIe Gen4, without NVLink.
inline CommunicatorShape l40s(int per_node) {
  return {.ranks_per_node = per_node,
          .compute_capability = 89,
          .nvswitch = false,
          .pcie_bandwidth_bytes_per_s = 32e9};
}

}  // namespace rehearse::shapes
