#include "runtime/communicator.h"

#include "plan/ensure.h"

namespace rehearse {
namespace {

std::int64_t bytes_of(const ConstTensorView& tensor) {
  return tensor.elements() * static_cast<std::int64_t>(element_bytes(tensor.dtype));
}

/// Groups of one rank never get as far as to begin a transfer.
class LoneCommunicator final : public Communicator {
 public:
  using Communicator::Communicator;
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void barrier() override {}

 private:
  Transfer begin_all_reduce(const TensorView&, Reduction) override { return none(); }
  Transfer begin_all_gather(const ConstTensorView&, const TensorView&) override { return none(); }
  Transfer begin_reduce_scatter(const ConstTensorView&, const TensorView&) override {
    return none();
  }
  Transfer begin_all_to_all(const ConstTensorView&, const TensorView&) override { return none(); }
  Transfer begin_broadcast(const TensorView&, int) override { return none(); }
  Transfer begin_send(const ConstTensorView&, int, int) override { return none(); }
  Transfer begin_receive(const TensorView&, int, int) override { return none(); }

  static Transfer none() {
    ensure(false, "a rank that is alone has nobody to exchange tensors with");
    return {};
  }
};

class LoneWorld final : public World {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::unique_ptr<Communicator> group(const std::vector<int>& ranks, TrafficCount& count,
                                      const std::vector<MessageLane>&) override {
    ensure(ranks == std::vector<int>{0}, "the only rank is 0");
    return lone_communicator(count);
  }
  void abort(int) override {}
};

}  // namespace

const char* traffic_name(Traffic traffic) {
  static constexpr const char* kNames[] = {"tensor",  "data",    "parameter", "pipeline",
                                           "control", "context", "sequence",  "report"};
  return kNames[static_cast<std::size_t>(traffic)];
}

void finish(Transfer& transfer) {
  if (transfer != nullptr) transfer->wait();
  transfer.reset();
}

void TrafficCount::add(Traffic traffic, CollectiveKind kind, std::int64_t bytes) {
  bytes_[static_cast<std::size_t>(traffic)][static_cast<std::size_t>(kind)] += bytes;
}

std::int64_t TrafficCount::of(Traffic traffic, CollectiveKind kind) const {
  return bytes_[static_cast<std::size_t>(traffic)][static_cast<std::size_t>(kind)];
}

std::int64_t TrafficCount::of(Traffic traffic) const {
  std::int64_t sum = 0;
  for (const std::int64_t bytes : bytes_[static_cast<std::size_t>(traffic)]) sum += bytes;
  return sum;
}

Transfer Communicator::counted(Transfer transfer, const TransferNote& note) {
  count_->add(note.traffic, note.kind, note.bytes);
  return watch_ ? watch_(std::move(transfer), note) : std::move(transfer);
}

Transfer Communicator::start_all_reduce(const TensorView& tensor, Reduction how, Traffic traffic) {
  if (size() == 1 || tensor.elements() == 0) return {};
  return counted(begin_all_reduce(tensor, how),
                 {traffic, CollectiveKind::AllReduce, bytes_of(tensor)});
}

Transfer Communicator::start_all_gather(const ConstTensorView& mine, const TensorView& all,
                                        Traffic traffic) {
  ensure(all.elements() == mine.elements() * size(), "a gather's parts make up the whole");
  ensure(size() > 1 || mine.data == all.data, "a rank that is alone gathers what it has");
  if (size() == 1 || mine.elements() == 0) return {};
  return counted(begin_all_gather(mine, all), {traffic, CollectiveKind::AllGather, bytes_of(mine)});
}

Transfer Communicator::start_reduce_scatter(const ConstTensorView& all, const TensorView& mine,
                                            Traffic traffic) {
  ensure(all.elements() == mine.elements() * size(), "a scatter's parts make up the whole");
  ensure(size() > 1 || mine.data == all.data, "a rank that is alone keeps what it has");
  if (size() == 1 || mine.elements() == 0) return {};
  return counted(begin_reduce_scatter(all, mine),
                 {traffic, CollectiveKind::ReduceScatter, bytes_of(all)});
}

Transfer Communicator::start_all_to_all(const ConstTensorView& mine, const TensorView& all,
                                        Traffic traffic) {
  ensure(all.elements() == mine.elements() && mine.elements() % size() == 0,
         "an all-to-all exchanges as many equal parts as there are ranks");
  ensure(size() > 1 || mine.data == all.data, "a rank that is alone keeps what it has");
  if (size() == 1 || mine.elements() == 0) return {};
  return counted(begin_all_to_all(mine, all), {traffic, CollectiveKind::AllToAll, bytes_of(mine)});
}

Transfer Communicator::start_broadcast(const TensorView& tensor, int root, Traffic traffic) {
  if (size() == 1 || tensor.elements() == 0) return {};
  return counted(begin_broadcast(tensor, root),
                 {traffic, CollectiveKind::Broadcast, bytes_of(tensor)});
}

Transfer Communicator::start_send(const ConstTensorView& tensor, int to, int tag, Traffic traffic) {
  return counted(begin_send(tensor, to, tag),
                 {traffic, CollectiveKind::SendReceive, bytes_of(tensor)});
}

Transfer Communicator::start_receive(const TensorView& tensor, int from, int tag) {
  return begin_receive(tensor, from, tag);
}

void Communicator::all_reduce(const TensorView& tensor, Reduction how, Traffic traffic) {
  Transfer transfer = start_all_reduce(tensor, how, traffic);
  finish(transfer);
}

void Communicator::all_gather(const ConstTensorView& mine, const TensorView& all, Traffic traffic) {
  Transfer transfer = start_all_gather(mine, all, traffic);
  finish(transfer);
}

void Communicator::reduce_scatter(const ConstTensorView& all, const TensorView& mine,
                                  Traffic traffic) {
  Transfer transfer = start_reduce_scatter(all, mine, traffic);
  finish(transfer);
}

void Communicator::all_to_all(const ConstTensorView& mine, const TensorView& all, Traffic traffic) {
  Transfer transfer = start_all_to_all(mine, all, traffic);
  finish(transfer);
}

std::unique_ptr<Communicator> lone_communicator(TrafficCount& count) {
  return std::make_unique<LoneCommunicator>(count);
}

std::unique_ptr<World> lone_world() { return std::make_unique<LoneWorld>(); }

}  // namespace rehearse
