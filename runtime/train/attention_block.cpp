#include "runtime/train/attention_block.h"

#include <cmath>

namespace rehearse {
namespace {

// Llama's and GPT-NeoX's base of the rotation's wavelengths (Su et al. 2021, arXiv 2104.09864).
constexpr double kRopeBase = 10000;

Tensor int_tensor(const RankContext& rank, const std::vector<std::int32_t>& values) {
  Tensor tensor(rank.pool, DType::I32, {static_cast<std::int64_t>(values.size())});
  rank.device.upload(tensor.view().data, values.data(), values.size() * sizeof(std::int32_t));
  return tensor;
}

Tensor rope_table(const RankContext& rank) {
  const std::int64_t d = rank.model.head_dim;
  std::vector<float> table(static_cast<std::size_t>(rank.seq_len * d));
  for (std::int64_t p = 0; p < rank.seq_len; ++p)
    for (std::int64_t i = 0; i < d / 2; ++i) {
      const double share = 2 * static_cast<double>(i) / static_cast<double>(d);
      const double angle = static_cast<double>(p) * std::pow(kRopeBase, -share);
      table[static_cast<std::size_t>(p * d + i)] = static_cast<float>(std::cos(angle));
      table[static_cast<std::size_t>(p * d + d / 2 + i)] = static_cast<float>(std::sin(angle));
    }
  Tensor tensor = rank.wide({rank.seq_len, d});
  rank.device.upload(tensor.view().data, table.data(), table.size() * sizeof(float));
  return tensor;
}

/// A (rows, width) tensor as heads.
TensorView as_heads(const Tensor& rows, std::int64_t head_dim) {
  return reshaped(rows.view(), {rows.size(0), rows.size(1) / head_dim, head_dim});
}

struct QueryKeyValue {
  TensorView query, key, value;
};

QueryKeyValue parts_of(const Tensor& fused, std::int64_t heads, std::int64_t kv_heads,
                       std::int64_t head_dim) {
  const TensorView all = as_heads(fused, head_dim);
  return {slice_columns(all, 0, heads), slice_columns(all, heads, kv_heads),
          slice_columns(all, heads + kv_heads, kv_heads)};
}

}  // namespace

std::vector<int> context_pieces(int cp, int rank, bool balanced) {
  if (balanced) return {rank, 2 * cp - 1 - rank};
  return {2 * rank, 2 * rank + 1};
}

SequenceTables::SequenceTables(const RankContext& rank) {
  const int cp = rank.plan.cp;
  for (int r = 0; r < cp; ++r)
    pieces.push_back(cp == 1 ? std::vector<int>{0}
                             : context_pieces(cp, r, rank.plan.context_balanced));
  const int length = cp == 1 ? rank.seq_len : rank.seq_len / (2 * cp);
  std::vector<std::int32_t> starts{0};
  for (int sequence = 0; sequence < rank.plan.micro_batch; ++sequence) {
    for (const int piece : pieces[static_cast<std::size_t>(rank.context.rank())])
      for (int i = 0; i < length; ++i) row_positions.push_back(piece * length + i);
    starts.push_back(static_cast<std::int32_t>(row_positions.size()));
  }
  positions = int_tensor(rank, row_positions);
  offsets = int_tensor(rank, starts);
  if (rank.model.positions == Positions::Rotary) rope = rope_table(rank);
}

AttentionBlock::AttentionBlock(const RankContext& rank, const SequenceTables& tables,
                               ShardedLinear::Places qkv)
    : rank_(rank),
      tables_(tables),
      heads_(rank.model.heads / rank.plan.tp),
      kv_heads_(rank.model.kv_heads / rank.plan.tp),
      head_dim_(rank.model.head_dim),
      fused_(rank, qkv, Cut::Columns),
      query_(rank,
             {.weight = qkv.weight,
              .bias = qkv.bias,
              .unit = qkv.unit,
              .first_row = 0,
              .rows = heads_ * head_dim_},
             Cut::Columns),
      key_value_(rank,
                 {.weight = qkv.weight,
                  .bias = qkv.bias,
                  .unit = qkv.unit,
                  .first_row = heads_ * head_dim_,
                  .rows = 2 * kv_heads_ * head_dim_},
                 Cut::Columns) {
  if (rank.plan.cp == 1) return;
  const std::int64_t length = rank.seq_len / (2 * rank.plan.cp);
  std::int64_t first_query = 0;
  for (std::int64_t sequence = 0; sequence < rank.plan.micro_batch; ++sequence)
    for (const int piece : tables.pieces[static_cast<std::size_t>(rank.context.rank())]) {
      const std::int64_t keys = (piece + 1) * length;
      pieces_.push_back({.first_query = first_query,
                         .queries = length,
                         .first_key = sequence * rank.seq_len,
                         .keys = keys,
                         .query_offsets = int_tensor(rank, {0, static_cast<std::int32_t>(length)}),
                         .key_offsets = int_tensor(rank, {0, static_cast<std::int32_t>(keys)})});
      first_query += length;
    }
}

AttentionShape AttentionBlock::shape(const Tensor& queries, const Tensor& keys,
                                     std::int64_t most_queries, std::int64_t most_keys) const {
  return {.query_offsets = queries,
          .key_offsets = keys,
          .max_query_length = most_queries,
          .max_key_length = most_keys,
          .causal = true,
          .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(head_dim_)))};
}

