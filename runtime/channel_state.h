#pragma once
#include <deque>
#include <optional>
#include <vector>

#include "runtime/channel.h"
#include "runtime/patience.h"
#include "runtime/rendezvous.h"

namespace rehearse {

/// What all communicators of a rank share: the channels they consist of, and waiting.
///
/// A transfer that nobody answers keeps the device busy for ever, and memory of the device can then
/// not be given back: CUDA would wait for it first. So whatever goes wrong in a wait, all channels
/// are aborted before an exception leaves it.
class ChannelState {
 public:
  ChannelState(std::unique_ptr<Rendezvous> met, double deadline_s, ChannelBackend& backend);
  ~ChannelState();
  ChannelState(const ChannelState&) = delete;
  ChannelState& operator=(const ChannelState&) = delete;

  /// Returns once the channel can be used; its other ranks call this too.
  Channel& connect(const std::string& id, int rank, int size);

  /// Returns once `is_done` says so. `what` is under way meanwhile.
  void wait_until(const std::function<bool()>& is_done, const std::string& what);
  /// Returns once the device has done all that it was asked to compute, and what that waits for.
  void wait_for_device();
  /// Does something that may fail.
  template <class Work>
  void guarded(const Work& work) {
    try {
      work();
    } catch (...) {
      abort_all();
      throw;
    }
  }
  /// A transfer was asked of a channel: for messages, should it never be done.
  void note(const char* what, std::shared_ptr<const StreamMark> mark);

  /// See World.
  void pace();
  void end();
  /// Ends all channels at once, without the other ranks. Should this process then not come to its
  /// end, it is ended.
  void abort_all() noexcept;
  /// Ended, well or not.
  bool is_over() const { return is_over_; }

  const std::unique_ptr<Rendezvous> meeting;
  ChannelBackend& backend;

 private:
  void look_around();
  std::string under_way(const std::string& otherwise);

  struct Noted {
    const char* what;
    std::shared_ptr<const StreamMark> mark;
  };
  double deadline_s_;
  std::vector<std::unique_ptr<Channel>> channels_;  ///< in the order made
  std::deque<Noted> noted_;                         ///< under way at the last look, or since
  std::deque<std::shared_ptr<const StreamMark>> pieces_;
  bool is_over_ = false;
  std::optional<BlockingCallGuard> last_resort_;
};

}  // namespace rehearse
