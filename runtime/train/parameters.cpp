#include "runtime/train/parameters.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/ops/philox.h"
#include "plan/digest.h"
#include "plan/ensure.h"

namespace rehearse {
namespace {

constexpr double kDeviation = 0.02;

using Sizes = std::vector<std::int64_t>;

/// Rows [first, first + count) of a tensor, as a parameter of its own.
struct Rows {
  std::int64_t first = 0, count = 0;
};

NamedBox rows_box(std::string name, Sizes shape, Rows rows) {
  NamedBox box{.name = std::move(name), .shape = std::move(shape), .begin = {}, .extent = {}};
  box.begin.assign(box.shape.size(), 0);
  box.extent = box.shape;
  box.begin[0] = rows.first;
  box.extent[0] = rows.count;
  return box;
}

Parameter single(NamedBox box, bool decays) {
  Parameter parameter;
  const Sizes& e = box.extent;
  parameter.shape = e.size() == 1 ? TensorShape{e[0]} : TensorShape{e[0], e[1]};
  parameter.decays = decays;
  parameter.boxes.push_back(std::move(box));
  return parameter;
}

void add_norm(std::vector<Parameter>& out, const Model& model, bool sequence_parallel,
              const std::string& name) {
  const auto add = [&](const char* part, double mean) {
    NamedBox box = rows_box(name + part, {model.hidden}, {0, model.hidden});
    box.mean = mean;
    Parameter parameter = single(std::move(box), false);
    parameter.is_copy = true;
    parameter.sums_over_sequence = sequence_parallel;
    out.push_back(std::move(parameter));
  };
  add(".weight", 1);
  if (model.norm == Norm::LayerNorm) add(".bias", 0);
}

/// One of the tensors that a fused product makes side by side.
struct FusedPart {
  const char* name;
  std::int64_t out;  ///< of the whole tensor
};

/// Output columns divided among tensor ranks: each holds its rows of every part, one behind the
/// other.
void add_column_parallel(std::vector<Parameter>& out, const std::string& prefix,
                         const std::vector<FusedPart>& parts, std::int64_t in, bool bias,
                         TensorSlice slice) {
  Parameter weight, offsets;
  std::int64_t rows = 0;
  for (const FusedPart& part : parts) {
    ensure(part.out % slice.size == 0, "a checked plan divides the columns of a product");
    const std::int64_t count = part.out / slice.size;
    const Rows own{slice.rank * count, count};
    NamedBox matrix = rows_box(prefix + part.name + ".weight", {part.out, in}, own);
    matrix.deviation = kDeviation;
    matrix.offset = rows * in;
    NamedBox vector = rows_box(prefix + part.name + ".bias", {part.out}, own);
    vector.offset = rows;
    weight.boxes.push_back(std::move(matrix));
    offsets.boxes.push_back(std::move(vector));
    rows += count;
  }
  weight.shape = {rows, in};
  weight.decays = true;
  offsets.shape = {rows};
  out.push_back(std::move(weight));
  if (bias) out.push_back(std::move(offsets));
}

/// Input columns divided among tensor ranks. The bias is whole on each, and added on the first.
void add_row_parallel(std::vector<Parameter>& out, const std::string& name, const Model& model,
                      std::int64_t in, bool sequence_parallel, TensorSlice slice) {
  ensure(in % slice.size == 0, "a checked plan divides the rows of a product");
  const std::int64_t count = in / slice.size;
  NamedBox box{.name = name + ".weight",
               .shape = {model.hidden, in},
               .begin = {0, slice.rank * count},
               .extent = {model.hidden, count}};
  box.deviation = kDeviation / std::sqrt(2.0 * model.layers);
  out.push_back(single(std::move(box), true));
  if (!model.linear_bias) return;
  Parameter bias = single(rows_box(name + ".bias", {model.hidden}, {0, model.hidden}), false);
  bias.is_copy = true;
  bias.sums_over_sequence = sequence_parallel;
  out.push_back(std::move(bias));
}

/// The table, or this rank's rows of it, padded to a size that tensor ranks share evenly.
Parameter table(const std::string& name, const Model& model, const Plan& plan, TensorSlice slice) {
  const bool splits = plan.vocabulary_parallel && slice.size > 1;
  const std::int64_t rows =
      padded_vocab(model, splits ? slice.size : 1) / (splits ? slice.size : 1);
  const std::int64_t first = splits ? slice.rank * rows : 0;
  const std::int64_t real = std::clamp<std::int64_t>(model.vocab - first, 0, rows);
  NamedBox box = rows_box(name, {model.vocab, model.hidden},
                          {std::min<std::int64_t>(first, model.vocab), real});
  box.deviation = kDeviation;
  Parameter parameter = single(std::move(box), true);
  parameter.shape = {rows, model.hidden};
  parameter.is_copy = !splits;
  return parameter;
}

void mark_copies(std::vector<Parameter>& parameters, TensorSlice slice) {
  // What every tensor rank holds whole is counted by the first.
  for (Parameter& parameter : parameters) parameter.is_copy = parameter.is_copy && slice.rank > 0;
}

bool splits_sequence(const Plan& plan) { return plan.sequence_parallel && plan.tp > 1; }

double normal_at(std::uint64_t key, std::int64_t index) {
  // Two normal numbers come of two uniform ones; the neighbour has the other.
  const PhiloxBlock block = philox(static_cast<std::uint64_t>(index / 2), key);
  const double u = (static_cast<double>(block.word[0]) + 1) / 4294967297.0;
  const double angle = 2 * std::numbers::pi * static_cast<double>(block.word[1]) / 4294967296.0;
  const double radius = std::sqrt(-2 * std::log(u));
  return index % 2 == 0 ? radius * std::cos(angle) : radius * std::sin(angle);
}

}  // namespace

std::int64_t NamedBox::elements() const {
  std::int64_t count = 1;
  for (const std::int64_t size : extent) count *= size;
  return count;
}

std::vector<NamedBox> boxes_in_range(const NamedBox& box, std::int64_t begin, std::int64_t end) {
  std::vector<NamedBox> out;
  std::int64_t at = std::max(begin, box.offset) - box.offset;
  const std::int64_t stop = std::min(end, box.offset + box.elements()) - box.offset;
  const std::int64_t columns = box.extent.size() == 2 ? box.extent[1] : 1;
  while (at < stop) {
    const std::int64_t row = at / columns, column = at % columns;
    NamedBox part = box;
    part.offset = box.offset + at;
    part.begin[0] += row;
    part.extent[0] = 1;
    std::int64_t taken = std::min(columns - column, stop - at);
    if (column == 0 && stop - at >= columns) {
      part.extent[0] = (stop - at) / columns;
      taken = part.extent[0] * columns;
    } else if (box.extent.size() == 2) {
      part.begin[1] += column;
      part.extent[1] = taken;
    }
    out.push_back(std::move(part));
    at += taken;
  }
  return out;
}

LayerPlaces::LayerPlaces(const Model& model) {
  const auto take = [&](int& weight, int& bias, bool has_bias) {
    weight = count++;
    if (has_bias) bias = count++;
  };
  const bool layer_norm = model.norm == Norm::LayerNorm;
  take(norm1_weight, norm1_bias, layer_norm);
  take(qkv_weight, qkv_bias, model.linear_bias || model.qkv_bias);
  take(projection_weight, projection_bias, model.linear_bias);
  take(norm2_weight, norm2_bias, layer_norm);
  take(up_weight, up_bias, model.linear_bias);
  take(down_weight, down_bias, model.linear_bias);
}

std::vector<Parameter> embedding_weights(const Model& model, const Plan& plan, TensorSlice slice) {
  std::vector<Parameter> out;
  out.push_back(table("embedding", model, plan, slice));
  if (model.positions == Positions::Learned) {
    const std::int64_t rows = model.max_seq_len;
    NamedBox box = rows_box("positions", {rows, model.hidden}, {0, rows});
    box.deviation = kDeviation;
    Parameter parameter = single(std::move(box), true);
    parameter.is_copy = true;
    out.push_back(std::move(parameter));
  }
  mark_copies(out, slice);
  return out;
}

std::vector<Parameter> layer_weights(const Model& model, const Plan& plan, TensorSlice slice,
                                     int layer) {
  const std::string prefix = "layer" + std::to_string(layer) + ".";
  const bool split = splits_sequence(plan);
  const std::int64_t query = std::int64_t{model.heads} * model.head_dim;
  const std::int64_t key = std::int64_t{model.kv_heads} * model.head_dim;
  std::vector<Parameter> out;
  add_norm(out, model, split, prefix + "norm1");
  add_column_parallel(out, prefix, {{"query", query}, {"key", key}, {"value", key}}, model.hidden,
                      model.linear_bias || model.qkv_bias, slice);
  add_row_parallel(out, prefix + "projection", model, query, split, slice);
  add_norm(out, model, split, prefix + "norm2");
  std::vector<FusedPart> up;
  if (model.activation == Activation::Swiglu) up.push_back({"gate", model.ffn});
  up.push_back({"up", model.ffn});
  add_column_parallel(out, prefix, up, model.hidden, model.linear_bias, slice);
  add_row_parallel(out, prefix + "down", model, model.ffn, split, slice);
  mark_copies(out, slice);
  return out;
}

std::vector<Parameter> head_weights(const Model& model, const Plan& plan, TensorSlice slice,
                                    bool with_table) {
  std::vector<Parameter> out;
  add_norm(out, model, splits_sequence(plan), "final_norm");
  if (with_table)
    out.push_back(table(model.tied_embeddings ? "embedding" : "head", model, plan, slice));
  mark_copies(out, slice);
  return out;
}

void initial_weights(const Parameter& parameter, std::uint64_t seed, float* out) {
  std::fill_n(out, parameter.elements(), 0.0f);
  for (const NamedBox& box : parameter.boxes) {
    const std::uint64_t key = fnv1a(box.name + " " + std::to_string(seed));
    const bool is_matrix = box.shape.size() == 2;
    const std::int64_t width = is_matrix ? box.shape[1] : 1;
    const std::int64_t columns = is_matrix ? box.extent[1] : 1;
    const std::int64_t first_column = is_matrix ? box.begin[1] : 0;
    for (std::int64_t row = 0; row < box.extent[0]; ++row)
      for (std::int64_t column = 0; column < columns; ++column) {
        const std::int64_t index = (box.begin[0] + row) * width + first_column + column;
        double value = box.mean;
        if (box.deviation > 0) value += box.deviation * normal_at(key, index);
        out[box.offset + row * columns + column] = static_cast<float>(value);
      }
  }
}

}  // namespace rehearse