AttentionShape AttentionBlock::shape(const Piece& piece) const {
  return shape(piece.query_offsets, piece.key_offsets, piece.queries, piece.keys);
}

void AttentionBlock::rotate(const Tensor& rows, std::int64_t heads, bool inverse) const {
  if (rank_.model.positions != Positions::Rotary) return;
  rank_.device.run(Rope{.x = slice_columns(as_heads(rows, head_dim_), 0, heads),
                        .cosine_sine = tables_.rope,
                        .positions = tables_.positions,
                        .inverse = inverse});
}

void AttentionBlock::forward(const Tensor& x, AttentionState& state) const {
  const std::int64_t rows = rank_.tokens();
  state.out = rank_.empty({rows, heads_ * head_dim_});
  if (rank_.plan.cp == 1) {
    state.query_key_value = fused_.forward(x);
    rotate(state.query_key_value, heads_ + kv_heads_, false);
    const QueryKeyValue parts = parts_of(state.query_key_value, heads_, kv_heads_, head_dim_);
    state.log_sum_exp = {rank_.wide({heads_, rows})};
    rank_.device.run(AttentionForward{
        .query = parts.query,
        .key = parts.key,
        .value = parts.value,
        .out = as_heads(state.out, head_dim_),
        .log_sum_exp = state.log_sum_exp.front(),
        .shape = shape(tables_.offsets, tables_.offsets, rank_.seq_len, rank_.seq_len)});
    return;
  }
  state.query_key_value = query_.forward(x);
  rotate(state.query_key_value, heads_, false);
  const Tensor own = key_value_.forward(x);
  rotate(own, kv_heads_, false);
  const std::int64_t whole_rows = rows * rank_.plan.cp;
  state.key_value = rank_.empty({whole_rows, own.size(1)});
  exchange(state, own);
  attend(state);
}

std::vector<TensorView> AttentionBlock::rows_in_order(const Tensor& gathered) const {
  // Rank r's rows lie behind those of rank r − 1, in the order of its pieces within a sequence.
  const int cp = rank_.plan.cp;
  const std::int64_t length = rank_.seq_len / (2 * cp);
  std::vector<TensorView> ordered;
  for (std::int64_t sequence = 0; sequence < rank_.plan.micro_batch; ++sequence)
    for (int piece = 0; piece < 2 * cp; ++piece)
      for (int r = 0; r < cp; ++r)
        for (std::size_t i = 0; i < 2; ++i) {
          if (tables_.pieces[static_cast<std::size_t>(r)][i] != piece) continue;
          const std::int64_t first =
              r * rank_.tokens() + (2 * sequence + static_cast<std::int64_t>(i)) * length;
          ordered.push_back(slice_rows(gathered.view(), first, length));
        }
  return ordered;
}

void AttentionBlock::exchange(const AttentionState& state, const Tensor& own) const {
  const Tensor all = rank_.empty({state.key_value.size(0), own.size(1)});
  rank_.context.all_gather(own, all, Traffic::Context);
  rank_.device.run(BucketCopy{.tensors = rows_in_order(all),
                              .bucket = state.key_value.as({state.key_value.elements()})});
}

void AttentionBlock::attend(AttentionState& state) const {
  std::vector<Tensor>& statistics = state.log_sum_exp;
  statistics.clear();
  const TensorView heads = as_heads(state.key_value, head_dim_);
  for (const Piece& piece : pieces_) {
    const TensorView rows = slice_rows(heads, piece.first_key, piece.keys);
    const Tensor query = state.query_key_value.rows(piece.first_query, piece.queries);
    const Tensor out = state.out.rows(piece.first_query, piece.queries);
    statistics.push_back(rank_.wide({heads_, piece.queries}));
    rank_.device.run(AttentionForward{.query = as_heads(query, head_dim_),
                                      .key = slice_columns(rows, 0, kv_heads_),
                                      .value = slice_columns(rows, kv_heads_, kv_heads_),
                                      .out = as_heads(out, head_dim_),
                                      .log_sum_exp = statistics.back(),
                                      .shape = shape(piece)});
  }
}

