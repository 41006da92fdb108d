#include "runtime/busy_ranks.h"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>

namespace rehearse {
namespace {

[[noreturn]] void work_for_ever(int rank, pid_t parent, const std::function<void(int)>& work) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(0);  // it died before the kernel was told
  try {
    for (;;) work(rank);
  } catch (const std::exception&) {
    _exit(1);  // the parent measures the same, and tells what is wrong
  }
}

}  // namespace

BusyRanks::BusyRanks(int count, const std::function<void(int)>& work) {
  const pid_t parent = getpid();
  for (int rank = 1; rank <= count; ++rank) {
    const pid_t child = fork();
    if (child == 0) work_for_ever(rank, parent, work);
    if (child < 0) {
      const std::string reason = std::strerror(errno);
      end();
      throw std::runtime_error("no process can be started to keep a core busy: " + reason);
    }
    children_.push_back(child);
  }
}

BusyRanks::~BusyRanks() { end(); }

void BusyRanks::end() {
  for (const pid_t child : children_) kill(child, SIGKILL);
  for (const pid_t child : children_) {
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
  }
  children_.clear();
}

}  // namespace rehearse
