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

double busiest_of(const std::vector<double>& draws, int ranks, double sigma) {
  const std::size_t each = draws.size() / static_cast<std::size_t>(ranks);
  double busiest = 0, all = 0;
  for (std::size_t first = 0; first + each <= draws.size(); first += each) {
    double tokens = 0;
    for (std::size_t i = first; i < first + each; ++i) tokens += std::exp(sigma * draws[i]);
    busiest = std::max(busiest, tokens);
    all += tokens;
  }
  return busiest * ranks / all;
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

}  // namespace rehearse
