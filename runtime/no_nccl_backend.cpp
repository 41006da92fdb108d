// Stands in for nccl_backend.cpp where NCCL was not found.
#include <stdexcept>

#include "runtime/nccl_backend.h"

namespace rehearse {

std::unique_ptr<ChannelBackend> nccl_backend(ComputeDevice&) {
  throw std::runtime_error(
      "the plan needs several ranks, and this rehearse-device was built without NCCL");
}

}  // namespace rehearse
