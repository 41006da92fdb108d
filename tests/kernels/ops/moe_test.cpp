#include <set>

#include "tests/catch.h"
#include "tests/kernels/ops/host_tensor.h"

using namespace rehearse;

namespace {

/// A token's way through router, experts' rows and back, in fp64.
struct Routing {
  std::int64_t tokens = 7, experts = 5, k = 2, h = 3;
  bool normalize = true;
  HostTensor logits, probabilities, chosen, weights, destination, offsets;

  Routing(Random& random, bool normalized) : normalize(normalized) {
    logits = random_tensor(random, DType::F64, {tokens, experts});
    probabilities = HostTensor(DType::F64, {tokens, experts});
    chosen = HostTensor(DType::I32, {tokens, k});
    weights = HostTensor(DType::F64, {tokens, k});
    destination = HostTensor(DType::I32, {tokens, k});
    offsets = HostTensor(DType::I32, {experts + 1});
  }
  void route() {
    cpu().run(RouterForward{.logits = logits,
                            .probabilities = probabilities,
                            .experts = chosen,
                            .weights = weights,
                            .normalize = normalize});
    cpu().run(MoeSort{.experts = chosen, .destination = destination, .offsets = offsets});
  }
};

}  // namespace

TEST_CASE("the router picks the k most probable experts, largest first") {
  Random random(90);
  const bool normalize = GENERATE(false, true);
  Routing r(random, normalize);
  r.logits.set(0, 1.5);
  r.logits.set(3, 1.5);  // a tie: the lower index first
  for (const std::int64_t e : {1, 2, 4}) r.logits.set(e, 0);
  r.route();
  CHECK(r.chosen.at(0) == 0);
  CHECK(r.chosen.at(1) == 3);
  for (std::int64_t t = 0; t < r.tokens; ++t) {
    double sum = 0, chosen = 0;
    for (std::int64_t e = 0; e < r.experts; ++e) sum += std::exp(r.logits.at(t * r.experts + e));
    std::set<double> mine{r.chosen.at(t * r.k), r.chosen.at(t * r.k + 1)};
    for (const double e : mine)
      chosen += std::exp(r.logits.at(t * r.experts + static_cast<std::int64_t>(e))) / sum;
    for (std::int64_t e = 0; e < r.experts; ++e) {
      const double p = std::exp(r.logits.at(t * r.experts + e)) / sum;
      CHECK(r.probabilities.at(t * r.experts + e) == Approx(p));
      if (mine.count(static_cast<double>(e)) == 0)
        CHECK(p <= r.probabilities.at(t * r.experts +
                                      static_cast<std::int64_t>(r.chosen.at(t * r.k + 1))));
    }
    const double first =
        r.probabilities.at(t * r.experts + static_cast<std::int64_t>(r.chosen.at(t * r.k)));
    CHECK(r.weights.at(t * r.k) == Approx(normalize ? first / chosen : first));
  }
}

TEST_CASE("sorting by expert is stable and gives every pair its own row") {
  Random random(91);
  Routing r(random, true);
  r.route();
  std::vector<double> expert_of_row(static_cast<std::size_t>(r.tokens * r.k), -1),
      pair_of_row = expert_of_row;
  for (std::int64_t i = 0; i < r.tokens * r.k; ++i) {
    const auto row = static_cast<std::size_t>(r.destination.at(i));
    CHECK(expert_of_row.at(row) == -1);
    expert_of_row[row] = r.chosen.at(i);
    pair_of_row[row] = static_cast<double>(i);
  }
  CHECK(std::is_sorted(expert_of_row.begin(), expert_of_row.end()));
  for (std::int64_t e = 0; e < r.experts; ++e) {
    const auto first = pair_of_row.begin() + static_cast<std::ptrdiff_t>(r.offsets.at(e));
    const auto last = pair_of_row.begin() + static_cast<std::ptrdiff_t>(r.offsets.at(e + 1));
    CHECK(std::is_sorted(first, last));
    for (auto row = first; row < last; ++row)
      CHECK(expert_of_row[static_cast<std::size_t>(row - pair_of_row.begin())] ==
            static_cast<double>(e));
  }
}

TEST_CASE("the way to the experts and back, with its gradients, equals finite differences") {
  Random random(92);
  const bool normalize = GENERATE(false, true);
  Routing r(random, normalize);
  HostTensor x = random_tensor(random, DType::F64, {r.tokens, r.h});
  const HostTensor slope = random_tensor(random, DType::F64, {r.tokens * r.k, r.h});  // an "expert"
  const HostTensor d_out = random_tensor(random, DType::F64, {r.tokens, r.h});
  HostTensor rows(DType::F64, {r.tokens * r.k, r.h}), out(DType::F64, {r.tokens, r.h});
  const auto forward = [&] {
    r.route();
    cpu().run(MoePermute{.x = x, .destination = r.destination, .out = rows});
    for (std::int64_t i = 0; i < rows.elements(); ++i) rows.set(i, rows.at(i) * slope.at(i));
    cpu().run(
        MoeCombine{.x = rows, .destination = r.destination, .weights = r.weights, .out = out});
    return inner_product(out, d_out);
  };
  forward();
  HostTensor d_weights(DType::F64, {r.tokens, r.k}), d_logits(DType::F64, r.logits.shape());
  HostTensor d_rows(DType::F64, rows.shape()), d_x(DType::F64, x.shape());
  cpu().run(MoeWeightGradient{
      .d_out = d_out, .x = rows, .destination = r.destination, .d_weights = d_weights});
  cpu().run(RouterBackward{.probabilities = r.probabilities,
                           .experts = r.chosen,
                           .d_weights = d_weights,
                           .d_logits = d_logits,
                           .normalize = normalize});
  cpu().run(
      MoePermute{.x = d_out, .destination = r.destination, .weights = r.weights, .out = d_rows});
  for (std::int64_t i = 0; i < d_rows.elements(); ++i) d_rows.set(i, d_rows.at(i) * slope.at(i));
  cpu().run(MoeCombine{.x = d_rows, .destination = r.destination, .out = d_x});
  CHECK(gradient_error(x, d_x, forward) < 1e-7);
  CHECK(gradient_error(r.logits, d_logits, forward) < 1e-7);
}
