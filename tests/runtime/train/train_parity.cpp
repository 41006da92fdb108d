// One rank of a layout. Each rank also trains the whole model by itself, in the same process, and
// compares: the loss of every step, every gradient of the first step and every weight at the end,
// tensor by tensor, and the bytes it gave to its communicators with what the lists of operators
// (kernels/layer.h) say, from which the simulator counts.
//
// In bf16 two runs part even where nothing is wrong: sums in another order round to another bf16
// number now and then, and Adam moves a weight whose gradient is near zero by as much as any other.
// A layout of tensor ranks is 1e-5 away from one rank in the first gradient norm, and where the
// loss falls steeply 5 % in the sixteenth. So a second run takes one rank's weights and moments
// before every step, and every gradient of every step is compared within what rounding explains.
//
// With gpus=fake all ranks are threads of this process, each with a GPU made of threads
// (fake_gpus.h), and talk as ranks on GPUs do.
//
//   train_parity model=gpt|llama steps=20 gpus=fake KEY=VALUE…   (the plan's fields)
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <functional>
#include <iostream>
#include <thread>

#include "runtime/channel_world.h"
#include "runtime/train/warm_up.h"
#include "tests/runtime/train/fake_gpus.h"
#include "tests/runtime/train/small_runs.h"

using namespace rehearse;

namespace {

struct Run {
  std::vector<double> losses, norms;
  std::vector<std::vector<TensorPart>> states;     ///< before each step: weights and moments
  std::vector<std::vector<TensorPart>> gradients;  ///< of each step
  std::vector<TensorPart> weights;                 ///< at the end
  TrafficCount traffic;                            ///< of one step
};

/// `guide`: a run of one rank, whose weights and moments each step begins with; null for a run that
/// goes its own way.
Run train(const PlanFile& file, World& world, ComputeDevice& device, int steps, const Run* guide) {
  TrainOptions options;
  options.rate = {.kind = RateKind::Cosine, .peak = 3e-3, .warmup_steps = 3, .total_steps = steps};
  Trainer trainer(file, options, world, device, kCorpus, made_up_text(file.workload.seq_len),
                  world.moves_on_device() ? warmed_pool(file, options, world, device) : nullptr);
  Run run;
  for (int i = 0; i < steps; ++i) {
    run.states.push_back(trainer.state_parts());
    if (guide != nullptr) {
      const TensorsByName state = by_name(guide->states[static_cast<std::size_t>(i)]);
      for (TensorPart& part : run.states.back()) part = cut(part.box, *state.at(part.box.name));
      trainer.restore_parts(run.states.back());
    }
    trainer.clear_traffic();
    const StepReport report = trainer.step();
    run.losses.push_back(report.loss);
    run.norms.push_back(report.gradient_norm);
    run.gradients.push_back(trainer.tensors(TensorKind::Gradient));
  }
  run.traffic = trainer.traffic();
  run.weights = trainer.tensors(TensorKind::Weight);
  if (world.moves_on_device()) world.end();
  return run;
}

/// The share by which a tensor may differ, given its name.
using Tolerance = std::function<double(const std::string& name)>;

/// The largest share by which a tensor differs.
double compare_tensors(const char* what, const std::vector<TensorPart>& parts,
                       const std::vector<TensorPart>& whole, const Tolerance& tolerance,
                       double floor) {
  const TensorsByName tensors = by_name(whole);
  expect(!parts.empty(), std::string("a rank without ") + what);
  double worst = 0;
  for (const TensorPart& part : parts) {
    const auto found = tensors.find(part.box.name);
    expect(found != tensors.end(), "unknown tensor " + part.box.name);
    if (found == tensors.end()) continue;
    const Difference difference = compare(part, *found->second);
    // The gradient of a key's bias is zero in theory: softmax does not see what all keys share.
    if (part.box.name.find("key.bias") != std::string::npos) continue;
    const double share =
        std::sqrt(difference.squared) / (std::sqrt(difference.whole_squared) + floor);
    worst = std::max(worst, share);
    expect(share <= tolerance(part.box.name),
           std::string(what) + " of " + part.box.name + " by " + std::to_string(share));
  }
  return worst;
}

/// The share by which all of a rank's tensors together differ.
double apart_together(const std::vector<TensorPart>& parts, const std::vector<TensorPart>& whole) {
  const TensorsByName tensors = by_name(whole);
  double squared = 0, whole_squared = 0;
  for (const TensorPart& part : parts) {
    const TensorPart same = cut(part.box, *tensors.at(part.box.name));
    squared += compare(part, *tensors.at(part.box.name)).squared;
    for (const float value : same.values)
      whole_squared += static_cast<double>(value) * static_cast<double>(value);
  }
  return std::sqrt(squared / whole_squared);
}

struct Expected {
  double tensor = 0, context = 0, data = 0, parameter = 0, pipeline = 0;

