// In the place of mpi_world.cpp where this program is built without MPI.
#include "runtime/communicator.h"

namespace rehearse {

std::unique_ptr<World> mpi_world(double) {
  throw std::runtime_error("this rehearse-device was built without MPI, so it is one rank only");
}

int launched_rank() { return -1; }

}  // namespace rehearse
