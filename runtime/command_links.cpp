#include <chrono>
#include <iostream>

#include "kernels/profiler/statistics.h"
#include "plan/json_value.h"
#include "plan/units.h"
#include "runtime/communicator.h"
#include "runtime/device_commands.h"

namespace rehearse {
namespace {

struct SizedTime {
  std::int64_t bytes = 0;
  double median_s = 0;
};

/// Two ranks that measure together what their messages and reductions take.
class LinkMeter {
 public:
  LinkMeter(World& world, Communicator& pair) : world_(world), pair_(pair) {}

  /// A message one way: half of there and back.
  SizedTime message(std::int64_t bytes) {
    const TensorView view = operand(bytes);
    return {bytes, median_s([&] {
                     for (int sender = 0; sender < 2; ++sender) {
                       Transfer moved =
                           world_.rank() == sender
                               ? pair_.start_send(view, 1 - sender, 0, Traffic::Pipeline)
                               : pair_.start_receive(view, sender, 0);
                       finish(moved);
                     }
                   }) / 2};
  }

  SizedTime all_reduce(std::int64_t bytes) {
    const TensorView view = operand(bytes);
    return {bytes, median_s([&] { pair_.all_reduce(view, Reduction::Sum, Traffic::Data); })};
  }

 private:
  TensorView operand(std::int64_t bytes) {
    const std::int64_t count = bytes / static_cast<std::int64_t>(sizeof(float));
    numbers_.assign(static_cast<std::size_t>(count), 1.0f);
    return {numbers_.data(), DType::F32, {count}};
  }

  /// Repeated often enough that a sample is not all clock; both ranks repeat equally often.
  template <class Exchange>
  double median_s(const Exchange& exchange) {
    constexpr int kSamples = 15;
    const int repeats = numbers_.size() < 4096 ? 50 : 1;
    exchange();
    std::vector<double> samples;
    for (int i = 0; i < kSamples; ++i) {
      pair_.barrier();
      const auto start = std::chrono::steady_clock::now();
      for (int j = 0; j < repeats; ++j) exchange();
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      samples.push_back(took.count() / repeats);
    }
    return statistics_of(samples).median;
  }

  World& world_;
  Communicator& pair_;
  std::vector<float> numbers_;
};

JsonValue times_json(const std::vector<SizedTime>& times) {
  JsonValue list = JsonValue::list();
  for (const SizedTime& one : times) {
    JsonValue object = JsonValue::object();
    object.add("bytes", JsonValue::of(one.bytes));
    object.add("median_s", JsonValue::of(one.median_s));
    list.items.push_back(std::move(object));
  }
  return list;
}

std::string lines(const char* what, const std::vector<SizedTime>& times) {
  std::string text;
  for (const SizedTime& one : times)
    text += std::string(what) + " of " + format_bytes(static_cast<double>(one.bytes)) + ": " +
            format_seconds(one.median_s) + ", " +
            format_rate(static_cast<double>(one.bytes) / one.median_s) + "\n";
  return text;
}

}  // namespace

int command_links(Arguments arguments) {
  const bool json = arguments.size() == 1 && arguments.front() == "--json";
  if (!arguments.empty() && !json)
    throw ArgumentError("links does not take '" + arguments.front() + "'",
                        meant(arguments.front(), {"--json"}));
  if (!started_by_mpi())
    throw std::runtime_error("links measures two ranks: mpirun -n 2 rehearse-device links");
  const auto world = mpi_world(60);
  if (world->size() != 2)
    throw std::runtime_error("links measures two ranks, but " + std::to_string(world->size()) +
                             " were started");
  TrafficCount count;
  const auto pair = world->group({0, 1}, count);
  LinkMeter meter(*world, *pair);
  std::vector<SizedTime> messages, reductions;
  for (const std::int64_t bytes : {8, 4096, 65536, 1 << 20, 1 << 22, 1 << 24, 1 << 26}) {
    messages.push_back(meter.message(bytes));
    reductions.push_back(meter.all_reduce(bytes));
  }
  if (world->rank() != 0) return kExitDone;
  if (!json) {
    std::cout << lines("message", messages) << lines("all-reduce", reductions);
    return kExitDone;
  }
  JsonValue root = JsonValue::object();
  root.add("schema", JsonValue::of("links/1"));
  root.add("latency_s", JsonValue::of(messages.front().median_s));
  root.add("bandwidth_bytes_per_s",
           JsonValue::of(static_cast<double>(messages.back().bytes) / messages.back().median_s));
  root.add("messages", times_json(messages));
  root.add("all_reduces", times_json(reductions));
  std::cout << to_text(root);
  return kExitDone;
}

}  // namespace rehearse
