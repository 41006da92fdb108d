#pragma once
#include "plan/workload.h"

namespace rehearse {

// How a router deals tokens out. In each layer an expert is as popular as e^(σz), z standard normal
// and drawn from a seed, the layer and the expert; a rank of `ranks` gets the tokens of the
// experts/ranks it holds, and all-to-alls make the others wait for the busiest.

/// Tokens of the busiest rank as a multiple of the mean, in one layer. 1 where σ is 0.
double busiest_share(int experts, int ranks, double sigma, int seed, int layer);

/// The σ at which the busiest rank has `imbalance` times the mean, averaged over layers first …
/// last − 1; by bisection, since the share of the busiest grows with σ up to `ranks`.
/// REQUIRES: 1 ≤ imbalance < ranks, and some layers.
double popularity_deviation(int experts, int ranks, int first, int last, const Routing& routing);

/// Share of the tokens that ranks drop which take `capacity` times the mean at most, averaged over
/// layers first … last − 1: Σ max(0, share − capacity) / ranks.
double dropped_share(int experts, int ranks, int first, int last, const Routing& routing,
                     double capacity);

}  // namespace rehearse
