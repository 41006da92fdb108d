#include "kernels/profiler/measure.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <stdexcept>
#include <tuple>

namespace rehearse {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// What tensors are filled from, made once: on the host a pattern for each kind of contents, which
/// the device repeats over the tensor by itself. Making gigabytes on the host and sending them
/// would take longer than measuring.
class FillData {
 public:
  explicit FillData(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    const auto uniform = [&] { return (static_cast<double>(random() >> 11) + 0.5) * 0x1p-53; };
    for (std::size_t i = 0; i < kPattern; ++i) {
      const double radius = std::sqrt(-2 * std::log(uniform()));
      normal_.push_back(static_cast<float>(radius * std::cos(6.283185307179586 * uniform())));
      words_.push_back(static_cast<std::uint32_t>(random() >> 32));
    }
  }

  /// Fills the tensor at `memory`. Past the pattern's length, what is there is repeated; offsets
  /// do not repeat.
  void fill(ComputeDevice& device, const TaskTensor& tensor, std::byte* memory) {
    const std::size_t bytes = tensor.bytes();
    const std::vector<std::byte>& pattern = pattern_of(tensor);
    std::size_t made = std::min(pattern.size(), bytes);
    device.upload(memory, pattern.data(), made);
    for (; made < bytes; made += std::min(made, bytes - made))
      device.copy(memory + made, memory, std::min(made, bytes - made));
  }

 private:
  static constexpr std::size_t kPattern = (1 << 16) + 1;  // odd: rows do not repeat each other
  using Key = std::tuple<DType, TaskTensor::Fill, std::int64_t>;

  const std::vector<std::byte>& pattern_of(const TaskTensor& tensor) {
    const bool offsets = tensor.fill == TaskTensor::Fill::Offsets;
    const auto count = offsets ? static_cast<std::size_t>(tensor.shape.elements()) : kPattern;
    std::vector<std::byte>& pattern = patterns_[{tensor.dtype, tensor.fill, tensor.bound}];
    const std::size_t known = pattern.size() / element_bytes(tensor.dtype);
    if (known >= count) return pattern;
    pattern.resize(count * element_bytes(tensor.dtype));
    for (std::size_t i = known; i < count; ++i) set(pattern, tensor, i);
    return pattern;
  }

  template <typename T>
  static T& at(std::vector<std::byte>& memory, std::size_t index) {
    return reinterpret_cast<T*>(memory.data())[index];
  }

  void set(std::vector<std::byte>& memory, const TaskTensor& tensor, std::size_t i) const {
    using Fill = TaskTensor::Fill;
    float value = normal_[i % kPattern];
    if (tensor.fill == Fill::Positive) value = 10 + std::fabs(value);
    if (tensor.fill == Fill::One) value = 1;
    switch (tensor.dtype) {
      case DType::F32:
        at<float>(memory, i) = value;
        break;
      case DType::F64:
        at<double>(memory, i) = value;
        break;
      case DType::Bf16:
        at<Bf16>(memory, i) = to_bf16(value);
        break;
      case DType::F8E4m3:
        at<F8E4m3>(memory, i) = to_f8e4m3(value);
        break;
      case DType::U8:
        at<std::uint8_t>(memory, i) = words_[i % kPattern] & 1;
        break;
      case DType::I32:
        at<std::int32_t>(memory, i) = static_cast<std::int32_t>(
            tensor.fill == Fill::Offsets ? static_cast<std::int64_t>(i) * tensor.bound
                                         : static_cast<std::int64_t>(words_[i % kPattern]) %
                                               std::max<std::int64_t>(1, tensor.bound));
        break;
    }
  }

