#include "runtime/channel_world.h"

#include <algorithm>
#include <map>

#include "plan/ensure.h"
#include "runtime/channel_state.h"

namespace rehearse {
namespace {

/// A transfer that stands in its channel's stream.
class ChannelTransfer final : public PendingTransfer {
 public:
  ChannelTransfer(ChannelState& state, std::shared_ptr<const StreamMark> mark)
      : state_(state), mark_(std::move(mark)) {}
  bool test() override {
    bool is_done = false;
    state_.guarded([&] { is_done = mark_->is_reached(); });
    return is_done;
  }
  void wait() override {
    state_.guarded([&] { mark_->hold_up_compute(); });
  }

 private:
  ChannelState& state_;
  std::shared_ptr<const StreamMark> mark_;
};

struct Lane {
  MessageLane between;
  std::string id;
};

/// Lanes as all ranks make them: those beside each other cannot be made at once by the rank that
/// they share, so that first every second pair of neighbours comes, then the others.
void put_in_order(std::vector<Lane>& lanes, int size) {
  const auto key = [size](const Lane& lane) {
    const auto [from, to, tag] = lane.between;
    const int start = (from + 1) % size == to ? from : to;
    const int turn = start + 1 == size && size % 2 == 1 ? 2 : start % 2;
    return std::tuple(turn, from, to, tag);
  };
  std::sort(lanes.begin(), lanes.end(),
            [&](const Lane& a, const Lane& b) { return key(a) < key(b); });
}

class ChannelCommunicator final : public Communicator {
 public:
  ChannelCommunicator(ChannelState& state, int rank, int size, const std::string& id,
                      std::vector<Lane> lanes, TrafficCount& count)
      : Communicator(count),
        state_(state),
        rank_(rank),
        size_(size),
        scalars_(state.backend.device(), 2 * static_cast<std::size_t>(size) * sizeof(float)),
        channel_(state.connect(id, rank, size)) {
    barrier();
    put_in_order(lanes, size);
    for (const Lane& lane : lanes) make_lane(lane);
  }
  /// Where a group goes while others may still use it, the run has failed.
  ~ChannelCommunicator() override { state_.abort_all(); }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void barrier() override {
    const Transfer transfer = begin_all_reduce(scalars(0, 1), Reduction::Max);
    wait_on_host(*transfer, "a barrier");
  }
  void prepare_all_to_all() override {
    const Transfer transfer = begin_all_to_all(scalars(0, size_), scalars(size_, size_));
    wait_on_host(*transfer, "an all-to-all");
  }

 private:
  TensorView scalars(int first, int count) const {
    return {static_cast<float*>(scalars_.data()) + first, DType::F32, {count}};
  }
  void wait_on_host(PendingTransfer& transfer, const char* what) {
    state_.wait_until([&] { return transfer.test(); }, what);
  }

  template <class Call>
  Transfer issue(Channel& channel, const char* what, const Call& call) {
    std::shared_ptr<const StreamMark> mark;
    state_.guarded([&] {
      channel.follow_compute();
      call(channel);
    });
    state_.wait_until([&] { return channel.is_ready(); }, what);
    state_.guarded([&] { mark = channel.mark(); });
    state_.note(what, mark);
    return std::make_unique<ChannelTransfer>(state_, std::move(mark));
  }

  Transfer begin_all_reduce(const TensorView& tensor, Reduction how) override {
    return issue(channel_, "an all-reduce", [&](Channel& to) { to.all_reduce(tensor, how); });
  }
  Transfer begin_all_gather(const ConstTensorView& mine, const TensorView& all) override {
    return issue(channel_, "an all-gather", [&](Channel& to) { to.all_gather(mine, all); });
  }
  Transfer begin_reduce_scatter(const ConstTensorView& all, const TensorView& mine) override {
    return issue(channel_, "a reduce-scatter", [&](Channel& to) { to.reduce_scatter(all, mine); });
  }
  Transfer begin_all_to_all(const ConstTensorView& mine, const TensorView& all) override {
    return issue(channel_, "an all-to-all", [&](Channel& to) { to.all_to_all(mine, all); });
  }
  Transfer begin_broadcast(const TensorView& tensor, int root) override {
    return issue(channel_, "a broadcast", [&](Channel& to) { to.broadcast(tensor, root); });
  }
  Transfer begin_send(const ConstTensorView& tensor, int to, int tag) override {
    return issue(lane({rank_, to, tag}), "a message", [&](Channel& by) { by.send(tensor, 1); });
  }
  Transfer begin_receive(const TensorView& tensor, int from, int tag) override {
    return issue(lane({from, rank_, tag}), "a message",
                 [&](Channel& by) { by.receive(tensor, 0); });
  }

