#include "runtime/train/ring_attention.h"

#include <set>
#include <utility>

#include "runtime/train/sequence_tables.h"

namespace rehearse {
namespace {

// What goes round: a block's keys and values, and the gradients that follow them.
constexpr int kKeysTag = 1, kGradientsTag = 2;

}  // namespace

std::vector<MessageLane> ring_lanes(int ranks) {
  std::set<MessageLane> lanes;
  for (int rank = 0; rank < ranks; ++rank) {
    const int next = (rank + 1) % ranks, last = (rank + ranks - 1) % ranks;
    lanes.insert({{rank, next, kKeysTag}, {rank, last, kKeysTag}, {rank, last, kGradientsTag}});
  }
  return {lanes.begin(), lanes.end()};
}

RingAttention::RingAttention(const RankContext& rank, const HeadCounts& counts)
    : rank_(rank), counts_(counts) {
  const std::int64_t length = rank.seq_len / rank.plan.cp, half = length / 2;
  const auto sequences = static_cast<std::size_t>(rank.plan.micro_batch);
  own_ = {rank, std::vector(sequences, length), std::vector(sequences, length)};
  for (int owner = 0; owner < rank.plan.cp; ++owner)
    if (part_of(owner).sequences != nullptr) ++blocks_;
  if (!holds_two_pieces(rank.plan)) return;
  // Packed sequences have no gaps, so each sequence counts as two: keys that nobody asks for belong
  // to no query, and queries that see nothing have no key.
  std::vector<std::int64_t> all_then_none, none_then_all, halves;
  for (std::size_t i = 0; i < sequences; ++i) {
    all_then_none.insert(all_then_none.end(), {length, 0});
    none_then_all.insert(none_then_all.end(), {0, length});
    halves.insert(halves.end(), {half, half});
  }
  earlier_ = {rank, all_then_none, halves};
  later_ = {rank, halves, none_then_all};
}

RingAttention::Part RingAttention::part_of(int owner) const {
  const int self = rank_.context.rank();
  if (owner == self) return {&own_, true};
  if (holds_two_pieces(rank_.plan)) return {owner < self ? &earlier_ : &later_, false};
  if (owner < self) return {&own_, false};
  return {};
}

Tensor RingAttention::block_like() const {
  return rank_.empty({rank_.tokens(), counts_.key_value_width()});
}

RingAttention::Hop RingAttention::start_hop(const Tensor& block, int to, int from, int tag) const {
  Hop hop{.out = block, .in = block_like(), .send = {}, .receive = {}};
  hop.receive = rank_.context.start_receive(hop.in, from, tag);
  hop.send = rank_.context.start_send(hop.out, to, tag, Traffic::Context);
  if (!rank_.plan.overlap.context) finish_hop(hop);
  return hop;
}

Tensor RingAttention::finish_hop(Hop& hop) const {
  finish(hop.receive);
  finish(hop.send);
  return hop.in;
}

void RingAttention::attend(const Part& part, const AttentionState& state, const Result& to) const {
  const TensorView block = as_heads(state.key_value, counts_.d);
  rank_.device.run(
      AttentionForward{.query = QueryKeyValue(state.query_key_value, counts_).query,
                       .key = slice_columns(block, 0, counts_.kv_heads),
                       .value = slice_columns(block, counts_.kv_heads, counts_.kv_heads),
                       .out = as_heads(to.out, counts_.d),
                       .log_sum_exp = to.log_sum_exp,
                       .shape = part.sequences->shape(part.causal, counts_.d)});
}

RingAttention::Result RingAttention::joined(const Result& a, const Result& b, bool is_last) const {
  const TensorShape shape{rank_.tokens(), counts_.query_width()};
  Result sum{is_last ? rank_.empty(shape) : rank_.wide(shape),
             rank_.wide({counts_.heads, rank_.tokens()})};
  rank_.device.run(AttentionJoin{.a = as_heads(a.out, counts_.d),
                                 .b = as_heads(b.out, counts_.d),
                                 .a_log_sum_exp = a.log_sum_exp,
                                 .b_log_sum_exp = b.log_sum_exp,
                                 .out = as_heads(sum.out, counts_.d),
                                 .log_sum_exp = sum.log_sum_exp});
  return sum;
}

void RingAttention::forward(AttentionState& state) const {
  const int cp = rank_.plan.cp, self = rank_.context.rank();
  const int next = (self + 1) % cp, last = (self + cp - 1) % cp;
  state.key_value = block_like();
  rank_.device.run(BucketCopy{.tensors = {QueryKeyValue(state.query_key_value, counts_).key_value},
                              .bucket = state.key_value.as({state.key_value.elements()})});
  const TensorShape shape{rank_.tokens(), counts_.query_width()};
  Result sum;  // of the blocks so far
  int worked = 0;
  for (int hops = 0; hops < cp; ++hops) {
    Hop hop;
    if (hops + 1 < cp) hop = start_hop(state.key_value, next, last, kKeysTag);
    const Part part = part_of((self + cp - hops) % cp);
    if (part.sequences != nullptr) {
      Result more{rank_.empty(shape), rank_.wide({counts_.heads, rank_.tokens()})};
      attend(part, state, more);
      sum = worked++ == 0 ? std::move(more) : joined(sum, more, worked == blocks_);
    }
    if (hops + 1 < cp) state.key_value = finish_hop(hop);
  }
  state.out = std::move(sum.out);
  state.log_sum_exp = std::move(sum.log_sum_exp);
}

void RingAttention::attend_backward(const Part& part, const AttentionState& state,
                                    const Tensor& block, const Tensor& d_out,
                                    const Slopes& slopes) const {
  const TensorView heads = as_heads(block, counts_.d);
  const TensorView d_heads = as_heads(slopes.d_block, counts_.d);
  rank_.device.run(
      AttentionBackward{.d_out = as_heads(d_out, counts_.d),
                        .query = QueryKeyValue(state.query_key_value, counts_).query,
                        .key = slice_columns(heads, 0, counts_.kv_heads),
                        .value = slice_columns(heads, counts_.kv_heads, counts_.kv_heads),
                        .out = as_heads(state.out, counts_.d),
                        .log_sum_exp = state.log_sum_exp,
                        .d_query = slopes.d_query,
                        .d_key = slice_columns(d_heads, 0, counts_.kv_heads),
                        .d_value = slice_columns(d_heads, counts_.kv_heads, counts_.kv_heads),
                        .shape = part.sequences->shape(part.causal, counts_.d)});
}

Tensor RingAttention::block_gradient(int step, bool works, Hop& arriving, const Tensor& part,
                                     const TensorView& home) const {
  const TensorView of_part = as_heads(part, counts_.d);
  if (step == 0) {
    // Nobody has worked on the block yet.
    if (!works)
      rank_.device.fill_bytes(
          part.view().data, 0,
          static_cast<std::size_t>(part.elements()) * element_bytes(part.dtype()));
    return part;
  }
  Tensor sum = finish_hop(arriving);
  if (!works) return sum;
  const TensorView of_sum = as_heads(sum, counts_.d);
  const bool is_home = step + 1 == rank_.plan.cp;
  rank_.device.run(AttentionJoin{.a = of_sum, .b = of_part, .out = is_home ? home : of_sum});
  return sum;
}

void RingAttention::backward(const AttentionState& state, const Tensor& d_out,
                             const Tensor& d_fused) const {
  const int cp = rank_.plan.cp, self = rank_.context.rank();
  const int next = (self + 1) % cp, last = (self + cp - 1) % cp;
  const TensorShape shape{rank_.tokens(), counts_.query_width()};
  const QueryKeyValue result(d_fused, counts_);
  Tensor block = state.key_value, d_block, d_query;  // d_query: in fp32 until the last block
  for (int step = 0; step < cp; ++step) {
    const bool is_home = step + 1 == cp;
    Hop keys, gradients;
    if (!is_home) keys = start_hop(block, last, next, kKeysTag);
    if (step > 0) gradients = start_hop(d_block, last, next, kGradientsTag);
    const Part part = part_of((self + 1 + step) % cp);
    const bool works = part.sequences != nullptr;
    const Tensor d_part = block_like();
    if (works) {
      const bool is_only = is_home && !d_query.given();
      Tensor d_more = is_only ? Tensor() : rank_.empty(shape);
      const TensorView target = is_only ? result.query : as_heads(d_more, counts_.d);
      attend_backward(part, state, block, d_out, {.d_query = target, .d_block = d_part});
      if (d_query.given()) {
        Tensor sum = is_home ? Tensor() : rank_.wide(shape);
        const TensorView out = is_home ? result.query : as_heads(sum, counts_.d);
        rank_.device.run(AttentionJoin{.a = as_heads(d_query, counts_.d), .b = target, .out = out});
        d_query = std::move(sum);
      } else {
        d_query = std::move(d_more);
      }
    }
    d_block = block_gradient(step, works, gradients, d_part, result.key_value);
    if (!is_home) block = finish_hop(keys);
  }
}

}  // namespace rehearse
