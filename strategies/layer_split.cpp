#include "strategies/layer_split.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "plan/ensure.h"
#include "plan/plan_schedule.h"
#include "plan/rank_map.h"
#include "strategies/attention_load.h"
#include "strategies/collective_flows.h"
#include "strategies/pair_split.h"
#include "strategies/replica_classes.h"
#include "strategies/stage_program.h"
#include "strategies/tensor_grid.h"

namespace rehearse {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
/// Sums of the same times in another order are equal.
constexpr double kSameShare = 1e-12;

/// What the algorithms ask of a problem again and again.
class Splitter {
 public:
  explicit Splitter(const SplitProblem& problem)
      : problem_(problem),
        schedule_{.stages = problem.stages,
                  .chunks = problem.chunks,
                  .micro_batches = 2,
                  .actions = {},
                  .placement = problem.placement,
                  .places = problem.places},
        pieces_(piece_count(schedule_)),
        layers_(static_cast<int>(problem.layer_s.size())),
        until_s_(problem.layer_s.size() + 1, 0) {
    std::partial_sum(problem.layer_s.begin(), problem.layer_s.end(), until_s_.begin() + 1);
  }

  int pieces() const { return pieces_; }
  int layers() const { return layers_; }
  /// A stage holds the k-th piece and the k-th from the end.
  bool has_pairs() const {
    const bool is_vee = problem_.placement == Placement::Vee && problem_.chunks == 2;
    return is_vee || (problem_.placement == Placement::BothWays && pieces_ % 2 == 0);
  }
  bool one_piece_a_stage() const { return pieces_ == problem_.stages && problem_.chunks == 1; }
  bool equal_layers() const {
    const auto [least, most] =
        std::minmax_element(problem_.layer_s.begin(), problem_.layer_s.end());
    return problem_.layer_s.empty() || *most - *least <= kSameShare * *most;
  }

  int fewest(int piece) const { return piece == 0 || piece + 1 == pieces_ ? 0 : 1; }
  int most(int piece) const {
    if (problem_.most_layers.empty()) return layers_;
    return std::min(layers_, problem_.most_layers[static_cast<std::size_t>(piece)]);
  }
  double pace(int stage) const {
    return problem_.stage_pace.empty() ? 1 : problem_.stage_pace[static_cast<std::size_t>(stage)];
  }
  /// Of a piece with the layers from `begin` to before `end`, at pace 1.
  double piece_s(int piece, int begin, int end) const {
    double seconds =
        until_s_[static_cast<std::size_t>(end)] - until_s_[static_cast<std::size_t>(begin)];
    if (piece == 0) seconds += problem_.embedding_s;
    if (piece + 1 == pieces_) seconds += problem_.head_s;
    return seconds;
  }
  /// The pace of whoever works on a piece.
  double piece_pace(int piece) const {
    const double one = pace(place_of(schedule_, piece, 0).stage);
    return std::max(one, pace(place_of(schedule_, piece, 1).stage));
  }
  /// The pieces that one stage works on, for each stage (or pair of mirrored stages) once.
  std::vector<std::vector<int>> shares() const {
    std::vector<std::vector<int>> all(static_cast<std::size_t>(problem_.stages));
    for (int stage = 0; stage < problem_.stages; ++stage)
      for (int chunk = 0; chunk < problem_.chunks; ++chunk)
        all[static_cast<std::size_t>(stage)].push_back(piece_of(schedule_, stage, chunk));
    if (problem_.placement == Placement::BothWays) all.resize((all.size() + 1) / 2);
    return all;
  }
  /// Micro-batches of each piece that a stage sees for each micro-batch of the step.
  double visits() const { return problem_.placement == Placement::BothWays ? 0.5 : 1; }

 private:
  const SplitProblem& problem_;
  Schedule schedule_;
  int pieces_, layers_;
  std::vector<double> until_s_;  ///< sum of the layers before each
};

/// best[k][j]: the first k pieces hold the first j layers; `combine(before, piece time)` is
/// minimised. The choice of a split is read back from the table of where each piece begins.
template <class Combine>
class SplitTable {
 public:
  SplitTable(const Splitter& splitter, Combine combine)
      : splitter_(splitter), width_(static_cast<std::size_t>(splitter.layers()) + 1) {
    const auto pieces = static_cast<std::size_t>(splitter.pieces());
    best_.assign((pieces + 1) * width_, kNever);
    begin_.assign(best_.size(), -1);
    best_[0] = 0;
    for (int piece = 0; piece < splitter.pieces(); ++piece)
      for (int end = 0; end <= splitter.layers(); ++end) fill(piece, end, combine);
  }

