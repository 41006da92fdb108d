// Communicators over NCCL, all of them non-blocking: every call may come back before it is done,
// and is then asked about until the deadline, so that nothing hangs inside NCCL and a communicator
// can be aborted (NCCL user guide, "Fault tolerance"; ncclConfig_t::blocking = 0).
//
// Each communicator has a stream of its own, which waits for what the device was asked to compute
// before a transfer. A transfer is done when its event is: whoever waits polls the event, the
// communicator's errors, and the rendezvous, which knows of ranks that are gone.
//
// Messages: what stands in a stream runs in its order, and a receive that was posted early would
// hold up the sends behind it. So each direction between two neighbours has a communicator of its
// own for each tag, made when it is first used. Its two ends come to that at different times: a
// receive is posted by whoever looks after pending receives while it waits.
#include "runtime/nccl_world.h"

#include <nccl.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <list>
#include <map>
#include <optional>
#include <thread>
#include <tuple>

#include "kernels/cuda/cuda_device.h"
#include "plan/ensure.h"
#include "runtime/patience.h"

namespace rehearse {
namespace {

void check_nccl(ncclResult_t result, const char* what) {
  if (result == ncclSuccess || result == ncclInProgress) return;
  throw CommunicationError(std::string(what) + " failed: " + ncclGetErrorString(result) +
                           "; NCCL_DEBUG=WARN says more");
}

ncclDataType_t type_of(DType dtype) {
  if (dtype == DType::F32) return ncclFloat32;
  if (dtype == DType::F64) return ncclFloat64;
  if (dtype == DType::I32) return ncclInt32;
  ensure(dtype == DType::Bf16, "NCCL moves fp32, fp64, int32 and bf16");
  return ncclBfloat16;
}

ncclRedOp_t operation(Reduction how) { return how == Reduction::Sum ? ncclSum : ncclMax; }

std::size_t count_of(const ConstTensorView& tensor) {
  return static_cast<std::size_t>(tensor.elements());
}

using Id = std::string;  ///< the bytes of an ncclUniqueId

Id new_id() {
  ncclUniqueId id;
  check_nccl(ncclGetUniqueId(&id), "ncclGetUniqueId");
  return {id.internal, sizeof id.internal};
}

/// An event that only tells whether it was reached.
class Mark {
 public:
  Mark() { check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
  ~Mark() { report_cuda(cudaEventDestroy(event_)); }
  Mark(const Mark&) = delete;
  Mark& operator=(const Mark&) = delete;
  void record(cudaStream_t stream) { check_cuda(cudaEventRecord(event_, stream)); }
  void hold_up(cudaStream_t stream) const { check_cuda(cudaStreamWaitEvent(stream, event_, 0)); }
  bool is_reached() const {
    const cudaError_t status = cudaEventQuery(event_);
    if (status != cudaErrorNotReady) check_cuda(status);
    return status == cudaSuccess;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

/// A communicator of NCCL with its stream. Destroying it aborts it: a run that ends well has waited
/// for all its transfers by then.
class NcclChannel {
 public:
  NcclChannel(const Id& id, int rank, int size) {
    ncclUniqueId unique;
    ensure(id.size() == sizeof unique.internal, "an id has NCCL's size");
    std::memcpy(unique.internal, id.data(), id.size());
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    check_nccl(ncclCommInitRankConfig(&comm_, size, unique, rank, &config),
               "making a communicator");
  }
  ~NcclChannel() {
    if (comm_ != nullptr) (void)ncclCommAbort(comm_);
  }
  NcclChannel(const NcclChannel&) = delete;
  NcclChannel& operator=(const NcclChannel&) = delete;

  /// False while something asked of NCCL is in progress. Throws CommunicationError.
  bool is_ready(const char* what) const {
    ncclResult_t state = ncclSuccess;
    check_nccl(ncclCommGetAsyncError(comm_, &state), what);
    check_nccl(state, what);
    return state == ncclSuccess;
  }
  /// Receives of a channel are posted in the order of their tickets.
  int take_ticket() { return tickets_++; }
  bool is_turn_of(int ticket) const { return ticket == turn_; }
  void next_turn() { ++turn_; }
  ncclComm_t comm() const { return comm_; }
  cudaStream_t stream() const { return stream_.handle(); }

 private:
  ncclComm_t comm_ = nullptr;
  CudaStream stream_;
  int tickets_ = 0, turn_ = 0;
};

/// Something that goes on a step whenever a rank waits.
class Progressing {
 public:
  virtual ~Progressing() = default;
  virtual void go_on() = 0;
};

/// What all communicators of the process share.
class NcclState {
 public:
  NcclState(int rank, int size, const Rendezvous::Place& place, double deadline,
            CudaDevice& of_rank)
      : deadline_s(deadline), device(of_rank), meeting(rank, size, place, deadline) {}

  /// Returns once `is_done` says so.
  template <class Condition>
  void wait_until(const Condition& is_done, const std::string& what) {
    Patience patience(deadline_s);
    auto last_look = std::chrono::steady_clock::now();
    for (int round = 0; !is_done(); ++round) {
      for (Progressing* one : pending) one->go_on();
      if (round < 1000) continue;
      std::this_thread::sleep_for(std::chrono::microseconds(20));
      if (std::chrono::steady_clock::now() - last_look < std::chrono::milliseconds(50)) continue;
      last_look = std::chrono::steady_clock::now();
      meeting.check_alive();
      if (patience.is_over())
        throw CommunicationError(what + " was not done in " +
                                 std::to_string(static_cast<long>(deadline_s)) + " s");
    }
  }

  const double deadline_s;
  CudaDevice& device;
  Rendezvous meeting;
  std::list<Progressing*> pending;
};

/// A transfer that stands in its channel's stream.
class NcclTransfer final : public PendingTransfer {
 public:
  NcclTransfer(NcclState& state, NcclChannel& channel, const char* what)
      : state_(state), channel_(channel), what_(what) {}
  /// The stream goes on once the device has computed what it was asked so far.
  void hold_up() {
    mark_.record(state_.device.stream());
    mark_.hold_up(channel_.stream());
  }
  /// After the calls of NCCL.
  void issued() {
    state_.wait_until([this] { return channel_.is_ready(what_); }, what_);
    mark_.record(channel_.stream());
  }
  bool test() override { return channel_.is_ready(what_) && mark_.is_reached(); }
  void wait() override {
    state_.wait_until([this] { return test(); }, what_);
  }

 private:
  NcclState& state_;
  NcclChannel& channel_;
  const char* what_;
  Mark mark_;
};

/// A receive, posted as soon as its channel is made and those before it in the channel are posted.
class NcclReceive final : public PendingTransfer, public Progressing {
 public:
  NcclReceive(NcclState& state, NcclChannel& channel, const TensorView& tensor)
      : state_(state), channel_(channel), tensor_(tensor), ticket_(channel.take_ticket()) {
    // What used the memory before must be done with it.
    computed_.record(state.device.stream());
    at_ = state_.pending.insert(state_.pending.end(), this);
  }
  ~NcclReceive() override { state_.pending.erase(at_); }

  void go_on() override {
    const bool may_post = stage_ == Stage::New && channel_.is_turn_of(ticket_);
    if (may_post && channel_.is_ready("a message")) {
      computed_.hold_up(channel_.stream());
      check_nccl(ncclRecv(tensor_.data, count_of(tensor_), type_of(tensor_.dtype), 0,
                          channel_.comm(), channel_.stream()),
                 "ncclRecv");
      stage_ = Stage::Asked;
    }
    if (stage_ == Stage::Asked && channel_.is_ready("a message")) {
      arrived_.record(channel_.stream());
      stage_ = Stage::Posted;
      channel_.next_turn();
    }
  }
  bool test() override {
    go_on();
    return stage_ == Stage::Posted && arrived_.is_reached();
  }
  void wait() override {
    state_.wait_until([this] { return test(); }, "a message");
  }

 private:
  enum class Stage : std::uint8_t { New, Asked, Posted };
  NcclState& state_;
  NcclChannel& channel_;
  TensorView tensor_;
  int ticket_;
  Mark computed_, arrived_;
  Stage stage_ = Stage::New;
  std::list<Progressing*>::iterator at_;
};

/// Ids of the channels for messages, by sender, receiver and tag (ranks of the group).
using MessageIds = std::map<std::tuple<int, int, int>, Id>;
constexpr int kTags[] = {1, 2};

/// Stages and the ranks of a ring send to the ranks beside them only.
std::vector<int> neighbours(int rank, int size) {
  std::vector<int> out{(rank + 1) % size};
  if (size > 2) out.push_back((rank + size - 1) % size);
  return out;
}

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(NcclState& state, int rank, int size, const Id& id, MessageIds ids,
                   TrafficCount& count)
      : Communicator(count),
        state_(state),
        rank_(rank),
        size_(size),
        ids_(std::move(ids)),
        channel_(id, rank, size),
        scalar_(sizeof(float)) {
    state_.wait_until([this] { return channel_.is_ready("making a communicator"); },
                      "making a communicator");
  }
  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void barrier() override {
    const TensorView scalar{scalar_.data(), DType::F32, {1}};
    Transfer transfer = begin_all_reduce(scalar, Reduction::Max);
    finish(transfer);
  }

 private:
  template <class Call>
  Transfer issue(NcclChannel& channel, const char* what, const Call& call) {
    auto transfer = std::make_unique<NcclTransfer>(state_, channel, what);
    state_.wait_until([&] { return channel.is_ready(what); }, what);
    transfer->hold_up();
    check_nccl(call(channel.comm(), channel.stream()), what);
    transfer->issued();
    return transfer;
  }

  Transfer begin_all_reduce(const TensorView& tensor, Reduction how) override {
    return issue(channel_, "an all-reduce", [&](ncclComm_t comm, cudaStream_t stream) {
      return ncclAllReduce(tensor.data, tensor.data, count_of(tensor), type_of(tensor.dtype),
                           operation(how), comm, stream);
    });
  }
  Transfer begin_all_gather(const ConstTensorView& mine, const TensorView& all) override {
    return issue(channel_, "an all-gather", [&](ncclComm_t comm, cudaStream_t stream) {
      return ncclAllGather(mine.data, all.data, count_of(mine), type_of(mine.dtype), comm, stream);
    });
  }
  Transfer begin_reduce_scatter(const ConstTensorView& all, const TensorView& mine) override {
    return issue(channel_, "a reduce-scatter", [&](ncclComm_t comm, cudaStream_t stream) {
      return ncclReduceScatter(all.data, mine.data, count_of(mine), type_of(all.dtype), ncclSum,
                               comm, stream);
    });
  }
  Transfer begin_all_to_all(const ConstTensorView& mine, const TensorView& all) override {
    return issue(channel_, "an all-to-all", [&](ncclComm_t comm, cudaStream_t stream) {
      const std::size_t part = count_of(mine) / static_cast<std::size_t>(size_);
      const std::size_t bytes = part * element_bytes(mine.dtype);
      check_nccl(ncclGroupStart(), "ncclGroupStart");
      for (int peer = 0; peer < size_; ++peer) {
        const std::size_t at = static_cast<std::size_t>(peer) * bytes;
        check_nccl(ncclSend(static_cast<const char*>(mine.data) + at, part, type_of(mine.dtype),
                            peer, comm, stream),
                   "ncclSend");
        check_nccl(ncclRecv(static_cast<char*>(all.data) + at, part, type_of(all.dtype), peer, comm,
                            stream),
                   "ncclRecv");
      }
      return ncclGroupEnd();
    });
  }
  Transfer begin_broadcast(const TensorView& tensor, int root) override {
    return issue(channel_, "a broadcast", [&](ncclComm_t comm, cudaStream_t stream) {
      return ncclBroadcast(tensor.data, tensor.data, count_of(tensor), type_of(tensor.dtype), root,
                           comm, stream);
    });
  }
  Transfer begin_send(const ConstTensorView& tensor, int to, int tag) override {
    NcclChannel& channel = message_channel(rank_, to, tag);
    return issue(channel, "a message", [&](ncclComm_t comm, cudaStream_t stream) {
      return ncclSend(tensor.data, count_of(tensor), type_of(tensor.dtype), 1, comm, stream);
    });
  }
  Transfer begin_receive(const TensorView& tensor, int from, int tag) override {
    return std::make_unique<NcclReceive>(state_, message_channel(from, rank_, tag), tensor);
  }

  /// In a channel for messages the sender is rank 0 and the receiver rank 1.
  NcclChannel& message_channel(int from, int to, int tag) {
    const std::tuple key{from, to, tag};
    const auto known = channels_.find(key);
    if (known != channels_.end()) return known->second;
    const auto id = ids_.find(key);
    ensure(id != ids_.end(), "messages go between neighbours");
    return channels_.try_emplace(key, id->second, rank_ == from ? 0 : 1, 2).first->second;
  }

  NcclState& state_;
  int rank_, size_;
  MessageIds ids_;
  NcclChannel channel_;
  std::map<std::tuple<int, int, int>, NcclChannel> channels_;
  CudaBuffer scalar_;
};

class NcclWorld final : public World {
 public:
  NcclWorld(int rank, int size, const Rendezvous::Place& place, double deadline_s,
            CudaDevice& device)
      : state_(rank, size, place, deadline_s, device) {}
  ~NcclWorld() override {
    if (aborted_) return;
    try {
      state_.meeting.all_gather("");  // whoever leaves first would be taken for gone
    } catch (const std::exception&) {
      // Then another has told why.
    }
  }
  int rank() const override { return state_.meeting.rank(); }
  int size() const override { return state_.meeting.size(); }

  /// All ranks tell the ids they made: the first of each group one for the group, each rank those
  /// of the channels that it sends on.
  std::unique_ptr<Communicator> group(const std::vector<int>& ranks, TrafficCount& count) override {
    const auto place = std::find(ranks.begin(), ranks.end(), rank());
    ensure(place != ranks.end(), "a rank makes the groups that it belongs to");
    const int own = static_cast<int>(place - ranks.begin()), size = static_cast<int>(ranks.size());
    std::string mine;
    if (size > 1) {
      mine += own == 0 ? new_id() : Id(kIdBytes, '\0');
      for (std::size_t i = 0; i < neighbours(own, size).size() * std::size(kTags); ++i)
        mine += new_id();
    }
    const std::vector<std::string> all = state_.meeting.all_gather(mine);
    if (size == 1) return lone_communicator(count);
    MessageIds ids;
    for (int from = 0; from < size; ++from) {
      const std::string& told =
          all[static_cast<std::size_t>(ranks[static_cast<std::size_t>(from)])];
      std::size_t at = kIdBytes;
      for (const int to : neighbours(from, size))
        for (const int tag : kTags) {
          if (from == own || to == own) ids[{from, to, tag}] = told.substr(at, kIdBytes);
          at += kIdBytes;
        }
    }
    const Id id = all[static_cast<std::size_t>(ranks.front())].substr(0, kIdBytes);
    return std::make_unique<NcclCommunicator>(state_, own, size, id, std::move(ids), count);
  }

  /// The others learn it from the rendezvous, and abort theirs.
  void abort(int) override {
    aborted_ = true;
    state_.meeting.give_up("rank " + std::to_string(rank()) + " could not go on");
  }

 private:
  static constexpr std::size_t kIdBytes = sizeof(ncclUniqueId);
  NcclState state_;
  bool aborted_ = false;
};

}  // namespace

std::unique_ptr<World> nccl_world(int rank, int size, const Rendezvous::Place& place,
                                  double deadline_s, ComputeDevice& device) {
  auto* gpu = dynamic_cast<CudaDevice*>(&device);
  ensure(gpu != nullptr, "ranks that talk through NCCL compute on GPUs");
  return std::make_unique<NcclWorld>(rank, size, place, deadline_s, *gpu);
}

}  // namespace rehearse
