#include "tests/runtime/train/fake_gpus.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <thread>

namespace rehearse {
namespace {

/// A test whose device waits so long hangs.
constexpr std::chrono::seconds kForEver{20};

class FakeEvent {
 public:
  void reach() {
    {
      const std::lock_guard lock(mutex_);
      is_reached_ = true;
    }
    reached_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    reached_.wait(lock, [this] { return is_reached_; });
  }
  bool is_reached() {
    const std::lock_guard lock(mutex_);
    return is_reached_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable reached_;
  bool is_reached_ = false;
};

}  // namespace

/// Does what it was asked, in that order, on a thread of its own.
class FakeStream {
 public:
  FakeStream() : thread_([this] { work(); }) {}
  ~FakeStream() {
    ask([this] { is_over_ = true; });
    thread_.join();
  }
  FakeStream(const FakeStream&) = delete;
  FakeStream& operator=(const FakeStream&) = delete;

  void ask(std::function<void()> task) {
    {
      const std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    changed_.notify_all();
  }
  std::shared_ptr<FakeEvent> event() {
    auto event = std::make_shared<FakeEvent>();
    ask([event] { event->reach(); });
    return event;
  }
  /// False where it does not get there.
  bool wait_idle() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kForEver, [this] { return tasks_.empty(); });
  }

 private:
  void work() {
    while (!is_over_) {
      std::function<void()> task;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return !tasks_.empty(); });
        task = tasks_.front();
      }
      task();
      {
        const std::lock_guard lock(mutex_);
        tasks_.pop_front();
      }
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;  ///< the first is being done
  bool is_over_ = false;
  std::thread thread_;
};

namespace {

class FakeMark final : public StreamMark {
 public:
  FakeMark(FakeStream& stream, FakeStream& compute) : event_(stream.event()), compute_(compute) {}
  bool is_reached() const override { return event_->is_reached(); }
  void hold_up_compute() const override {
    compute_.ask([event = event_] { event->wait(); });
  }

 private:
  std::shared_ptr<FakeEvent> event_;
  FakeStream& compute_;
};

/// What a rank gives to an operation of a communicator, and where it wants the result.
struct Part {
  ConstTensorView in;
  TensorView out;
};
using Parts = std::vector<Part>;

std::size_t bytes_of(const ConstTensorView& tensor) {
  return static_cast<std::size_t>(tensor.elements()) * element_bytes(tensor.dtype);
}

const char* bytes_in(const ConstTensorView& tensor) {
  return static_cast<const char*>(tensor.data);
}

double element(const void* data, DType dtype, std::size_t i) {
  if (dtype == DType::F32) return static_cast<double>(static_cast<const float*>(data)[i]);
  if (dtype == DType::F64) return static_cast<const double*>(data)[i];
  return static_cast<double>(to_float(static_cast<const Bf16*>(data)[i]));
}

void set_element(void* data, DType dtype, std::size_t i, double value) {
  if (dtype == DType::F32)
    static_cast<float*>(data)[i] = static_cast<float>(value);
  else if (dtype == DType::F64)
    static_cast<double*>(data)[i] = value;
  else
    static_cast<Bf16*>(data)[i] = to_bf16(static_cast<float>(value));
}

std::vector<double> reduced(const Parts& parts, Reduction how) {
  const ConstTensorView& first = parts.front().in;
  std::vector<double> result(static_cast<std::size_t>(first.elements()));
  for (std::size_t i = 0; i < result.size(); ++i) {
    result[i] = element(first.data, first.dtype, i);
    for (std::size_t rank = 1; rank < parts.size(); ++rank) {
      const double value = element(parts[rank].in.data, first.dtype, i);
      result[i] = how == Reduction::Sum ? result[i] + value : std::max(result[i], value);
    }
  }
  return result;
}

}  // namespace

/// A communicator: whoever comes last to an operation does it for all; the others spin.
class FakeComm {
 public:
  explicit FakeComm(int size)
      : aborted_(static_cast<std::size_t>(size), false),
        next_(static_cast<std::size_t>(size), 0),
        size_(size) {}

  /// Of connecting, connecting peers, or ending: how many ranks have come to it.
  bool arrive(int& count) {
    const std::lock_guard lock(mutex_);
    return ++count >= size_;
  }
  bool is_complete(const int& count) {
    const std::lock_guard lock(mutex_);
    return count >= size_;
  }
  int connected = 0, talked = 0, all_talked = 0, ended = 0;

