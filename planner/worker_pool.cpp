#include "planner/worker_pool.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <system_error>

#include "plan/ensure.h"

namespace rehearse {
namespace {

// First byte of what a child sends: its result, or the text of the exception that ended it.
constexpr char kResult = 'R';
constexpr char kException = 'E';

volatile sig_atomic_t interrupt_signal = 0;

void note_interrupt(int signal_number) { interrupt_signal = signal_number; }

std::system_error system_error(const char* what) {
  return std::system_error(errno, std::generic_category(), what);
}

/// While it lives, SIGINT and SIGTERM are held back except inside `wait`, so that none is lost
/// between looking at the flag and going to sleep.
class SignalGuard {
 public:
  SignalGuard() {
    interrupt_signal = 0;
    struct sigaction action {};
    action.sa_handler = note_interrupt;
    sigemptyset(&action.sa_mask);
    sigemptyset(&blocked_);
    for (std::size_t i = 0; i < kSignals.size(); ++i) {
      sigaddset(&blocked_, kSignals[i]);
      sigaction(kSignals[i], &action, &old_actions_[i]);
    }
    sigprocmask(SIG_BLOCK, &blocked_, &old_mask_);
    open_mask_ = old_mask_;
    for (int signal_number : kSignals) sigdelset(&open_mask_, signal_number);
  }
  ~SignalGuard() { restore(); }
  SignalGuard(const SignalGuard&) = delete;
  SignalGuard& operator=(const SignalGuard&) = delete;

  /// Sleeps until a pipe has something to say. Throws Interrupted.
  void wait(std::vector<pollfd>& pipes) const {
    if (ppoll(pipes.data(), pipes.size(), nullptr, &open_mask_) < 0 && errno != EINTR)
      throw system_error("waiting for worker processes");
    if (interrupt_signal != 0) throw Interrupted();
  }

  /// In a child: signals end it as they end any program.
  void restore_defaults() const {
    for (int signal_number : kSignals) signal(signal_number, SIG_DFL);
    sigprocmask(SIG_SETMASK, &open_mask_, nullptr);
  }

 private:
  static constexpr std::array<int, 2> kSignals{SIGINT, SIGTERM};

  void restore() const {
    for (std::size_t i = 0; i < kSignals.size(); ++i)
      sigaction(kSignals[i], &old_actions_[i], nullptr);
    sigprocmask(SIG_SETMASK, &old_mask_, nullptr);
  }

  std::array<struct sigaction, 2> old_actions_{};
  sigset_t blocked_{}, old_mask_{}, open_mask_{};
};

void write_all(int fd, const char* data, std::size_t size) {
  while (size > 0) {
    const ssize_t written = write(fd, data, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) _exit(1);  // the parent is gone, or sees a result without its end
    data += written;
    size -= static_cast<std::size_t>(written);
  }
}

[[noreturn]] void run_child(const WorkerTask& task, int fd) {
  char kind = kResult;
  std::string payload;
  try {
    payload = task.work();
  } catch (const std::exception& error) {
    kind = kException;
    payload = error.what();
  }
  write_all(fd, &kind, 1);
  write_all(fd, payload.data(), payload.size());
  // Static destructors and buffers belong to the parent.
  std::fflush(stderr);
  _exit(0);
}

struct Child {
  std::size_t task = 0;
  pid_t pid = -1;
  int fd = -1;
  std::string received;
};

std::string describe_status(int status) {
  if (WIFSIGNALED(status)) {
    const int number = WTERMSIG(status);
    return "its process was ended by signal " + std::to_string(number) + " (" + strsignal(number) +
           ")";
  }
  return "its process ended early with status " + std::to_string(WEXITSTATUS(status));
}

class Pool {
 public:
  Pool(const std::vector<WorkerTask>& tasks, int jobs)
      : tasks_(tasks), jobs_(static_cast<std::size_t>(std::max(jobs, 1))), results_(tasks.size()) {}
  ~Pool() {
    for (const Child& child : children_) stop(child);
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  std::vector<std::string> run(const std::function<void(std::size_t)>& on_done) {
    std::size_t done = 0;
    while (true) {
      while (!failure_ && next_ < tasks_.size() && children_.size() < jobs_) start(next_++);
      if (children_.empty()) break;
      for (std::size_t ended = collect(); ended > 0; --ended)
        if (on_done) on_done(++done);
    }
    if (failure_) throw std::runtime_error(tasks_[failure_->task].name + ": " + failure_->reason);
    return std::move(results_);
  }

 private:
  struct Failure {
    std::size_t task;
    std::string reason;
  };

  void start(std::size_t index) {
    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) != 0) throw system_error("opening a pipe for a worker");
    std::fflush(stdout);
    std::fflush(stderr);
    const pid_t parent = getpid();
    const pid_t pid = fork();
    if (pid < 0) {
      close(ends[0]);
      close(ends[1]);
      throw system_error("starting a worker process");
    }
    if (pid == 0) {
      signals_.restore_defaults();
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(1);
      close(ends[0]);
      run_child(tasks_[index], ends[1]);
    }
    close(ends[1]);
    children_.push_back({.task = index, .pid = pid, .fd = ends[0], .received = {}});
  }

