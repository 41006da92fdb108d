#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace rehearse {

enum class Stream : std::uint8_t {
  Compute,
  Tensor,
  Expert,     ///< dispatch and combine
  Data,       ///< gradient reductions, and what follows them in line
  Parameter,  ///< ZeRO-3's gathers
  PipelineForward,
  PipelineBackward,
  Host,     ///< what the host's cores do
  ToHost,   ///< copies to host memory
  FromHost  ///< and back
};
inline constexpr int kStreamCount = 10;
const char* stream_name(Stream stream);

/// Something a rank's stream did. Simulated and measured runs record the same events.
struct TimelineEvent {
  std::int32_t rank = 0;
  Stream stream = Stream::Compute;
  std::int32_t tag = 0;  ///< index into Timeline::tags ("qkv_gemm", "grad_reduce_scatter", …)
  std::int32_t stage = 0;
  std::int32_t chunk = -1;        ///< −1 where it belongs to none
  std::int32_t micro_batch = -1;  ///< −1 where it belongs to none
  std::int32_t layer = -1;        ///< −1 where it belongs to none
  double start_s = 0;             ///< from the begin of the step
  double end_s = 0;
  double bytes = 0;  ///< payload the rank gave to a transfer; 0 for computation
};

/// What each rank's streams did during one step. Events of a stream do not overlap and are
/// ordered by start, ranks ascending. Ranks that do the same as another are not repeated:
/// `represented[i]` ranks behave as the i-th rank of `ranks`.
struct Timeline {
  double step_time_s = 0;
  std::vector<std::string> tags;
  std::vector<std::int32_t> ranks;
  std::vector<std::int32_t> represented;
  std::vector<TimelineEvent> events;
};

}  // namespace rehearse
