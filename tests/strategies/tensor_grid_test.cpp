// Weights in blocks over rows and columns of tensor ranks, against closed forms: what each product
// moves along either dimension, what a rank holds and keeps, and that folding changes nothing.
#include <algorithm>

#include "strategies/memory.h"
#include "tests/catch.h"
#include "tests/strategies/lowering_support.h"

using namespace rehearse;

namespace {

constexpr auto kTensor = static_cast<std::size_t>(CommKind::Tensor);

/// GPT-like: 3h columns of QKV, a block of width f = 4h, GeLU, LayerNorm.
Question grid_question(int tp, int rows, bool sequence_parallel) {
  Question question;
  question.model = small_model(4);
  question.model.positions = Positions::Rotary;
  question.plan.tp = tp;
  question.plan.tensor_rows = rows;
  question.plan.dp = 1;
  question.plan.sequence_parallel = sequence_parallel;
  question.workload.global_batch = 2;
  question.workload.seq_len = 1024;
  return question;
}

LayerShape shape_of(const Question& question) {
  return layer_shape(question.model, question.plan, question.workload.seq_len);
}

struct Moved {
  double gathered = 0, scattered = 0, reduced = 0;
};

Moved moved(const std::vector<LayerItem>& items, CommGroup group) {
  Moved sum;
  for (const LayerItem& item : items) {
    if (!item.is_collective || item.group != group) continue;
    (item.collective == CollectiveKind::AllGather       ? sum.gathered
     : item.collective == CollectiveKind::ReduceScatter ? sum.scattered
                                                        : sum.reduced) += item.bytes;
  }
  return sum;
}

double flops_of_products(const std::vector<LayerItem>& items) {
  double flops = 0;
  for (const LayerItem& item : items)
    if (!item.is_collective && item.op.family == OperatorFamily::Gemm) flops += item.op.flops;
  return flops;
}

double saved_bytes(const LayerShape& shape, const std::string& name) {
  for (const SavedTensor& tensor : layer_saved_tensors(shape))
    if (tensor.name == name) return tensor.bytes;
  return -1;
}

bool refuses(const Question& question, const std::string& pointer) {
  const auto faults = plan_faults(resolve(question.plan, 8), question.model, question.workload, 8);
  return std::any_of(faults.begin(), faults.end(),
                     [&](const PlanFault& fault) { return fault.pointer == pointer; });
}

}  // namespace

TEST_CASE("each product gathers along one dimension of the grid and sums along the other") {
  const int rows = GENERATE(2, 4);
  const int columns = GENERATE(2, 4);
  const bool split = GENERATE(false, true);
  const Question question = grid_question(rows * columns, rows, split);
  const LayerShape shape = shape_of(question);
  const double tokens = 1024, hidden = 1024, ffn = 4096, bytes = 2;
  const double residual = bytes * tokens * hidden / rows;
  const double norm_sums = 4 * 2 * tokens / (split ? columns : 1);  // mean and variance

  const auto forward = layer_forward(shape);
  const Moved row = moved(forward, CommGroup::TensorRow);
  CHECK(row.gathered == Approx(split ? 2 * residual : 0));
  CHECK(row.scattered == Approx(split ? 2 * residual : 0));
  CHECK(row.reduced == Approx(split ? 0 : 2 * residual));
  const Moved column = moved(forward, CommGroup::TensorColumn);
  CHECK(column.scattered == Approx(bytes * tokens * (3 * hidden + ffn) / columns));
  CHECK(column.gathered == Approx(bytes * tokens * (hidden + ffn) / columns));
  CHECK(column.reduced == Approx(2 * norm_sums));
  CHECK(moved(forward, CommGroup::Tensor).reduced == 0);

  const auto backward = layer_backward(shape);
  const Moved back_row = moved(backward, CommGroup::TensorRow);
  CHECK(back_row.gathered == Approx(split ? 4 * residual : 0));  // dY twice, X twice for dW
  CHECK(back_row.scattered == Approx(split ? 2 * residual : 0));
  CHECK(back_row.reduced == Approx(split ? 0 : 2 * residual));
  const Moved back_column = moved(backward, CommGroup::TensorColumn);
  // Into blocks dY; out of blocks the inputs that weights' gradients need.
  CHECK(back_column.gathered ==
        Approx(bytes * tokens * (3 * hidden + ffn + hidden + ffn) / columns));
  CHECK(back_column.scattered == Approx(bytes * tokens * (hidden + ffn) / columns));
  CHECK(back_column.reduced == Approx(2 * norm_sums));
}

