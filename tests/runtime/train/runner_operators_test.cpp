// The list of operators that is simulated, beside the calls that the runner makes: each operator
// has one call, and those bound by memory move the bytes of the call's own tensors.
#include <set>

#include "runtime/train/part_namer.h"
#include "runtime/train/solo_world.h"
#include "runtime/train/timed_device.h"
#include "runtime/train/trainer.h"
#include "tests/catch.h"

using namespace rehearse;

namespace {

constexpr std::int64_t kPositions = 32;

double bytes(const ConstTensorView& view) {
  return view.data == nullptr ? 0
                              : static_cast<double>(view.elements()) *
                                    static_cast<double>(element_bytes(view.dtype));
}
double bytes(const TensorView& view) { return bytes(ConstTensorView(view)); }
template <class... Views>
double sum_of(const Views&... views) {
  return (bytes(views) + ...);
}

/// Bytes that a call has to move. What all rows share (weights, their gradients, tables of
/// rotations) stays in a cache. Of `shares` ranks that split the vocabulary each has as many
/// tokens.
class Moved {
 public:
  explicit Moved(double shares) : shares_(shares) {}

  double operator()(const NormForward& call) const {
    return sum_of(call.x, call.residual, call.sum, call.out, call.mean, call.inverse_deviation);
  }
  double operator()(const NormBackward& call) const {
    return sum_of(call.d_out, call.x, call.d_residual, call.d_x, call.mean, call.inverse_deviation);
  }
  double operator()(const ActivationForward& call) const { return sum_of(call.x, call.out); }
  double operator()(const ActivationBackward& call) const {
    return sum_of(call.x, call.d_out, call.d_x);
  }
  double operator()(const Add& call) const { return sum_of(call.a, call.b, call.out); }
  double operator()(const Cast& call) const { return sum_of(call.x, call.out); }
  double operator()(const Rope& call) const { return 2 * bytes(call.x); }
  double operator()(const ColumnSum& call) const { return bytes(call.x); }
  double operator()(const AttentionJoin& call) const {
    return sum_of(call.a, call.b, call.out, call.a_log_sum_exp, call.b_log_sum_exp,
                  call.log_sum_exp);
  }
  double operator()(const EmbeddingForward& call) const {
    const double positions = call.position_table.data != nullptr ? bytes(call.out) : 0;
    return sum_of(call.tokens, call.positions, call.out) + bytes(call.out) / shares_ + positions;
  }
  double operator()(const EmbeddingBackward& call) const {
    const bool is_table = call.d_table.size(0) != kPositions;  // learned positions are whole
    const double rows = 4 * static_cast<double>(call.d_out.elements()) / (is_table ? shares_ : 1);
    return sum_of(call.tokens, call.d_out) + 2 * rows;
  }
  double operator()(const CrossEntropyForward& call) const {
    return sum_of(call.logits, call.targets, call.maximum, call.sum, call.target_logit);
  }
  double operator()(const CrossEntropyRescale& call) const {
    return sum_of(call.local_maximum, call.maximum, call.sum, call.sum);
  }
  double operator()(const CrossEntropyBackward& call) const {
    return 2 * bytes(call.logits) + sum_of(call.targets, call.maximum, call.sum, call.target_logit,
                                           call.loss_scale, call.loss);
  }
  template <class Other>
  double operator()(const Other&) const {
    return 0;
  }

 private:
  double shares_;
};

/// Compares as the run goes on.
class Watcher final : public TimedDevice {
 public:
  Watcher(const PlanFile& file, ComputeDevice& inner)
      : TimedDevice(inner),
        namer_(file),
        shares_(file.plan.vocabulary_parallel ? file.plan.tp : 1) {}

  void attach(Trainer& trainer) {
    trainer.on_action = [this](const Action& action) {
      close();
      namer_.begin_action(action.kind);
    };
    trainer.on_unit = [this, &trainer](const Unit& unit) {
      close();
      namer_.begin_unit(unit.kind, unit.layer, place_in_chunk(trainer.store(), unit));
      open_ = namer_.operators();
    };
    trainer.on_actions_done = [this] {
      close();
      namer_.leave_units();
    };
  }
  int compared() const { return compared_; }