  /// Reads from the pipes that are ready; returns how many children ended.
  std::size_t collect() {
    std::vector<pollfd> pipes;
    for (const Child& child : children_) pipes.push_back({child.fd, POLLIN, 0});
    signals_.wait(pipes);
    std::size_t ended = 0;
    std::vector<Child> remaining;
    for (std::size_t i = 0; i < pipes.size(); ++i) {
      if (pipes[i].revents == 0 || read_some(children_[i])) {
        remaining.push_back(std::move(children_[i]));
        continue;
      }
      finish(children_[i]);
      ++ended;
    }
    children_ = std::move(remaining);
    if (failure_) drop_later_tasks();
    return ended;
  }

  /// False at the end of the child's output.
  static bool read_some(Child& child) {
    std::array<char, 1 << 16> buffer;
    const ssize_t count = read(child.fd, buffer.data(), buffer.size());
    if (count < 0) return errno == EINTR;
    child.received.append(buffer.data(), static_cast<std::size_t>(count));
    return count > 0;
  }

  void finish(Child& child) {
    close(child.fd);
    int status = 0;
    while (waitpid(child.pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (status != 0 || child.received.empty()) {
      fail(child.task, describe_status(status));
    } else if (child.received[0] == kException) {
      fail(child.task, child.received.substr(1));
    } else {
      ensure(child.received[0] == kResult, "a worker's message begins with its kind");
      child.received.erase(0, 1);
      results_[child.task] = std::move(child.received);
    }
  }

  void fail(std::size_t task, std::string reason) {
    if (!failure_ || task < failure_->task) failure_ = Failure{task, std::move(reason)};
  }

  /// Tasks are started in order, so whatever could fail earlier in that order still runs.
  void drop_later_tasks() {
    std::erase_if(children_, [&](const Child& child) {
      if (child.task < failure_->task) return false;
      stop(child);
      return true;
    });
  }

  static void stop(const Child& child) {
    kill(child.pid, SIGKILL);
    while (waitpid(child.pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    close(child.fd);
  }

  const std::vector<WorkerTask>& tasks_;
  std::size_t jobs_;
  std::size_t next_ = 0;
  std::vector<Child> children_;
  std::vector<std::string> results_;
  std::optional<Failure> failure_;
  SignalGuard signals_;
};

}  // namespace

std::vector<std::string> run_in_workers(const std::vector<WorkerTask>& tasks, int jobs,
                                        const std::function<void(std::size_t)>& on_done) {
  return Pool(tasks, jobs).run(on_done);
}

int available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(CPU_COUNT(&set), 1);
}

}  // namespace rehearse
