#pragma once
#include "plan/field_table.h"
#include "plan/model.h"
#include "plan/plan.h"
#include "plan/workload.h"

namespace rehearse {

/// How the values of enums are spelt in files, tables and messages.
const Names<Activation>& activation_names();
const Names<Norm>& norm_names();
const Names<Positions>& positions_names();
const Names<ScheduleKind>& schedule_names();
const Names<Recompute>& recompute_names();
const Names<AttentionKernel>& attention_names();
const Names<Precision>& precision_names();

/// "tp-cp-dp-pp", fastest-varying axis first.
std::string rank_order_text(const std::array<Axis, kAxisCount>& order);
/// What is wrong with the text, or nothing and the order.
std::string parse_rank_order(const std::string& text, std::array<Axis, kAxisCount>& order);

/// A model by its fields, by a name of the catalogue, or from a Hugging Face configuration
/// ({"hugging_face": "config.json"}, relative to the document's folder).
const FieldTable<Model>& model_table();
const FieldTable<Plan>& plan_table();
const FieldTable<Workload>& workload_table();

/// Limits of counts, far above anything built. They keep products of sizes (parameters of a model,
/// elements of an activation, tokens of a step) inside 64 bits.
inline constexpr double kMostRanks = 1 << 20;
inline constexpr double kMostLayers = 100'000;
inline constexpr double kMostMtpLayers = 64;
inline constexpr double kMostHidden = 1 << 18;
inline constexpr double kMostFfn = 1 << 22;
inline constexpr double kMostHeads = 1 << 14;
inline constexpr double kMostVocab = 1 << 24;
inline constexpr double kMostMicroBatch = 1 << 16;
inline constexpr double kMostGlobalBatch = 1 << 30;
inline constexpr double kMostTokensPerSequence = 1 << 24;

}  // namespace rehearse
