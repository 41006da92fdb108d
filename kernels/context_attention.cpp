// The attention core where context ranks share each sequence (c ranks, T = b·s/c tokens a rank).
//
// Ring (Liu et al. 2023, arXiv 2310.01889, as in Transformer Engine): a rank keeps its queries, and
// the keys and values of all ranks visit it one after the other. Forward: c − 1 hops of 2·T·g·d
// elements. Backward: keys and values go round again, and the gradients that gather on them follow
// one step behind; the round starts with the block that the forward ended with and goes the other
// way, so that after c − 1 hops each block's gradient is at home. A hop runs beside the block at
// work: two buffers, so hop j waits for hop j − 1 and for block j − 1.
//   balanced    rank r holds pieces r and 2c − 1 − r of 2c: its own block is a causal square of
//               s/c, and of every other block it needs half: all queries against the first half of
//               the keys, or the second half of the queries against all keys. Both have the same
//               products; they are priced as the former, so that all ranks are alike.
//   unbalanced  rank r holds the r-th piece of c: of the blocks it gets, r are whole and the
//               others empty. The last rank works on c blocks, of which one is causal.
// Borders of documents and windows take pairs from all blocks alike, as many as from the sum of the
// largest block of each hop.
// Partial results are joined by their log-sum-exp: each is read and added to what is there.
//
// All-to-all (DeepSpeed-Ulysses, arXiv 2309.14509): four all-to-alls turn the tokens of all heads
// into all tokens of 1/c of the heads (queries, keys, values) and back (result); the backward has
// the same four of the gradients. The core in between is that of c times fewer heads.

#include "kernels/layer_parts.h"

