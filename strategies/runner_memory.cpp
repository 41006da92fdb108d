#include "strategies/runner_memory.h"

#include <algorithm>
#include <cmath>
#include <list>
#include <map>
#include <numeric>
#include <optional>
#include <tuple>
#include <utility>

#include "plan/ensure.h"
#include "strategies/runner_layer.h"

namespace rehearse {
namespace {

using Block = SizePool::Block;

/// Activations on their way between stages, as runtime/train/pipeline_mail.cpp keeps them: one
/// receive ahead from each neighbour and direction. A message that may leave beside other work is
/// held until the next one is asked for or sent.
class MailWalk {
 public:
  MailWalk(RunnerTensorWalk& tensors, const Plan& plan, const Schedule& schedule, int stage)
      : tensors_(tensors), plan_(plan), schedule_(schedule), stage_(stage) {
    for (int sender = 0; sender < schedule.stages; ++sender)
      if (sender != stage) expect(sender);
    for (Inbox& inbox : inboxes_) post_next(inbox);
  }

  Block receive(bool forward, int chunk, int micro_batch) {
    const Key key{forward, chunk, micro_batch};
    const auto from = inbox_of_.find(key);
    if (from != inbox_of_.end()) {
      Inbox& inbox = inboxes_[from->second];
      while (arrivals_.find(key) == arrivals_.end()) post_next(inbox);
      ++inbox.taken;
      if (inbox.posted <= inbox.taken) post_next(inbox);
    }
    const auto found = arrivals_.find(key);
    ensure(found != arrivals_.end(), "a schedule that can run sends before it receives");
    Block arrival = std::move(found->second);
    arrivals_.erase(found);
    leaving_ = nullptr;
    return arrival;
  }

  void send(bool forward, int chunk, int micro_batch, Block tensor) {
    const int piece = piece_of(schedule_, stage_, chunk) + (forward ? 1 : -1);
    const ChunkPlace place = place_of(schedule_, piece, micro_batch);
    if (place.stage == stage_)
      arrivals_[{forward, place.chunk, micro_batch}] = std::move(tensor);
    else if (plan_.overlap.pipeline)
      leaving_ = std::move(tensor);
  }

 private:
  using Key = std::tuple<bool, int, int>;
  struct Inbox {
    std::vector<Key> order;
    std::size_t posted = 0, taken = 0;
  };

  void expect(int sender) {
    Inbox down, up;
    for (const Action& action : schedule_.actions[static_cast<std::size_t>(sender)]) {
      if (action.kind == ActionKind::WeightGradient) continue;
      const bool forward = action.kind == ActionKind::Forward;
      const int piece = piece_of(schedule_, sender, action.chunk) + (forward ? 1 : -1);
      if (piece < 0 || piece >= piece_count(schedule_)) continue;
      const ChunkPlace place = place_of(schedule_, piece, action.micro_batch);
      if (place.stage == stage_)
        (forward ? down : up).order.emplace_back(forward, place.chunk, action.micro_batch);
    }
    for (Inbox* inbox : {&down, &up}) {
      if (inbox->order.empty()) continue;
      for (const Key& key : inbox->order) inbox_of_[key] = inboxes_.size();
      inboxes_.push_back(std::move(*inbox));
    }
  }

  void post_next(Inbox& inbox) {
    if (inbox.posted < inbox.order.size())
      arrivals_[inbox.order[inbox.posted++]] = tensors_.boundary();
  }

  RunnerTensorWalk& tensors_;
  const Plan& plan_;
  const Schedule& schedule_;
  int stage_;
  std::vector<Inbox> inboxes_;
  std::map<Key, std::size_t> inbox_of_;
  std::map<Key, Block> arrivals_;
  Block leaving_;
};

/// A stage in one step of its schedule, as runtime/train/trainer.cpp and model_chunk.cpp go.
class StageTensors {
 public:
  StageTensors(const LayerShape& shape, const Plan& plan, const Schedule& schedule, int stage,
               const std::vector<int>& layer_split)
      : shape_(shape),
        plan_(plan),
        schedule_(schedule),
        stage_(stage),
        layer_split_(layer_split),
        tensors_(pool_, shape, plan) {}

