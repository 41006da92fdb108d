#pragma once
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace rehearse {

/// Threads that share the index range of one loop at a time. Ranges are cut the same way every
/// time, and operators give each output element to one index, so that results do not depend on
/// the number of threads.
class ThreadTeam {
 public:
  /// `threads` ≥ 1, the caller's included.
  explicit ThreadTeam(int threads);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls body(begin, end) on parts of [0, count) and waits for all. A loop of fewer than
  /// `grain` indices a thread runs on fewer threads. The first exception is rethrown.
  using Body = std::function<void(std::int64_t begin, std::int64_t end)>;
  void for_each_range(std::int64_t count, std::int64_t grain, const Body& body);

 private:
  void work(int index);
  void run_part(int part);

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable start_, done_;
  std::uint64_t generation_ = 0;
  int remaining_ = 0;
  bool stop_ = false;
  const Body* body_ = nullptr;
  std::int64_t count_ = 0;
  int parts_ = 1;
  std::exception_ptr failure_;
};

}  // namespace rehearse