namespace rehearse {
namespace {

/// What goes round or is exchanged for one rank, in bytes.
struct ContextBytes {
  explicit ContextBytes(const LayerShape& shape) {
    const LayerWidths at(shape);
    const double tokens = at.element_bytes * static_cast<double>(at.tokens);
    queries = tokens * static_cast<double>(at.query);
    keys = tokens * static_cast<double>(at.key);
  }
  double queries, keys;
};

/// The core of whole sequences with a part of the heads.
LayerShape head_share(const LayerShape& shape) {
  LayerShape whole = shape;
  whole.model.heads /= shape.cp;
  whole.model.kv_heads /= shape.cp;
  whole.cp = 1;
  return whole;
}

/// True where causality leaves something of the block that a rank gets after `hops` hops.
bool has_block(const LayerShape& shape, int hops) {
  return shape.context_balanced || hops <= shape.context_rank;
}

Operator block(const LayerShape& shape, Pass pass, bool own) {
  const LayerWidths at(shape);
  const std::int64_t queries = shape.seq_len / shape.cp;
  const std::int64_t keys = own || !shape.context_balanced ? queries : queries / 2;
  return with_pairs(attention(pass, at.activation_precision, shape.micro_batch, queries, keys,
                              at.heads, at.kv_heads, shape.model.head_dim, own),
                    shape.pair_share);
}

/// Adds a partial result to the sum: both are read, the sum is written.
void join(double bytes, Pass pass, const LayerShape& shape, ItemList& items) {
  const LayerWidths at(shape);
  items.add(memory_operator(OperatorName::Attention, pass, 3 * bytes, bytes / at.element_bytes));
}

/// The runner's join of the queries' part, the `index`-th of `count` from 1: its running sum is
/// fp32 from the first join to the last. Log-sum-exps of each head go with it forward.
void own_join(int index, int count, Pass pass, const LayerShape& shape, ItemList& items) {
  constexpr double kFp32Bytes = 4;
  const LayerWidths at(shape);
  const auto tokens = static_cast<double>(at.tokens);
  const double elements = tokens * static_cast<double>(at.query);
  const double before = index == 1 ? at.element_bytes : kFp32Bytes;
  const double after = index == count ? at.element_bytes : kFp32Bytes;
  const double sums =
      pass == Pass::Forward ? 3 * kFp32Bytes * tokens * static_cast<double>(at.heads) : 0;
  items.add(memory_operator(OperatorName::Attention, pass,
                            (before + at.element_bytes + after) * elements + sums, elements));
}

/// Blocks of a ring, its own among them, that leave something to do.
int count_of_blocks(const LayerShape& shape) {
  int count = 0;
  for (int hops = 0; hops < shape.cp; ++hops)
    if (has_block(shape, hops)) ++count;
  return count;
}

void ring_forward(const LayerShape& shape, ItemList& items) {
  const ContextBytes bytes(shape);
  const double hop_bytes = 2 * bytes.keys;
  const bool beside = shape.context_overlap;
  int joined = 0;
  for (int hops = 0; hops < shape.cp; ++hops) {
    const bool works = has_block(shape, hops);
    const bool sends = hops + 1 < shape.cp;
    if (sends && beside)
      items.context_collective(CollectiveKind::SendReceive, Pass::Forward, hop_bytes, works);
    if (works) items.add(block(shape, Pass::Forward, hops == 0));
    if (works && hops > 0 && shape.own_runner)
      own_join(++joined, count_of_blocks(shape) - 1, Pass::Forward, shape, items);
    if (sends && !beside)
      items.context_collective(CollectiveKind::SendReceive, Pass::Forward, hop_bytes);
  }
  for (int hops = 1; hops < shape.cp && !shape.own_runner; ++hops)
    if (has_block(shape, hops)) join(bytes.queries, Pass::Forward, shape, items);
}

/// The block after h forward hops is the one after c − 1 − h backward hops.
void ring_backward(const LayerShape& shape, ItemList& items) {
  const ContextBytes bytes(shape);
  const double hop_bytes = 2 * bytes.keys;
  const bool beside = shape.context_overlap;
  int joined = -1;
  for (int step = 0; step < shape.cp; ++step) {
    const int hops = shape.cp - 1 - step;
    const bool works = has_block(shape, hops);
    // Beside a step go the next step's keys and values and the last step's gradients.
    const double sent = (step + 1 < shape.cp ? hop_bytes : 0) + (step > 0 ? hop_bytes : 0);
    if (beside)
      items.context_collective(CollectiveKind::SendReceive, Pass::InputGradient, sent, works);
    if (works) {
      items.add(block(shape, Pass::InputGradient, hops == 0));
      ++joined;
      if (shape.own_runner && joined > 0)
        own_join(joined, count_of_blocks(shape) - 1, Pass::InputGradient, shape, items);
      // The runner joins keys and values apart.
      const double joined_bytes = shape.own_runner ? hop_bytes : bytes.queries + hop_bytes;
      if (step > 0) join(joined_bytes, Pass::InputGradient, shape, items);
    }
    if (!beside && step + 1 < shape.cp)
      items.context_collective(CollectiveKind::SendReceive, Pass::InputGradient, 2 * hop_bytes);
  }
}

void exchange(CollectiveKind kind, Pass pass, const std::vector<double>& sizes_bytes,
              ItemList& items) {
  for (const double bytes : sizes_bytes) items.context_collective(kind, pass, bytes);
}

}  // namespace

void context_core_forward(const LayerShape& shape, ItemList& items) {
  if (shape.context == ContextKind::Ring) return ring_forward(shape, items);
  const ContextBytes bytes(shape);
  exchange(CollectiveKind::AllToAll, Pass::Forward, {bytes.queries, bytes.keys, bytes.keys}, items);
  attention_core_forward(head_share(shape), items);
  exchange(CollectiveKind::AllToAll, Pass::Forward, {bytes.queries}, items);
}

void context_core_backward(const LayerShape& shape, ItemList& items) {
  if (shape.context == ContextKind::Ring) return ring_backward(shape, items);
  const ContextBytes bytes(shape);
  exchange(CollectiveKind::AllToAll, Pass::InputGradient, {bytes.queries}, items);
  attention_core_backward(head_share(shape), items);
  exchange(CollectiveKind::AllToAll, Pass::InputGradient, {bytes.queries, bytes.keys, bytes.keys},
           items);
}

double context_workspace_bytes(const LayerShape& shape) {
  if (shape.cp == 1) return 0;
  const ContextBytes bytes(shape);
  // Keys, values and their gradients at work and arriving, and the queries' partial gradient; or
  // the gradients before and after their all-to-all.
  return shape.context == ContextKind::Ring ? 8 * bytes.keys + bytes.queries
                                            : bytes.queries + 2 * bytes.keys;
}

}  // namespace rehearse
