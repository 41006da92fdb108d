#include "sim/event_queue.h"

#include <algorithm>
#include <random>
#include <vector>

#include "tests/catch.h"

namespace rehearse {
namespace {

TEST_CASE("events come by date, and of one date in the order they were pushed") {
  // Against a sorted list, with pushes between the pops, as in a simulation: never before now.
  for (unsigned seed = 0; seed < 50; ++seed) {
    std::mt19937 random(seed);
    const auto draw = [&random](int from, int to) {
      return std::uniform_int_distribution<int>(from, to)(random);
    };
    struct Pending {
      double at_s;
      std::int32_t number;
    };
    std::vector<Pending> pending;
    EventQueue queue;
    double now_s = 0;
    bool same = true;
    for (std::int32_t number = 0; number < 2000;) {
      for (int burst = draw(0, 6); burst > 0; --burst) {
        const double at_s = now_s + draw(0, 8);
        for (int repeat = draw(1, 4); repeat > 0; --repeat, ++number) {
          queue.push(at_s, {EventKind::CommPhase, number, 0});
          pending.push_back({at_s, number});
        }
      }
      for (int pops = draw(0, 12); pops > 0 && !queue.empty(); --pops) {
        const auto first = std::min_element(
            pending.begin(), pending.end(), [](const Pending& a, const Pending& b) {
              return a.at_s < b.at_s || (a.at_s == b.at_s && a.number < b.number);
            });
        same &= queue.next_s() == first->at_s;
        now_s = first->at_s;
        same &= queue.pop().target == first->number;
        pending.erase(first);
      }
      same &= queue.empty() == pending.empty();
    }
    CAPTURE(seed);
    CHECK(same);
  }
}

}  // namespace
}  // namespace rehearse
