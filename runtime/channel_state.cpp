#include "runtime/channel_state.h"

#include <unistd.h>

#include <chrono>
#include <iostream>
#include <thread>

#include "runtime/command_line.h"
#include "runtime/train/rank_states.h"

namespace rehearse {
namespace {

using Clock = std::chrono::steady_clock;

/// Time to abort channels and to unwind: seconds at most, unless the device answers no more.
constexpr double kUnwind_s = 30;
/// Pieces of work that the host may be ahead of its device: enough to keep it busy, and few enough
/// that a failure is met soon after it happened.
constexpr std::size_t kPiecesAhead = 4;

void end_process() {
  RankSign::set(RankState::Failed);
  if (RankSign::claim_voice())
    std::cerr << "rehearse-device: error: transfers were aborted, and the device did not let go of "
                 "them"
              << std::endl;
  _exit(kExitEnvironment);
}

}  // namespace

ChannelState::ChannelState(std::unique_ptr<Rendezvous> met, double deadline_s, ChannelBackend& with)
    : meeting(std::move(met)), backend(with), deadline_s_(deadline_s) {
  backend.before_host_waits([this] { wait_for_device(); });
}

ChannelState::~ChannelState() {
  if (!channels_.empty()) abort_all();
  backend.before_host_waits({});
}

Channel& ChannelState::connect(const std::string& id, int rank, int size) {
  guarded([&] { channels_.push_back(backend.connect(id, rank, size)); });
  Channel& channel = *channels_.back();
  wait_until([&] { return channel.is_ready(); }, "making a communicator");
  return channel;
}

void ChannelState::wait_until(const std::function<bool()>& is_done, const std::string& what) {
  guarded([&] {
    Patience patience(deadline_s_);
    auto last_look = Clock::now();
    for (int round = 0; !is_done(); ++round) {
      if (round < 1000) continue;
      std::this_thread::sleep_for(std::chrono::microseconds(20));
      if (Clock::now() - last_look < std::chrono::milliseconds(50)) continue;
      last_look = Clock::now();
      look_around();
      if (patience.is_over())
        throw CommunicationError(under_way(what) + " was not done in " +
                                 std::to_string(static_cast<long>(deadline_s_)) + " s");
    }
  });
}

/// Whether other ranks and the own channels are well.
void ChannelState::look_around() {
  meeting->check_alive();
  for (const auto& channel : channels_) (void)channel->is_ready();
}

/// The first transfer that is not done: those that hold up the device are mostly others.
std::string ChannelState::under_way(const std::string& otherwise) {
  for (const Noted& one : noted_)
    if (!one.mark->is_reached()) return one.what;
  return otherwise;
}

void ChannelState::note(const char* what, std::shared_ptr<const StreamMark> mark) {
  while (!noted_.empty() && noted_.front().mark->is_reached()) noted_.pop_front();
  noted_.push_back({what, std::move(mark)});
}

void ChannelState::wait_for_device() {
  if (is_over_) return;
  std::shared_ptr<const StreamMark> mark;
  guarded([&] { mark = backend.compute_mark(); });
  wait_until([&] { return mark->is_reached(); }, "the work of this rank's device");
}

void ChannelState::pace() {
  if (is_over_) return;
  guarded([&] { pieces_.push_back(backend.compute_mark()); });
  if (pieces_.size() <= kPiecesAhead) return;
  const std::shared_ptr<const StreamMark> oldest = pieces_.front();
  pieces_.pop_front();
  wait_until([&] { return oldest->is_reached(); }, "the work of this rank's device");
}

void ChannelState::end() {
  wait_for_device();
  for (const Noted& one : noted_) wait_until([&] { return one.mark->is_reached(); }, one.what);
  // A channel must not begin to end while another of its ranks may still wait for it.
  guarded([&] { meeting->all_gather(""); });
  for (const auto& channel : channels_) guarded([&] { channel->finalize(); });
  for (const auto& channel : channels_)
    wait_until([&] { return channel->is_ready(); }, "ending a communicator");
  for (const auto& channel : channels_) guarded([&] { channel->destroy(); });
  noted_.clear();
  pieces_.clear();
  channels_.clear();
  is_over_ = true;
  meeting->all_gather("");  // whoever leaves first would be taken for gone
}

void ChannelState::abort_all() noexcept {
  if (is_over_) return;
  is_over_ = true;
  try {
    last_resort_.emplace(kUnwind_s, end_process);
  } catch (const std::exception&) {
    // Without a thread to watch over it.
  }
  for (const auto& channel : channels_) channel->abort();
}

}  // namespace rehearse
