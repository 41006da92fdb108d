#pragma once
#include <cstddef>
#include <exception>
#include <functional>
#include <string>
#include <vector>

namespace rehearse {

/// One piece of work for a process of its own. `name` appears in errors: "what-if "half the
/// network", plan "hybrid"".
struct WorkerTask {
  std::string name;
  std::function<std::string()> work;  ///< runs in the child; its result goes through a pipe
};

/// The user pressed Ctrl-C, or the process was asked to end. Everything started was stopped.
class Interrupted : public std::exception {
 public:
  const char* what() const noexcept override { return "interrupted"; }
};

/// Runs every task in a forked process of its own, at most `jobs` at a time, and returns the
/// results in the order of the tasks: the number of jobs never changes them, since no two tasks
/// share a process (the simulation engine is a singleton with a clock that carries on).
///
/// `on_done(done)` is called in this process after each task ends, in any order. A task that
/// throws, is killed or exits early ends the call with a std::runtime_error that names it: the
/// first such task in the tasks' order; later ones are stopped. SIGINT and SIGTERM stop all
/// children at once and throw Interrupted. REQUIRES: no other threads run.
std::vector<std::string> run_in_workers(const std::vector<WorkerTask>& tasks, int jobs,
                                        const std::function<void(std::size_t)>& on_done = {});

/// Cores this process may use: what `jobs` is by default.
int available_cores();

}  // namespace rehearse
