#pragma once
#include "runtime/channel.h"
#include "runtime/rendezvous.h"

namespace rehearse {

/// Ranks that meet at `place` and exchange tensors through channels of `backend`, which outlives
/// the world. No wait lasts longer than the deadline. Throws std::runtime_error.
///
/// Everything that ranks make together is made by `group`, one after the other in one order on all
/// ranks, and used once there: NCCL connects two ranks when they first talk, and allocates memory
/// for it, which could wait for transfers under way. Each lane of messages is a channel of its own,
/// so that a receive that was asked for early holds up nothing else.
///
/// Transfers are asked of the device in the order of the rank's program, receives too, and nothing
/// waits for what is asked for later: so ranks whose programs would not wait for each other in a
/// circle do not here.
std::unique_ptr<World> channel_world(std::unique_ptr<Rendezvous> meeting, double deadline_s,
                                     ChannelBackend& backend);

}  // namespace rehearse
