#include "kernels/profiler/measure.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <optional>
#include <random>
#include <stdexcept>
#include <tuple>

#include "kernels/profiler/operands.h"

namespace rehearse {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Sets of operands that a task needs so as not to find its own in the cache: more than twice its
/// size together. A call so long that a turn over them would take longer than is allowed has
/// fewer: what it reads from memory is little beside its time.
int operand_sets(const ProfileTask& task, double call_s, const MeasureOptions& options) {
  const double bytes = std::max(task.bytes(), 1.0);
  const double for_cache = std::ceil(2 * options.cache_bytes / bytes) + 1;
  const double for_time = std::max(2.0, std::ceil(options.rotation_s / std::max(call_s, 1e-9)));
  const double most = std::max(1.0, options.memory_bytes / bytes);
  return static_cast<int>(std::clamp(std::min(for_cache, for_time), 1.0,
                                     std::min(most, static_cast<double>(options.most_sets))));
}

/// Thrown where a task would take more time than is left; nothing is wrong with it.
struct OutOfTime {};

/// Measures one task until its samples agree, its time is up, or it is interrupted.
class TaskMeter {
 public:
  /// Throws OutOfTime where the task's first call shows that it cannot be measured in time.
  TaskMeter(const ProfileTask& task, Arena& arena, Stopwatch& stopwatch, FillData& data,
            const MeasureOptions& options, const std::atomic<bool>& interrupt,
            Clock::time_point deadline)
      : stopwatch_(stopwatch),
        options_(options),
        interrupt_(interrupt),
        deadline_(deadline),
        operands_(task, arena, data, 1) {
    // The first call pays for pages, workspaces and heuristics; the second says how long one is.
    const auto trial = stopwatch_.prepare(operands_.rotated(1));
    const auto start = Clock::now();
    trial->run_s();
    if (interrupt_ || Clock::now() + (Clock::now() - start) > deadline_) throw OutOfTime();
    call_s_ = trial->run_s();
    if (const int sets = operand_sets(task, call_s_, options_); sets > 1)
      operands_ = Operands(task, arena, data, sets);
  }

  double call_s() const { return call_s_; }

  MeasuredOperator burst(double time_s) {
    const auto start = Clock::now();
    std::vector<double> samples;
    // A call much longer than a batch is its own batch, and warm: the trial was its first sample.
    if (call_s_ > kLongBatches * options_.batch_s && operands_.calls().size() == 1)
      samples.push_back(call_s_);
    make_batch(samples.empty());
    while (static_cast<int>(samples.size()) < options_.most_samples && !interrupt_) {
      const auto count = static_cast<int>(samples.size());
      if (count >= 1 && Clock::now() >= deadline_) break;
      if (count >= 3 && seconds_since(start) > time_s) break;
      if (count >= options_.least_samples &&
          statistics_of(samples).spread() < options_.enough_spread)
        break;
      samples.push_back(batch_->run_s() / static_cast<double>(calls_));
    }
    if (samples.empty()) samples.push_back(call_s_);
    return {.seconds = statistics_of(samples),
            .remarks = stopwatch_.remarks(operands_.calls()[0], false)};
  }

  /// A second without pause; the median of its second half, when clocks have settled.
  MeasuredOperator sustained() {
    const auto start = Clock::now();
    std::vector<double> samples;
    while (seconds_since(start) < kSettle_s && !interrupt_)
      samples.push_back(batch_->run_s() / static_cast<double>(calls_));
    samples.erase(samples.begin(),
                  samples.begin() + static_cast<std::ptrdiff_t>(samples.size() / 2));
    if (samples.empty()) samples.push_back(batch_->run_s() / static_cast<double>(calls_));
    return {.sustained = true,
            .seconds = statistics_of(samples),
            .remarks = stopwatch_.remarks(operands_.calls()[0], true)};
  }
  static constexpr double kSettle_s = 1;

 private:
  static constexpr double kLongBatches = 10, kShortBatch = 0.8;

  void make_batch(bool cold) {
    prepare_batch();
    if (!cold) return;
    // A call by itself takes longer than one among many, which do not wait for each other's start.
    const double batch_s = batch_->run_s();
    const std::size_t before = calls_;
    if (batch_s >= kShortBatch * options_.batch_s || batch_s <= 0) return;
    call_s_ = batch_s / static_cast<double>(calls_);
    prepare_batch();
    if (calls_ != before) batch_->run_s();
  }

  void prepare_batch() {
    constexpr double kMostCalls = 4096;
    const double wanted = std::ceil(options_.batch_s / std::max(call_s_, 1e-9));
    const std::size_t sets = operands_.calls().size();
    // A batch uses every set of operands, or the next one would begin with a warm one.
    calls_ =
        (static_cast<std::size_t>(std::clamp(wanted, 1.0, kMostCalls)) + sets - 1) / sets * sets;
    batch_ = stopwatch_.prepare(operands_.rotated(calls_));
  }

