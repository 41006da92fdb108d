#pragma once
#include "plan/field_table.h"
#include "plan/model.h"
#include "plan/plan_choices.h"
#include "plan/spread.h"
#include "plan/workload.h"

namespace rehearse {

/// Spellings and tables of the parts of Model, Plan and Workload.
const Names<Framework>& framework_names();
const Names<ContextKind>& context_names();
const Names<Aggregation>& aggregation_names();
const Names<Synchrony>& synchrony_names();
const Names<Weighting>& weighting_names();
const Names<Fp8Scaling>& fp8_scaling_names();
const Names<StoredAs>& stored_as_names();
const Names<Deal>& deal_names();
const Names<BatchSplit>& batch_split_names();
const Names<LengthDistribution>& length_distribution_names();
const Names<Packing>& packing_names();

const FieldTable<Experts>& experts_table();
const FieldTable<LatentAttention>& latent_attention_table();
const FieldTable<ActivationStore>& activation_store_table();
const FieldTable<Overlap>& transfer_overlap_table();
const FieldTable<ExpertPlan>& expert_plan_table();
const FieldTable<Updates>& updates_table();
const FieldTable<Offload>& offload_table();
const FieldTable<Fp8Recipe>& fp8_table();
const FieldTable<Documents>& documents_table();
const FieldTable<Routing>& routing_table();
const FieldTable<Spread>& spread_table();

}  // namespace rehearse
