#include <algorithm>
#include <chrono>
#include <fstream>
#include <iostream>
#include <iterator>
#include <optional>

#include "kernels/profile_file.h"
#include "kernels/profiler/statistics.h"
#include "plan/json_value.h"
#include "plan/problem.h"
#include "plan/units.h"
#include "plan/write_file.h"
#include "runtime/communicator.h"
#include "runtime/device_commands.h"
#include "runtime/machine_facts.h"

namespace rehearse {
namespace {

/// From what latency decides to what bandwidth does.
constexpr std::int64_t kLeastBytes = 64, kMostBytes = std::int64_t{64} << 20;

/// Ranks that measure together what their messages and collectives take.
class LinkMeter {
 public:
  LinkMeter(World& world, Communicator& all) : world_(world), all_(all) {}

  /// `kind` from small to large buffers, four times as large each.
  CollectiveCurve curve(CollectiveKind kind, const std::string& source) {
    CollectiveCurve curve{.collective = kind, .ranks = all_.size(), .source = source};
    // A message has two ends, however many ranks there are.
    if (kind == CollectiveKind::SendReceive) curve.ranks = 2;
    const std::int64_t unit = 4 * all_.size();  // an fp32 number for each rank
    for (std::int64_t bytes = kLeastBytes; bytes <= kMostBytes; bytes *= 4) {
      const std::int64_t whole = std::max(unit, bytes / unit * unit);
      const auto size = static_cast<double>(whole);
      if (curve.points.empty() || size > curve.points.back().bytes)
        curve.points.push_back({size, seconds(kind, whole)});
    }
    return curve;
  }

 private:
  double seconds(CollectiveKind kind, std::int64_t bytes) {
    const std::int64_t count = bytes / static_cast<std::int64_t>(sizeof(float));
    numbers_.assign(static_cast<std::size_t>(count), 1.0f);
    part_.assign(static_cast<std::size_t>(count / all_.size()), 1.0f);
    const TensorView whole(numbers_.data(), DType::F32, {count});
    const TensorView part(part_.data(), DType::F32, {count / all_.size()});
    switch (kind) {
      case CollectiveKind::AllReduce:
        return median_s([&] { all_.all_reduce(whole, Reduction::Max, Traffic::Data); });
      case CollectiveKind::AllGather:
        return median_s([&] { all_.all_gather(part, whole, Traffic::Data); });
      case CollectiveKind::ReduceScatter:
        return median_s([&] { all_.reduce_scatter(whole, part, Traffic::Data); });
      case CollectiveKind::Broadcast:
        return median_s([&] {
          Transfer moved = all_.start_broadcast(whole, 0, Traffic::Data);
          finish(moved);
        });
      case CollectiveKind::SendReceive:
        return median_s([&] { there_and_back(whole); }) / 2;
      case CollectiveKind::AllToAll:
        break;
    }
    throw std::logic_error("communicators have no such collective");
  }

  /// Between the first two ranks.
  void there_and_back(const TensorView& view) {
    for (int sender = 0; sender < 2 && world_.rank() < 2; ++sender) {
      Transfer moved = world_.rank() == sender
                           ? all_.start_send(view, 1 - sender, 0, Traffic::Pipeline)
                           : all_.start_receive(view, sender, 0);
      finish(moved);
    }
  }

  /// Repeated often enough that a sample is not all clock, and no longer than kEnough_s where the
  /// machine is busy with others; all ranks repeat equally often.
  template <class Exchange>
  double median_s(const Exchange& exchange) {
    constexpr double kSample_s = 200e-6, kEnough_s = .25;
    constexpr std::size_t kSamples = 15, kLeastSamples = 5;
    exchange();
    const double once_s = slowest_s(exchange, 1);
    const int repeats = static_cast<int>(std::clamp(kSample_s / once_s, 1.0, 50.0));
    std::vector<double> samples;
    for (double spent_s = 0;
         samples.size() < kLeastSamples || (samples.size() < kSamples && spent_s < kEnough_s);
         spent_s += samples.back() * repeats)
      samples.push_back(slowest_s(exchange, repeats));
    return statistics_of(samples).median;
  }

  /// Of one exchange, on the rank that took longest: every rank is told the same.
  template <class Exchange>
  double slowest_s(const Exchange& exchange, int repeats) {
    all_.barrier();
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < repeats; ++i) exchange();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    double seconds = took.count() / repeats;
    all_.all_reduce({&seconds, DType::F64, {1}}, Reduction::Max, Traffic::Report);
    return seconds;
  }