  /// In the channel of a lane the sender is rank 0 and the receiver rank 1.
  void make_lane(const Lane& lane) {
    const bool sends = lane.between.from == rank_;
    Channel& channel = state_.connect(lane.id, sends ? 0 : 1, 2);
    lanes_.emplace(lane.between, &channel);
    const auto [from, to, tag] = lane.between;
    const Transfer first =
        sends ? begin_send(scalars(0, 1), to, tag) : begin_receive(scalars(0, 1), from, tag);
    wait_on_host(*first, "a message");
  }
  Channel& lane(const MessageLane& between) const {
    const auto found = lanes_.find(between);
    ensure(found != lanes_.end(), "whoever makes a group tells the ways that its messages take");
    return *found->second;
  }

  ChannelState& state_;
  int rank_, size_;
  DeviceBuffer scalars_;
  Channel& channel_;
  std::map<MessageLane, Channel*> lanes_;
};

class ChannelWorld final : public World {
 public:
  ChannelWorld(std::unique_ptr<Rendezvous> meeting, double deadline_s, ChannelBackend& backend)
      : state_(std::move(meeting), deadline_s, backend) {}
  ~ChannelWorld() override {
    if (state_.is_over()) return;
    try {
      state_.meeting->all_gather("");  // whoever leaves first would be taken for gone
    } catch (const std::exception&) {
      // Then another has told why.
    }
  }
  int rank() const override { return state_.meeting->rank(); }
  int size() const override { return state_.meeting->size(); }
  bool moves_on_device() const override { return true; }
  void pace() override { state_.pace(); }
  void end() override { state_.end(); }

  /// All ranks tell the ids they made: the first of each group one for the group, each rank those
  /// of the lanes that it sends on.
  std::unique_ptr<Communicator> group(const std::vector<int>& ranks, TrafficCount& count,
                                      const std::vector<MessageLane>& lanes) override {
    const auto place = std::find(ranks.begin(), ranks.end(), rank());
    ensure(place != ranks.end(), "a rank makes the groups that it belongs to");
    const int own = static_cast<int>(place - ranks.begin()), size = static_cast<int>(ranks.size());
    const std::size_t id_bytes = state_.backend.id_bytes();
    std::string mine;
    state_.guarded([&] {
      if (size > 1) mine = own == 0 ? state_.backend.new_id() : std::string(id_bytes, '\0');
      for (const MessageLane& lane : lanes)
        if (lane.from == own) mine += state_.backend.new_id();
    });
    std::vector<std::string> all;
    state_.guarded([&] { all = state_.meeting->all_gather(mine); });
    if (size == 1) return lone_communicator(count);
    const auto told = [&](int member) -> const std::string& {
      return all[static_cast<std::size_t>(ranks[static_cast<std::size_t>(member)])];
    };
    std::vector<std::size_t> next(ranks.size(), id_bytes);
    std::vector<Lane> own_lanes;
    for (const MessageLane& lane : lanes) {
      std::size_t& at = next[static_cast<std::size_t>(lane.from)];
      if (lane.from == own || lane.to == own)
        own_lanes.push_back({lane, told(lane.from).substr(at, id_bytes)});
      at += id_bytes;
    }
    return std::make_unique<ChannelCommunicator>(state_, own, size, told(0).substr(0, id_bytes),
                                                 std::move(own_lanes), count);
  }

  /// The others learn it from the rendezvous, and abort theirs.
  void abort(int) override {
    state_.abort_all();
    state_.meeting->give_up("rank " + std::to_string(rank()) + " could not go on");
  }

 private:
  ChannelState state_;
};

}  // namespace

std::unique_ptr<World> channel_world(std::unique_ptr<Rendezvous> meeting, double deadline_s,
                                     ChannelBackend& backend) {
  return std::make_unique<ChannelWorld>(std::move(meeting), deadline_s, backend);
}

}  // namespace rehearse
