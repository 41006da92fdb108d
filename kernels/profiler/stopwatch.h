#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/ops/compute_device.h"

namespace rehearse {

/// Calls ready to be run again and again, and timed together.
class TimedBatch {
 public:
  virtual ~TimedBatch() = default;
  /// Runs all calls once, in order; seconds they took on the device.
  virtual double run_s() = 0;
};

/// How a device's time is measured.
class Stopwatch {
 public:
  virtual ~Stopwatch() = default;
  virtual std::unique_ptr<TimedBatch> prepare(const std::vector<OperatorCall>& calls) = 0;
  /// Facts about the device right after a measurement, and about how it computes a call: the clock,
  /// the algorithm chosen; power and temperature after a `sustained` one, since what sensors say
  /// of them is a mean over longer than a burst. Columns of the table of measurements; empty where
  /// nothing is known.
  virtual std::map<std::string, std::string> remarks(const OperatorCall& call, bool sustained) = 0;
};

/// The monotonic clock around calls that run at once: CPUs.
std::unique_ptr<Stopwatch> host_stopwatch(ComputeDevice& device);

}  // namespace rehearse
