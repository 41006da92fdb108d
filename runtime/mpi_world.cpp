// Communicators over MPI. Every wait polls, so that a rank that is gone is noticed: after the
// deadline the others are asked for a sign of life, which ranks that wait themselves give, and
// those that give none are named.
#include <mpi.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <thread>

#include "plan/ensure.h"
#include "runtime/communicator.h"

namespace rehearse {
namespace {

using Clock = std::chrono::steady_clock;

void check(int error, const char* what) {
  if (error == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(error, text, &length);
  throw CommunicationError(std::string(what) +
                           " failed: " + std::string(text, static_cast<std::size_t>(length)));
}

int count_of(const ConstTensorView& tensor) {
  // MPI 3 counts in ints; a bucket of gradients stays far below.
  if (tensor.elements() > std::numeric_limits<int>::max())
    throw CommunicationError("a tensor of " + tensor.shape.text() + " is too long for MPI");
  return static_cast<int>(tensor.elements());
}

std::string ranks_text(const std::vector<int>& ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    if (i > 0) text += i + 1 == ranks.size() ? " and " : ", ";
    text += std::to_string(ranks[i]);
  }
  return text;
}

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

/// What all communicators of the process share.
class MpiState {
 public:
  explicit MpiState(double deadline) : deadline_s(deadline) {
    int provided = 0;
    check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    check(MPI_Comm_rank(MPI_COMM_WORLD, &rank), "MPI_Comm_rank");
    check(MPI_Comm_size(MPI_COMM_WORLD, &size), "MPI_Comm_size");
    check(MPI_Comm_dup(MPI_COMM_WORLD, &signs_), "MPI_Comm_dup");
    check(MPI_Type_contiguous(2, MPI_BYTE, &bf16_), "MPI_Type_contiguous");
    check(MPI_Type_commit(&bf16_), "MPI_Type_commit");
    check(MPI_Op_create(combine_bf16<Reduction::Sum>, 1, &bf16_sum_), "MPI_Op_create");
    check(MPI_Op_create(combine_bf16<Reduction::Max>, 1, &bf16_max_), "MPI_Op_create");
    last_look_ = Clock::now();
  }
  ~MpiState() {
    // Ranks that failed never come here together; they abort.
    if (!aborted) MPI_Finalize();
  }
  MpiState(const MpiState&) = delete;
  MpiState& operator=(const MpiState&) = delete;

  MPI_Datatype type_of(DType dtype) const {
    if (dtype == DType::F32) return MPI_FLOAT;
    if (dtype == DType::F64) return MPI_DOUBLE;
    if (dtype == DType::I32) return MPI_INT32_T;
    ensure(dtype == DType::Bf16, "MPI moves fp32, fp64, int32 and bf16");
    return bf16_;
  }
  MPI_Op operation(DType dtype, Reduction how) const {
    if (dtype == DType::Bf16) return how == Reduction::Sum ? bf16_sum_ : bf16_max_;
    return how == Reduction::Sum ? MPI_SUM : MPI_MAX;
  }

  /// Returns once the request is done. `peers`: ranks of the world that it depends on.
  void wait(MPI_Request& request, const char* what, const std::vector<int>& peers) {
    const auto begin = Clock::now();
    auto pause = std::chrono::microseconds(20);
    for (int round = 0;; ++round) {
      int is_done = 0;
      check(MPI_Test(&request, &is_done, MPI_STATUS_IGNORE), what);
      if (is_done != 0) return;
      // Spinning is fastest, but other ranks may need this very core.
      if (round < 200) {
        sched_yield();
        continue;
      }
      std::this_thread::sleep_for(pause);
      pause = std::min<std::chrono::microseconds>(pause * 5 / 4, std::chrono::milliseconds(1));
      answer_signs();
      if (Clock::now() - begin > std::chrono::duration<double>(deadline_s)) give_up(what, peers);
    }
  }

  const double deadline_s;
  int rank = 0, size = 1;
  bool aborted = false;

 private:
  enum SignTag : int { kAreYouThere = 1, kHereIAm = 2 };

