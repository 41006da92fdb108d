#include "kernels/expert_load.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "plan/draws.h"
#include "plan/ensure.h"

namespace rehearse {
namespace {

/// Of each expert of a layer, rank after rank.
std::vector<double> layer_draws(int experts, int seed, int layer) {
  const std::uint64_t of_layer =
      derived_seed(static_cast<std::uint64_t>(seed), static_cast<std::uint64_t>(layer));
  std::vector<double> draws;
  for (int expert = 0; expert < experts; ++expert)
    draws.push_back(normal_draw(of_layer, static_cast<std::uint64_t>(expert)));
  return draws;
}

/// Tokens of each rank, as multiples of the mean.
std::vector<double> rank_shares(const std::vector<double>& draws, int ranks, double sigma) {
  const std::size_t each = draws.size() / static_cast<std::size_t>(ranks);
  std::vector<double> shares;
  double all = 0;
  for (std::size_t first = 0; first + each <= draws.size(); first += each) {
    double tokens = 0;
    for (std::size_t i = first; i < first + each; ++i) tokens += std::exp(sigma * draws[i]);
    shares.push_back(tokens);
    all += tokens;
  }
  for (double& share : shares) share = share * ranks / all;
  return shares;
}

double busiest_of(const std::vector<double>& draws, int ranks, double sigma) {
  const std::vector<double> shares = rank_shares(draws, ranks, sigma);
  return *std::max_element(shares.begin(), shares.end());
}

}  // namespace

double busiest_share(int experts, int ranks, double sigma, int seed, int layer) {
  if (sigma <= 0 || ranks < 2) return 1;
  return busiest_of(layer_draws(experts, seed, layer), ranks, sigma);
}

double popularity_deviation(int experts, int ranks, int first, int last, const Routing& routing) {
  ensure(routing.imbalance >= 1 && routing.imbalance < ranks && first < last,
         "an imbalance lies between even shares and one rank that has all");
  std::vector<std::vector<double>> draws;
  for (int layer = first; layer < last; ++layer)
    draws.push_back(layer_draws(experts, routing.seed, layer));
  const auto mean = [&](double sigma) {
    double sum = 0;
    for (const std::vector<double>& layer : draws) sum += busiest_of(layer, ranks, sigma);
    return sum / static_cast<double>(draws.size());
  };
  double low = 0, high = 1;
  constexpr double kMost = 64;  // one expert has all tokens by then
  while (mean(high) < routing.imbalance && high < kMost) high *= 2;
  constexpr int kHalvings = 50;
  for (int i = 0; i < kHalvings; ++i) {
    const double middle = (low + high) / 2;
    (mean(middle) < routing.imbalance ? low : high) = middle;
  }
  return (low + high) / 2;
}

double dropped_share(int experts, int ranks, int first, int last, const Routing& routing,
                     double capacity) {
  if (routing.imbalance >= ranks) return std::max(0.0, 1 - capacity / ranks);  // one has them all
  if (routing.imbalance <= 1) return std::max(0.0, 1 - capacity);
  const double sigma = popularity_deviation(experts, ranks, first, last, routing);
  double dropped = 0;
  for (int layer = first; layer < last; ++layer)
    for (const double share : rank_shares(layer_draws(experts, routing.seed, layer), ranks, sigma))
      dropped += std::max(0.0, share - capacity) / ranks;
  return dropped / (last - first);
}

}  // namespace rehearse
