// One layer of a 22-billion-parameter model against its published times: Korthikanti et al. 2022
// (arXiv 2205.05198), table 4: hidden 6,144, 64 heads, 2,048 tokens, micro-batch 4, 8 tensor ranks
// on one DGX A100, fp16.

#include "planner/framework.h"
#include "planner/gpu_costs.h"
#include "strategies/collective_cost.h"
#include "strategies/stage_program.h"
#include "strategies/tensor_overlap.h"
#include "tests/catch.h"
#include "topologies/hardware.h"

namespace rehearse {
namespace {

struct Mode {
  const char* name;
  bool sequence_parallel;
  Recompute recompute;
  double forward_ms, backward_ms;
};
constexpr Mode kModes[] = {
    {"nothing recomputed", false, Recompute::None, 7.7, 11.9},
    {"sequence parallel", true, Recompute::None, 7.2, 11.8},
    {"full recomputation", false, Recompute::Full, 7.7, 19.5},
    {"selective recomputation", false, Recompute::Selective, 7.7, 13.2},
    {"selective and sequence parallel", true, Recompute::Selective, 7.2, 13.1},
};

Model model_22b() {
  return {.name = "22B",
          .layers = 48,
          .hidden = 6144,
          .heads = 64,
          .kv_heads = 64,
          .head_dim = 96,
          .ffn = 24576,
          .vocab = 51200,
          .max_seq_len = 2048};
}

double seconds_of(const std::vector<ChunkItem>& items) {
  double seconds = 0;
  for (const ChunkItem& item : items) seconds += item.item.seconds;
  return seconds;
}

struct LayerTime {
  double forward_s, backward_s;
};

LayerTime layer_time(const Mode& mode) {
  const GpuSpec& gpu = *find_gpu("a100-sxm-80gb");
  Plan plan;
  plan.dp = 1;
  plan.tp = 8;
  plan.micro_batch = 4;
  plan.precision = Precision::Fp16;
  plan.sequence_parallel = mode.sequence_parallel;
  plan.recompute = mode.recompute;
  const Model model = model_22b();
  plan = framework_plan(Framework::Megatron, plan, model, gpu);
  const auto costs =
      framework_cost_model(gpu_cost_model(gpu), framework_costs(Framework::Megatron, plan, gpu), 0);
  const CommunicatorShape node{.nodes = 1,
                               .ranks_per_node = 8,
                               .compute_capability = gpu.compute_capability,
                               .nvswitch = true,
                               .nvlink_bandwidth_bytes_per_s = gpu.nvlink_bandwidth_bytes_per_s};
  std::vector<std::string> names;
  Labels labels(names);
  const StageProgrammer programmer(
      layer_shape(model, plan, 2048), *costs,
      [&](const LayerItem& item) {
        return nccl_choice(item.collective, node, item.bytes).seconds(item.bytes);
      },
      labels);
  ChunkProgram layer = programmer.chunk({.first_layer = 0, .layer_count = 1}, 0);
  // The code that the table was measured with reduces beside its weight gradients in every mode.
  hide_tensor_collectives(layer.backward, [&](const ChunkItem& collective) {
    return nccl_choice(collective.collective, node, collective.item.bytes).channels /
           double(gpu.streaming_multiprocessors);
  });
  return {seconds_of(layer.forward), seconds_of(layer.backward)};
}

}  // namespace

TEST_CASE("a layer of the 22-billion-parameter model takes its published times in five modes") {
  for (const Mode& mode : kModes) {
    const LayerTime time = layer_time(mode);
    CAPTURE(mode.name, time.forward_s * 1e3, mode.forward_ms, time.backward_s * 1e3,
            mode.backward_ms);
    const double measured_s = (mode.forward_ms + mode.backward_ms) * 1e-3;
    CHECK(time.forward_s + time.backward_s == Approx(measured_s).epsilon(0.05));
  }
}

}  // namespace rehearse
