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
  EventKind kind = EventKind::ComputeEnd;
  std::int32_t target = 0;
  std::int32_t detail = 0;
};

/// Events by date; those of one date in the order they were pushed, so that a simulation never
/// depends on the shape of the heap.
///
/// Events that are pushed one after the other for one date, as by the ranks of a group that go on
/// together, form one bunch, and the heap is one of bunches. It has four children a node: half
/// the levels of a binary one. push and pop: O(1) inside a bunch, else O(log bunches).
class EventQueue {
 public:
  bool empty() const { return heap_.empty(); }
  double next_s() const { return heap_.front().at_s; }
  void push(double at_s, const Event& event);
  Event pop();

 private:
  struct Node {
    Event event;
    std::int32_t next = -1;
  };
  struct Bunch {
    double at_s = 0;
    std::uint64_t order = 0;  // of its making: no event of a later bunch was pushed earlier
    std::int32_t first = -1;  // node
  };
  static bool before(const Bunch& a, const Bunch& b) {
    return a.at_s < b.at_s || (a.at_s == b.at_s && a.order < b.order);
  }
  std::int32_t make_node(const Event& event);
  void remove_first_bunch();

  std::vector<Bunch> heap_;
  std::vector<Node> nodes_;
  std::int32_t free_ = -1;  // list of unused nodes
  std::uint64_t made_ = 0;
  // The youngest bunch, while it is in the heap: the only one that still grows.
  std::int32_t youngest_last_ = -1;  // its last node, −1: none
  double youngest_at_s_ = 0;
};

}  // namespace rehearse
