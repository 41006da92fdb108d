#include "sim/event_queue.h"

#include <algorithm>

namespace rehearse {

std::int32_t EventQueue::make_node(const Event& event) {
  if (free_ < 0) {
    nodes_.push_back({event, -1});
    return static_cast<std::int32_t>(nodes_.size()) - 1;
  }
  const std::int32_t node = free_;
  free_ = nodes_[node].next;
  nodes_[node] = {event, -1};
  return node;
}

void EventQueue::push(double at_s, const Event& event) {
  const std::int32_t node = make_node(event);
  if (youngest_last_ >= 0 && youngest_at_s_ == at_s) {
    nodes_[youngest_last_].next = node;
    youngest_last_ = node;
    return;
  }
  youngest_last_ = node;
  youngest_at_s_ = at_s;
  const Bunch bunch{at_s, made_++, node};
  std::size_t hole = heap_.size();
  heap_.push_back(bunch);
  while (hole > 0) {
    const std::size_t parent = (hole - 1) / 4;
    if (!before(bunch, heap_[parent])) break;
    heap_[hole] = heap_[parent];
    hole = parent;
  }
  heap_[hole] = bunch;
}

Event EventQueue::pop() {
  const std::int32_t node = heap_.front().first;
  const Event event = nodes_[node].event;
  const std::int32_t next = nodes_[node].next;
  nodes_[node].next = free_;
  free_ = node;
  if (next >= 0) {
    heap_.front().first = next;
  } else {
    if (node == youngest_last_) youngest_last_ = -1;
    remove_first_bunch();
  }
  return event;
}

void EventQueue::remove_first_bunch() {
  const Bunch moved = heap_.back();
  heap_.pop_back();
  const std::size_t size = heap_.size();
  if (size == 0) return;
  std::size_t hole = 0;
  for (;;) {
    const std::size_t child = 4 * hole + 1;
    if (child >= size) break;
    const std::size_t end = std::min(child + 4, size);
    std::size_t least = child;
    for (std::size_t other = child + 1; other < end; ++other)
      if (before(heap_[other], heap_[least])) least = other;
    if (!before(heap_[least], moved)) break;
    heap_[hole] = heap_[least];
    hole = least;
  }
  heap_[hole] = moved;
}

}  // namespace rehearse