  /// Answers those who ask whether this rank lives; looks a few times a second.
  void answer_signs() {
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
  std::vector<int> silent_ranks() {
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

  [[noreturn]] void give_up(const char* what, const std::vector<int>& peers) {
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

  MPI_Comm signs_ = MPI_COMM_NULL;
  MPI_Datatype bf16_ = MPI_DATATYPE_NULL;
  MPI_Op bf16_sum_ = MPI_OP_NULL, bf16_max_ = MPI_OP_NULL;
  Clock::time_point last_look_;
};

class MpiTransfer final : public PendingTransfer {
 public:
  MpiTransfer(MpiState& state, const char* what, std::vector<int> peers)
      : state_(state), what_(what), peers_(std::move(peers)) {}
  bool test() override {
    int is_done = 0;
    check(MPI_Test(&request, &is_done, MPI_STATUS_IGNORE), what_);
    return is_done != 0;
  }
  void wait() override { state_.wait(request, what_, peers_); }

  MPI_Request request = MPI_REQUEST_NULL;

 private:
  MpiState& state_;
  const char* what_;
  std::vector<int> peers_;
};

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(MpiState& state, MPI_Comm comm, std::vector<int> ranks, TrafficCount& count)
      : Communicator(count), state_(state), comm_(comm), ranks_(std::move(ranks)) {
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
    const auto at = std::find(ranks_.begin(), ranks_.end(), state_.rank);
    rank_ = static_cast<int>(at - ranks_.begin());
  }
  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(ranks_.size()); }

  void barrier() override {
    auto transfer = make("a barrier");
    check(MPI_Ibarrier(comm_, &transfer->request), "MPI_Ibarrier");
    transfer->wait();
  }

 private:
  std::unique_ptr<MpiTransfer> make(const char* what) {
    return std::make_unique<MpiTransfer>(state_, what, ranks_);
  }
  std::unique_ptr<MpiTransfer> make(const char* what, int peer) {
    return std::make_unique<MpiTransfer>(state_, what,
                                         std::vector{ranks_[static_cast<std::size_t>(peer)]});
  }

  Transfer begin_all_reduce(const TensorView& tensor, Reduction how) override {
    auto transfer = make("an all-reduce");
    check(MPI_Iallreduce(MPI_IN_PLACE, tensor.data, count_of(tensor), state_.type_of(tensor.dtype),
                         state_.operation(tensor.dtype, how), comm_, &transfer->request),
          "MPI_Iallreduce");
    return transfer;
  }

  Transfer begin_all_gather(const ConstTensorView& mine, const TensorView& all) override {
    auto transfer = make("an all-gather");
    const MPI_Datatype type = state_.type_of(mine.dtype);
    const auto offset = static_cast<std::size_t>(rank_) *
                        static_cast<std::size_t>(mine.elements()) * element_bytes(mine.dtype);
    const bool in_place = mine.data == static_cast<const char*>(all.data) + offset;
    check(MPI_Iallgather(in_place ? MPI_IN_PLACE : mine.data, count_of(mine), type, all.data,
                         count_of(mine), type, comm_, &transfer->request),
          "MPI_Iallgather");
    return transfer;
  }

  Transfer begin_reduce_scatter(const ConstTensorView& all, const TensorView& mine) override {
    auto transfer = make("a reduce-scatter");
    check(MPI_Ireduce_scatter_block(all.data, mine.data, count_of(mine), state_.type_of(all.dtype),
                                    state_.operation(all.dtype, Reduction::Sum), comm_,
                                    &transfer->request),
          "MPI_Ireduce_scatter_block");
    return transfer;
  }

  Transfer begin_broadcast(const TensorView& tensor, int root) override {
    auto transfer = make("a broadcast", root);
    check(MPI_Ibcast(tensor.data, count_of(tensor), state_.type_of(tensor.dtype), root, comm_,
                     &transfer->request),
          "MPI_Ibcast");
    return transfer;
  }

  Transfer begin_send(const ConstTensorView& tensor, int to, int tag) override {
    auto transfer = make("a message", to);
    check(MPI_Isend(tensor.data, count_of(tensor), state_.type_of(tensor.dtype), to, tag, comm_,
                    &transfer->request),
          "MPI_Isend");
    return transfer;
  }

  Transfer begin_receive(const TensorView& tensor, int from, int tag) override {
    auto transfer = make("a message", from);
    check(MPI_Irecv(tensor.data, count_of(tensor), state_.type_of(tensor.dtype), from, tag, comm_,
                    &transfer->request),
          "MPI_Irecv");
    return transfer;
  }

  MpiState& state_;
  MPI_Comm comm_;
  std::vector<int> ranks_;  ///< of the world, by rank of the group
  int rank_ = 0;
};

class MpiWorld final : public World {
 public:
  explicit MpiWorld(double deadline_s) : state_(deadline_s) {}
  int rank() const override { return state_.rank; }
  int size() const override { return state_.size; }

  std::unique_ptr<Communicator> group(const std::vector<int>& ranks, TrafficCount& count) override {
    // Each group is known by its least rank; ranks in a group keep the order given.
    const auto place = std::find(ranks.begin(), ranks.end(), state_.rank);
    ensure(place != ranks.end(), "a rank makes the groups that it belongs to");
    const int color = *std::min_element(ranks.begin(), ranks.end());
    MPI_Comm comm = MPI_COMM_NULL;
    check(MPI_Comm_split(MPI_COMM_WORLD, color, static_cast<int>(place - ranks.begin()), &comm),
          "MPI_Comm_split");
    if (ranks.size() == 1) return lone_communicator(count);
    return std::make_unique<MpiCommunicator>(state_, comm, ranks, count);
  }

  void abort(int exit_code) override {
    if (state_.size == 1) return;
    state_.aborted = true;
    MPI_Abort(MPI_COMM_WORLD, exit_code);
  }

 private:
  MpiState state_;
};

}  // namespace

std::unique_ptr<World> mpi_world(double deadline_s) {
  return std::make_unique<MpiWorld>(deadline_s);
}

bool started_by_mpi() {
  // Open MPI's mpirun, PMIx and PMI launchers (srun) say the rank in the environment.
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"})
    if (std::getenv(name) != nullptr) return true;
  return false;
}

}  // namespace rehearse
