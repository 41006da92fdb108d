#pragma once
#include <string>
#include <vector>

#include "plan/field_table.h"
#include "topologies/cluster.h"

namespace rehearse {

const Names<FabricKind>& fabric_kind_names();
const Names<Spreading>& spreading_names();

const FieldTable<GpuSpec>& gpu_table();    ///< by its fields or a name of the catalogue
const FieldTable<NodeSpec>& node_table();  ///< by its fields or a name of the catalogue
const FieldTable<FabricSpec>& fabric_table();

/// A cluster as files say it: one kind of node ("node", "nodes", "speed"), or "groups" of them.
struct ClusterFile {
  NodeSpec node;
  int nodes = 1;
  double speed = 1;
  std::vector<NodeGroup> groups;
  FabricSpec fabric;
  std::vector<CustomVertex> vertices;
  std::vector<CustomEdge> edges;
};
const FieldTable<ClusterFile>& cluster_table();

/// The cluster that a file without problems describes.
ClusterSpec cluster_spec(const ClusterFile& file);

/// The canonical form: every field written, always as groups, numbers in SI units.
JsonValue cluster_json(const ClusterSpec& spec);

/// FNV-1a of the canonical form without names, sources and prices: equal for clusters that behave
/// the same, however they were written.
std::string cluster_digest(const ClusterSpec& spec);

}  // namespace rehearse
