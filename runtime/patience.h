#pragma once
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace rehearse {

/// A wait that has lasted too long. Time in which this process itself was stopped does not count
/// (a job suspended by its user must not blame others when it goes on): between two looks, at most
/// a second does.
class Patience {
 public:
  explicit Patience(double deadline_s) : left_s_(deadline_s), last_(Clock::now()) {}
  /// REQUIRES: asked at least once a second.
  bool is_over() {
    const auto now = Clock::now();
    left_s_ -= std::min(1.0, std::chrono::duration<double>(now - last_).count());
    last_ = now;
    return left_s_ <= 0;
  }

 private:
  using Clock = std::chrono::steady_clock;
  double left_s_;
  Clock::time_point last_;
};

/// Calls `expired`, on a thread of its own, unless it is destroyed before the deadline: for calls
/// that block and know no deadline themselves. `expired` ends the process.
class BlockingCallGuard {
 public:
  BlockingCallGuard(double deadline_s, std::function<void()> expired)
      : thread_([this, deadline_s, call = std::move(expired)] {
          Patience patience(deadline_s);
          std::unique_lock lock(mutex_);
          while (!over_.wait_for(lock, std::chrono::milliseconds(50), [this] { return done_; }))
            if (patience.is_over()) return call();
        }) {}
  ~BlockingCallGuard() {
    {
      const std::lock_guard lock(mutex_);
      done_ = true;
    }
    over_.notify_all();
    thread_.join();
  }
  BlockingCallGuard(const BlockingCallGuard&) = delete;
  BlockingCallGuard& operator=(const BlockingCallGuard&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable over_;
  bool done_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace rehearse
