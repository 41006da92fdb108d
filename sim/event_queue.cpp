#include "sim/event_queue.h"

#include <algorithm>

namespace rehearse {

void EventQueue::push(double at_s, EventKind kind, std::int32_t target, std::int32_t detail) {
  const Event event{at_s, pushed_++ * 2 + static_cast<std::uint64_t>(kind), target, detail};
  std::size_t hole = heap_.size();
  heap_.push_back(event);
  while (hole > 0) {
    const std::size_t parent = (hole - 1) / 4;
    if (!before(event, heap_[parent])) break;
    heap_[hole] = heap_[parent];
    hole = parent;
  }
  heap_[hole] = event;
}

Event EventQueue::pop() {
  const Event first = heap_.front();
  const Event moved = heap_.back();
  heap_.pop_back();
  const std::size_t size = heap_.size();
  if (size == 0) return first;
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
  return first;
}

}  // namespace rehearse
