#include "runtime/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <thread>
#include <utility>

namespace rehearse {
namespace {

// The child that signals are passed on to, or minus the group of several; 0 while there is none.
volatile std::sig_atomic_t running_child = 0;

void pass_on(int signal) {
  if (running_child != 0) kill(running_child, signal);
}

/// Passes SIGINT and SIGTERM on to the running child. Both wait from construction to `begin`, so
/// that none is lost before the child is known.
class SignalForwarding {
 public:
  SignalForwarding() {
    sigset_t held;
    sigemptyset(&held);
    sigaddset(&held, SIGINT);
    sigaddset(&held, SIGTERM);
    sigprocmask(SIG_BLOCK, &held, &old_mask_);
    struct sigaction forward {};
    forward.sa_handler = pass_on;
    forward.sa_flags = SA_RESTART;
    sigaction(SIGINT, &forward, &old_interrupt_);
    sigaction(SIGTERM, &forward, &old_terminate_);
  }
  ~SignalForwarding() {
    running_child = 0;
    sigaction(SIGINT, &old_interrupt_, nullptr);
    sigaction(SIGTERM, &old_terminate_, nullptr);
    sigprocmask(SIG_SETMASK, &old_mask_, nullptr);
  }
  SignalForwarding(const SignalForwarding&) = delete;
  SignalForwarding& operator=(const SignalForwarding&) = delete;

  void begin(pid_t child) const {
    running_child = child;
    sigprocmask(SIG_SETMASK, &old_mask_, nullptr);
  }
  const sigset_t& old_mask() const { return old_mask_; }

 private:
  sigset_t old_mask_{};
  struct sigaction old_interrupt_ {
  }, old_terminate_{};
};

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { close(); }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  int fd() const { return fd_; }

 private:
  int fd_ = -1;
};

struct Pipe {
  Descriptor read_end, write_end;
};

Pipe open_pipe() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0)
    throw std::runtime_error(std::string("no pipe can be opened: ") + std::strerror(errno));
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

/// What the child does between fork and exec: only calls that are safe there. On failure it
/// writes errno to `failure` and exits.
[[noreturn]] void become(char* const* arguments, int out, int err, int failure, pid_t parent,
                         const sigset_t& mask, pid_t group = -1) {
  if (group >= 0) setpgid(0, group);
  sigprocmask(SIG_SETMASK, &mask, nullptr);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() == parent) {  // else the parent died before prctl could say what to do then
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    execv(arguments[0], arguments);
  }
  const int error = errno;
  if (write(failure, &error, sizeof error) < 0) _exit(126);
  _exit(127);
}

/// Appends what can be read now; false at the end of the stream.
bool read_some(const Descriptor& from, std::string& to) {
  std::array<char, 65536> buffer;
  const ssize_t count = read(from.fd(), buffer.data(), buffer.size());
  if (count > 0) to.append(buffer.data(), static_cast<std::size_t>(count));
  return count > 0 || (count < 0 && (errno == EINTR || errno == EAGAIN));
}