  std::vector<float> normal_;
  std::vector<std::uint32_t> words_;
  std::map<Key, std::vector<std::byte>> patterns_;
};

/// Device memory that tasks use one after the other: allocating gigabytes for each would take
/// longer than measuring.
class Arena {
 public:
  explicit Arena(ComputeDevice& device) : device_(device) {}
  ComputeDevice& device() const { return device_; }
  /// At least this much; what an earlier call gave is no longer valid.
  std::byte* reserve(std::size_t bytes) {
    if (bytes > buffer_.bytes()) {
      buffer_ = DeviceBuffer();  // both at once might not fit
      buffer_ = DeviceBuffer(device_, bytes);
    }
    return static_cast<std::byte*>(buffer_.data());
  }

 private:
  ComputeDevice& device_;
  DeviceBuffer buffer_;
};

/// Several sets of a task's operands, so that no call finds its own in the cache.
class Operands {
 public:
  Operands(const ProfileTask& task, Arena& arena, FillData& data, int sets) {
    // As far apart as separate allocations would be.
    constexpr std::size_t kAlignment = 256;
    std::vector<std::size_t> offsets{0};
    for (const TaskTensor& tensor : task.tensors)
      offsets.push_back(offsets.back() + (tensor.bytes() + kAlignment) / kAlignment * kAlignment);
    const std::size_t stride = offsets.back();
    std::byte* memory = arena.reserve(stride * static_cast<std::size_t>(sets));
    for (std::size_t i = 0; i < task.tensors.size(); ++i)
      data.fill(arena.device(), task.tensors[i], memory + offsets[i]);
    for (int set = 0; set < sets; ++set) {
      std::byte* first = memory + stride * static_cast<std::size_t>(set);
      std::vector<TensorView> views;
      for (std::size_t i = 0; i < task.tensors.size(); ++i) {
        const TaskTensor& tensor = task.tensors[i];
        if (set > 0) arena.device().copy(first + offsets[i], memory + offsets[i], tensor.bytes());
        views.emplace_back(first + offsets[i], tensor.dtype, tensor.shape);
      }
      calls_.push_back(task.call(views));
    }
  }
  const std::vector<OperatorCall>& calls() const { return calls_; }
  std::vector<OperatorCall> rotated(std::size_t count) const {
    std::vector<OperatorCall> calls;
    for (std::size_t i = 0; i < count; ++i) calls.push_back(calls_[i % calls_.size()]);
    return calls;
  }

 private:
  std::vector<OperatorCall> calls_;
};

/// Sets of operands that a task needs so as not to find its own in the cache: more than twice its
/// size together. A call longer than a batch is not repeated for their sake: what it reads from
/// memory is little beside its time.
int operand_sets(const ProfileTask& task, double call_s, const MeasureOptions& options) {
  const double bytes = std::max(task.bytes(), 1.0);
  const double for_cache = std::ceil(2 * options.cache_bytes / bytes) + 1;
  const double for_time = std::max(2.0, std::ceil(options.batch_s / std::max(call_s, 1e-9)));
  const double most = std::max(1.0, options.memory_bytes / bytes);
  return static_cast<int>(std::clamp(std::min(for_cache, for_time), 1.0,
                                     std::min(most, static_cast<double>(options.most_sets))));
}

/// Measures one task until its samples agree, its time is up, or it is interrupted.
class TaskMeter {
 public:
  TaskMeter(const ProfileTask& task, Arena& arena, Stopwatch& stopwatch, FillData& data,
            const MeasureOptions& options, const std::atomic<bool>& interrupt)
      : stopwatch_(stopwatch),
        options_(options),
        interrupt_(interrupt),
        operands_(task, arena, data, 1) {
    // The first call pays for pages, workspaces and heuristics; the second says how long one is.
    const auto trial = stopwatch_.prepare(operands_.rotated(1));
    trial->run_s();
    call_s_ = trial->run_s();
    if (const int sets = operand_sets(task, call_s_, options_); sets > 1)
      operands_ = Operands(task, arena, data, sets);
  }

