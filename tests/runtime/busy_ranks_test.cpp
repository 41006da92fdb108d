#include "runtime/busy_ranks.h"

#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <new>
#include <stdexcept>
#include <thread>

#include "tests/catch.h"

using namespace rehearse;

namespace {

/// What children and parent both see.
struct Shared {
  std::atomic<int> rounds[3] = {0, 0, 0};
  std::atomic<int> pid[3] = {0, 0, 0};
};

Shared& shared_page() {
  void* page =
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(page != MAP_FAILED);
  return *new (page) Shared;
}

}  // namespace

TEST_CASE("busy ranks work again and again, and end with who started them") {
  Shared& shared = shared_page();
  {
    const BusyRanks others(2, [&](int rank) {
      shared.pid[rank] = getpid();
      ++shared.rounds[rank];
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    });
    while (shared.rounds[1] < 3 || shared.rounds[2] < 3)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    CHECK(shared.rounds[0] == 0);
  }
  for (const int rank : {1, 2}) CHECK(kill(shared.pid[rank], 0) != 0);
}

TEST_CASE("a busy rank that fails ends alone") {
  Shared& shared = shared_page();
  const BusyRanks others(1, [&](int rank) {
    ++shared.rounds[rank];
    throw std::runtime_error("no memory");
  });
  while (shared.rounds[1] == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  CHECK(shared.rounds[1] == 1);
}