Tensor AttentionBlock::backward(const Tensor& x, const AttentionState& state, const Tensor& d_out,
                                WeightWork& work) const {
  return rank_.plan.cp == 1 ? backward_whole(x, state, d_out, work)
                            : backward_pieces(x, state, d_out, work);
}

Tensor AttentionBlock::backward_whole(const Tensor& x, const AttentionState& state,
                                      const Tensor& d_out, WeightWork& work) const {
  const Tensor d_fused =
      rank_.empty({state.query_key_value.size(0), state.query_key_value.size(1)});
  const QueryKeyValue parts = parts_of(state.query_key_value, heads_, kv_heads_, head_dim_);
  const QueryKeyValue slopes = parts_of(d_fused, heads_, kv_heads_, head_dim_);
  rank_.device.run(AttentionBackward{
      .d_out = as_heads(d_out, head_dim_),
      .query = parts.query,
      .key = parts.key,
      .value = parts.value,
      .out = as_heads(state.out, head_dim_),
      .log_sum_exp = state.log_sum_exp.front(),
      .d_query = slopes.query,
      .d_key = slopes.key,
      .d_value = slopes.value,
      .shape = shape(tables_.offsets, tables_.offsets, rank_.seq_len, rank_.seq_len)});
  rotate(d_fused, heads_ + kv_heads_, true);
  return fused_.backward(x, d_fused, work);
}

Tensor AttentionBlock::backward_pieces(const Tensor& x, const AttentionState& state,
                                       const Tensor& d_out, WeightWork& work) const {
  const std::int64_t width = state.key_value.size(1);
  const Tensor d_query = rank_.empty({rank_.tokens(), heads_ * head_dim_});
  // Ordered by position, of whole sequences: the sum of what each piece of queries leaves.
  const Tensor d_whole = rank_.empty({state.key_value.size(0), width});
  rank_.device.fill_bytes(
      d_whole.view().data, 0,
      static_cast<std::size_t>(d_whole.elements()) * element_bytes(d_whole.dtype()));
  const TensorView heads = as_heads(state.key_value, head_dim_);
  for (std::size_t i = 0; i < pieces_.size(); ++i) {
    const Piece& piece = pieces_[i];
    const TensorView rows = slice_rows(heads, piece.first_key, piece.keys);
    const Tensor d_part = rank_.empty({piece.keys, width});
    const TensorView slopes = as_heads(d_part, head_dim_);
    rank_.device.run(AttentionBackward{
        .d_out = as_heads(d_out.rows(piece.first_query, piece.queries), head_dim_),
        .query = as_heads(state.query_key_value.rows(piece.first_query, piece.queries), head_dim_),
        .key = slice_columns(rows, 0, kv_heads_),
        .value = slice_columns(rows, kv_heads_, kv_heads_),
        .out = as_heads(state.out.rows(piece.first_query, piece.queries), head_dim_),
        .log_sum_exp = state.log_sum_exp[i],
        .d_query = as_heads(d_query.rows(piece.first_query, piece.queries), head_dim_),
        .d_key = slice_columns(slopes, 0, kv_heads_),
        .d_value = slice_columns(slopes, kv_heads_, kv_heads_),
        .shape = shape(piece)});
    const Tensor sum = d_whole.rows(piece.first_key, piece.keys);
    rank_.device.run(Add{.a = sum, .b = d_part, .out = sum});
  }
  const Tensor by_rank = rank_.empty({d_whole.size(0), width});
  rank_.device.run(BucketCopy{.tensors = rows_in_order(by_rank),
                              .bucket = d_whole.as({d_whole.elements()}),
                              .unpack = true});
  const Tensor d_own = rank_.empty({rank_.tokens(), width});
  rank_.context.reduce_scatter(by_rank, d_own, Traffic::Context);
  rotate(d_query, heads_, true);
  rotate(d_own, kv_heads_, true);
  const Tensor d_x_query = query_.backward(x, d_query, work);
  const Tensor d_x_rest = key_value_.backward(x, d_own, work);
  Tensor d_x = rank_.empty({d_x_query.size(0), d_x_query.size(1)});
  rank_.device.run(Add{.a = d_x_query, .b = d_x_rest, .out = d_x});
  return d_x;
}

}  // namespace rehearse