  void take_part(int rank, const Part& part, const std::function<void(Parts&)>& work) {
    std::unique_lock lock(mutex_);
    const auto own = static_cast<std::size_t>(rank);
    const std::shared_ptr<Operation> operation = operation_of(next_[own]++);
    operation->parts[own] = part;
    if (aborted_[own]) operation->is_broken = true;
    if (++operation->arrived == size_ && !operation->is_broken) {
      work(operation->parts);
      operation->is_done = true;
      changed_.notify_all();
    }
    changed_.wait(lock, [&] { return operation->is_done || aborted_[own]; });
    if (!operation->is_done) operation->is_broken = true;  // its memory may go now
  }
  void abort(int rank) {
    {
      const std::lock_guard lock(mutex_);
      aborted_[static_cast<std::size_t>(rank)] = true;
      for (auto& [index, operation] : operations_)
        if (!operation->is_done && operation->parts[static_cast<std::size_t>(rank)].in.data)
          operation->is_broken = true;
    }
    changed_.notify_all();
  }

 private:
  struct Operation {
    Parts parts;
    int arrived = 0;
    bool is_done = false, is_broken = false;
  };
  std::shared_ptr<Operation> operation_of(int index) {
    auto& operation = operations_[index];
    if (operation == nullptr) {
      operation = std::make_shared<Operation>();
      operation->parts.resize(static_cast<std::size_t>(size_));
    }
    return operation;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<int, std::shared_ptr<Operation>> operations_;
  std::vector<bool> aborted_;
  std::vector<int> next_;
  int size_;
};

std::shared_ptr<FakeComm> FakeFabric::comm_of(const std::string& id, int size) {
  const std::lock_guard lock(mutex_);
  std::shared_ptr<FakeComm>& comm = comms_[id];
  if (comm == nullptr) comm = std::make_shared<FakeComm>(size);
  return comm;
}

class FakeChannel final : public Channel {
 public:
  FakeChannel(FakeGpu& gpu, std::shared_ptr<FakeComm> comm, int rank)
      : gpu_(gpu), comm_(std::move(comm)), rank_(rank), awaited_(&comm_->connected) {
    ++gpu.fabric_.made;
    comm_->arrive(comm_->connected);
    const std::lock_guard lock(gpu_.streams_mutex_);
    gpu_.streams_.push_back(&stream_);
  }
  ~FakeChannel() override {
    if (!is_ended_ && !is_aborted_) ++gpu_.fabric_.misuses;
    const std::lock_guard lock(gpu_.streams_mutex_);
    std::erase(gpu_.streams_, &stream_);
  }
  FakeChannel(const FakeChannel&) = delete;
  FakeChannel& operator=(const FakeChannel&) = delete;

  /// Of each call it says once that it is in progress, and of those for which ranks have to be
  /// connected until all have come to it.
  bool is_ready() override {
    if (std::exchange(is_in_progress_, false)) return false;
    if (awaited_ != nullptr && !comm_->is_complete(*awaited_)) return false;
    awaited_ = nullptr;
    return true;
  }
  void follow_compute() override {
    stream_.ask([event = gpu_.compute_->event()] { event->wait(); });
  }
  std::shared_ptr<const StreamMark> mark() override {
    begin(nullptr);
    is_in_progress_ = false;
    return std::make_shared<FakeMark>(stream_, *gpu_.compute_);
  }

  void all_reduce(const TensorView& tensor, Reduction how) override {
    ask({tensor, tensor}, [how](Parts& parts) {
      const std::vector<double> result = reduced(parts, how);
      for (const Part& part : parts)
        for (std::size_t i = 0; i < result.size(); ++i)
          set_element(part.out.data, part.out.dtype, i, result[i]);
    });
  }
  void all_gather(const ConstTensorView& mine, const TensorView& all) override {
    ask({mine, all}, [](Parts& parts) {
      const std::size_t bytes = bytes_of(parts.front().in);
      for (const Part& to : parts)
        for (std::size_t rank = 0; rank < parts.size(); ++rank)
          std::memmove(static_cast<char*>(to.out.data) + rank * bytes, parts[rank].in.data, bytes);
    });
  }
  void reduce_scatter(const ConstTensorView& all, const TensorView& mine) override {
    ask({all, mine}, [](Parts& parts) {
      const std::vector<double> result = reduced(parts, Reduction::Sum);
      const std::size_t count = result.size() / parts.size();
      for (std::size_t rank = 0; rank < parts.size(); ++rank)
        for (std::size_t i = 0; i < count; ++i)
          set_element(parts[rank].out.data, parts[rank].out.dtype, i, result[rank * count + i]);
    });
  }
  void all_to_all(const ConstTensorView& mine, const TensorView& all) override {
    ask(
        {mine, all},
        [](Parts& parts) {
          const std::size_t bytes = bytes_of(parts.front().in) / parts.size();
          for (std::size_t to = 0; to < parts.size(); ++to)
            for (std::size_t from = 0; from < parts.size(); ++from)
              std::memcpy(static_cast<char*>(parts[to].out.data) + from * bytes,
                          bytes_in(parts[from].in) + to * bytes, bytes);
        },
        &all_to_alls_, &comm_->all_talked);
  }
  void broadcast(const TensorView& tensor, int root) override {
    ask({tensor, tensor}, [root](Parts& parts) {
      const Part& from = parts[static_cast<std::size_t>(root)];
      for (const Part& to : parts)
        if (to.out.data != from.in.data) std::memcpy(to.out.data, from.in.data, bytes_of(from.in));
    });
  }
  void send(const ConstTensorView& tensor, int) override { ask({tensor, {}}, deliver); }
  void receive(const TensorView& tensor, int) override { ask({tensor, tensor}, deliver); }

