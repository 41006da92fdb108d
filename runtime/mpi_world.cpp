// Communicators over MPI.
#include <algorithm>
#include <cstdlib>
#include <limits>

#include "plan/ensure.h"
#include "runtime/mpi_state.h"

namespace rehearse {
namespace {

int count_of(const ConstTensorView& tensor) {
  // MPI 3 counts in ints; a bucket of gradients stays far below.
  if (tensor.elements() > std::numeric_limits<int>::max())
    throw CommunicationError("a tensor of " + tensor.shape.text() + " is too long for MPI");
  return static_cast<int>(tensor.elements());
}

class MpiTransfer final : public PendingTransfer {
 public:
  MpiTransfer(MpiState& state, const char* what, std::vector<int> peers)
      : state_(state), what_(what), peers_(std::move(peers)) {}
  bool test() override {
    int is_done = 0;
    check_mpi(MPI_Test(&request, &is_done, MPI_STATUS_IGNORE), what_);
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
    check_mpi(MPI_Ibarrier(comm_, &transfer->request), "MPI_Ibarrier");
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
    check_mpi(
        MPI_Iallreduce(MPI_IN_PLACE, tensor.data, count_of(tensor), state_.type_of(tensor.dtype),
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
    check_mpi(MPI_Iallgather(in_place ? MPI_IN_PLACE : mine.data, count_of(mine), type, all.data,
                             count_of(mine), type, comm_, &transfer->request),
              "MPI_Iallgather");
    return transfer;
  }

  Transfer begin_reduce_scatter(const ConstTensorView& all, const TensorView& mine) override {
    auto transfer = make("a reduce-scatter");
    check_mpi(MPI_Ireduce_scatter_block(
                  all.data, mine.data, count_of(mine), state_.type_of(all.dtype),
                  state_.operation(all.dtype, Reduction::Sum), comm_, &transfer->request),
              "MPI_Ireduce_scatter_block");
    return transfer;
  }

  Transfer begin_all_to_all(const ConstTensorView& mine, const TensorView& all) override {
    auto transfer = make("an all-to-all");
    const int part = count_of(mine) / size();
    const MPI_Datatype type = state_.type_of(mine.dtype);
    check_mpi(MPI_Ialltoall(mine.data, part, type, all.data, part, type, comm_, &transfer->request),
              "MPI_Ialltoall");
    return transfer;
  }

  Transfer begin_broadcast(const TensorView& tensor, int root) override {
    auto transfer = make("a broadcast", root);
    check_mpi(MPI_Ibcast(tensor.data, count_of(tensor), state_.type_of(tensor.dtype), root, comm_,
                         &transfer->request),
              "MPI_Ibcast");
    return transfer;
  }

  Transfer begin_send(const ConstTensorView& tensor, int to, int tag) override {
    auto transfer = make("a message", to);
    check_mpi(MPI_Isend(tensor.data, count_of(tensor), state_.type_of(tensor.dtype), to, tag, comm_,
                        &transfer->request),
              "MPI_Isend");
    return transfer;
  }

  Transfer begin_receive(const TensorView& tensor, int from, int tag) override {
    auto transfer = make("a message", from);
    check_mpi(MPI_Irecv(tensor.data, count_of(tensor), state_.type_of(tensor.dtype), from, tag,
                        comm_, &transfer->request),
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

  std::unique_ptr<Communicator> group(const std::vector<int>& ranks, TrafficCount& count,
                                      const std::vector<MessageLane>&) override {
    // Each group is known by its least rank; ranks in a group keep the order given.
    const auto place = std::find(ranks.begin(), ranks.end(), state_.rank);
    ensure(place != ranks.end(), "a rank makes the groups that it belongs to");
    const int color = *std::min_element(ranks.begin(), ranks.end());
    MPI_Comm comm = state_.split(color, static_cast<int>(place - ranks.begin()));
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

int launched_rank() {
  // Open MPI's mpirun, PMIx and PMI launchers (srun) say the rank in the environment.
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"})
    if (const char* rank = std::getenv(name)) return std::max(0, std::atoi(rank));
  return -1;
}

}  // namespace rehearse