int exit_code_of(int status) {
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/// Reads both streams until both end, or until the child has ended and left nothing to read: a
/// grandchild that keeps them open is not waited for.
int read_until_end(pid_t child, Descriptor& out, Descriptor& err, ChildResult& result) {
  constexpr int kLookAfterChild_ms = 50;
  int status = 0;
  bool ended = false;
  while (out.fd() >= 0 || err.fd() >= 0) {
    std::array<pollfd, 2> streams{pollfd{out.fd(), POLLIN, 0}, pollfd{err.fd(), POLLIN, 0}};
    const int ready = poll(streams.data(), streams.size(), ended ? 0 : kLookAfterChild_ms);
    if (ready > 0 && streams[0].revents != 0 && !read_some(out, result.out)) out.close();
    if (ready > 0 && streams[1].revents != 0 && !read_some(err, result.err)) err.close();
    if (ready == 0 && ended) break;
    if (!ended) ended = waitpid(child, &status, WNOHANG) == child;
  }
  while (!ended && waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return exit_code_of(status);
}

int wait_for(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

constexpr auto kLook = std::chrono::milliseconds(100);

/// Waits for the child, and ends it once it may not go on.
int watch(pid_t child, const std::function<bool()>& may_go_on) {
  constexpr int kLooksBeforeKill = 100;
  int status = 0, looks_since_end = -1;
  while (waitpid(child, &status, WNOHANG) != child) {
    if (looks_since_end < 0 && !may_go_on()) {
      kill(child, SIGTERM);
      looks_since_end = 0;
    } else if (looks_since_end >= 0 && ++looks_since_end == kLooksBeforeKill) {
      kill(child, SIGKILL);
    }
    std::this_thread::sleep_for(kLook);
  }
  return status;
}

/// Children that are waited for, and signalled, together. What still runs at its end is killed.
class ProcessGroup {
 public:
  ProcessGroup() = default;
  ~ProcessGroup() {
    if (running_ == 0) return;
    kill(-id_, SIGKILL);
    while (running_ > 0 && waitpid(-id_, nullptr, 0) > 0) --running_;
  }
  ProcessGroup(const ProcessGroup&) = delete;
  ProcessGroup& operator=(const ProcessGroup&) = delete;

  pid_t id() const { return id_; }
  void add(pid_t child) {
    if (id_ == 0) id_ = child;
    setpgid(child, id_);  // the child does so too: whoever comes first
    ++running_;
  }

  int wait(const std::function<bool()>& may_go_on) {
    constexpr int kGraceLooks = 50, kLooksBeforeKill = 100;
    int looks_since_failure = -1, looks_since_end = -1;
    while (running_ > 0) {
      reap();
      if (code_ != 0 && looks_since_failure < kGraceLooks) ++looks_since_failure;
      const bool may_not = looks_since_end < 0 && may_go_on && !may_go_on();
      if (looks_since_end < 0 && (may_not || looks_since_failure == kGraceLooks)) {
        kill(-id_, SIGTERM);
        looks_since_end = 0;
      } else if (looks_since_end >= 0 && ++looks_since_end == kLooksBeforeKill) {
        kill(-id_, SIGKILL);
      }
      if (running_ > 0) std::this_thread::sleep_for(kLook);
    }
    return code_;
  }

 private:
  void reap() {
    int status = 0;
    while (running_ > 0 && waitpid(-id_, &status, WNOHANG) > 0) {
      --running_;
      if (code_ == 0) code_ = exit_code_of(status);
    }
  }

  pid_t id_ = 0;  ///< the first child's
  int running_ = 0;
  int code_ = 0;  ///< of the first that failed
};

/// As execv takes it: pointers into `command`, and a null pointer.
std::vector<char*> argument_list(const std::vector<std::string>& command) {
  std::vector<char*> arguments;
  for (const auto& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  return arguments;
}

}  // namespace

ChildResult run_child(const std::vector<std::string>& command) {
  std::vector<char*> arguments = argument_list(command);
  Pipe out = open_pipe(), err = open_pipe(), failure = open_pipe();
  const SignalForwarding forwarding;
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error(std::string("cannot fork: ") + std::strerror(errno));
  if (child == 0)
    become(arguments.data(), out.write_end.fd(), err.write_end.fd(), failure.write_end.fd(), parent,
           forwarding.old_mask());
  forwarding.begin(child);
  out.write_end.close();
  err.write_end.close();
  failure.write_end.close();

  ChildResult result;
  int error = 0;
  const bool failed = read(failure.read_end.fd(), &error, sizeof error) == sizeof error;
  result.exit_code = read_until_end(child, out.read_end, err.read_end, result);
  if (failed)
    throw std::runtime_error("cannot start " + command.front() + ": " + std::strerror(error));
  return result;
}

int run_attached(const std::vector<std::string>& command, const std::function<bool()>& may_go_on) {
  std::vector<char*> arguments = argument_list(command);
  Pipe failure = open_pipe();
  const SignalForwarding forwarding;
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error(std::string("cannot fork: ") + std::strerror(errno));
  if (child == 0)
    become(arguments.data(), STDOUT_FILENO, STDERR_FILENO, failure.write_end.fd(), parent,
           forwarding.old_mask());
  forwarding.begin(child);
  failure.write_end.close();

  int error = 0;
  const bool failed = read(failure.read_end.fd(), &error, sizeof error) == sizeof error;
  const int status = may_go_on ? watch(child, may_go_on) : wait_for(child);
  if (failed)
    throw std::runtime_error("cannot start " + command.front() + ": " + std::strerror(error));
  return exit_code_of(status);
}

int run_together(const std::vector<std::vector<std::string>>& commands,
                 const std::function<bool()>& may_go_on) {
  const SignalForwarding forwarding;
  const pid_t parent = getpid();
  ProcessGroup group;
  for (const std::vector<std::string>& command : commands) {
    std::vector<char*> arguments = argument_list(command);
    Pipe failure = open_pipe();
    const pid_t child = fork();
    if (child < 0) throw std::runtime_error(std::string("cannot fork: ") + std::strerror(errno));
    if (child == 0)
      become(arguments.data(), STDOUT_FILENO, STDERR_FILENO, failure.write_end.fd(), parent,
             forwarding.old_mask(), group.id());
    group.add(child);
    failure.write_end.close();
    int error = 0;
    if (read(failure.read_end.fd(), &error, sizeof error) == sizeof error)
      throw std::runtime_error("cannot start " + command.front() + ": " + std::strerror(error));
  }
  forwarding.begin(-group.id());
  return group.wait(may_go_on);
}

std::string sibling_program(const std::string& name) {
  return (std::filesystem::read_symlink("/proc/self/exe").parent_path() / name).string();
}

}  // namespace rehearse
