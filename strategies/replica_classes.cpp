#include "strategies/replica_classes.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <map>

#include "strategies/collective_flows.h"
#include "strategies/flow_folding.h"

namespace rehearse {
namespace {

std::uint64_t hash_step(std::uint64_t hash, std::uint64_t value) {
  // FNV-1a over the eight bytes of a word.
  for (int byte = 0; byte < 8; ++byte) {
    hash ^= (value >> (8 * byte)) & 0xff;
    hash *= 0x100000001b3ULL;
  }
  return hash;
}
constexpr std::uint64_t kHashSeed = 0xcbf29ce484222325ULL;

/// All pipeline transfers, one pattern per class, boundary and direction, and the gradient rings.
struct StepFlows {
  std::vector<PhysicalPattern> patterns;
  std::vector<int> replica_of_flow;  ///< −1 for flows of collectives
};

void add_transfers(StepFlows& flows, const Plan& plan, const RankMap& ranks,
                   const std::vector<int>& replicas) {
  const int boundaries = plan.virtual_stages > 1 ? plan.pp : plan.pp - 1;
  for (int s = 0; s < boundaries; ++s)
    for (const bool forward : {true, false}) {
      PhysicalPattern pattern;
      for (const int replica : replicas)
        for (int i = 0; i < plan.tp * plan.cp; ++i) {
          const int t = i % plan.tp, c = i / plan.tp;
          const GpuId near = ranks.gpu(ranks.rank({t, c, replica, s}));
          const GpuId far = ranks.gpu(ranks.rank({t, c, replica, (s + 1) % plan.pp}));
          pattern.flows.push_back(forward ? PhysicalFlow{near, far} : PhysicalFlow{far, near});
          flows.replica_of_flow.push_back(replica);
        }
      flows.patterns.push_back(std::move(pattern));
    }
}

/// Hops of the context ranks' rings; what all-to-alls put on the network is alike where these are.
void add_context_rings(StepFlows& flows, const Plan& plan, const RankMap& ranks,
                       const std::vector<int>& replicas) {
  if (plan.cp == 1) return;
  for (int s = 0; s < plan.pp; ++s) {
    PhysicalPattern pattern;
    for (const int replica : replicas)
      for (int i = 0; i < plan.tp * plan.cp; ++i) {
        const int t = i % plan.tp, c = i / plan.tp;
        pattern.flows.push_back({ranks.gpu(ranks.rank({t, c, replica, s})),
                                 ranks.gpu(ranks.rank({t, (c + 1) % plan.cp, replica, s}))});
        flows.replica_of_flow.push_back(replica);
      }
    flows.patterns.push_back(std::move(pattern));
  }
}

void add_gradient_rings(StepFlows& flows, const Cluster& cluster, const Plan& plan,
                        const RankMap& ranks) {
  if (plan.dp * plan.cp < 2) return;
  for (int s = 0; s < plan.pp; ++s) {
    PhysicalPattern pattern;
    for (int t = 0; t < plan.tp; ++t) {
      std::vector<GpuId> members;
      for (int c = 0; c < plan.cp; ++c)
        for (const Rank rank : ranks.group(Axis::Data, {t, c, 0, s}))
          members.push_back(ranks.gpu(rank));
      std::sort(members.begin(), members.end());
      if (is_local(cluster, members)) continue;
      for (const PhysicalFlow& flow : collective_flows(cluster, members, CollectiveKind::AllReduce,
                                                       CollectiveAlgorithm::Ring)) {
        pattern.flows.push_back(flow);
        flows.replica_of_flow.push_back(-1);
      }
    }
    flows.patterns.push_back(std::move(pattern));
  }
}

/// What of a replica does not depend on the network: its GPUs, and which of its ranks share nodes.
std::uint64_t hardware_signature(const Cluster& cluster, const Plan& plan, const RankMap& ranks,
                                 const std::vector<int>& group_of, int replica) {
  std::uint64_t hash = kHashSeed;
  if (!plan.replica_micro_batches.empty())
    hash = hash_step(hash, static_cast<std::uint64_t>(
                               plan.replica_micro_batches[static_cast<std::size_t>(replica)]));
  const int first_node = cluster.node_of(ranks.gpu(ranks.rank({0, 0, replica, 0})));
  for (int s = 0; s < plan.pp; ++s)
    for (int i = 0; i < plan.tp * plan.cp; ++i) {
      const int node =
          cluster.node_of(ranks.gpu(ranks.rank({i % plan.tp, i / plan.tp, replica, s})));
      hash = hash_step(hash, static_cast<std::uint64_t>(group_of[static_cast<std::size_t>(node)]));
      hash = hash_step(hash, static_cast<std::uint64_t>(node - first_node));
    }
  return hash;
}

ReplicaClasses classes_of(const std::vector<std::uint64_t>& signatures) {
  ReplicaClasses classes;
  std::map<std::uint64_t, int> class_of_signature;
  for (std::size_t replica = 0; replica < signatures.size(); ++replica) {
    const auto [at, is_new] = class_of_signature.try_emplace(
        signatures[replica], static_cast<int>(classes.members.size()));
    if (is_new) classes.members.emplace_back();
    classes.members[static_cast<std::size_t>(at->second)].push_back(static_cast<int>(replica));
    classes.class_of.push_back(at->second);
  }
  return classes;
}

}  // namespace

std::vector<int> group_of_nodes(const Cluster& cluster) {
  std::vector<int> group_of;
  int group = 0;
  for (const NodeGroup& nodes : cluster.spec().groups) {
    group_of.insert(group_of.end(), static_cast<std::size_t>(nodes.count), group);
    ++group;
  }
  group_of.resize(static_cast<std::size_t>(cluster.node_count()), 0);
  return group_of;
}

ReplicaClasses separate_replicas(int dp) {
  ReplicaClasses classes;
  for (int replica = 0; replica < dp; ++replica) {
    classes.members.push_back({replica});
    classes.class_of.push_back(replica);
  }
  return classes;
}

ReplicaClasses fold_replicas(const Cluster& cluster, const Plan& plan, const RankMap& ranks) {
  const std::vector<int> group_of = group_of_nodes(cluster);
  std::vector<std::uint64_t> signatures;
  for (int replica = 0; replica < plan.dp; ++replica)
    signatures.push_back(hardware_signature(cluster, plan, ranks, group_of, replica));
  ReplicaClasses classes = classes_of(signatures);
  if (plan.pp == 1 && plan.cp == 1) return classes;  // no transfers of its own on the network
  for (;;) {
    StepFlows flows;
    for (const auto& members : classes.members) {
      add_transfers(flows, plan, ranks, members);
      add_context_rings(flows, plan, ranks, members);
    }
    add_gradient_rings(flows, cluster, plan, ranks);
    const FlowFolding folding(cluster, flows.patterns, true);
    std::size_t flow = 0;
    for (const PhysicalPattern& pattern : flows.patterns)
      for (const PhysicalFlow& physical : pattern.flows) {
        const int replica = flows.replica_of_flow[flow];
        if (replica >= 0) {
          std::uint64_t& signature = signatures[static_cast<std::size_t>(replica)];
          signature = hash_step(signature, folding.flow_colours()[flow]);
          signature = hash_step(
              signature,
              std::bit_cast<std::uint64_t>(cluster.route(physical.from, physical.to).latency_s));
        }
        ++flow;
      }
    ReplicaClasses finer = classes_of(signatures);
    if (finer.members.size() == classes.members.size()) return finer;
    classes = std::move(finer);
  }
}

}  // namespace rehearse