  double best() const { return best_.back(); }
  std::vector<int> split() const {
    std::vector<int> counts(static_cast<std::size_t>(splitter_.pieces()));
    int end = splitter_.layers();
    for (int piece = splitter_.pieces() - 1; piece >= 0; --piece) {
      const int begin = begin_[cell(piece + 1, end)];
      counts[static_cast<std::size_t>(piece)] = end - begin;
      end = begin;
    }
    return counts;
  }

 private:
  std::size_t cell(int piece, int layer) const {
    return static_cast<std::size_t>(piece) * width_ + static_cast<std::size_t>(layer);
  }
  void fill(int piece, int end, Combine& combine) {
    const std::size_t at = cell(piece + 1, end);
    const int last_begin = end - splitter_.fewest(piece);
    for (int begin = std::max(0, end - splitter_.most(piece)); begin <= last_begin; ++begin) {
      const double before = best_[cell(piece, begin)];
      if (before == kNever) continue;
      const double seconds = splitter_.piece_pace(piece) * splitter_.piece_s(piece, begin, end);
      const double value = combine(before, seconds);
      if (value >= best_[at]) continue;
      best_[at] = value;
      begin_[at] = begin;
    }
  }

  const Splitter& splitter_;
  std::size_t width_;
  std::vector<double> best_;
  std::vector<int> begin_;
};

std::vector<int> split_by_piece(const Splitter& splitter) {
  const SplitTable slowest(splitter,
                           [](double before, double seconds) { return std::max(before, seconds); });
  if (slowest.best() == kNever) return {};
  const double bound_s = slowest.best() * (1 + kSameShare);
  const SplitTable even(splitter, [bound_s](double before, double seconds) {
    return seconds > bound_s ? kNever : before + seconds * seconds;
  });
  return even.split();
}

/// Equal layers, several pieces a stage: each next layer goes to the share that then ends
/// earliest, which is optimal for equal jobs on machines of given pace and head start; inside a
/// share to its shortest piece.
std::vector<int> split_by_share(const Splitter& splitter) {
  const std::vector<std::vector<int>> shares = splitter.shares();
  std::vector<int> counts;
  for (int piece = 0; piece < splitter.pieces(); ++piece) counts.push_back(splitter.fewest(piece));
  int left = splitter.layers() - std::accumulate(counts.begin(), counts.end(), 0);
  if (left < 0) return {};
  const auto piece_s = [&](int piece, int more) {
    return splitter.piece_s(piece, 0, counts[static_cast<std::size_t>(piece)] + more);
  };
  for (; left > 0; --left) {
    double best_s = kNever, shortest_s = kNever;
    int best_piece = -1;
    for (const std::vector<int>& share : shares) {
      double share_s = 0, piece_alone_s = kNever;
      int shortest = -1;
      for (const int piece : share) {
        share_s += piece_s(piece, 0);
        if (counts[static_cast<std::size_t>(piece)] >= splitter.most(piece)) continue;
        if (piece_s(piece, 0) >= piece_alone_s) continue;
        piece_alone_s = piece_s(piece, 0);
        shortest = piece;
      }
      if (shortest < 0) continue;
      const double layer_s = piece_s(shortest, 1) - piece_s(shortest, 0);
      const double then_s = splitter.piece_pace(shortest) * (share_s + layer_s);
      const bool is_same = std::abs(then_s - best_s) <= kSameShare * then_s;
      if (is_same ? piece_alone_s >= shortest_s : then_s > best_s) continue;
      best_s = then_s;
      shortest_s = piece_alone_s;
      best_piece = shortest;
    }
    if (best_piece < 0) return {};
    ++counts[static_cast<std::size_t>(best_piece)];
  }
  return counts;
}

double seconds_of(const ChunkProgram& program) {
  double seconds = 0;
  for (const auto* items : {&program.forward, &program.backward})
    for (const ChunkItem& item : *items) seconds += item.item.seconds;
  return seconds;
}

/// Forward and backward of one layer, and what embedding and head add, in one tensor group.
struct GroupPrices {
  double layer_s, dense_layer_s, embedding_s, head_s;
};

GroupPrices price_group(const LayerShape& shape, const CostModel& costs, const Cluster& cluster,
                        const std::vector<GpuId>& gpus, const std::vector<GpuId>& context) {
  std::vector<std::string> names;
  Labels labels(names);
  const auto collective_s = [&](const LayerItem& item) {
    const bool is_context = item.group == CommGroup::Context;
    if ((is_context ? context : gpus).size() < 2) return 0.0;
    if (is_context && item.beside_next) return 0.0;  // beside a block that takes its time
    const std::vector<GpuId> ranks = is_tensor(item.group)
                                         ? grid_parts(item.group, gpus, shape.tensor_rows).front()
                                     : is_context ? context
                                                  : gpus;
    CommunicatorShape communicator = communicator_shape(cluster, ranks);
    communicator.measured = &costs.collectives();
    return nccl_choice(item.collective, communicator, item.bytes).seconds(item.bytes);
  };
  const StageProgrammer programmer(shape, costs, collective_s, labels);
  const double none_s = seconds_of(programmer.chunk({.first_layer = 0, .layer_count = 0}, 0));
  const auto more_s = [&](const ChunkExtent& extent) {
    return seconds_of(programmer.chunk(extent, 0)) - none_s;
  };
  const std::int32_t last = shape.model.layers - 1;  // of a mixture, a layer with experts
  return {more_s({.first_layer = last, .layer_count = 1}),
          more_s({.first_layer = 0, .layer_count = 1}), more_s({.has_embedding = true}),
          more_s({.has_head = true})};
}

}  // namespace

