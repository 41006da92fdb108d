#pragma once
#include "kernels/profile.h"
#include "plan/field_table.h"

namespace rehearse {

// Field tables of the parts of a profile/1.

const FieldTable<DeviceFacts>& device_facts_table();
const FieldTable<SourcedFactor>& sustained_table();
const FieldTable<SourcedFactor>& launch_table();
const FieldTable<SourcedFactor>& overlap_table();
const FieldTable<MemoryOverheads>& memory_overheads_table();
const FieldTable<GemmFit>& gemm_fit_table();
const FieldTable<AttentionFit>& attention_fit_table();
const FieldTable<MemoryFit>& memory_fit_table();
const FieldTable<ProfileSample>& profile_sample_table();
const FieldTable<CollectiveCurve>& collective_curve_table();

/// Spellings of sources of costs: "measured", …
const Names<CostSource>& cost_source_names();
const Names<Pass>& pass_names();
const Names<OperatorName>& operator_names();

/// Knots as rows of `shape` positive integers and a value; see profile_knots.cpp.
JsonValue knots_to_json(const ResidualMap& map, std::size_t shape);
void read_knots(const JsonValue& value, Reading& reading, std::size_t shape, ResidualMap& map);

}  // namespace rehearse
