#include "planner/worker_pool.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <stdexcept>

#include "tests/catch.h"

using namespace rehearse;

namespace {

std::vector<WorkerTask> numbered_tasks(int count) {
  std::vector<WorkerTask> tasks;
  for (int i = 0; i < count; ++i)
    tasks.push_back({"task " + std::to_string(i), [i] {
                       // Later tasks end first, so that order cannot come about by itself.
                       usleep(static_cast<useconds_t>(1000 * (10 - i % 10)));
                       return "result " + std::to_string(i);
                     }});
  return tasks;
}

std::string failure_of(const std::vector<WorkerTask>& tasks, int jobs) {
  try {
    run_in_workers(tasks, jobs);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

bool has_children() { return waitpid(-1, nullptr, WNOHANG) >= 0; }

}  // namespace

TEST_CASE("results come in the order of the tasks whatever the number of jobs") {
  const int jobs = GENERATE(1, 2, 7, 50);
  const std::vector<std::string> results = run_in_workers(numbered_tasks(23), jobs);
  REQUIRE(results.size() == 23);
  for (std::size_t i = 0; i < results.size(); ++i)
    CHECK(results[i] == "result " + std::to_string(i));
  CHECK_FALSE(has_children());
}

TEST_CASE("a result may be larger than any pipe's buffer, and empty") {
  const std::string large(5'000'000, 'x');
  const auto results = run_in_workers(
      {{"large", [&] { return large; }}, {"empty", [] { return std::string(); }}}, 2);
  CHECK(results[0] == large);
  CHECK(results[1].empty());
}

TEST_CASE("each end of a task is told once, counting up") {
  std::vector<std::size_t> told;
  run_in_workers(numbered_tasks(9), 3, [&](std::size_t done) { told.push_back(done); });
  REQUIRE(told.size() == 9);
  for (std::size_t i = 0; i < told.size(); ++i) CHECK(told[i] == i + 1);
}

TEST_CASE("an exception in a worker is an error that names the task") {
  std::vector<WorkerTask> tasks = numbered_tasks(4);
  tasks[2] = {"what-if \"half\"",
              []() -> std::string { throw std::runtime_error("no such link"); }};
  CHECK(failure_of(tasks, 2) == "what-if \"half\": no such link");
  CHECK_FALSE(has_children());
}

TEST_CASE("a worker that crashes is an error that names the task and the signal") {
  std::vector<WorkerTask> tasks = numbered_tasks(3);
  tasks[1] = {"plan \"b\"", []() -> std::string {
                raise(SIGKILL);
                return "";
              }};
  const std::string failure = failure_of(tasks, 3);
  CHECK(failure.find("plan \"b\": ") == 0);
  CHECK(failure.find("signal 9") != std::string::npos);
}

TEST_CASE("a worker that exits early is an error, not an empty result") {
  const WorkerTask quitter{"quitter", []() -> std::string { _exit(7); }};
  CHECK(failure_of({quitter}, 1) == "quitter: its process ended early with status 7");
}

TEST_CASE("of several failures the first in order is told, and later tasks do not start") {
  std::vector<WorkerTask> tasks;
  tasks.push_back({"slow and bad", []() -> std::string {
                     usleep(100'000);
                     throw std::runtime_error("late");
                   }});
  tasks.push_back({"quick and bad", []() -> std::string { throw std::runtime_error("early"); }});
  tasks.push_back({"endless", []() -> std::string {
                     sleep(1000);
                     return "";
                   }});
  const auto begin = std::chrono::steady_clock::now();
  CHECK(failure_of(tasks, 3) == "slow and bad: late");
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(20));
  CHECK_FALSE(has_children());
}

TEST_CASE("an interrupt stops all workers at once and leaves none behind") {
  // In a process of its own, which sends itself the signal while its workers sleep.
  const int signal_number = GENERATE(SIGINT, SIGTERM);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const pid_t target = getpid();
    const pid_t sender = fork();
    if (sender == 0) {
      usleep(200'000);
      kill(target, signal_number);
      _exit(0);
    }
    const WorkerTask endless{"endless", []() -> std::string {
                               sleep(1000);
                               return "";
                             }};
    int status = 1;
    try {
      run_in_workers({endless, endless, endless}, 2);
    } catch (const Interrupted&) {
      waitpid(sender, nullptr, 0);
      status = has_children() ? 2 : 0;
    }
    _exit(status);
  }
  const auto begin = std::chrono::steady_clock::now();
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(10));
}

TEST_CASE("a worker's changes stay in its process") {
  int value = 1;
  const auto results = run_in_workers({{"writer",
                                        [&] {
                                          value = 2;
                                          return std::to_string(value);
                                        }}},
                                      1);
  CHECK(results[0] == "2");
  CHECK(value == 1);
}