  RunnerTensors run() {
    keep_for_ever();
    {
      mail_.emplace(tensors_, plan_, schedule_, stage_);
      for (const Action& action : schedule_.actions[static_cast<std::size_t>(stage_)])
        execute(action);
      mail_.reset();
    }
    sum_over_sequence();
    return {.alive_bytes = static_cast<double>(pool_.most_alive_bytes()),
            .pooled_bytes = static_cast<double>(pool_.pooled_bytes())};
  }

 private:
  struct MicroBatch {
    std::vector<RunnerTensorWalk::Layer> layers;
    RunnerTensorWalk::Head head;
    RunnerTensorWalk::WeightWork work;
    Block d_embedding;
  };
  using Key = std::pair<int, int>;  ///< chunk, micro-batch

  int piece(int chunk) const { return piece_of(schedule_, stage_, chunk); }
  bool begins(int chunk) const { return piece(chunk) == 0; }
  bool ends(int chunk) const { return piece(chunk) == piece_count(schedule_) - 1; }
  std::size_t layers(int chunk) const {
    return static_cast<std::size_t>(layer_split_[static_cast<std::size_t>(piece(chunk))]);
  }
  bool recomputes(std::size_t layer) const {
    if (plan_.recompute != Recompute::Full) return false;
    return plan_.recompute_layers < 0 || static_cast<int>(layer) < plan_.recompute_layers;
  }

  /// Positions and rotations, weights of the loss, offsets of sequences of each layer, and the
  /// optimizer's sums.
  void keep_for_ever() {
    for (int i = 0; i < 2; ++i) kept_.push_back(tensors_.of_tokens());
    if (shape_.model.positions == Positions::Rotary)
      kept_.push_back(tensors_.wide(shape_.seq_len * shape_.model.head_dim));
    const bool two_pieces =
        plan_.cp > 1 && plan_.context == ContextKind::Ring && plan_.context_balanced;
    for (int chunk = 0; chunk < schedule_.chunks; ++chunk)
      for (std::size_t layer = 0; layer < layers(chunk); ++layer) {
        for (int i = 0; i < 2; ++i) kept_.push_back(tensors_.wide(shape_.micro_batch + 1));
        for (int i = 0; two_pieces && i < 4; ++i)
          kept_.push_back(tensors_.wide(2 * shape_.micro_batch + 1));
      }
    kept_.push_back(tensors_.wide(2));
    for (int i = 0; i < 3; ++i) kept_.push_back(tensors_.wide(1));
  }

  /// Tokens and labels stay until the next step.
  Block data_of(int micro_batch) {
    const auto [at, is_new] = data_.try_emplace(micro_batch);
    if (is_new) at->second = {tensors_.of_tokens(), tensors_.of_tokens()};
    return at->second.second;
  }

  Block forward(const Action& action, const Block& input) {
    MicroBatch& state = states_[{action.chunk, action.micro_batch}];
    Block targets, x = input;
    if (begins(action.chunk) || ends(action.chunk)) targets = data_of(action.micro_batch);
    if (begins(action.chunk)) x = tensors_.embedding_forward();
    state.layers.resize(layers(action.chunk));
    for (std::size_t i = 0; i < state.layers.size(); ++i)
      x = tensors_.layer_forward(x, recomputes(i), state.layers[i]);
    if (!ends(action.chunk)) return x;
    tensors_.head_forward(x, targets, state.head);
    return nullptr;
  }

