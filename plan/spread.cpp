#include "plan/spread.h"

#include <cmath>

#include "plan/draws.h"

namespace rehearse {

double slowness(const Spread& spread, GpuId gpu) {
  if (spread.deviation <= 0) return 1;
  return std::exp(spread.deviation * normal_draw(static_cast<std::uint64_t>(spread.seed),
                                                 static_cast<std::uint64_t>(gpu.value)));
}

}  // namespace rehearse