std::vector<int> balanced_split(const SplitProblem& problem) {
  const Splitter splitter(problem);
  ensure(problem.most_layers.empty() ||
             static_cast<int>(problem.most_layers.size()) == splitter.pieces(),
         "a limit for every piece, or none");
  if (splitter.one_piece_a_stage()) return split_by_piece(splitter);
  if (splitter.equal_layers()) return split_by_share(splitter);
  const std::vector<int> by_piece = split_by_piece(splitter);
  if (by_piece.empty() || !splitter.has_pairs() || splitter.layers() > kMostPairedLayers)
    return by_piece;
  return pair_split({.pieces = splitter.pieces(),
                     .layers = splitter.layers(),
                     .seconds =
                         [&](int piece, int begin, int end) {
                           return splitter.piece_pace(piece) * splitter.piece_s(piece, begin, end);
                         },
                     .fewest = [&](int piece) { return splitter.fewest(piece); },
                     .most = [&](int piece) { return splitter.most(piece); },
                     .bound_s = slowest_stage_s(problem, by_piece) / splitter.visits()});
}

double slowest_stage_s(const SplitProblem& problem, const std::vector<int>& split) {
  const Splitter splitter(problem);
  std::vector<double> piece_s;
  int begin = 0;
  for (int piece = 0; piece < splitter.pieces(); ++piece) {
    const int end = begin + split[static_cast<std::size_t>(piece)];
    piece_s.push_back(splitter.piece_pace(piece) * splitter.piece_s(piece, begin, end));
    begin = end;
  }
  double slowest = 0;
  for (const std::vector<int>& share : splitter.shares()) {
    double seconds = 0;
    for (const int piece : share)
      seconds += splitter.visits() * piece_s[static_cast<std::size_t>(piece)];
    slowest = std::max(slowest, seconds);
  }
  return slowest;
}

namespace {

LayerShape split_shape(const Model& model, const Plan& plan, const Workload& workload) {
  Workload resolved = workload;
  if (resolved.seq_len == 0) resolved.seq_len = model.max_seq_len;
  LayerShape shape = layer_shape(model, plan, resolved.seq_len, workload.routing);
  shape.pair_share = attention_load(model, plan, resolved).shares.back();
  shape.context_rank = plan.cp - 1;  // of a ring without balance: the rank with the most to do
  return shape;
}

/// Prices tensor groups of a plan, each kind of node once.
class GroupPricer {
 public:
  GroupPricer(const Model& model, const Plan& plan, const Workload& workload,
              const Cluster& cluster, const std::vector<const CostModel*>& cost_models)
      : cluster_(cluster),
        cost_models_(cost_models),
        shape_(split_shape(model, plan, workload)),
        ranks_(plan),
        group_of_node_(group_of_nodes(cluster)),
        known_(cost_models.size(), {-1, 0, 0, 0}) {}

