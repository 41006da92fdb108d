#pragma once
#include <vector>

#include "runtime/shard_merge.h"

namespace rehearse {

/// MPI from construction to destruction.
class MpiSession {
 public:
  MpiSession();
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }

  /// The reports of all ranks, by rank, on rank 0; nothing on the others. Waits for the slowest
  /// without using its processor.
  std::vector<ShardReport> gather(const ShardReport& mine) const;

  /// The value that rank 0 has.
  int from_first(int value) const;

 private:
  int rank_ = 0, size_ = 1;
};

}  // namespace rehearse