  void add(const std::vector<LayerItem>& items, double times) {
    for (const LayerItem& item : items)
      if (item.is_collective)
        (item.group == CommGroup::Context ? context : tensor) += times * item.bytes;
  }
};

/// What the simulator counts for this rank, from the same lists that it prices.
Expected expected_bytes(const PlanFile& file, const Coordinates& at) {
  const int stage = at.pipeline;
  const Plan& plan = file.plan;
  const Schedule schedule = schedule_of(file, at.data);
  const LayerShape shape = layer_shape(file.model, plan, file.workload.seq_len);
  const bool splits = plan.schedule == ScheduleKind::ZbH1 || plan.schedule == ScheduleKind::ZbH2 ||
                      plan.schedule == ScheduleKind::ZbV || plan.schedule == ScheduleKind::DualPipe;
  Expected expected;
  double parameters = 0, table = 0;
  const int pieces = piece_count(schedule);
  for (int chunk = 0; chunk < schedule.chunks; ++chunk) {
    const int piece = piece_of(schedule, stage, chunk);
    const double layers = file.layer_split[static_cast<std::size_t>(piece)];
    double visits = 0;
    for (int m = 0; m < schedule.micro_batches; ++m) visits += visits_chunk(schedule, chunk, m);
    expected.add(layer_forward(shape), visits * layers);
    expected.add(layer_backward(shape, splits), visits * layers);
    parameters += layers * layer_parameters_per_rank(shape);
    if (piece == 0) {
      expected.add(embedding_forward(shape), visits);
      expected.add(embedding_backward(shape), visits);
      parameters += embedding_parameters_per_rank(shape);
    } else {
      expected.pipeline += visits * boundary_bytes(shape);
    }
    if (piece + 1 == pieces) {
      expected.add(head_forward(shape), visits);
      expected.add(head_backward(shape, splits), visits);
      const bool with_table = !file.model.tied_embeddings || !(pieces == 1 || ends_meet(schedule));
      parameters += head_parameters_per_rank(shape, with_table);
    } else {
      expected.pipeline += visits * boundary_bytes(shape);
    }
  }
  if (schedule.placement == Placement::Vee && stage + 1 == schedule.stages) {
    // The turn of the vee stays on the rank.
    expected.pipeline -= 2.0 * schedule.micro_batches * boundary_bytes(shape);
  }
  const int replicas = plan.dp * plan.cp;  // ranks that hold the same weights
  if (replicas > 1) expected.data += 4 * parameters;
  const bool tied_apart = file.model.tied_embeddings && pieces > 1 && !ends_meet(schedule);
  if (tied_apart && (stage == 0 || stage + 1 == schedule.stages)) {
    table = static_cast<double>(shape.padded_vocab) / (plan.vocabulary_parallel ? plan.tp : 1) *
            file.model.hidden;
    expected.data += 4 * table;
  }
  if (schedule.placement == Placement::BothWays)
    expected.data += 4 * parameters / (plan.zero > 0 ? replicas : 1);
  if (plan.zero > 0 && replicas > 1)
    expected.parameter = bytes_of(plan.precision) * parameters / replicas;
  if (plan.tp == 1) expected.tensor = 0;
  return expected;
}

void compare_traffic(const PlanFile& file, const Run& run, int rank) {
  const Expected expected = expected_bytes(file, RankMap(file.plan).coordinates(Rank{rank}));
  const TrafficCount& traffic = run.traffic;
  // The lists count the whole of what a gather gives, a communicator the part it was given.
  const auto tensor = static_cast<double>(
      traffic.of(Traffic::Tensor) +
      (file.plan.tp - 1) * traffic.of(Traffic::Tensor, CollectiveKind::AllGather));
  const auto check = [&](const char* what, double counted, double wanted) {
    expect(counted == wanted, std::string(what) + " bytes: " + std::to_string(counted) +
                                  " given, " + std::to_string(wanted) + " expected");
  };
  check("tensor", tensor, expected.tensor);
  check("context", static_cast<double>(traffic.of(Traffic::Context)), expected.context);
  check("data", static_cast<double>(traffic.of(Traffic::Data)), expected.data);
  check("parameter", static_cast<double>(traffic.of(Traffic::Parameter)), expected.parameter);
  check("pipeline", static_cast<double>(traffic.of(Traffic::Pipeline)), expected.pipeline);
  const bool alone =
      file.plan.tp * file.plan.pp * (file.plan.zero > 0 ? file.plan.dp * file.plan.cp : 1) == 1;
  check("control", static_cast<double>(traffic.of(Traffic::Control)), alone ? 0 : 4);
}

/// Whether ranks round their shares of sums to bf16.
bool rounds_shares(const PlanFile& file) {
  return file.plan.precision != Precision::Fp32 && file.plan.tp * file.plan.cp > 1;
}

/// How far gradients may be apart where both runs have the same weights. Replicas and stages do
/// what one rank does with each sample, and differ in the order of fp32 sums alone. Where tensor
/// ranks share a product, each rounds its part to bf16, and their sum is rounded again: that is,
/// beside the one rounding on one rank, three errors of 2^-9 of the product (their root mean
/// square; the most is 2^-8). Two such sums a layer and pass, and two at the ends, are independent,
/// so that their squares add. Context ranks do the same to gradients of keys and values.
double gradient_tolerance(const PlanFile& file) {
  if (!rounds_shares(file)) return 1e-4;
  return std::sqrt(4 * file.model.layers + 2) * std::sqrt(3) / 512;
}

/// The way that each tensor of one rank went: the lengths of all its steps.
std::map<std::string, double> ways_gone(const Run& whole) {
  std::map<std::string, double> ways;
  for (std::size_t i = 0; i < whole.states.size(); ++i) {
    const TensorsByName before = by_name(whole.states[i]);
    const bool is_last = i + 1 == whole.states.size();
    for (const TensorPart& after : is_last ? whole.weights : whole.states[i + 1]) {
      const std::string name = is_last ? "weight/" + after.box.name : after.box.name;
      if (name.starts_with("weight/"))
        ways[name.substr(7)] += std::sqrt(compare(after, *before.at(name)).squared);
    }
  }
  return ways;
}

/// How far weights may be apart at the end, by the norm of each tensor: 1e-4, in bf16 1e-2. Where
/// shares are rounded to bf16, gradients of one step differ by a share e (`gradient_tolerance`).
/// Adam moves an element by its gradient's sign and place among earlier ones, whatever its size: a
/// difference d moves an element of gradient g by min(2, |d/g|) of a step more. For normal g of
/// variance 1 and d = e the mean square of that is 8·e/√(2π), the most part from elements near zero
/// whose sign turns. So a tensor is at most √(8e/√(2π)) of the way that it went away from where it
/// should be: what began at zero and goes to and fro may end some percent of its norm apart.
Tolerance weights_tolerance(const PlanFile& file, const Run& whole) {
  const bool bf16 = file.plan.precision != Precision::Fp32;
  if (!rounds_shares(file)) return [=](const std::string&) { return bf16 ? 1e-2 : 1e-4; };
  const double turned = std::sqrt(8 * gradient_tolerance(file) / std::sqrt(2 * M_PI));
  std::map<std::string, double> allowed;
  const TensorsByName end = by_name(whole.weights);
  for (const auto& [name, way] : ways_gone(whole)) {
    const TensorPart& tensor = *end.at(name);
    const double norm = std::sqrt(compare(tensor, tensor).whole_squared);
    allowed[name] = std::max(1e-2, turned * way / norm);
  }
  return [allowed](const std::string& name) { return allowed.at(name); };
}

void compare_value(const char* what, std::size_t step, double mine, double whole,
                   double tolerance) {
  expect(std::abs(mine - whole) <= tolerance * whole,
         std::string(what) + " of step " + std::to_string(step) + ": " + std::to_string(mine) +
             " for " + std::to_string(whole));
}

/// Step by step, each from the weights that one rank has.
void compare_steps(const Run& led, const Run& whole, double tolerance) {
  double worst = 0, worst_norm = 0;
  for (std::size_t i = 0; i < whole.losses.size(); ++i) {
    const double norm = whole.norms[i];
    compare_value("loss from the same weights", i, led.losses[i], whole.losses[i], 1e-4);
    // If no tensor is further away than this, neither is the norm of them all.
    compare_value("norm from the same weights", i, led.norms[i], norm, tolerance);
    worst_norm = std::max(worst_norm, std::abs(led.norms[i] - norm) / norm);
    worst =
        std::max(worst, compare_tensors(
                            "gradients from the same weights", led.gradients[i], whole.gradients[i],
                            [&](const std::string&) { return tolerance; }, 1e-3 * norm));
  }
  std::printf("from the same weights: gradients at most %.2g apart, norms %.2g\n", worst,
              worst_norm);
}

Run train_alone(Words words) {
  const int steps = number(words, "steps", 20);
  for (const char* name : {"dp", "tp", "cp", "pp", "chunks", "schedule", "zero", "sp", "recompute",
                           "shares", "breadth"})
    words.erase(name);
  words["micro_batch"] = "1";
  const auto world = lone_world();
  const auto device = cpu_device(1);
  return train(plan_of(words), *world, *device, steps, nullptr);
}

/// Trains once more; see `train`.
using Training = std::function<Run(const Run* guide)>;

void check_rank(const PlanFile& file, int rank, const Run& whole, const Training& training) {
  const bool bf16 = file.plan.precision == Precision::Bf16;
  const Run mine = training(nullptr);
  double worst = 0;
  for (std::size_t i = 0; i < whole.losses.size(); ++i) {
    compare_value("loss", i, mine.losses[i], whole.losses[i], bf16 ? 1e-2 : 1e-4);
    worst = std::max(worst, std::abs(mine.losses[i] / whole.losses[i] - 1));
    if (!bf16) compare_value("gradient norm", i, mine.norms[i], whole.norms[i], 1e-3);
  }
  if (rank == 0)
    std::printf("loss %.6f, then %.6f; at most %.2g apart\n", whole.losses.front(),
                whole.losses.back(), worst);
  expect(whole.losses.back() < whole.losses.front(), "the model learns nothing");
  const double tolerance = gradient_tolerance(file);
  std::printf("gradients: at most %.2g apart\n",
              compare_tensors(
                  "gradients", mine.gradients.front(), whole.gradients.front(),
                  [&](const std::string&) { return tolerance; }, 1e-3 * whole.norms.front()));
  const Tolerance of_weights = weights_tolerance(file, whole);
  std::printf("weights: at most %.2g apart\n",
              compare_tensors("weights", mine.weights, whole.weights, of_weights, 1e-12));
  if (bf16) {
    const double together = apart_together(mine.weights, whole.weights);
    std::printf("weights: together %.2g apart\n", together);
    expect(together <= 1e-2, "weights together by " + std::to_string(together));
  }
  if (bf16) compare_steps(training(&whole), whole, tolerance);
  compare_traffic(file, mine, rank);
}

/// One of the ranks that mpirun started.
int run_rank(const Words& words) {
  const auto world = started_by_mpi() ? mpi_world(number(words, "deadline", 60)) : lone_world();
  try {
    const PlanFile file = plan_of(words);
    const auto device = cpu_device(1);
    if (words.count("write") != 0)
      write_layout(*world, words);
    else if (words.count("read") != 0)
      read_layouts(*world, words);
    else if (words.count("slow") != 0)
      wait_for_disk(*world, words);
    else
      check_rank(file, world->rank(), train_alone(words), [&](const Run* guide) {
        return train(file, *world, *device, number(words, "steps", 20), guide);
      });
  } catch (const std::exception& error) {
    std::cerr << "rank " << world->rank() << ": " << error.what() << '\n';
    ++failures;
  }
  if (failures > 0) world->abort(1);
  return failures == 0 ? 0 : 1;
}

/// All ranks, each on a thread with a GPU of its own.
int run_on_fake_gpus(const Words& words) {
  const PlanFile file = plan_of(words);
  const Run whole = train_alone(words);
  const int ranks = world_size(file.plan);
  FakeFabric fabric;
  const HeldPort alone, guided;  // of the run, and of that with a guide
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] {
      try {
        check_rank(file, rank, whole, [&](const Run* guide) {
          FakeGpu gpu(fabric, rank);
          const HeldPort& held = guide == nullptr ? alone : guided;
          const auto world = channel_world(
              std::make_unique<Rendezvous>(
                  rank, ranks,
                  Rendezvous::Place{"127.0.0.1", held.port(), rank == 0 ? dup(held.socket()) : -1},
                  60),
              60, gpu);
          return train(file, *world, gpu, number(words, "steps", 20), guide);
        });
      } catch (const std::exception& error) {
        std::cerr << "rank " << rank << ": " << error.what() << '\n';
        ++failures;
      }
    });
  for (std::thread& thread : threads) thread.join();
  expect(fabric.made > 0 && fabric.ended_well == fabric.made, "a channel that did not end well");
  expect(fabric.aborted == 0 && fabric.misuses == 0 && fabric.hangs == 0, "the use of a GPU");
  return failures == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  Words words;
  for (int i = 1; i < argc; ++i) {
    const std::string text = argv[i];
    const std::size_t equals = text.find('=');
    words[text.substr(0, equals)] = text.substr(equals + 1);
  }
  return word(words, "gpus", "") == "fake" ? run_on_fake_gpus(words) : run_rank(words);
}
