#include "runtime/train/gradient_sync.h"

#include <algorithm>

namespace rehearse {
namespace {

std::size_t at(std::int32_t index) { return static_cast<std::size_t>(index); }

}  // namespace

GradientSync::GradientSync(const RankContext& rank, RankGroups& groups, const Schedule& schedule,
                           int stage)
    : rank_(rank),
      groups_(groups),
      schedule_(schedule),
      stage_(stage),
      reduces_early_(rank.plan.overlap.gradients &&
                     (schedule.chunks == 1 || rank.plan.replica_micro_batches.empty())) {
  const std::vector<Unit>& units = rank.store.units();
  for (const Unit& unit : units) {
    int count = 0;
    for (int m = 0; m < schedule.micro_batches; ++m)
      if (visits_chunk(schedule, unit.chunk, m)) ++count;
    visits_.push_back(count);
  }
  for (const GradientBucket& bucket : rank.store.buckets()) waits_for_.push_back(bucket.units);
  const bool mirrored = schedule.placement == Placement::BothWays;
  for (std::size_t u = 0; u < units.size(); ++u) {
    if (units[u].kind != ModelUnit::Head || !rank.model.tied_embeddings) continue;
    const std::int32_t table = units[u].parameters.back();
    const std::int32_t owner = rank.store.parameters()[at(table)].unit;
    // A table that embedding and head of this rank share waits for both.
    if (owner != static_cast<std::int32_t>(u))
      waits_for_[at(units[at(owner)].bucket)].push_back(static_cast<std::int32_t>(u));
    else if (!mirrored)
      tied_table_ = table;
  }
  if (tied_table_ < 0 && groups.copies->size() > 1 && !mirrored)
    tied_table_ = units.front().parameters.front();  // the embedding's
  reductions_.resize(waits_for_.size());
  gathers_.resize(waits_for_.size());
}

bool GradientSync::counted_elsewhere(std::int32_t parameter) const {
  if (groups_.copies->size() == 1) return false;
  if (schedule_.placement == Placement::BothWays) return 2 * stage_ >= schedule_.stages;
  return parameter == tied_table_ && stage_ > 0;
}

void GradientSync::begin_step() {
  done_.assign(visits_.size(), 0);
  is_reduced_.assign(waits_for_.size(), false);
}

bool GradientSync::ready(std::size_t bucket) const {
  return std::all_of(waits_for_[bucket].begin(), waits_for_[bucket].end(),
                     [&](std::int32_t unit) { return done_[at(unit)] == visits_[at(unit)]; });
}

void GradientSync::unit_done(std::int32_t unit) {
  ++done_[at(unit)];
  // MPI moves messages while it is called: look after those under way.
  for (const Transfer& transfer : reductions_)
    if (transfer != nullptr) transfer->test();
  if (!reduces_early_ || done_[at(unit)] < visits_[at(unit)]) return;
  for (std::size_t b = 0; b < waits_for_.size(); ++b)
    if (!is_reduced_[b] && ready(b) && !waits_for_copy(b)) reduce(b);
}

/// Of a sharded bucket each data rank keeps its share only, so that the copy of the tied table on
/// another stage, whose shares lie elsewhere, is added before. Its stage may need gradients of this
/// one first: such a bucket waits for the end of the step.
bool GradientSync::waits_for_copy(std::size_t bucket) const {
  if (tied_table_ < 0 || groups_.copies->size() == 1 || rank_.store.shares().count == 1)
    return false;
  const std::int32_t owner = rank_.store.parameters()[at(tied_table_)].unit;
  return rank_.store.units()[at(owner)].bucket == static_cast<std::int32_t>(bucket);
}

void GradientSync::reduce(std::size_t bucket) {
  const GradientBucket& of = rank_.store.buckets()[bucket];
  if (waits_for_copy(bucket)) sum_tied_table();
  const bool is_sharded = rank_.store.shares().count > 1;
  is_reduced_[bucket] = true;
  const TensorView gradient = rank_.store.gradients(of.offset, of.elements);
  reductions_[bucket] =
      is_sharded ? groups_.data->start_reduce_scatter(gradient, rank_.store.owned_gradient(of),
                                                      Traffic::Data)
                 : groups_.data->start_all_reduce(gradient, Reduction::Sum, Traffic::Data);
}

void GradientSync::sum_tied_table() {
  const TensorView gradient = rank_.store.gradient(tied_table_);
  groups_.copies->all_reduce(gradient, Reduction::Sum, Traffic::Data);
}

void GradientSync::sum_mirrored() {
  // The pieces in the order of the model, so that both stages of a pair sum the same one.
  std::vector<int> chunks(static_cast<std::size_t>(schedule_.chunks));
  for (int c = 0; c < schedule_.chunks; ++c) chunks[static_cast<std::size_t>(c)] = c;
  std::sort(chunks.begin(), chunks.end(), [&](int a, int b) {
    return piece_of(schedule_, stage_, a) < piece_of(schedule_, stage_, b);
  });
  for (const int chunk : chunks)
    for (const GradientBucket& bucket : rank_.store.buckets())
      if (rank_.store.units()[at(bucket.units.front())].chunk == chunk)
        groups_.copies->all_reduce(rank_.store.owned_gradient(bucket), Reduction::Sum,
                                   Traffic::Data);
}

void GradientSync::sum_over_sequence() {
  std::vector<TensorView> pieces;
  std::int64_t elements = 0;
  for (const OwnedPiece& piece : rank_.store.owned()) {
    if (!rank_.store.parameters()[at(piece.parameter)].sums_over_sequence) continue;
    pieces.push_back(rank_.store.owned_gradient(piece));
    elements += piece.elements;
  }
  if (pieces.empty()) return;
  const Tensor bucket = rank_.wide({elements});
  rank_.device.run(BucketCopy{.tensors = pieces, .bucket = bucket});
  groups_.tensor->all_reduce(bucket, Reduction::Sum, Traffic::Sequence);
  rank_.device.run(BucketCopy{.tensors = pieces, .bucket = bucket, .unpack = true});
}

void GradientSync::end_step() {
  for (std::size_t b = waits_for_.size(); b-- > 0;)
    if (!is_reduced_[b]) reduce(b);
  for (Transfer& transfer : reductions_) finish(transfer);
  if (groups_.copies->size() > 1) {
    if (schedule_.placement == Placement::BothWays)
      sum_mirrored();
    else if (rank_.store.shares().count == 1)
      sum_tied_table();
  }
  sum_over_sequence();
}

void GradientSync::gather_weights() {
  if (rank_.store.shares().count == 1) return;
  const std::vector<GradientBucket>& buckets = rank_.store.buckets();
  for (std::size_t b = 0; b < buckets.size(); ++b)
    gathers_[b] = groups_.data->start_all_gather(
        rank_.store.own_weights(buckets[b]),
        rank_.store.weights(buckets[b].offset, buckets[b].elements), Traffic::Parameter);
  if (!rank_.plan.overlap.parameters) await_all_weights();
}

void GradientSync::await_weights(std::int32_t unit) {
  const Unit& of = rank_.store.units()[at(unit)];
  finish(gathers_[at(of.bucket)]);
  for (const std::int32_t p : of.parameters)
    finish(gathers_[at(rank_.store.units()[at(rank_.store.parameters()[at(p)].unit)].bucket)]);
}

void GradientSync::await_all_weights() {
  for (Transfer& transfer : gathers_) finish(transfer);
}

}  // namespace rehearse
