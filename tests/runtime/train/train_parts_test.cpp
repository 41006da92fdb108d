// The parts of a training run that need no ranks.
#include <cmath>

#include "runtime/train/learning_rate.h"
#include "runtime/train/mail_order.h"
#include "runtime/train/memory_need.h"
#include "runtime/train/parameters.h"
#include "runtime/train/runnable.h"
#include "runtime/train/train_run.h"
#include "runtime/train/trainer.h"
#include "tests/catch.h"
#include "tests/places.h"

using namespace rehearse;

namespace {

Model llama() {
  Model model;
  model.layers = 2;
  model.hidden = 16;
  model.heads = 4;
  model.kv_heads = 2;
  model.head_dim = 4;
  model.ffn = 24;
  model.vocab = 50;
  model.activation = Activation::Swiglu;
  model.norm = Norm::RmsNorm;
  model.positions = Positions::Rotary;
  model.linear_bias = false;
  return model;
}

PlanFile small_file() {
  PlanFile file;
  file.model = llama();
  file.workload = {.global_batch = 2, .seq_len = 8};
  file.plan.dp = 1;
  file.plan.precision = Precision::Fp32;
  file.layer_split = {2};
  return file;
}

}  // namespace

TEST_CASE("initial weights are the same however tensor ranks cut them") {
  const Model model = llama();
  Plan whole_plan, cut_plan;
  cut_plan.tp = 2;
  const auto whole = layer_weights(model, whole_plan, {0, 1}, 1);
  for (int rank = 0; rank < 2; ++rank) {
    const auto cut = layer_weights(model, cut_plan, {rank, 2}, 1);
    REQUIRE(cut.size() == whole.size());
    for (std::size_t p = 0; p < cut.size(); ++p) {
      std::vector<float> all(static_cast<std::size_t>(whole[p].elements()));
      std::vector<float> mine(static_cast<std::size_t>(cut[p].elements()));
      initial_weights(whole[p], 7, all.data());
      initial_weights(cut[p], 7, mine.data());
      for (std::size_t b = 0; b < cut[p].boxes.size(); ++b) {
        const NamedBox& box = cut[p].boxes[b];
        const std::int64_t columns = box.extent.size() == 2 ? box.extent[1] : 1;
        const std::int64_t width = box.shape.size() == 2 ? box.shape[1] : 1;
        for (std::int64_t i = 0; i < box.elements(); ++i) {
          const std::int64_t row = box.begin[0] + i / columns;
          const std::int64_t column = (box.shape.size() == 2 ? box.begin[1] : 0) + i % columns;
          const std::int64_t there = whole[p].boxes[b].offset + row * width + column;
          REQUIRE(mine[static_cast<std::size_t>(box.offset + i)] ==
                  all[static_cast<std::size_t>(there)]);
        }
      }
    }
  }
}

TEST_CASE("initial matrices have the deviation they are given") {
  Parameter parameter;
  NamedBox box{.name = "w", .shape = {200, 300}, .begin = {0, 0}, .extent = {200, 300}};
  box.deviation = 0.02;
  parameter.boxes = {box};
  parameter.shape = {200, 300};
  std::vector<float> values(60000);
  initial_weights(parameter, 3, values.data());
  double sum = 0, squares = 0;
  for (const float value : values) sum += value, squares += static_cast<double>(value) * value;
  CHECK(std::abs(sum / 60000) < 4 * 0.02 / std::sqrt(60000.0));
  CHECK(std::sqrt(squares / 60000) == Approx(0.02).epsilon(0.02));
}

TEST_CASE("a range of a matrix is cut into boxes that cover it once") {
  NamedBox box{.name = "w", .shape = {9, 10}, .begin = {2, 3}, .extent = {5, 4}, .offset = 7};
  for (std::int64_t begin = 0; begin <= 30; ++begin)
    for (std::int64_t end = begin; end <= 30; ++end) {
      std::vector<int> seen(40, 0);
      for (const NamedBox& part : boxes_in_range(box, begin, end)) {
        REQUIRE(part.shape == box.shape);
        for (std::int64_t i = 0; i < part.elements(); ++i) {
          const std::int64_t row = part.begin[0] + i / part.extent[1];
          const std::int64_t column = part.begin[1] + i % part.extent[1];
          const std::int64_t flat = box.offset + (row - 2) * 4 + (column - 3);
          REQUIRE(flat == part.offset + i);
          ++seen[static_cast<std::size_t>(flat)];
        }
      }
      for (std::int64_t i = 0; i < 40; ++i) {
        const bool inside =
            i >= std::max<std::int64_t>(begin, 7) && i < std::min<std::int64_t>(end, 27);
        REQUIRE(seen[static_cast<std::size_t>(i)] == (inside ? 1 : 0));
      }
    }
}

TEST_CASE("the learning rate warms up and falls as its kind says") {
  RateOptions options{.peak = 1, .least_share = 0.1, .warmup_steps = 10, .total_steps = 110};
  CHECK(LearningRate(options).at(0) == Approx(0.1));
  CHECK(LearningRate(options).at(9) == Approx(1));
  CHECK(LearningRate(options).at(60) == Approx(0.55));  // half a cosine down
  CHECK(LearningRate(options).at(500) == Approx(0.1));
  options.kind = RateKind::Linear;
  CHECK(LearningRate(options).at(35) == Approx(1 - 0.9 * 0.25));
  options.kind = RateKind::Constant;
  CHECK(LearningRate(options).at(100) == 1);
}