  Stopwatch& stopwatch_;
  const MeasureOptions& options_;
  const std::atomic<bool>& interrupt_;
  Clock::time_point deadline_;
  Operands operands_;
  std::unique_ptr<TimedBatch> batch_;
  std::size_t calls_ = 1;
  double call_s_ = 0;
};

/// What operators alike share: the same kernel in other sizes.
using Kind = std::tuple<std::string, Pass, DType>;
Kind kind_of(const ProfileTask& task) { return {task.label, task.op.pass, task.dtype}; }

/// How long a task will take, from the largest of its kind that was measured: whoever starts a
/// task of seconds when one is left overruns the budget.
class Foresight {
 public:
  void learn(const ProfileTask& task, double call_s) {
    Seen& seen = of_kind_[kind_of(task)];
    if (work(task) >= seen.work) seen = {.work = work(task), .call_s = call_s};
  }
  /// The least it takes to measure: the first call, the second, and a sample. 0 where nothing is
  /// known of its kind.
  double least_s(const ProfileTask& task) const {
    const auto seen = of_kind_.find(kind_of(task));
    if (seen == of_kind_.end()) return 0;
    return 3 * seen->second.call_s * work(task) / seen->second.work;
  }

 private:
  struct Seen {
    double work = 0, call_s = 0;
  };
  static double work(const ProfileTask& task) {
    return std::max({1.0, task.op.flops, task.bytes()});
  }
  std::map<Kind, Seen> of_kind_;
};

/// Whether the device still computes. A call that it refuses leaves it well; a kernel that reached
/// outside its memory does not.
bool is_well(ComputeDevice& device) {
  try {
    device.synchronize();
    return true;
  } catch (const std::runtime_error&) {
    return false;
  }
}

/// First the least of each kind, so that the shortest budget sees all of them and knows what others
/// will take; then all others. Both in an order that is random, and the same for the same seed on
/// every platform: std::shuffle differs between libraries.
std::vector<std::size_t> order_of(const std::vector<ProfileTask>& tasks, std::uint64_t seed) {
  std::vector<std::size_t> order(tasks.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::mt19937_64 random(seed);
  for (std::size_t i = tasks.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
  const auto size = [&](std::size_t i) { return tasks[i].op.flops + tasks[i].bytes(); };
  std::map<Kind, std::size_t> least;
  for (const std::size_t i : order) {
    const auto [known, is_new] = least.emplace(kind_of(tasks[i]), i);
    if (!is_new && size(i) < size(known->second)) known->second = i;
  }
  std::stable_partition(order.begin(), order.end(),
                        [&](std::size_t i) { return least.at(kind_of(tasks[i])) == i; });
  return order;
}

/// One run of measurements: what it knows, and what it has found.
class Session {
 public:
  Session(const std::vector<ProfileTask>& tasks, ComputeDevice& device, Stopwatch& stopwatch,
          const MeasureOptions& options, const std::atomic<bool>& interrupt)
      : tasks_(tasks),
        stopwatch_(stopwatch),
        options_(options),
        interrupt_(interrupt),
        data_(options.seed),
        arena_(device) {}

  double elapsed_s() const { return seconds_since(start_); }
  double left_s() const { return options_.budget_s - elapsed_s(); }
  Measurements result;

  /// Measures a task, or leaves it out where too little time is left. Of that, short tasks leave
  /// some over; twice the even share lets long ones have it.
  void measure(std::size_t index, std::size_t tasks_left) {
    const ProfileTask& task = tasks_[index];
    if (foresight_.least_s(task) > left_s()) {
      ++result.not_reached;
      return;
    }
    const auto began = Clock::now();
    try {
      TaskMeter meter(task, arena_, stopwatch_, data_, options_, interrupt_,
                      start_ + std::chrono::duration_cast<Clock::duration>(
                                   std::chrono::duration<double>(options_.budget_s)));
      add(index, meter.burst(2 * left_s() / static_cast<double>(tasks_left)));
      foresight_.learn(task, meter.call_s());
      if (task.sustained && !interrupt_ && left_s() > TaskMeter::kSettle_s)
        add(index, meter.sustained());
    } catch (const OutOfTime&) {
      ++result.not_reached;
      foresight_.learn(task, seconds_since(began));
    } catch (const std::exception& error) {
      result.failures.push_back({.task = index, .reason = error.what()});
    }
  }
  bool device_is_well() { return result.failures.empty() || is_well(arena_.device()); }

 private:
  void add(std::size_t index, MeasuredOperator one) {
    one.task = index;
    result.operators.push_back(std::move(one));
  }

  const std::vector<ProfileTask>& tasks_;
  Stopwatch& stopwatch_;
  const MeasureOptions& options_;
  const std::atomic<bool>& interrupt_;
  const Clock::time_point start_ = Clock::now();
  FillData data_;
  Arena arena_;
  Foresight foresight_;
};

}  // namespace

Measurements measure(const std::vector<ProfileTask>& tasks, ComputeDevice& device,
                     Stopwatch& stopwatch, const MeasureOptions& options,
                     const std::atomic<bool>& interrupt,
                     const std::function<void(const MeasureProgress&)>& progress) {
  Session session(tasks, device, stopwatch, options, interrupt);
  std::size_t done = 0;
  for (const std::size_t index : order_of(tasks, options.seed)) {
    if (interrupt || session.left_s() <= 0 || !session.device_is_well()) break;
    progress({.done = done, .total = tasks.size(), .elapsed_s = session.elapsed_s()});
    session.measure(index, tasks.size() - done);
    ++done;
  }
  Measurements result = std::move(session.result);
  result.not_reached += tasks.size() - done;
  result.interrupted = interrupt;
  result.elapsed_s = session.elapsed_s();
  std::stable_sort(result.operators.begin(), result.operators.end(),
                   [](const auto& a, const auto& b) { return a.task < b.task; });
  return result;
}

}  // namespace rehearse