  void finalize() override {
    begin(&comm_->ended);
    comm_->arrive(comm_->ended);
  }
  void destroy() override {
    if (!comm_->is_complete(comm_->ended)) ++gpu_.fabric_.misuses;
    is_ended_ = true;
    ++gpu_.fabric_.ended_well;
  }
  void abort() noexcept override {
    is_aborted_ = true;
    comm_->abort(rank_);
    ++gpu_.fabric_.aborted;
  }

 private:
  static void deliver(Parts& parts) {
    std::memcpy(parts[1].out.data, parts[0].in.data, bytes_of(parts[0].in));
  }
  /// NCCL forbids a call while the one before is in progress.
  void begin(int* awaited) {
    if (is_in_progress_ || awaited_ != nullptr) ++gpu_.fabric_.misuses;
    is_in_progress_ = true;
    awaited_ = awaited;
  }
  void ask(const Part& part, const std::function<void(Parts&)>& work) {
    ask(part, work, &transfers_, &comm_->talked);
  }
  /// Two ranks are connected when they first talk; until then the call is in progress.
  void ask(const Part& part, const std::function<void(Parts&)>& work, int* calls, int* talked) {
    begin(*calls == 0 ? talked : nullptr);
    if ((*calls)++ == 0) comm_->arrive(*talked);
    stream_.ask([this, part, work] { comm_->take_part(rank_, part, work); });
  }

  FakeGpu& gpu_;
  std::shared_ptr<FakeComm> comm_;
  int rank_, transfers_ = 0, all_to_alls_ = 0;
  int* awaited_;
  bool is_in_progress_ = true, is_ended_ = false;
  std::atomic<bool> is_aborted_{false};
  FakeStream stream_;
};

FakeGpu::FakeGpu(FakeFabric& fabric, int rank)
    : fabric_(fabric),
      rank_(rank),
      cpu_(cpu_device(1)),
      compute_(std::make_unique<FakeStream>()),
      streams_{compute_.get()} {}
FakeGpu::~FakeGpu() = default;

void FakeGpu::wait_for_all_streams() noexcept {
  ++fabric_.device_waits;
  const std::lock_guard lock(streams_mutex_);
  for (FakeStream* stream : streams_)
    if (!stream->wait_idle()) ++fabric_.hangs;
}

void* FakeGpu::allocate(std::size_t bytes) {
  wait_for_all_streams();
  ++allocations_;
  return cpu_->allocate(bytes);
}

void FakeGpu::release(void* memory) noexcept {
  wait_for_all_streams();
  cpu_->release(memory);
}

void FakeGpu::upload(void* to_device, const void* from_host, std::size_t bytes) {
  const auto* from = static_cast<const char*>(from_host);
  compute_->ask([to_device, held = std::vector<char>(from, from + bytes)] {
    std::memcpy(to_device, held.data(), held.size());
  });
}

void FakeGpu::download(void* to_host, const void* from_device, std::size_t bytes) {
  synchronize();
  std::memcpy(to_host, from_device, bytes);
}

void FakeGpu::fill_bytes(void* memory, std::uint8_t value, std::size_t bytes) {
  compute_->ask([=] { std::memset(memory, value, bytes); });
}

void FakeGpu::copy(void* to, const void* from, std::size_t bytes) {
  compute_->ask([=] { std::memcpy(to, from, bytes); });
}

void FakeGpu::synchronize() {
  if (before_host_waits_) before_host_waits_();
  if (!compute_->wait_idle()) ++fabric_.hangs;
}

void FakeGpu::execute(const OperatorCall& call) {
  compute_->ask([this, call] { cpu_->run(call); });
}

std::string FakeGpu::new_id() {
  std::string id = std::to_string(rank_) + "/" + std::to_string(ids_++);
  id.resize(id_bytes(), ' ');
  return id;
}

std::unique_ptr<Channel> FakeGpu::connect(const std::string& id, int rank, int size) {
  return std::make_unique<FakeChannel>(*this, fabric_.comm_of(id, size), rank);
}

std::shared_ptr<const StreamMark> FakeGpu::compute_mark() {
  return std::make_shared<FakeMark>(*compute_, *compute_);
}

}  // namespace rehearse