TEST_CASE("the adaptive rate halves when the loss stops falling, and its state can be restored") {
  RateOptions options{.kind = RateKind::Adaptive, .peak = 1, .least_share = 0.2, .patience = 5};
  LearningRate rate(options);
  for (int i = 0; i < 50; ++i) rate.observe(10 - 0.1 * i);
  CHECK(rate.at(50) == 1);
  for (int i = 0; i < 90; ++i) rate.observe(5);
  CHECK(rate.at(140) < 1);
  LearningRate other(options);
  other.restore(rate.state());
  CHECK(other.at(140) == rate.at(140));
  for (int i = 0; i < 200; ++i) rate.observe(5);
  CHECK(rate.at(340) == Approx(0.2));
}

TEST_CASE("a rate is scaled with the square root of the batch") {
  CHECK(scaled_rate(1e-3, 64, 256) == Approx(2e-3));
}

TEST_CASE("stages that wait for every message to leave need few receives posted ahead") {
  for (const ScheduleKind kind :
       {ScheduleKind::Gpipe, ScheduleKind::OneFOneB, ScheduleKind::LayerWise, ScheduleKind::ZbH1,
        ScheduleKind::ZbH2, ScheduleKind::ZbV, ScheduleKind::DualPipe})
    for (const int stages : {2, 4}) {
      const int chunks = kind == ScheduleKind::ZbV ? 2 : 1;
      const Schedule schedule = make_schedule(kind, stages, chunks, 8);
      CAPTURE(static_cast<int>(kind), stages);
      CHECK(receives_ahead(schedule) <= 2);
    }
  CHECK(receives_ahead(make_schedule(ScheduleKind::OneFOneB, 4, 2, 8)) <= 2);
  CHECK(receives_ahead(make_schedule(ScheduleKind::OneFOneB, 1, 1, 4)) == 1);

  // All micro-batches through a chunk before the next chunk. Both stages hold micro_batches − 2
  // messages that the other has not come to, and wait, unless so many receives are posted.
  Schedule schedule = make_schedule(ScheduleKind::OneFOneB, 2, 2, 8);
  for (std::vector<Action>& actions : schedule.actions) {
    actions.clear();
    for (const int chunk : {0, 1})
      for (int m = 0; m < 8; ++m) actions.push_back({ActionKind::Forward, m, chunk});
    for (const int chunk : {1, 0})
      for (int m = 0; m < 8; ++m) actions.push_back({ActionKind::Backward, m, chunk});
  }
  REQUIRE(schedule_faults(schedule).empty());
  const int ahead = receives_ahead(schedule);
  CAPTURE(ahead);
  CHECK(ahead > 1);
  CHECK(ahead <= 8);
}

TEST_CASE("a plan that cannot be trained says why with its field") {
  CHECK(why_not_runnable(small_file()).empty());
  PlanFile file = small_file();
  file.plan.tp = 4;
  file.plan.zero = 3;
  file.plan.dropout = 0.1;
  const std::vector<std::string> reasons = why_not_runnable(file);
  REQUIRE(reasons.size() == 3);
  CHECK(reasons[0].rfind("plan/tp: 4 heads and 2 key/value heads", 0) == 0);
  CHECK(reasons[1].rfind("plan/zero", 0) == 0);
  CHECK(reasons[2].rfind("plan/dropout", 0) == 0);
  PlanFile fewer_bits = small_file();
  fewer_bits.model.mtp_layers = 1;
  fewer_bits.plan.moment_precision = Precision::Bf16;
  fewer_bits.plan.store.ffn_activation = StoredAs::Fp8;
  const std::vector<std::string> others = why_not_runnable(fewer_bits);
  REQUIRE(others.size() == 3);
  CHECK(others[0].rfind("model/mtp_layers", 0) == 0);
  CHECK(others[1].rfind("plan/moment_precision", 0) == 0);
  CHECK(others[2].rfind("plan/activation_store", 0) == 0);
}

TEST_CASE("the demo's plan says how many steps it trains for, and --steps bounds them") {
  const auto file =
      read_runnable_plan(source_directory() + "/scenarios/plans/demo-2-ranks.json", true);
  REQUIRE(file);
  CHECK(steps_of({}, *file) == 160);
  TrainRequest request;
  request.steps = 20;
  CHECK(steps_of(request, *file) == 20);
}

TEST_CASE("the memory a run needs at least is no more than what it takes, and most of it") {
  for (const Precision precision : {Precision::Fp32, Precision::Bf16}) {
    PlanFile file = small_file();
    file.plan.precision = precision;
    const MemoryNeed need = least_memory(file);
    const auto device = cpu_device(1);
    const auto world = lone_world();
    Trainer trainer(file, {}, *world, *device, 100,
                    [](std::int64_t, TokenRange range, auto tokens, auto labels) {
                      for (int i = range.begin; i < range.end; ++i)
                        tokens[static_cast<std::size_t>(i - range.begin)] =
                            labels[static_cast<std::size_t>(i - range.begin)] = i;
                    });
    const double per_parameter = precision == Precision::Fp32 ? 16 : 18;
    // Nothing of what the initial weights were made with is held.
    CHECK(static_cast<double>(trainer.allocated_bytes()) <=
          per_parameter * static_cast<double>(trainer.parameters()) + 1024);
    trainer.step();
    CHECK(need.state_bytes ==
          Approx(per_parameter * static_cast<double>(trainer.parameters())).epsilon(0.1));
    const auto taken = static_cast<double>(trainer.allocated_bytes());
    CHECK(need.bytes() <= taken);
    CHECK(need.bytes() >= 0.5 * taken);
  }
}