  Block backward(const Action& action, const Block& d_output) {
    const Key key{action.chunk, action.micro_batch};
    MicroBatch& state = states_[key];
    state.work.deferred = action.kind == ActionKind::InputGradient;
    Block d_x = d_output;
    state.work.unit = static_cast<std::int32_t>(state.layers.size());
    if (ends(action.chunk))
      d_x = tensors_.head_backward(state.head, losses_.emplace_back(), state.work);
    for (std::size_t i = state.layers.size(); i-- > 0;) {
      state.work.unit = static_cast<std::int32_t>(i);
      d_x = tensors_.layer_backward(state.layers[i], recomputes(i), d_x, state.work);
    }
    if (begins(action.chunk)) {
      state.d_embedding = std::exchange(d_x, nullptr);
      if (!state.work.deferred) tensors_.embedding_backward(state.d_embedding);
    }
    if (!state.work.deferred) states_.erase(key);
    return d_x;
  }

  void execute(const Action& action) {
    const int chunk = action.chunk, m = action.micro_batch;
    if (action.kind == ActionKind::WeightGradient) {
      MicroBatch& state = states_[{chunk, m}];
      for (auto unit = static_cast<std::int32_t>(state.layers.size()); unit >= 0; --unit)
        tensors_.weight_gradients(state.work, unit);
      if (begins(chunk)) tensors_.embedding_backward(state.d_embedding);
      states_.erase({chunk, m});
      return;
    }
    const bool is_forward = action.kind == ActionKind::Forward;
    Block arriving;
    if (is_forward ? !begins(chunk) : !ends(chunk)) arriving = mail_->receive(is_forward, chunk, m);
    Block leaving = is_forward ? forward(action, arriving) : backward(action, arriving);
    if (is_forward ? !ends(chunk) : !begins(chunk))
      mail_->send(is_forward, chunk, m, std::move(leaving));
  }

  /// Gradients of what sequence-parallel ranks have copies of are summed in one bucket.
  void sum_over_sequence() {
    if (!shape_.sequence_parallel) return;
    const Model& model = shape_.model;
    const std::int64_t norm = (model.norm == Norm::LayerNorm ? 2 : 1) * model.hidden;
    const std::int64_t layer = 2 * norm + (model.linear_bias ? 2 * model.hidden : 0);
    std::int64_t count = 0;
    for (int chunk = 0; chunk < schedule_.chunks; ++chunk)
      count +=
          static_cast<std::int64_t>(layers(chunk)) * layer + (ends(chunk) ? norm : std::int64_t{0});
    // ZeRO's ranks sum what each owns of them.
    if (plan_.zero > 0) count /= std::max(1, plan_.dp * plan_.cp);
    if (count > 0) tensors_.wide(count);
  }

  const LayerShape& shape_;
  const Plan& plan_;
  const Schedule& schedule_;
  int stage_;
  const std::vector<int>& layer_split_;
  SizePool pool_;  // outlives all blocks below
  RunnerTensorWalk tensors_;
  std::list<Block> kept_, losses_;
  std::map<int, std::pair<Block, Block>> data_;
  std::map<Key, MicroBatch> states_;
  std::optional<MailWalk> mail_;
};

/// What launchers in kernels/cuda ask for: a row's sums of attention's backward, sorted tokens in
/// chunks of 4,096 (8 bytes each), and partial sums of columns for every 128 rows. The buffer grows
/// to half as much again as was asked for.
double scratch_bytes(const LayerShape& shape) {
  const LayerWidths at(shape);
  constexpr double kGrowth = 1.5, kSortedChunk = 4096, kColumnRows = 128;
  const auto tokens = static_cast<double>(at.tokens);
  const double delta = 4 * tokens * static_cast<double>(at.heads);
  const double sorted = 8 * std::max(tokens, std::min(tokens, kSortedChunk));
  const double columns = std::ceil(tokens / kColumnRows) * 4 *
                         static_cast<double>(std::max({at.qkv, at.ffn_up, at.hidden}));
  return kGrowth * std::max({delta, sorted, columns});
}

}  // namespace

RunnerTensors runner_tensors(const LayerShape& shape, const Plan& plan, const Schedule& schedule,
                             int stage, const std::vector<int>& layer_split) {
  RunnerTensors tensors = StageTensors(shape, plan, schedule, stage, layer_split).run();
  tensors.scratch_bytes = scratch_bytes(shape);
  return tensors;
}

}  // namespace rehearse
