#include "kernels/fit/simplex_search.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace rehearse {
namespace {

struct Corner {
  std::vector<double> at;
  double value = 0;
};

/// The point at `centre + times · (corner − centre)`.
std::vector<double> along(const std::vector<double>& centre, const std::vector<double>& corner,
                          double times) {
  std::vector<double> point(centre.size());
  for (std::size_t i = 0; i < centre.size(); ++i)
    point[i] = centre[i] + times * (corner[i] - centre[i]);
  return point;
}

class Simplex {
 public:
  Simplex(const std::function<double(const std::vector<double>&)>& value,
          const std::vector<double>& start, const std::vector<double>& step)
      : value_(value) {
    corners_.push_back(made(start));
    for (std::size_t i = 0; i < start.size(); ++i) {
      std::vector<double> moved = start;
      moved[i] += step[i];
      corners_.push_back(made(moved));
    }
    order();
  }

  int evaluations() const { return evaluations_; }
  const std::vector<double>& best() const { return corners_.front().at; }
  bool flat() const {
    const double low = corners_.front().value, high = corners_.back().value;
    return high - low <= 1e-7 * std::max(std::abs(low), 1e-12);
  }

  void move() {
    const std::vector<double> centre = centre_of_better();
    Corner& worst = corners_.back();
    const double second_worst = corners_[corners_.size() - 2].value;
    Corner reflected = made(along(centre, worst.at, -1));
    if (reflected.value < corners_.front().value) {
      Corner expanded = made(along(centre, worst.at, -2));
      worst = expanded.value < reflected.value ? std::move(expanded) : std::move(reflected);
    } else if (reflected.value < second_worst) {
      worst = std::move(reflected);
    } else {
      const bool outside = reflected.value < worst.value;
      Corner contracted = made(along(centre, worst.at, outside ? -0.5 : 0.5));
      if (contracted.value < std::min(reflected.value, worst.value))
        worst = std::move(contracted);
      else
        shrink();
    }
    order();
  }

 private:
  Corner made(std::vector<double> at) {
    ++evaluations_;
    const double value = value_(at);
    return {.at = std::move(at), .value = value};
  }

  std::vector<double> centre_of_better() const {
    std::vector<double> centre(corners_.front().at.size(), 0.0);
    for (std::size_t c = 0; c + 1 < corners_.size(); ++c)
      for (std::size_t i = 0; i < centre.size(); ++i) centre[i] += corners_[c].at[i];
    for (double& coordinate : centre) coordinate /= static_cast<double>(corners_.size() - 1);
    return centre;
  }

  void shrink() {
    for (std::size_t c = 1; c < corners_.size(); ++c)
      corners_[c] = made(along(corners_.front().at, corners_[c].at, 0.5));
  }

  void order() {
    std::stable_sort(corners_.begin(), corners_.end(),
                     [](const Corner& a, const Corner& b) { return a.value < b.value; });
  }

  const std::function<double(const std::vector<double>&)>& value_;
  std::vector<Corner> corners_;
  int evaluations_ = 0;
};

}  // namespace

std::vector<double> simplex_search(const std::function<double(const std::vector<double>&)>& value,
                                   const std::vector<double>& start,
                                   const std::vector<double>& step, int evaluations) {
  Simplex simplex(value, start, step);
  while (simplex.evaluations() < evaluations && !simplex.flat()) simplex.move();
  return simplex.best();
}

}  // namespace rehearse
