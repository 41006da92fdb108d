#include "runtime/train/rank_states.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <mutex>
#include <stdexcept>
#include <thread>

namespace rehearse {
namespace {

// What lies in the file. Lock-free atomics serve between processes and in signal handlers.
struct Head {
  std::atomic<std::int32_t> spoken{0};
  std::int32_t ranks = 0;
};
struct Slot {
  std::atomic<char> state{static_cast<char>(RankState::NotStarted)};
  std::atomic<std::int32_t> pid{0};
  std::atomic<std::uint32_t> beats{0};
};
static_assert(std::atomic<std::int32_t>::is_always_lock_free);
static_assert(std::atomic<char>::is_always_lock_free);

std::size_t bytes_for(int ranks) {
  return sizeof(Head) + static_cast<std::size_t>(ranks) * sizeof(Slot);
}
Head& head_of(void* memory) { return *static_cast<Head*>(memory); }
Slot& slot_of(void* memory, int rank) {
  return reinterpret_cast<Slot*>(static_cast<char*>(memory) + sizeof(Head))[rank];
}

/// Zero bytes of `path` mapped into memory; a null pointer where that cannot be.
void* mapped(const std::string& path, int flags, std::size_t& bytes) {
  const int file = open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
  if (file < 0) return nullptr;
  struct stat facts {};
  const bool sized = bytes > 0 ? ftruncate(file, static_cast<off_t>(bytes)) == 0
                               : fstat(file, &facts) == 0 && facts.st_size > 0;
  if (bytes == 0) bytes = static_cast<std::size_t>(facts.st_size);
  void* memory =
      sized ? mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) : nullptr;
  close(file);
  return memory == MAP_FAILED ? nullptr : memory;
}

constexpr auto kBeat = std::chrono::milliseconds(100);

// Of this process. The signal handler reads them, so that they are plain.
void* own_file = nullptr;
int own_rank = 0;

std::mutex beat_mutex;
std::condition_variable beat_over;
bool beats_on = false;
std::thread beater;

void on_stop(int signal) {
  RankSign::set(RankState::Stopped);
  _exit(128 + signal);
}

void beat() {
  std::unique_lock lock(beat_mutex);
  while (beats_on) {
    slot_of(own_file, own_rank).beats.fetch_add(1);
    beat_over.wait_for(lock, kBeat);
  }
}

}  // namespace

RankStates::RankStates(std::string path, int ranks) : path_(std::move(path)), ranks_(ranks) {
  std::size_t bytes = bytes_for(ranks);
  memory_ = mapped(path_, O_CREAT | O_EXCL, bytes);
  if (memory_ == nullptr) throw std::runtime_error("cannot write " + path_);
  Head* head = new (memory_) Head;
  head->ranks = ranks;
  for (int rank = 0; rank < ranks; ++rank) new (&slot_of(memory_, rank)) Slot;
}

RankStates::~RankStates() {
  munmap(memory_, bytes_for(ranks_));
  std::remove(path_.c_str());
}

RankRecord RankStates::record(int rank) const {
  const Slot& slot = slot_of(memory_, rank);
  return {static_cast<RankState>(slot.state.load()), slot.pid.load(), slot.beats.load()};
}

bool RankStates::claim_voice() { return head_of(memory_).spoken.exchange(1) == 0; }
bool RankStates::has_spoken() const { return head_of(memory_).spoken.load() != 0; }

RankSign::RankSign(const std::string& path, int rank) {
  if (path.empty()) return;
  std::size_t bytes = 0;
  void* memory = mapped(path, 0, bytes);
  if (memory == nullptr || rank < 0 || rank >= head_of(memory).ranks)
    throw std::runtime_error("cannot keep the state of rank " + std::to_string(rank) + " in " +
                             path);
  own_file = memory;
  own_rank = rank;
  Slot& own = slot_of(memory, rank);
  own.pid = getpid();
  own.state = static_cast<char>(RankState::Running);
  std::signal(SIGTERM, on_stop);
  std::signal(SIGINT, on_stop);
  beats_on = true;
  beater = std::thread(beat);
}

RankSign::~RankSign() {
  if (!beater.joinable()) return;
  {
    const std::lock_guard lock(beat_mutex);
    beats_on = false;
  }
  beat_over.notify_all();
  beater.join();
}

void RankSign::set(RankState state) {
  if (own_file != nullptr) slot_of(own_file, own_rank).state = static_cast<char>(state);
}

bool RankSign::claim_voice() {
  return own_file == nullptr || head_of(own_file).spoken.exchange(1) == 0;
}

std::optional<std::vector<int>> RankSign::silent_ranks() {
  if (own_file == nullptr) return std::nullopt;
  std::vector<std::uint32_t> before;
  const int ranks = head_of(own_file).ranks;
  for (int rank = 0; rank < ranks; ++rank) before.push_back(slot_of(own_file, rank).beats);
  std::this_thread::sleep_for(std::chrono::seconds(1));
  std::vector<int> silent;
  for (int rank = 0; rank < ranks; ++rank) {
    const Slot& slot = slot_of(own_file, rank);
    const bool is_done = slot.state == static_cast<char>(RankState::Done);
    if (!is_done && slot.beats == before[static_cast<std::size_t>(rank)]) silent.push_back(rank);
  }
  return silent;
}

std::string ranks_text(const std::vector<int>& ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    if (i > 0) text += i + 1 == ranks.size() ? " and " : ", ";
    text += std::to_string(ranks[i]);
  }
  return text;
}

}  // namespace rehearse
