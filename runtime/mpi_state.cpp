#include "runtime/mpi_state.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <numeric>
#include <thread>

#include "plan/ensure.h"
#include "runtime/command_line.h"
#include "runtime/machine_facts.h"
#include "runtime/patience.h"
#include "runtime/train/rank_states.h"

namespace rehearse {
namespace {

using Clock = std::chrono::steady_clock;

/// Sums and maxima of bf16, which MPI does not know: in fp32, rounded once a pair.
template <Reduction kHow>
void combine_bf16(void* in, void* in_out, int* count, MPI_Datatype*) {
  const auto* from = static_cast<const Bf16*>(in);
  auto* to = static_cast<Bf16*>(in_out);
  for (int i = 0; i < *count; ++i) {
    const float a = to_float(from[i]), b = to_float(to[i]);
    to[i] = to_bf16(kHow == Reduction::Sum ? a + b : std::max(a, b));
  }
}

/// Ends the process, and through its launcher the run, where a blocking call outlasts the deadline.
BlockingCallGuard guard(double deadline_s, const char* what) {
  return BlockingCallGuard(deadline_s, [deadline_s, what] {
    const std::vector<int> silent = RankSign::silent_ranks().value_or(std::vector<int>{});
    RankSign::set(RankState::Failed);
    if (RankSign::claim_voice()) {
      std::cerr << "rehearse-device: error: " << what << " was not done in " << deadline_s << " s";
      if (!silent.empty()) std::cerr << "; no sign of life from " << ranks_text(silent);
      std::cerr << std::endl;
    }
    _exit(kExitEnvironment);
  });
}

/// Whether the ranks on this machine are no more than the cores that they may run on together,
/// bound to some of them or not.
bool has_core_for_each_rank() {
  MPI_Comm here = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &here),
            "MPI_Comm_split_type");
  int ranks = 1;
  check_mpi(MPI_Comm_size(here, &ranks), "MPI_Comm_size");
  cpu_set_t cores;
  CPU_ZERO(&cores);
  sched_getaffinity(0, sizeof cores, &cores);  // where it fails, no core is known
  check_mpi(MPI_Allreduce(MPI_IN_PLACE, &cores, sizeof cores, MPI_BYTE, MPI_BOR, here),
            "MPI_Allreduce");
  MPI_Comm_free(&here);
  const double quota = probe_cpu().quota_threads;
  return ranks <= CPU_COUNT(&cores) && (quota <= 0 || ranks <= quota);
}

}  // namespace

void check_mpi(int error, const char* what) {
  if (error == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(error, text, &length);
  throw CommunicationError(std::string(what) +
                           " failed: " + std::string(text, static_cast<std::size_t>(length)));
}

MpiState::MpiState(double deadline) : deadline_s(deadline) {
  {
    const BlockingCallGuard in_time = guard(deadline_s, "finding all ranks (MPI_Init)");
    int provided = 0;
    check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init");
    has_own_core_ = has_core_for_each_rank();
  }
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  check_mpi(MPI_Comm_rank(MPI_COMM_WORLD, &rank), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &size), "MPI_Comm_size");
  check_mpi(MPI_Type_contiguous(2, MPI_BYTE, &bf16_), "MPI_Type_contiguous");
  check_mpi(MPI_Type_commit(&bf16_), "MPI_Type_commit");
  check_mpi(MPI_Op_create(combine_bf16<Reduction::Sum>, 1, &bf16_sum_), "MPI_Op_create");
  check_mpi(MPI_Op_create(combine_bf16<Reduction::Max>, 1, &bf16_max_), "MPI_Op_create");
  last_look_ = Clock::now();
}

MpiState::~MpiState() {
  if (aborted) return;  // ranks that failed never come here together
  try {
    meet("the end of the run");
    const BlockingCallGuard in_time = guard(deadline_s, "leaving MPI");
    MPI_Finalize();
  } catch (const CommunicationError& error) {
    std::cerr << "rehearse-device: error: " << error.what() << std::endl;
    MPI_Abort(MPI_COMM_WORLD, kExitEnvironment);
  }
}

MPI_Datatype MpiState::type_of(DType dtype) const {
  if (dtype == DType::F32) return MPI_FLOAT;
  if (dtype == DType::F64) return MPI_DOUBLE;
  if (dtype == DType::I32) return MPI_INT32_T;
  ensure(dtype == DType::Bf16, "MPI moves fp32, fp64, int32 and bf16");
  return bf16_;
}

MPI_Op MpiState::operation(DType dtype, Reduction how) const {
  if (dtype == DType::Bf16) return how == Reduction::Sum ? bf16_sum_ : bf16_max_;
  return how == Reduction::Sum ? MPI_SUM : MPI_MAX;
}

