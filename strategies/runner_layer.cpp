#include "strategies/runner_layer.h"

#include <utility>

namespace rehearse {

RunnerTensorWalk::Block RunnerTensorWalk::norm(Norm& state) {
  Block out = split_rows(at_.hidden);
  state.inverse_deviation = wide(at_.split_tokens);
  if (shape_.model.norm == rehearse::Norm::LayerNorm) state.mean = wide(at_.split_tokens);
  return out;
}

RunnerTensorWalk::Block RunnerTensorWalk::linear(const Block& x, std::int64_t in, std::int64_t out,
                                                 Cut cut) {
  const Block whole = shape_.sequence_parallel && cut != Cut::Rows ? rows(in) : x;
  Block result = rows(out);
  if (cut != Cut::Rows || !shape_.sequence_parallel) return result;
  return split_rows(out);
}

RunnerTensorWalk::Block RunnerTensorWalk::linear_backward(const Block& x, const Block& d_out,
                                                          std::int64_t in, Cut cut,
                                                          WeightWork& work) {
  const bool split = shape_.sequence_parallel, gathers = split && cut != Cut::Rows;
  const Block d_whole = split && cut == Cut::Rows ? rows(at_.hidden) : d_out;
  WeightWork::Product product{.x = x,
                              .d_whole = d_whole,
                              .d_out = d_out,
                              .gathers = gathers && work.deferred ? in : 0,
                              .unit = work.unit};
  if (gathers && !work.deferred) product.x = rows(in);
  Block d_x = rows(in);
  Block result = split && cut == Cut::Columns ? split_rows(in) : d_x;
  if (work.deferred) work.products.push_back(std::move(product));
  return result;
}

void RunnerTensorWalk::weight_gradients(WeightWork& work, std::int32_t unit) {
  for (WeightWork::Product& product : work.products) {
    if (product.unit != unit) continue;
    if (product.gathers > 0) rows(product.gathers);
    product = {};
    product.unit = -1;
  }
}

void RunnerTensorWalk::ring(Attention& state) {
  state.key_value = key_values();
  Result sum;
  for (int hops = 0; hops < plan_.cp; ++hops) {
    const bool hops_on = hops + 1 < plan_.cp;
    const Block arriving = hops_on ? key_values() : nullptr, leaving = state.key_value;
    Result more{rows(at_.query), wide(at_.heads * at_.tokens)};
    if (hops == 0)
      sum = std::move(more);
    else
      sum = Result{hops_on ? wide(at_.tokens * at_.query) : rows(at_.query),
                   wide(at_.heads * at_.tokens)};
    if (hops_on) state.key_value = arriving;
  }
  state.out = std::move(sum.out);
  state.log_sum_exp = std::move(sum.log_sum_exp);
}

void RunnerTensorWalk::ring_backward(const Attention& state) {
  Block block = state.key_value, d_block, d_query;
  for (int step = 0; step < plan_.cp; ++step) {
    const bool is_home = step + 1 == plan_.cp;
    const Block keys = is_home ? nullptr : key_values(), leaving_keys = block;
    const Block gradients = step > 0 ? key_values() : nullptr, leaving_gradients = d_block;
    const Block d_part = key_values();
    Block d_more = rows(at_.query);
    if (d_query != nullptr)
      d_query = is_home ? nullptr : wide(at_.tokens * at_.query);
    else
      d_query = std::move(d_more);
    d_block = step == 0 ? d_part : gradients;
    if (!is_home) block = keys;
  }
}

void RunnerTensorWalk::exchange(std::int64_t width) {
  const Block sent = rows(width), received = rows(width);
}

/// Of whole sequences and 1/cp of the heads: as many elements as of a part of each and all heads.
void RunnerTensorWalk::head_exchange(Attention& state) {
  state.query_key_value = rows(at_.qkv);
  for (const std::int64_t width : {at_.query, at_.key, at_.key}) exchange(width);
  state.head_out = rows(at_.query);
  state.log_sum_exp = wide(at_.heads * at_.tokens);
  state.out = rows(at_.query);
  exchange(at_.query);
}

void RunnerTensorWalk::head_exchange_backward() {
  const Block d_heads = rows(at_.query);
  exchange(at_.query);
  const Block d_whole = rows(at_.qkv);
  for (const std::int64_t width : {at_.query, at_.key, at_.key}) exchange(width);
}

void RunnerTensorWalk::attention(const Block& fused, Attention& state) {
  if (plan_.cp > 1 && plan_.context == ContextKind::AllToAll) return head_exchange(state);
  state.query_key_value = fused;
  if (plan_.cp > 1) return ring(state);
  state.out = rows(at_.query);
  state.log_sum_exp = wide(at_.heads * at_.tokens);
}

RunnerTensorWalk::Block RunnerTensorWalk::compute(Layer& state) {
  state.normed1 = norm(state.norm1);
  attention(linear(state.normed1, at_.hidden, at_.qkv, Cut::Columns), state.attention);
  const Block projected = linear(state.attention.out, at_.query, at_.hidden, Cut::Rows);
  state.normed2 = norm(state.norm2);
  state.projected_sum = split_rows(at_.hidden);
  state.up = linear(state.normed2, at_.hidden, at_.ffn_up, Cut::Columns);
  state.activated = rows(at_.ffn);
  const Block down = linear(state.activated, at_.ffn, at_.hidden, Cut::Rows);
  return split_rows(at_.hidden);
}

RunnerTensorWalk::Block RunnerTensorWalk::layer_forward(const Block& input, bool recomputes,
                                                        Layer& state) {
  state.input = input;
  Block output = compute(state);
  if (recomputes) {
    state = {};
    state.input = input;
  }
  return output;
}

RunnerTensorWalk::Block RunnerTensorWalk::layer_backward(Layer& state, bool recomputes,
                                                         const Block& d_output, WeightWork& work) {
  if (recomputes) compute(state);
  const Block d_activated = linear_backward(state.activated, d_output, at_.ffn, Cut::Rows, work);
  const Block d_up = rows(at_.ffn_up);
  const Block d_normed2 = linear_backward(state.normed2, d_up, at_.hidden, Cut::Columns, work);
  const Block d_sum = split_rows(at_.hidden);
  const Block d_attention = linear_backward(state.attention.out, d_sum, at_.query, Cut::Rows, work);
  const Block d_normed1 = [&] {
    const Block d_fused = rows(at_.qkv);
    if (plan_.cp > 1) {
      if (plan_.context == ContextKind::AllToAll)
        head_exchange_backward();
      else
        ring_backward(state.attention);
    }
    return linear_backward(state.normed1, d_fused, at_.hidden, Cut::Columns, work);
  }();
  Block d_input = split_rows(at_.hidden);
  state = {};
  return d_input;
}

RunnerTensorWalk::Block RunnerTensorWalk::embedding_forward() {
  const bool splits_vocabulary = shape_.tp > 1 && shape_.vocabulary_parallel;
  Block out = rows(at_.hidden);
  const bool scatters = shape_.sequence_parallel && shape_.model.positions != Positions::Learned;
  if (splits_vocabulary && scatters) return split_rows(at_.hidden);
  return out;  // all of it, also where a rank goes on with its own rows
}

void RunnerTensorWalk::embedding_backward(const Block& d_out) {
  const Block d_whole = shape_.sequence_parallel ? rows(at_.hidden) : d_out;
}

void RunnerTensorWalk::head_forward(const Block& input, const Block& targets, Head& state) {
  const bool splits_vocabulary = shape_.tp > 1 && shape_.vocabulary_parallel;
  state.input = input;
  state.targets = targets;
  state.normed = norm(state.norm);
  state.logits =
      linear(state.normed, at_.hidden, at_.vocab, splits_vocabulary ? Cut::Columns : Cut::None);
  state.maximum = of_tokens();
  state.sum = of_tokens();
  state.target_logit = of_tokens();
  if (!splits_vocabulary) return;
  const Block own_maximum = state.maximum;
  state.maximum = of_tokens();
}

RunnerTensorWalk::Block RunnerTensorWalk::head_backward(Head& state, Block& losses,
                                                        WeightWork& work) {
  const bool splits_vocabulary = shape_.tp > 1 && shape_.vocabulary_parallel;
  losses = of_tokens();
  const Block d_normed = linear_backward(state.normed, state.logits, at_.hidden,
                                         splits_vocabulary ? Cut::Columns : Cut::None, work);
  Block d_input = split_rows(at_.hidden);
  state = {};
  return d_input;
}

}  // namespace rehearse
