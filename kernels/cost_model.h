#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/collective_curve.h"
#include "kernels/operator.h"

namespace rehearse {

/// Where a price comes from, from the strongest evidence to the weakest.
/// `Scaled`: fitted to another GPU, carried over by the data sheets.
enum class CostSource : std::uint8_t { Measured, Interpolated, Fitted, Scaled, DataSheet };
inline constexpr int kCostSourceCount = static_cast<int>(CostSource::DataSheet) + 1;
const char* cost_source_name(CostSource source);

struct Cost {
  double seconds = 0;
  CostSource source = CostSource::DataSheet;
  double relative_error = 0;  ///< expected size of the error, as a fraction
  /// Standard deviation of one execution from the next, as a fraction; 0: nobody measured it.
  double deviation = 0;
};

/// Rates the data-sheet roofline is built on; filled from a GpuSpec by the caller, so that
/// kernels/ does not depend on topologies/.
struct DeviceRates {
  double fp32_flops = 0, bf16_flops = 0, fp16_flops = 0, fp8_flops = 0;
  double memory_bandwidth_bytes_per_s = 0;
  int streaming_multiprocessors = 0;
  int compute_capability = 0;  ///< 10 · major + minor; chooses the generation's fitted constants
};

/// What a profile must know of the GPU it is for.
struct DeviceFacts : DeviceRates {
  std::string gpu;  ///< catalogue id
  double l2_bytes = 0;
  double power_w = 0;  ///< board limit; 0: not stated
};

/// Data-sheet FLOP/s of a precision; 0 where the GPU has no such unit.
double peak_flops(const DeviceRates& rates, Precision precision);

/// Prices operators on one GPU with one software stack. Thread-compatible; same operator, same
/// price.
class CostModel {
 public:
  virtual ~CostModel() = default;
  virtual Cost cost(const Operator& op) const = 0;
  /// Time the host needs to issue one operator.
  virtual double launch_s() const = 0;
  /// One line for the list of assumptions.
  virtual std::string description() const = 0;
  /// Measured collectives among the GPUs of one node; none where nobody measured them.
  virtual const std::vector<CollectiveCurve>& collectives() const {
    static const std::vector<CollectiveCurve> none;
    return none;
  }
};

/// The documented roofline used until a GPU has a measured profile; formulas in gemm_time.h and
/// roofline.cpp. A precision without a unit on the GPU is priced at the next wider one that it
/// has (fp8 at 16 bits, 16 bits at fp32); callers refuse such plans where that is not meant.
/// Prices are `Fitted` where the GPU's generation has fitted constants, else `DataSheet`.
std::unique_ptr<CostModel> roofline_cost_model(const DeviceRates& rates);

}  // namespace rehearse