  MeasuredOperator burst(double time_s) {
    const auto start = Clock::now();
    make_batch();
    std::vector<double> samples;
    while (static_cast<int>(samples.size()) < options_.most_samples && !interrupt_) {
      samples.push_back(batch_->run_s() / static_cast<double>(calls_));
      const auto count = static_cast<int>(samples.size());
      if (count >= 3 && seconds_since(start) > time_s) break;
      if (count >= options_.least_samples &&
          statistics_of(samples).spread() < options_.enough_spread)
        break;
    }
    if (samples.empty()) samples.push_back(batch_->run_s() / static_cast<double>(calls_));
    return {.seconds = statistics_of(samples), .remarks = stopwatch_.remarks(operands_.calls()[0])};
  }

  /// A second without pause; the median of its second half, when clocks have settled.
  MeasuredOperator sustained() {
    constexpr double kSettle_s = 1;
    const auto start = Clock::now();
    std::vector<double> samples;
    while (seconds_since(start) < kSettle_s && !interrupt_)
      samples.push_back(batch_->run_s() / static_cast<double>(calls_));
    samples.erase(samples.begin(),
                  samples.begin() + static_cast<std::ptrdiff_t>(samples.size() / 2));
    if (samples.empty()) samples.push_back(batch_->run_s() / static_cast<double>(calls_));
    return {.sustained = true,
            .seconds = statistics_of(samples),
            .remarks = stopwatch_.remarks(operands_.calls()[0])};
  }

 private:
  void make_batch() {
    constexpr double kMostCalls = 4096;
    const double wanted = std::ceil(options_.batch_s / std::max(call_s_, 1e-9));
    const std::size_t sets = operands_.calls().size();
    // A batch uses every set of operands, or the next one would begin with a warm one.
    calls_ =
        (static_cast<std::size_t>(std::clamp(wanted, 1.0, kMostCalls)) + sets - 1) / sets * sets;
    batch_ = stopwatch_.prepare(operands_.rotated(calls_));
    batch_->run_s();
  }

  Stopwatch& stopwatch_;
  const MeasureOptions& options_;
  const std::atomic<bool>& interrupt_;
  Operands operands_;
  std::unique_ptr<TimedBatch> batch_;
  std::size_t calls_ = 1;
  double call_s_ = 0;
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

/// The same order for the same seed on every platform; std::shuffle differs between libraries.
std::vector<std::size_t> random_order(std::size_t count, std::uint64_t seed) {
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::mt19937_64 random(seed);
  for (std::size_t i = count; i > 1; --i) std::swap(order[i - 1], order[random() % i]);
  return order;
}

}  // namespace

Measurements measure(const std::vector<ProfileTask>& tasks, ComputeDevice& device,
                     Stopwatch& stopwatch, const MeasureOptions& options,
                     const std::atomic<bool>& interrupt,
                     const std::function<void(const MeasureProgress&)>& progress) {
  const auto start = Clock::now();
  FillData data(options.seed);
  Arena arena(device);
  Measurements result;
  std::size_t done = 0;
  for (const std::size_t index : random_order(tasks.size(), options.seed)) {
    const double elapsed = seconds_since(start), left = options.budget_s - elapsed;
    if (interrupt || left <= 0) break;
    progress({.done = done, .total = tasks.size(), .elapsed_s = elapsed});
    ++done;
    try {
      TaskMeter meter(tasks[index], arena, stopwatch, data, options, interrupt);
      // Short tasks leave time over; twice the even share lets long ones have it.
      MeasuredOperator one = meter.burst(2 * left / static_cast<double>(tasks.size() - done + 1));
      one.task = index;
      result.operators.push_back(one);
      if (tasks[index].sustained && !interrupt) {
        one = meter.sustained();
        one.task = index;
        result.operators.push_back(one);
      }
    } catch (const std::exception& error) {
      result.failures.push_back({.task = index, .reason = error.what()});
      if (!is_well(device)) break;
    }
  }
  result.not_reached = tasks.size() - done;
  result.interrupted = interrupt;
  result.elapsed_s = seconds_since(start);
  std::stable_sort(result.operators.begin(), result.operators.end(),
                   [](const auto& a, const auto& b) { return a.task < b.task; });
  return result;
}

}  // namespace rehearse
