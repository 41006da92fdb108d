#pragma once
#include <list>
#include <map>
#include <tuple>
#include <vector>

#include "plan/schedule.h"
#include "runtime/train/rank_context.h"

namespace rehearse {

/// The ways between stages that messages of a schedule take.
std::vector<MessageLane> pipeline_lanes(const Schedule& schedule);

/// Activations and their gradients on the way between the stages of one replica.
///
/// Nothing names a message but its place in the order of its sender's work: since every rank knows
/// the whole schedule, the receiver expects each sender's messages in the order in which that
/// stage makes them. The next receive from each neighbour is always posted, so that a sender that
/// waits for its message to leave never waits for a receiver that does the same.
class PipelineMail {
 public:
  /// `moves_on_device`: see World. Then the host knows late that a message has left, and few of
  /// them wait for it: at most `kDepartures` after each send.
  PipelineMail(const RankContext& rank, const Schedule& schedule, int stage, Communicator& stages,
               bool moves_on_device);
  static constexpr int kDepartures = 4;

  void begin_step();
  /// What a chunk's Forward (from the piece before) or backward (from the piece after) needs.
  Tensor receive(bool forward, int chunk, int micro_batch);
  /// Hands on what a chunk made: to the piece after, or the gradient to the piece before.
  void send(bool forward, int chunk, int micro_batch, Tensor tensor);
  /// Waits until everything sent has left.
  void end_step();

 private:
  struct Key {
    bool forward = true;
    int chunk = 0, micro_batch = 0;  ///< of the receiver
    auto operator<=>(const Key&) const = default;
  };
  struct Inbox {
    int peer = 0;
    bool forward = true;
    std::vector<Key> order;
    std::size_t posted = 0, taken = 0;
  };
  struct Arrival {
    Tensor tensor;
    Transfer transfer;
  };
  struct Departure {
    Tensor tensor;
    Transfer transfer;
  };
  void expect(int sender);
  void post_next(Inbox& inbox);
  void release_sent();

  const RankContext& rank_;
  const Schedule& schedule_;
  int stage_;
  Communicator& stages_;
  bool moves_on_device_;
  std::vector<Inbox> inboxes_;
  std::map<Key, std::size_t> inbox_of_;
  std::map<Key, Arrival> arrivals_;
  std::list<Departure> departures_;
};

}  // namespace rehearse
