#include "runtime/train/disk_crew.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <iostream>
#include <mutex>
#include <thread>
#include <utility>

#include "runtime/command_line.h"
#include "runtime/patience.h"
#include "runtime/train/rank_states.h"

namespace rehearse {
namespace {

/// What ranks tell each other here is no part of a step.
class UncountedTraffic {
 public:
  explicit UncountedTraffic(Trainer& trainer) : trainer_(trainer), counted_(trainer.traffic()) {}
  ~UncountedTraffic() { trainer_.restore_traffic(counted_); }
  UncountedTraffic(const UncountedTraffic&) = delete;
  UncountedTraffic& operator=(const UncountedTraffic&) = delete;

 private:
  Trainer& trainer_;
  TrafficCount counted_;
};

/// Work on a thread of its own.
class Worker {
 public:
  explicit Worker(const CheckpointCrew::Work& work) : thread_([this, &work] { run(work); }) {}
  ~Worker() {
    if (thread_.joinable()) thread_.join();
  }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  /// Whether it is done after at most this time. Throws what the work threw.
  bool is_done_after(std::chrono::milliseconds pause) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, pause, [this] { return is_done_; });
    if (is_done_ && fault_) std::rethrow_exception(std::exchange(fault_, nullptr));
    return is_done_;
  }
  long beats() const { return beats_; }

 private:
  void run(const CheckpointCrew::Work& work) {
    std::exception_ptr fault;
    try {
      work([this] { ++beats_; });
    } catch (...) {
      fault = std::current_exception();
    }
    {
      const std::lock_guard lock(mutex_);
      is_done_ = true;
      fault_ = fault;
    }
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_done_ = false;
  std::exception_ptr fault_;
  std::atomic<long> beats_{0};
  std::thread thread_;  // last: it uses the others
};

/// A thread that waits for a disk for ever cannot be ended but with its process.
[[noreturn]] void give_up(double patience_s) {
  RankSign::set(RankState::Failed);
  if (RankSign::claim_voice())
    std::cerr << "rehearse-device: error: the disk of the checkpoints has given no sign for "
              << patience_s << " s" << std::endl;
  _exit(kExitEnvironment);
}

}  // namespace

void DiskCrew::together(const Work& work) {
  if (size() == 1) return work([] {});
  using std::chrono::milliseconds;
  const UncountedTraffic uncounted(trainer_);
  Worker worker(work);
  Patience patience(patience_s_);
  long seen = 0;
  // Every rank pauses as long, so that they meet; the longer it takes, the less often.
  for (milliseconds pause(1);; pause = std::min(2 * pause, milliseconds(250))) {
    const bool is_busy = !worker.is_done_after(pause);
    const long beats = worker.beats();
    const bool goes_on = beats != seen;
    seen = beats;
    // Both in one sum: the ranks that are busy, and a share of those that go on.
    const double told = trainer_.sum_over_world((is_busy ? 1.0 : 0.0) + (goes_on ? 0x1p-20 : 0.0));
    if (told < 0.5) return;
    if (told > static_cast<double>(static_cast<long>(told)))
      patience = Patience(patience_s_);
    else if (patience.is_over())
      give_up(patience_s_);
  }
}

std::vector<std::string> DiskCrew::texts(const std::string& mine) {
  if (size() == 1) return {mine};
  const UncountedTraffic uncounted(trainer_);
  std::vector<std::string> out;
  std::size_t longest = 0;
  for (const std::vector<double>& length :
       trainer_.from_all_ranks({static_cast<double>(mine.size())})) {
    out.emplace_back(static_cast<std::size_t>(length.front()), '\0');
    longest = std::max(longest, out.back().size());
  }
  if (longest == 0) return out;
  std::vector<double> letters(longest, 0.0);
  for (std::size_t i = 0; i < mine.size(); ++i)
    letters[i] = static_cast<double>(static_cast<unsigned char>(mine[i]));
  const std::vector<std::vector<double>> all = trainer_.from_all_ranks(letters);
  for (std::size_t rank = 0; rank < out.size(); ++rank)
    for (std::size_t i = 0; i < out[rank].size(); ++i)
      out[rank][i] = static_cast<char>(static_cast<unsigned char>(all[rank][i]));
  return out;
}

}  // namespace rehearse