TEST_CASE("a rank's blocks hold and compute as much as its columns and rows would") {
  const int rows = GENERATE(1, 2, 4, 8);
  const LayerShape grid = shape_of(grid_question(8, rows, true));
  const LayerShape flat = shape_of(grid_question(8, 1, true));
  CHECK(flops_of_products(layer_forward(grid)) ==
        Approx(flops_of_products(layer_forward(flat))).epsilon(1e-12));
  CHECK(flops_of_products(layer_backward(grid)) ==
        Approx(flops_of_products(layer_backward(flat))).epsilon(1e-12));
  // Norms and biases of row-parallel products, h each, are divided by the rows, and no others.
  const double whole = 6 * 1024;
  CHECK(layer_parameters_per_rank(grid) ==
        Approx(layer_parameters_per_rank(flat) - whole + whole / rows).epsilon(1e-12));
  CHECK(embedding_parameters_per_rank(grid) == embedding_parameters_per_rank(flat));
  // With the sequence split every saved tensor is divided by all tensor ranks, as it is without
  // rows.
  double kept = 0, kept_flat = 0;
  for (const SavedTensor& tensor : layer_saved_tensors(grid)) kept += tensor.bytes;
  for (const SavedTensor& tensor : layer_saved_tensors(flat)) kept_flat += tensor.bytes;
  CHECK(kept == Approx(kept_flat).epsilon(1e-12));
}

TEST_CASE("without a split sequence a rank still keeps only its rows' part of the residual") {
  const int rows = GENERATE(1, 2, 4);
  const LayerShape shape = shape_of(grid_question(8, rows, false));
  CHECK(saved_bytes(shape, "attention norm input") == Approx(2.0 * 1024 * 1024 / rows));
  CHECK(saved_bytes(shape, "qkv input") == Approx(2.0 * 1024 * 1024 / rows));
  CHECK(saved_bytes(shape, "ffn_down input") == Approx(2.0 * 1024 * 4096 / 8));
  CHECK(boundary_bytes(shape) == Approx(2.0 * 1024 * 1024 / rows));
}

TEST_CASE("one row is Megatron-LM's tensor parallelism, to the last item") {
  const LayerShape shape = shape_of(grid_question(8, 1, true));
  for (const auto& items : {layer_forward(shape), layer_backward(shape)}) {
    CHECK(moved(items, CommGroup::TensorRow).gathered == 0);
    CHECK(moved(items, CommGroup::TensorColumn).gathered == 0);
  }
  CHECK(moved(layer_forward(shape), CommGroup::Tensor).gathered == 2 * 2.0 * 1024 * 1024);
}

TEST_CASE("a simulated step moves the bytes of its items in every fidelity, and takes as long") {
  const int tp = GENERATE(8, 16);  // in a node, and over two
  const int rows = GENERATE(2, 4);
  const bool split = GENERATE(false, true);
  Question question = grid_question(tp, rows, split);
  question.plan.dp = 2;
  question.plan.pp = GENERATE(1, 2);
  question.workload.global_batch = 8;
  const Cluster cluster = build(dgx_spec(world_size(question.plan) / 8));
  const Simulated folded = simulate_plan(question, cluster, FlatCosts());
  question.lowering.fidelity = Fidelity::Full;
  const Simulated full = simulate_plan(question, cluster, FlatCosts());
  CHECK(full.metrics.step_time_s == Approx(folded.metrics.step_time_s).epsilon(1e-9));
  for (int rank = 0; rank < world_size(question.plan); ++rank)
    CHECK(full.of(Rank{rank}).bytes[kTensor] ==
          Approx(folded.of(Rank{rank}).bytes[kTensor]).epsilon(1e-12));
  if (question.plan.pp > 1) return;
  const LayerShape shape = shape_of(question);
  double bytes = 0;
  const auto add = [&](const std::vector<LayerItem>& items, double times) {
    for (const LayerItem& item : items)
      if (item.is_collective) bytes += times * item.bytes;
  };
  for (const auto& items : {layer_forward(shape), layer_backward(shape)}) add(items, 4 * 4);
  for (const auto& items : {embedding_forward(shape), embedding_backward(shape),
                            head_forward(shape), head_backward(shape)})
    add(items, 4);
  CHECK(folded.of(Rank{0}).bytes[kTensor] == Approx(bytes).epsilon(1e-12));
}

TEST_CASE("what has no cut by blocks is refused in a sentence") {
  Question question = grid_question(8, 3, true);
  CHECK(refuses(question, "/tensor_rows"));
  question = grid_question(8, 2, true);
  CHECK_FALSE(refuses(question, "/tensor_rows"));
  question.plan.overlap.tensor_pieces = true;
  CHECK(refuses(question, "/overlap/tensor_pieces"));
  question = grid_question(8, 2, true);
  question.plan.recompute = Recompute::Operators;
  CHECK(refuses(question, "/recompute"));
  question = grid_question(8, 2, true);
  question.plan.vocabulary_parallel = false;
  CHECK(refuses(question, "/vocabulary_parallel"));
  question = grid_question(8, 2, true);
  question.model.experts = {.count = 8, .active = 2};
  CHECK(refuses(question, "/tensor_rows"));
}