  /// Of a GPU in the tensor group of a replica's stage and context rank.
  const GroupPrices& of(GpuId gpu, const Coordinates& first_rank) {
    const auto node_group =
        static_cast<std::size_t>(group_of_node_[static_cast<std::size_t>(cluster_.node_of(gpu))]);
    GroupPrices& prices = known_[node_group];
    if (prices.layer_s < 0)
      prices = price_group(shape_, *cost_models_[node_group], cluster_,
                           gpus(Axis::Tensor, first_rank), gpus(Axis::Context, first_rank));
    return prices;
  }
  std::vector<GpuId> gpus(Axis axis, const Coordinates& first_rank) const {
    std::vector<GpuId> found;
    for (const Rank rank : ranks_.group(axis, first_rank)) found.push_back(ranks_.gpu(rank));
    return found;
  }

 private:
  const Cluster& cluster_;
  const std::vector<const CostModel*>& cost_models_;
  LayerShape shape_;
  RankMap ranks_;
  std::vector<int> group_of_node_;
  std::vector<GroupPrices> known_;
};

}  // namespace

std::vector<std::vector<double>> replica_stage_times(
    const Model& model, const Plan& plan, const Workload& workload, const Cluster& cluster,
    const std::vector<const CostModel*>& cost_models, const Spread& spread) {
  GroupPricer pricer(model, plan, workload, cluster, cost_models);
  const std::vector<int> layers = chunk_layers(plan, model.layers);
  Schedule places{.stages = plan.pp,
                  .chunks = chunks_of(plan.schedule, plan.virtual_stages),
                  .micro_batches = 2,
                  .actions = {},
                  .placement = placement_of(plan.schedule),
                  .places = plan_places(plan)};
  if (!places.places.empty()) places.placement = Placement::Dealt;
  const auto stage_s = [&](const GroupPrices& prices, int stage) {
    double seconds = 0;
    for (int chunk = 0; chunk < places.chunks; ++chunk) {
      const int piece = piece_of(places, stage, chunk);
      seconds += layers[static_cast<std::size_t>(piece)] * prices.layer_s;
      if (piece == 0) seconds += prices.embedding_s;
      if (piece + 1 == piece_count(places)) seconds += prices.head_s;
    }
    return seconds;
  };
  std::vector<std::vector<double>> times(static_cast<std::size_t>(plan.dp));
  for (int replica = 0; replica < plan.dp; ++replica)
    for (int stage = 0; stage < plan.pp; ++stage) {
      double slowest_s = 0;
      for (int context = 0; context < plan.cp; ++context) {
        const Coordinates first_rank{0, context, replica, stage};
        for (const GpuId gpu : pricer.gpus(Axis::Tensor, first_rank))
          slowest_s = std::max(slowest_s, stage_s(pricer.of(gpu, first_rank), stage) *
                                              slowness(spread, gpu) / cluster.speed(gpu));
      }
      times[static_cast<std::size_t>(replica)].push_back(slowest_s);
    }
  return times;
}

SplitProblem split_problem(const Model& model, const Plan& plan, const Workload& workload,
                           const Cluster& cluster,
                           const std::vector<const CostModel*>& cost_models) {
  GroupPricer pricer(model, plan, workload, cluster, cost_models);
  SplitProblem problem;
  problem.stages = plan.pp;
  problem.chunks = chunks_of(plan.schedule, plan.virtual_stages);
  problem.places = plan_places(plan);
  problem.placement = problem.places.empty() ? placement_of(plan.schedule) : Placement::Dealt;
  const GroupPrices* first = nullptr;
  for (int stage = 0; stage < plan.pp; ++stage) {
    double slowest_s = 0;
    for (int group = 0; group < plan.dp * plan.cp; ++group) {
      const Coordinates first_rank{0, group % plan.cp, group / plan.cp, stage};
      for (const GpuId gpu : pricer.gpus(Axis::Tensor, first_rank)) {
        const GroupPrices& prices = pricer.of(gpu, first_rank);
        if (first == nullptr) first = &prices;
        slowest_s = std::max(slowest_s, prices.layer_s / cluster.speed(gpu));
      }
    }
    problem.stage_pace.push_back(slowest_s / first->layer_s);
  }
  problem.layer_s.assign(static_cast<std::size_t>(model.layers), first->layer_s);
  std::fill_n(problem.layer_s.begin(), std::min(model.layers, model.experts.leading_dense),
              first->dense_layer_s);
  problem.embedding_s = first->embedding_s;
  problem.head_s = first->head_s;
  return problem;
}

}  // namespace rehearse
