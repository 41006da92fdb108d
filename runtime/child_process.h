#pragma once
#include <functional>
#include <string>
#include <vector>

namespace rehearse {

/// How a child process ended and what it wrote.
struct ChildResult {
  int exit_code = 0;  ///< 128 + signal where a signal ended it
  std::string out;    ///< its standard output
  std::string err;    ///< its standard error
};

/// Starts `command` (program path, then arguments), reads all it writes and waits for its end.
/// SIGINT and SIGTERM that reach this process meanwhile are passed on to the child; and should
/// this process die, the kernel ends the child. Throws std::runtime_error if it cannot start.
/// REQUIRES: not called by two threads at once.
ChildResult run_child(const std::vector<std::string>& command);

/// Starts `command` with this process's own standard streams and waits for its end; returns its
/// exit code as `ChildResult` has it. Signals, failures and requirements are those of `run_child`.
/// `may_go_on`, if any, is asked some ten times a second: once it says no, the child gets SIGTERM,
/// and SIGKILL should it still run ten seconds later.
int run_attached(const std::vector<std::string>& command,
                 const std::function<bool()>& may_go_on = {});

/// Starts several commands at once and waits for all, each with this process's own standard
/// streams. Once one has failed, the others have five seconds to end by themselves; then, and once
/// `may_go_on` says no, they get SIGTERM, and SIGKILL should they still run ten seconds later.
/// Returns the exit code of the first that failed, or 0. Signals, failures and requirements are
/// those of `run_child`.
int run_together(const std::vector<std::vector<std::string>>& commands,
                 const std::function<bool()>& may_go_on = {});

/// A program that lies in the folder of the running one.
std::string sibling_program(const std::string& name);

}  // namespace rehearse