void MpiState::wait(MPI_Request& request, const char* what, const std::vector<int>& peers) {
  // Spinning is fastest: who sleeps takes up each part of a collective late. But where ranks are
  // more than cores, others need this very one. For a late rank it is worth while as long as
  // waking up, which on virtual machines takes up to a millisecond, would cost a share of the wait.
  const auto spins_for =
      has_own_core_ ? std::chrono::microseconds(100'000) : std::chrono::microseconds(100);
  constexpr int kRoundsPerLook = 16;  // at the clock
  Patience patience(deadline_s);
  auto pause = std::chrono::microseconds(20);
  const auto begin = Clock::now();
  bool spins = true;
  for (int round = 1;; ++round) {
    int is_done = 0;
    check_mpi(MPI_Test(&request, &is_done, MPI_STATUS_IGNORE), what);
    if (is_done != 0) return;
    if (spins) {
      sched_yield();
      if (round % kRoundsPerLook != 0) continue;
      spins = Clock::now() - begin < spins_for;
    } else {
      std::this_thread::sleep_for(pause);
      pause = std::min<std::chrono::microseconds>(pause * 5 / 4, std::chrono::milliseconds(1));
    }
    answer_signs();
    if (patience.is_over()) give_up(what, peers);
  }
}

void MpiState::meet(const char* what) {
  if (size == 1) return;
  std::vector<int> everyone(static_cast<std::size_t>(size));
  std::iota(everyone.begin(), everyone.end(), 0);
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ibarrier(MPI_COMM_WORLD, &request), "MPI_Ibarrier");
  wait(request, what, everyone);
}

MPI_Comm MpiState::split(int color, int key) {
  meet("setting up groups of ranks");
  const BlockingCallGuard in_time = guard(deadline_s, "setting up groups of ranks");
  MPI_Comm comm = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(MPI_COMM_WORLD, color, key, &comm), "MPI_Comm_split");
  return comm;
}

/// Answers those who ask whether this rank lives; looks a few times a second.
void MpiState::answer_signs() {
  if (Clock::now() - last_look_ < std::chrono::milliseconds(50)) return;
  last_look_ = Clock::now();
  for (int found = 1; found != 0;) {
    MPI_Status status;
    MPI_Iprobe(MPI_ANY_SOURCE, kAreYouThere, signs_, &found, &status);
    if (found == 0) return;
    MPI_Recv(nullptr, 0, MPI_BYTE, status.MPI_SOURCE, kAreYouThere, signs_, MPI_STATUS_IGNORE);
    MPI_Request sent = MPI_REQUEST_NULL;
    MPI_Isend(nullptr, 0, MPI_BYTE, status.MPI_SOURCE, kHereIAm, signs_, &sent);
    MPI_Request_free(&sent);
  }
}

/// Ranks of which no sign comes within two seconds. A rank whose operators last longer than that
/// is counted among them: the deadline is much longer than any step should be.
std::vector<int> MpiState::silent_ranks() {
  if (const auto silent = RankSign::silent_ranks()) return *silent;
  std::vector<bool> lives(static_cast<std::size_t>(size), false);
  lives[static_cast<std::size_t>(rank)] = true;
  for (int other = 0; other < size; ++other) {
    if (other == rank) continue;
    MPI_Request sent = MPI_REQUEST_NULL;
    MPI_Isend(nullptr, 0, MPI_BYTE, other, kAreYouThere, signs_, &sent);
    MPI_Request_free(&sent);
  }
  const auto begin = Clock::now();
  while (Clock::now() - begin < std::chrono::seconds(2) &&
         std::find(lives.begin(), lives.end(), false) != lives.end()) {
    answer_signs();
    int found = 0;
    MPI_Status status;
    MPI_Iprobe(MPI_ANY_SOURCE, kHereIAm, signs_, &found, &status);
    if (found == 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      continue;
    }
    MPI_Recv(nullptr, 0, MPI_BYTE, status.MPI_SOURCE, kHereIAm, signs_, MPI_STATUS_IGNORE);
    lives[static_cast<std::size_t>(status.MPI_SOURCE)] = true;
  }
  std::vector<int> silent;
  for (int other = 0; other < size; ++other)
    if (!lives[static_cast<std::size_t>(other)]) silent.push_back(other);
  return silent;
}

void MpiState::give_up(const char* what, const std::vector<int>& peers) {
  std::vector<int> others;
  for (const int peer : peers)
    if (peer != rank) others.push_back(peer);
  std::string message = std::string(what) + " with " + ranks_text(others) + " was not done in " +
                        std::to_string(static_cast<long>(deadline_s)) + " s";
  const std::vector<int> silent = silent_ranks();
  message += silent.empty() ? "; every rank gives a sign of life"
                            : "; no sign of life from " + ranks_text(silent);
  throw CommunicationError(message);
}

}  // namespace rehearse
