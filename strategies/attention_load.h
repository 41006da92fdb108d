#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "plan/document_lengths.h"
#include "plan/model.h"
#include "plan/plan.h"
#include "plan/workload.h"

namespace rehearse {

/// How much attention each micro-batch of a step is, where borders of documents or a sliding window
/// leave less than causality does. A *share* is pairs of queries and keys over those that causality
/// leaves; a *load* is how far a micro-batch is from the mean of the step, relative to it.
///
/// Context ranks that exchange heads each have all pairs of some heads. In a ring the ranks go
/// block by block together, so a micro-batch counts Σ over hops of the largest block of any rank;
/// without causal balance, where ranks are simulated one by one, each counts its own pairs.
struct AttentionLoad {
  /// Of the step's mean micro-batch, as prices are made for it; by context rank where these differ.
  std::vector<double> shares{1};
  double pair_share = 1;  ///< of all pairs of the step: what FLOPs of the model count
  /// [replica][micro-batch · context variants + context rank]; empty: all micro-batches are alike.
  std::vector<std::vector<double>> loads;
  double heaviest = 0;  ///< the largest load
  StepSequences step;   ///< empty where sequences are whole documents

  /// Of one replica: Σ of its micro-batches' loads (of one context rank).
  double sum(int replica, int variant) const;
};

/// REQUIRES: the plan was checked with this workload, whose seq_len is filled.
AttentionLoad attention_load(const Model& model, const Plan& plan, const Workload& workload);

/// Pairs that context rank r has in the block that visits it after so many hops, half of the
/// diagonal counted.
double ring_block_pairs(const PackedSequence& sequence, const Plan& plan, int seq_len, int window,
                        int rank, int hops);

/// Sequences that each replica works on in a step. REQUIRES: the plan was checked.
std::vector<std::int64_t> replica_sequences(const Plan& plan, std::int64_t global_batch);

/// What a report says about a step's documents; empty where sequences are whole documents.
std::string documents_sentence(const AttentionLoad& load, const Workload& workload);

}  // namespace rehearse