  World& world_;
  Communicator& all_;
  std::vector<float> numbers_, part_;
};

JsonValue curve_json(const CollectiveCurve& curve) {
  JsonValue list = JsonValue::list();
  for (const CollectivePoint& point : curve.points) {
    JsonValue object = JsonValue::object();
    object.add("bytes", JsonValue::of(point.bytes));
    object.add("median_s", JsonValue::of(point.seconds));
    list.items.push_back(std::move(object));
  }
  JsonValue object = JsonValue::object();
  object.add("collective", JsonValue::of(collective_name(curve.collective)));
  object.add("ranks", JsonValue::of(std::int64_t{curve.ranks}));
  object.add("points", std::move(list));
  return object;
}

std::string lines(const CollectiveCurve& curve) {
  std::string text;
  for (const CollectivePoint& point : curve.points)
    text += std::string(collective_name(curve.collective)) + " of " + format_bytes(point.bytes) +
            ": " + format_seconds(point.seconds) + ", " + format_rate(point.bytes / point.seconds) +
            "\n";
  return text;
}

Profile profile_in(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("the profile " + path + " cannot be read");
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  Problems problems;
  auto profile = read_profile(text, path, problems);
  if (!profile) throw std::runtime_error(problems.text());
  return *std::move(profile);
}

/// In the place of those that the profile has of the same collectives and ranks.
void take_up(Profile& profile, const std::vector<CollectiveCurve>& curves) {
  for (const CollectiveCurve& curve : curves) {
    std::erase_if(profile.collectives, [&](const CollectiveCurve& old) {
      return old.collective == curve.collective && old.ranks == curve.ranks;
    });
    profile.collectives.push_back(curve);
  }
}

struct LinksRequest {
  bool json = false;
  std::string profile;  ///< to be completed; empty: none
};

LinksRequest parse(Arguments arguments) {
  LinksRequest request;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == "--json") {
      request.json = true;
    } else if (arguments[i] == "--into") {
      if (i + 1 == arguments.size()) throw ArgumentError("--into wants a profile's file");
      request.profile = arguments[++i];
    } else {
      throw ArgumentError("links does not take '" + arguments[i] + "'",
                          meant(arguments[i], {"--json", "--into"}));
    }
  }
  return request;
}

}  // namespace

int command_links(Arguments arguments) {
  const LinksRequest request = parse(arguments);
  // Every rank reads the profile, so that what is wrong with it ends all of them alike.
  std::optional<Profile> profile;
  if (!request.profile.empty()) profile = profile_in(request.profile);
  if (!started_by_mpi())
    throw std::runtime_error("links measures ranks together: mpirun -n 2 rehearse-device links");
  const auto world = mpi_world(60);
  if (world->size() < 2)
    throw std::runtime_error("links measures two ranks or more, but one was started");
  TrafficCount count;
  std::vector<int> everyone;
  for (int rank = 0; rank < world->size(); ++rank) everyone.push_back(rank);
  const auto all = world->group(everyone, count, {{0, 1, 0}, {1, 0, 0}});
  LinkMeter meter(*world, *all);
  const std::string source = "rehearse-device links; " + probe_cpu().model + ", MPI, " +
                             std::to_string(world->size()) + " ranks; median of 5 to 15";
  std::vector<CollectiveCurve> curves;
  for (const CollectiveKind kind :
       {CollectiveKind::SendReceive, CollectiveKind::AllReduce, CollectiveKind::AllGather,
        CollectiveKind::ReduceScatter, CollectiveKind::Broadcast})
    curves.push_back(meter.curve(kind, source));
  if (world->rank() != 0) return kExitDone;
  if (profile) {
    take_up(*profile, curves);
    write_file_whole(request.profile, write_profile(*profile), true);
  }
  if (!request.json) {
    for (const CollectiveCurve& curve : curves) std::cout << lines(curve);
    return kExitDone;
  }
  const CollectivePoint &shortest = curves.front().points.front(),
                        &longest = curves.front().points.back();
  JsonValue root = JsonValue::object();
  root.add("schema", JsonValue::of("links/1"));
  root.add("latency_s", JsonValue::of(shortest.seconds));
  root.add("bandwidth_bytes_per_s", JsonValue::of(longest.bytes / longest.seconds));
  JsonValue list = JsonValue::list();
  for (const CollectiveCurve& curve : curves) list.items.push_back(curve_json(curve));
  root.add("curves", std::move(list));
  std::cout << to_text(root);
  return kExitDone;
}

}  // namespace rehearse
