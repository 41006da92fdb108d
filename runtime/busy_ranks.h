#pragma once
#include <sys/types.h>

#include <functional>
#include <vector>

namespace rehearse {

/// Processes that keep working beside this one, as the other ranks of a run on the same machine
/// do: they take their share of its memory bandwidth, its caches and the units that hardware
/// threads have in common. They end with this object, and with this process.
class BusyRanks {
 public:
  /// `work` runs again and again in `count` children, given 1, 2, … `count`. Throws
  /// std::runtime_error where a process cannot be started.
  /// REQUIRES: `work` makes what it needs: threads of this process are not in the children.
  BusyRanks(int count, const std::function<void(int)>& work);
  ~BusyRanks();
  BusyRanks(const BusyRanks&) = delete;
  BusyRanks& operator=(const BusyRanks&) = delete;

 private:
  void end();

  std::vector<pid_t> children_;
};

}  // namespace rehearse
