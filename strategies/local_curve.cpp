#include "strategies/local_curve.h"

#include <algorithm>
#include <cmath>

#include "plan/ensure.h"

namespace rehearse {
namespace {

/// One step of a ring with the Simple protocol over NVLink (NCCL 2.28.9 src/graph/tuning.cc).
constexpr double kSimpleHopUs = 3.4;

/// Constants of one curve, in µs and µs per MB (1e6 bytes), so that 1/wire is the bus bandwidth in
/// TB/s; `ramp_mb` is the size whose ramp costs as much as its transfer.
struct Curve {
  double base_us = 0, wire_us_per_mb = 0, copy_us_per_mb = 0, ramp_mb = 0;
};

/// All-gather, reduce-scatter and broadcast share curves: they move the same bytes in as many
/// steps, and their measurements differ by less than the fit's error.
struct RingCurves {
  Curve ll, ll128, simple;
};

struct GenerationCurves {
  double hop_us = 0;  ///< of one step of a ring with LL or LL128
  RingCurves all_reduce, gather;
  Curve nvls;
  Curve all_to_all;
  double send_base_us = 0;
  /// Less than the bases below kNarrowBytes, with LL and in all-to-alls.
  double narrow_us = 0, all_to_all_narrow_us = 0;
  double nvlink_bytes_per_s = 0;  ///< of the GPUs that were measured, data sheet, one direction
};

/// Fitted by least squares of log(time) to half-precision NCCL 2.27–2.29 measurements on 2, 4
/// and 8 GPUs from 16 KiB to 512 MiB (aiconfigurator, systems data, Apache-2.0) and, for the
/// largest messages, to single published figures: 8 × A100 all-reduce 229, 233.9, 234.9 GB/s at
/// 1, 4, 16 GiB; 8 × H200 463.6, 473.1, 482.3; 4 × H200 ring 363.3 at 8 GiB, all-gather 361.4,
/// reduce-scatter 362.9 at 16 GiB (stas00/ml-engineering, network benchmarks); 8 × H100 466.3,
/// 477.2, 479.9 (NVIDIA's LLM benchmark recipes); 8 × B200 835 at 16 GiB (NCCL issue 1807). The hop
/// of Simple rings is NCCL's own. Mean errors from 64 KiB up are 3 to 7 % for every set;
/// tests/strategies/collective_error_test.cpp measures them. Sends: the base is the time of the
/// smallest messages, 8 µs on a DGX A100 (vidur, send_recv). What the smallest messages take less
/// was fitted to the same collection's 512 bytes to 8 KiB of all sets of a generation together.
constexpr GenerationCurves kAmpere{
    .hop_us = .91,
    .all_reduce = {{11.06, 8.347}, {21.36, 6.278}, {24.12, 4.15, 1.658, .5881}},
    .gather = {{10.97, 9.98}, {17.09, 7.219}, {23.32, 4.378, 1.531, .8813}},
    .nvls = {},
    .all_to_all = {11.47, 4.083, 1.183, 8.248},
    .send_base_us = 8,
    .narrow_us = 2.56,
    .all_to_all_narrow_us = 0,
    .nvlink_bytes_per_s = 300e9};
constexpr GenerationCurves kHopper{
    .hop_us = .88,
    .all_reduce = {{5.48, 5.192}, {15.23, 3.251}, {11.83, 2.522, 1.503, .04395}},
    .gather = {{5.459, 6.371}, {13.4, 3.348}, {11.27, 2.589, 1.481, .1917}},
    .nvls = {15.42, 1.953, 0, 10.11},
    .all_to_all = {9.63, 2.908, .4171, 2.149},
    .send_base_us = 6.5,
    .narrow_us = .91,
    .all_to_all_narrow_us = 1.99,
    .nvlink_bytes_per_s = 450e9};
/// LL128 on Blackwell is held to the 662 GB/s its ring can carry; the measurements between 16 and
/// 64 MiB, where NCCL chooses it, lie on a plateau.
constexpr GenerationCurves kBlackwell{
    .hop_us = 1.22,
    .all_reduce = {{8.872, 3.023}, {57.05, 1.51}, {20.77, 1.377, .8145, 0}},
    .gather = {{8.981, 4.044}, {64.69, 1.51}, {19.66, 1.436, .7626, 0}},
    .nvls = {18.51, 1.102, 0, 45.07},
    .all_to_all = {12.72, 1.458, 1.057, 5.658},
    .send_base_us = 9.2,
    .narrow_us = .85,
    .all_to_all_narrow_us = 2.57,
    .nvlink_bytes_per_s = 900e9};

const GenerationCurves& curves_of(int compute_capability) {
  if (compute_capability >= 100) return kBlackwell;
  return compute_capability >= 90 ? kHopper : kAmpere;
}

/// A message this small goes through one channel and few of its threads, which is cheaper to start
/// than several channels; from twice the size they all take part (NCCL 2.28, src/enqueue.cc,
/// channels and threads fall with the bytes a thread would get).
constexpr double kNarrowBytes = 8192;

/// Share of the narrow message's advantage that one of this size has.
double narrow_share(double bytes) { return std::clamp(2 - bytes / kNarrowBytes, 0.0, 1.0); }

/// A curve at one size. `per_byte_us_per_mb` is what every byte of the message costs.
CurveTime evaluate(const Curve& curve, double start_us, double per_byte_us_per_mb, double bytes) {
  const double per_byte_s = per_byte_us_per_mb * 1e-12;
  return {.start_s = start_us * 1e-6,
          .ramp_s = bytes * per_byte_s * std::sqrt(curve.ramp_mb * 1e6 / bytes),
          .per_byte_s = per_byte_s};
}

const Curve& protocol_curve(const RingCurves& curves, CollectiveProtocol protocol) {
  switch (protocol) {
    case CollectiveProtocol::LL:
      return curves.ll;
    case CollectiveProtocol::LL128:
      return curves.ll128;
    case CollectiveProtocol::Simple:
      break;
  }
  return curves.simple;
}

}  // namespace

CurveTime nvlink_time(CollectiveKind kind, const CommunicatorShape& shape,
                      CollectiveAlgorithm algorithm, CollectiveProtocol protocol, double bytes) {
  ensure(shape.nvlink_bandwidth_bytes_per_s > 0, "NVLink curves are for NVLink domains");
  const GenerationCurves& curves = curves_of(shape.compute_capability);
  const double slower = curves.nvlink_bytes_per_s / shape.nvlink_bandwidth_bytes_per_s;
  const double local = shape.ranks_per_node;
  switch (kind) {
    case CollectiveKind::SendReceive: {
      const Curve& curve = curves.all_to_all;
      return evaluate(curve, curves.send_base_us, curve.wire_us_per_mb * slower, bytes);
    }
    case CollectiveKind::AllToAll: {
      const Curve& curve = curves.all_to_all;
      const double wire = (local - 1) / local * curve.wire_us_per_mb * slower;
      const double base_us = curve.base_us - curves.all_to_all_narrow_us * narrow_share(bytes);
      return evaluate(curve, base_us, wire + curve.copy_us_per_mb / local, bytes);
    }
    default:
      break;
  }
  const double n = algorithm == CollectiveAlgorithm::Ring ? shape.ranks() : local;
  const bool reduces = kind == CollectiveKind::AllReduce;
  const double steps = (reduces ? 2 : 1) * (n - 1);
  // A broadcast passes the whole message along the ring once.
  const double bus = kind == CollectiveKind::Broadcast ? 1 : steps / n;
  if (algorithm == CollectiveAlgorithm::Nvls)
    return evaluate(curves.nvls, curves.nvls.base_us, bus * curves.nvls.wire_us_per_mb * slower,
                    bytes);
  const RingCurves& ring = reduces ? curves.all_reduce : curves.gather;
  const Curve& curve = protocol_curve(ring, protocol);
  const double hop = protocol == CollectiveProtocol::Simple ? kSimpleHopUs : curves.hop_us;
  const double narrow =
      protocol == CollectiveProtocol::LL ? curves.narrow_us * narrow_share(bytes) : 0;
  // LL is bound by its flags, not by the links.
  const double wire = curve.wire_us_per_mb * (protocol == CollectiveProtocol::LL ? 1 : slower);
  const double copy = kind == CollectiveKind::Broadcast ? 0 : curve.copy_us_per_mb / n;
  return evaluate(curve, curve.base_us - narrow + steps * hop, bus * wire + copy, bytes);
}

}  // namespace rehearse
