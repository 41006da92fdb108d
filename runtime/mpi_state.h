#pragma once
#include <mpi.h>

#include <chrono>
#include <vector>

#include "runtime/communicator.h"

namespace rehearse {

/// Throws CommunicationError where a call of MPI failed.
void check_mpi(int error, const char* what);

/// What all communicators of the process share: MPI itself, types and operations, and waiting.
///
/// Every wait polls, so that a rank that is gone is noticed: after the deadline the others are
/// asked for a sign of life, and those that give none are named. Calls that block and know no
/// deadline (MPI_Init, making a communicator, MPI_Finalize) follow a barrier that does, and run
/// under a guard that ends the process.
class MpiState {
 public:
  explicit MpiState(double deadline_s);
  ~MpiState();
  MpiState(const MpiState&) = delete;
  MpiState& operator=(const MpiState&) = delete;

  MPI_Datatype type_of(DType dtype) const;
  MPI_Op operation(DType dtype, Reduction how) const;

  /// Returns once the request is done. `peers`: ranks of the world that it depends on.
  void wait(MPI_Request& request, const char* what, const std::vector<int>& peers);
  /// Returns once all ranks of the world have called it.
  void meet(const char* what);
  /// A communicator of the ranks that give the same color. All ranks of the world call it.
  MPI_Comm split(int color, int key);

  const double deadline_s;
  int rank = 0, size = 1;
  bool aborted = false;

 private:
  enum SignTag : int { kAreYouThere = 1, kHereIAm = 2 };
  void answer_signs();
  std::vector<int> silent_ranks();
  [[noreturn]] void give_up(const char* what, const std::vector<int>& peers);

  // Nothing else sends messages on the world itself: it carries the signs of life.
  MPI_Comm signs_ = MPI_COMM_WORLD;
  MPI_Datatype bf16_ = MPI_DATATYPE_NULL;
  MPI_Op bf16_sum_ = MPI_OP_NULL, bf16_max_ = MPI_OP_NULL;
  bool has_own_core_ = false;  ///< no more ranks on this machine than cores
  std::chrono::steady_clock::time_point last_look_;
};

}  // namespace rehearse
