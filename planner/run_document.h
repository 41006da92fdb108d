#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "plan/field_table.h"
#include "plan/model.h"
#include "plan/plan.h"

namespace rehearse {

// measured-runs/1 as it is written, before it becomes the nouns of this program.

enum class NetworkKind : std::uint8_t { Infiniband, Roce, OmniPath, Efa, Ethernet };

struct MixtureText {
  int experts = 1, topk = 1, shared = 0, ffn = 0, dense_layers = 0;
};

/// Latent attention; 0: as in DeepSeek's models.
struct LatentText {
  int kv_rank = 0, query_rank = -1, rope_dim = 0, nope_dim = 0, value_dim = 0;
};

struct ModelText {
  int layers = 0, hidden = 0, heads = 0, kv_heads = 0, head_dim = 0, ffn = 0, vocab = 0;
  int seq_len = 0;
  Activation mlp = Activation::Gelu;
  std::string attention = "gqa";
  bool tied_embeddings = false, tied_embeddings_given = false;
  bool is_mixture = false, is_latent = false;
  MixtureText moe;
  LatentText mla;
};

struct ClusterText {
  std::string gpu;
  int gpus = 0, gpus_per_node = 8, nvlink_domain = 0, nics_per_node = 0;
  double nic_gbit_s = 0;
  NetworkKind network = NetworkKind::Infiniband;
  bool blocking_launches = false;
};

struct OverlapText {
  bool dp = false, tp = false, pp = false, cp = true, ep = false;
};

struct PlanText {
  int dp = 1, tp = 1, pp = 1, cp = 1, ep = 1, virtual_stages = 1, micro_batch = 1, zero = 0;
  std::int64_t global_batch = 1;
  bool sequence_parallel = false;
  std::string recompute = "none";
  Precision precision = Precision::Bf16;
  ScheduleKind schedule = ScheduleKind::OneFOneB;
  int fsdp_group = 0;
  OverlapText overlap;
};

struct MeasuredText {
  double step_time_s = 0, peak_memory_gib = 0, reserved_memory_gib = 0;
  bool out_of_memory = false;
};

struct RunText {
  std::string id, family, source, note;
  Framework framework = Framework::Generic;
  bool read_in_source = true;
  ModelText model;
  ClusterText cluster;
  PlanText plan;
  MeasuredText measured;
};

struct RunsText {
  std::string about;
  std::vector<RunText> runs;
};

const FieldTable<RunsText>& runs_text_table();

/// What a run says beyond the words of its own format, in those of scenarios: keys of the tables
/// of models, plans, nodes, fabrics and workloads, each an object of what it gives.
struct RunNouns {
  JsonValue model = JsonValue::object(), plan = JsonValue::object(), node = JsonValue::object();
  JsonValue fabric = JsonValue::object(), workload = JsonValue::object();
  std::vector<std::string> unknown;  ///< keys that neither the format nor a table has
};

/// Takes what is not the format's own out of a document, a part for each run. A key that nobody
/// knows stays where it is if it looks like a slip of the pen, for the reader to report.
std::vector<RunNouns> take_nouns(JsonValue& document);

}  // namespace rehearse