 private:
  void ran(const OperatorCall& call, double, double) override {
    const PartNamer::Part part = namer_.name(call);
    if (open_.empty() || std::holds_alternative<BucketCopy>(call)) return;
    CAPTURE(part.label);
    REQUIRE(part.item >= 0);
    CHECK(taken_.insert(part.item).second);
    const Operator& op = open_[static_cast<std::size_t>(part.item)];
    if (op.family != OperatorFamily::Memory) return;
    CHECK(op.bytes == Approx(std::visit(Moved(shares_), call)).epsilon(1e-12));
    ++compared_;
  }
  void filled(double, double) override {}

  void close() {
    CHECK(taken_.size() == open_.size());
    taken_.clear();
    open_.clear();
  }

  PartNamer namer_;
  double shares_;
  std::vector<Operator> open_;
  std::set<int> taken_;
  int compared_ = 0;
};

PlanFile small_file(bool llama, Precision precision) {
  PlanFile file;
  file.model.layers = 2;
  file.model.hidden = 32;
  file.model.heads = file.model.kv_heads = 4;
  file.model.head_dim = 8;
  file.model.ffn = 96;
  file.model.vocab = 128;
  file.model.max_seq_len = kPositions;
  if (llama) {
    file.model.activation = Activation::Swiglu;
    file.model.norm = Norm::RmsNorm;
    file.model.positions = Positions::Rotary;
    file.model.linear_bias = false;
    file.model.kv_heads = 2;
  }
  file.workload = {.global_batch = 4, .seq_len = kPositions};
  file.plan.dp = 1;
  file.plan.micro_batch = 2;
  file.plan.precision = precision;
  file.layer_split = {2};
  return file;
}

void check(const PlanFile& file) {
  const auto device = cpu_device(1);
  Watcher watcher(file, *device);
  const auto world = solo_world(0, world_size(file.plan), watcher);
  const auto reader = [](std::int64_t, TokenRange, std::span<std::int32_t> tokens,
                         std::span<std::int32_t> labels) {
    for (std::size_t i = 0; i < tokens.size(); ++i)
      tokens[i] = labels[i] = static_cast<std::int32_t>(i % 128);
  };
  Trainer trainer(file, {}, *world, watcher, 32 * 32, reader);
  watcher.attach(trainer);
  trainer.step();
  CHECK(watcher.compared() > 0);
}

template <class Change>
void check_models(Change change) {
  for (const Precision precision : {Precision::Fp32, Precision::Bf16})
    for (const bool llama : {false, true}) {
      PlanFile file = small_file(llama, precision);
      change(file);
      CAPTURE(llama, precision == Precision::Bf16);
      check(file);
    }
}

}  // namespace

TEST_CASE("each operator simulated of one rank is one call that moves its bytes") {
  check_models([](PlanFile&) {});
  check_models([](PlanFile& file) { file.plan.recompute = Recompute::Full; });
}

TEST_CASE("each operator simulated of tensor ranks is one call that moves its bytes") {
  check_models([](PlanFile& file) { file.plan.tp = 2; });
  check_models([](PlanFile& file) {
    file.plan.tp = 2;
    file.plan.sequence_parallel = true;
  });
  check_models([](PlanFile& file) {
    file.plan.tp = 2;
    file.plan.vocabulary_parallel = false;
  });
}

TEST_CASE("each operator simulated of context ranks is one call that moves its bytes") {
  check_models([](PlanFile& file) { file.plan.cp = 2; });
  check_models([](PlanFile& file) {
    file.plan.cp = 2;
    file.plan.context = ContextKind::AllToAll;
  });
}

TEST_CASE("each operator simulated of a stage is one call that moves its bytes") {
  check_models([](PlanFile& file) {
    file.plan.pp = 2;
    file.plan.schedule = ScheduleKind::ZbH1;
    file.layer_split = {1, 1};
  });
}
