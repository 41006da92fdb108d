// In the place of nccl_world.cpp where this program is built without NCCL.
#include <stdexcept>

#include "runtime/nccl_world.h"

namespace rehearse {

std::unique_ptr<World> nccl_world(int, int, const Rendezvous::Place&, double, ComputeDevice&) {
  throw std::runtime_error("this rehearse-device was built without NCCL, so a GPU trains one rank");
}

}  // namespace rehearse
