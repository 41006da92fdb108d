#include "strategies/tensor_lateness.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "plan/draws.h"

namespace rehearse {
namespace {

constexpr int kDraws = 64;  // one wait of two ranks is then known to some 10 %, a hundred to 1 %

/// The clocks of a tensor group's ranks, and what one would show whose operators take their means.
class Clocks {
 public:
  Clocks(int ranks, int rows)
      : at_s_(static_cast<std::size_t>(ranks)), ready_s_(at_s_), rows_(rows) {}

  void begin_again() {
    std::fill(at_s_.begin(), at_s_.end(), 0.0);
    even_s_ = 0;
  }

  void work(const ChunkItem& item) {
    const double seconds = item.item.seconds,
                 variance = std::log1p(item.deviation * item.deviation);
    for (double& at : at_s_)
      at += variance <= 0 ? seconds
                          : seconds * std::exp(std::sqrt(variance) * normal_draw(kSeed, drawn_++) -
                                               variance / 2);
    even_s_ += seconds;
  }

  /// A collective of all ranks, a row or a column begins now, and ends `seconds` after the latest
  /// has come.
  void begin(CommGroup group, double seconds) {
    const std::size_t count = at_s_.size(), columns = count / static_cast<std::size_t>(rows_);
    const std::size_t parts = group == CommGroup::TensorRow      ? count / columns
                              : group == CommGroup::TensorColumn ? columns
                                                                 : 1;
    const auto part = [&](std::size_t rank) {
      return parts == 1 ? 0 : group == CommGroup::TensorRow ? rank / columns : rank % columns;
    };
    latest_s_.assign(parts, 0.0);
    for (std::size_t rank = 0; rank < count; ++rank)
      latest_s_[part(rank)] = std::max(latest_s_[part(rank)], at_s_[rank]);
    for (std::size_t rank = 0; rank < count; ++rank)
      ready_s_[rank] = latest_s_[part(rank)] + seconds;
    even_ready_s_ = even_s_ + seconds;
  }

  /// All wait for the end of it; returns how much longer than if none had been late, on average.
  double finish() {
    const double before_s = mean_s(), even_before_s = even_s_;
    for (std::size_t rank = 0; rank < at_s_.size(); ++rank)
      at_s_[rank] = std::max(at_s_[rank], ready_s_[rank]);
    even_s_ = std::max(even_s_, even_ready_s_);
    return (mean_s() - before_s) - (even_s_ - even_before_s);
  }

 private:
  static constexpr std::uint64_t kSeed = 0x1a7e;
  double mean_s() const {
    return std::accumulate(at_s_.begin(), at_s_.end(), 0.0) / static_cast<double>(at_s_.size());
  }

  std::vector<double> at_s_, ready_s_, latest_s_;
  double even_s_ = 0, even_ready_s_ = 0;
  int rows_;
  std::uint64_t drawn_ = 0;
};

}  // namespace

void add_tensor_lateness(std::vector<ChunkItem>& items, int ranks, int rows) {
  const auto varies = [](const ChunkItem& item) { return item.deviation > 0; };
  if (ranks < 2 || std::none_of(items.begin(), items.end(), varies)) return;
  std::vector<double> late_s(items.size(), 0.0);
  Clocks clocks(ranks, rows);
  for (int draw = 0; draw < kDraws; ++draw) {
    clocks.begin_again();
    std::size_t open = items.size();  // a collective beside the item at hand
    for (std::size_t i = 0; i < items.size(); ++i) {
      const ChunkItem& item = items[i];
      if (!item.is_collective) {
        clocks.work(item);
        if (open < items.size()) late_s[std::exchange(open, items.size())] += clocks.finish();
      } else if (is_tensor(item.group)) {
        clocks.begin(item.group, item.item.seconds + item.hidden_s);
        const bool has_beside = item.hidden_s > 0 && item.beside_next && i + 1 < items.size();
        if (has_beside)
          open = i;
        else
          late_s[i] += clocks.finish();
      }
    }
  }
  for (std::size_t i = 0; i < items.size(); ++i) {
    items[i].late_s = std::max(0.0, late_s[i] / kDraws);
    items[i].item.seconds += items[i].late_s;
  }
}

}  // namespace rehearse
