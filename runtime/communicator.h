#pragma once
#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/layer.h"
#include "kernels/ops/tensor.h"

namespace rehearse {

enum class Reduction : std::uint8_t { Sum, Max };

/// What a transfer is for. The simulation counts all kinds but the last two.
enum class Traffic : std::uint8_t {
  Tensor,     ///< inside layers, between tensor ranks
  Data,       ///< gradient reduction, sums of copies of parameters included
  Parameter,  ///< gathers of updated weights
  Pipeline,   ///< activations and their gradients between stages
  Control,    ///< the gradient norm
  Context,    ///< keys and values between context ranks
  Sequence,   ///< gradients of norms that each tensor rank has of its own tokens only
  Report,     ///< the loss, for people; no part of the plan
};
inline constexpr int kTrafficCount = 8;
const char* traffic_name(Traffic traffic);

/// A transfer that failed, or that nobody answered in time. The message names the transfer and the
/// ranks.
class CommunicationError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Something under way. Whoever starts it keeps its tensors where they are until it is done.
/// Destroying one that is not done leaves it to the end of the process.
class PendingTransfer {
 public:
  virtual ~PendingTransfer() = default;
  /// Moves it on; true once it is done. Throws CommunicationError.
  virtual bool test() = 0;
  /// Afterwards it is done for whoever asks the device: whatever it is asked to compute or to hand
  /// over from now on finds it done. On CPUs that is when it is done; on GPUs the device waits, not
  /// the host. Throws CommunicationError, as does a later wait of the host, at the latest after the
  /// deadline.
  virtual void wait() = 0;
};
using Transfer = std::unique_ptr<PendingTransfer>;  ///< empty: done already
void finish(Transfer& transfer);

/// What a transfer is, for records.
struct TransferNote {
  Traffic traffic = Traffic::Tensor;
  CollectiveKind kind = CollectiveKind::AllReduce;
  std::int64_t bytes = 0;  ///< as counted
};
/// Gets each transfer that this rank gives to a communicator (receipts of messages are not given),
/// right after it began, and returns it or what stands for it.
using TransferWatch = std::function<Transfer(Transfer, const TransferNote&)>;

/// Payload a rank gave to its communicators, in bytes: the whole buffer of an all-reduce, of a
/// reduce-scatter, an all-to-all or a broadcast, the own part of an all-gather, a message at its
/// sender.
class TrafficCount {
 public:
  void add(Traffic traffic, CollectiveKind kind, std::int64_t bytes);
  std::int64_t of(Traffic traffic, CollectiveKind kind) const;
  std::int64_t of(Traffic traffic) const;
  void clear() { bytes_ = {}; }

 private:
  static constexpr std::size_t kKinds = 6;
  std::array<std::array<std::int64_t, kKinds>, kTrafficCount> bytes_{};
};

/// A group of ranks that exchange tensors. All of them call the same collectives in the same
/// order; messages between two ranks with one tag arrive in the order sent. Tensors are contiguous,
/// in the memory of the device that computes. Groups of one rank move and count nothing.
class Communicator {
 public:
  explicit Communicator(TrafficCount& count) : count_(&count) {}
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// Returns on the host once all have called it.
  virtual void barrier() = 0;
  /// All ranks of a group that will exchange all with all call it before: what that needs is then
  /// made while nothing else is under way.
  virtual void prepare_all_to_all() {}

  /// In place, everywhere the same bytes. fp32, fp64 or bf16.
  Transfer start_all_reduce(const TensorView& tensor, Reduction how, Traffic traffic);
  /// `all` gets the parts in order of ranks; `mine` may lie at its own place in it.
  Transfer start_all_gather(const ConstTensorView& mine, const TensorView& all, Traffic traffic);
  /// `mine` gets this rank's part of the sum; it does not overlap `all`.
  Transfer start_reduce_scatter(const ConstTensorView& all, const TensorView& mine,
                                Traffic traffic);
  /// Part i of `mine` goes to rank i, and part i of `all` is what rank i sent; they do not overlap.
  Transfer start_all_to_all(const ConstTensorView& mine, const TensorView& all, Traffic traffic);
  Transfer start_broadcast(const TensorView& tensor, int root, Traffic traffic);
  Transfer start_send(const ConstTensorView& tensor, int to, int tag, Traffic traffic);
  Transfer start_receive(const TensorView& tensor, int from, int tag);

  void all_reduce(const TensorView& tensor, Reduction how, Traffic traffic);
  void all_gather(const ConstTensorView& mine, const TensorView& all, Traffic traffic);
  void reduce_scatter(const ConstTensorView& all, const TensorView& mine, Traffic traffic);
  void all_to_all(const ConstTensorView& mine, const TensorView& all, Traffic traffic);

  void observe(TransferWatch watch) { watch_ = std::move(watch); }

 private:
  Transfer counted(Transfer transfer, const TransferNote& note);
  virtual Transfer begin_all_reduce(const TensorView& tensor, Reduction how) = 0;
  virtual Transfer begin_all_gather(const ConstTensorView& mine, const TensorView& all) = 0;
  virtual Transfer begin_reduce_scatter(const ConstTensorView& all, const TensorView& mine) = 0;
  virtual Transfer begin_all_to_all(const ConstTensorView& mine, const TensorView& all) = 0;
  virtual Transfer begin_broadcast(const TensorView& tensor, int root) = 0;
  virtual Transfer begin_send(const ConstTensorView& tensor, int to, int tag) = 0;
  virtual Transfer begin_receive(const TensorView& tensor, int from, int tag) = 0;

  TrafficCount* count_;
  TransferWatch watch_;
};

/// A way that messages of a group take: from one of its ranks to another, with a tag.
struct MessageLane {
  int from = 0, to = 0, tag = 0;
  auto operator<=>(const MessageLane&) const = default;
};

/// The group of a rank that is alone.
std::unique_ptr<Communicator> lone_communicator(TrafficCount& count);

/// The ranks of a run, and groups among them. One a process.
class World {
 public:
  virtual ~World() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// A group of `ranks` in that order, this rank among them. All ranks of the world call this in
  /// the same order, each with the group it belongs to (groups of one included). `lanes`: all the
  /// ways that messages of the group will take; its ranks say the same.
  virtual std::unique_ptr<Communicator> group(const std::vector<int>& ranks, TrafficCount& count,
                                              const std::vector<MessageLane>& lanes) = 0;
  /// Whether transfers run on the device beside its operators. Memory must then not be allocated or
  /// given back while any are under way: a GPU may wait for all of them first.
  virtual bool moves_on_device() const { return false; }
  /// To be called between the pieces of a rank's work: it asks the device for a few of them ahead
  /// of time and no more, and learns of ranks that failed. Throws CommunicationError.
  virtual void pace() {}
  /// All ranks call it when the run has gone well and nothing is under way any more; then groups
  /// may go. Where groups go without, the run has failed. Throws CommunicationError.
  virtual void end() {}
  /// Ends every rank of the run at once; the process of this one too, where there are others.
  virtual void abort(int exit_code) = 0;
};

/// One rank, alone.
std::unique_ptr<World> lone_world();

/// Ranks that mpirun or srun started. No wait lasts longer than the deadline, those for all ranks
/// to begin and to end included. Throws
/// std::runtime_error where this program was built without MPI.
std::unique_ptr<World> mpi_world(double deadline_s);
/// The rank that a launcher of MPI gave this process; −1 where none started it.
int launched_rank();
inline bool started_by_mpi() { return launched_rank() >= 0; }

}  // namespace rehearse
