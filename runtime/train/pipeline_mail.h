#pragma once
#include <list>
#include <map>
#include <vector>

#include "plan/schedule.h"
#include "runtime/train/mail_order.h"
#include "runtime/train/rank_context.h"

namespace rehearse {

/// The ways between stages that messages of a schedule take.
std::vector<MessageLane> pipeline_lanes(const Schedule& schedule);

/// Activations and their gradients on the way between the stages of one replica.
///
/// Nothing names a message but its place in the order of its sender's work: since every rank knows
/// the whole schedule, the receiver expects each sender's messages in the order in which that
/// stage makes them. The next receive from each neighbour is always posted, so that a message can
/// arrive while its receiver computes. Where the plan lets senders wait for every message to leave,
/// as many are posted as keep any two of them from waiting for each other (`receives_ahead`).
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
  struct Inbox {
    int peer = 0;
    bool forward = true;
    std::vector<MailKey> order;
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
  void post_next(Inbox& inbox);
  void post_ahead(Inbox& inbox);
  void release_sent();

  const RankContext& rank_;
  const Schedule& schedule_;
  int stage_;
  Communicator& stages_;
  bool moves_on_device_;
  std::size_t ahead_;  ///< receives posted before they are asked for, of each inbox
  std::vector<Inbox> inboxes_;
  std::map<MailKey, std::size_t> inbox_of_;
  std::map<MailKey, Arrival> arrivals_;
  std::list<Departure> departures_;
};

}  // namespace rehearse
