#pragma once
#include <vector>

#include "plan/schedule.h"

namespace rehearse {

/// A message between stages, as its receiver knows it.
struct MailKey {
  bool forward = true;  ///< an activation; else the gradient of one
  int chunk = 0, micro_batch = 0;
  auto operator<=>(const MailKey&) const = default;
};

/// Where the message of an action goes: a stage, and what it is there; a stage below 0: nowhere.
struct MailTarget {
  int stage = -1;
  MailKey key;
};
MailTarget mail_target(const Schedule& schedule, int stage, const Action& action);
/// Whether an action begins with a message, from another stage or the same.
bool begins_with_mail(const Schedule& schedule, int stage, const Action& action);

/// The messages that a stage gets from another, of one direction, in the order in which it sends
/// them.
std::vector<MailKey> mail_between(const Schedule& schedule, int sender, int receiver, bool forward);

/// How many receives a stage must have posted ahead, from each neighbour and in each direction, so
/// that stages which wait for every message to leave come to an end: the least number with which
/// the schedule, walked through here with messages that leave only once their receive is posted,
/// does not stop. 1 for the usual schedules.
/// REQUIRES: the schedule can run.
int receives_ahead(const Schedule& schedule);

}  // namespace rehearse
