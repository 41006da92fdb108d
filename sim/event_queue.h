#pragma once
#include <cstdint>
#include <vector>

namespace rehearse {

/// What an event of the executor is about.
enum class EventKind : std::uint8_t {
  ComputeEnd,  ///< target: device, detail: generation of its prediction
  CommPhase,   ///< target: task, detail: step; its own seconds are over
};

struct Event {
  double at_s = 0;
  std::uint64_t order = 0;  ///< insertion number · 2 + kind: unique, so the order is total
  std::int32_t target = 0;
  std::int32_t detail = 0;
  EventKind kind() const { return static_cast<EventKind>(order & 1); }
};

/// Events by date; those of one date in the order they were pushed, so that a simulation never
/// depends on the shape of the heap. A four-way heap: half the levels of a binary one, and the
/// four children lie in at most two cache lines. push and pop: O(log n).
class EventQueue {
 public:
  bool empty() const { return heap_.empty(); }
  const Event& top() const { return heap_.front(); }
  void push(double at_s, EventKind kind, std::int32_t target, std::int32_t detail);
  Event pop();

 private:
  static bool before(const Event& a, const Event& b) {
    return a.at_s < b.at_s || (a.at_s == b.at_s && a.order < b.order);
  }

  std::vector<Event> heap_;
  std::uint64_t pushed_ = 0;
};

}  // namespace rehearse
