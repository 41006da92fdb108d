#include "kernels/ops/cpu/thread_team.h"

#include <algorithm>
#include <exception>

#include "plan/ensure.h"

namespace rehearse {

ThreadTeam::ThreadTeam(int threads) {
  ensure(threads >= 1, "a team has at least one thread");
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
}

ThreadTeam::~ThreadTeam() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  start_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadTeam::run_part(int part) {
  if (part >= parts_) return;
  const std::int64_t begin = count_ * part / parts_, end = count_ * (part + 1) / parts_;
  if (begin == end) return;
  try {
    (*body_)(begin, end);
  } catch (...) {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
  }
}

void ThreadTeam::work(int index) {
  std::uint64_t seen = 0;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      start_.wait(lock, [&] { return stop_ || generation_ != seen; });
      if (stop_) return;
      seen = generation_;
    }
    run_part(index);
    const std::lock_guard lock(mutex_);
    if (--remaining_ == 0) done_.notify_one();
  }
}

void ThreadTeam::for_each_range(std::int64_t count, std::int64_t grain, const Body& body) {
  if (count <= 0) return;
  const std::int64_t useful = std::max<std::int64_t>(1, count / std::max<std::int64_t>(1, grain));
  const int parts = static_cast<int>(std::min<std::int64_t>(useful, threads()));
  if (parts == 1) return body(0, count);
  {
    const std::lock_guard lock(mutex_);
    body_ = &body;
    count_ = count;
    parts_ = parts;
    remaining_ = static_cast<int>(workers_.size());
    failure_ = nullptr;
    ++generation_;
  }
  start_.notify_all();
  run_part(0);
  std::unique_lock lock(mutex_);
  done_.wait(lock, [&] { return remaining_ == 0; });
  if (failure_) std::rethrow_exception(failure_);
}

}  // namespace rehearse
