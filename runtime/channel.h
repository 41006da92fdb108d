#pragma once
#include <functional>
#include <memory>
#include <string>

#include "kernels/ops/compute_device.h"
#include "runtime/communicator.h"

namespace rehearse {

/// A place in one of a device's streams, which the device comes to at some time.
class StreamMark {
 public:
  virtual ~StreamMark() = default;
  /// Throws where the device has failed.
  virtual bool is_reached() const = 0;
  /// What the device is asked to compute from now on waits for it.
  virtual void hold_up_compute() const = 0;
};

/// A communicator of a library like NCCL, with a stream of its own: transfers run in the order
/// given, beside what the device computes. No call waits for anything. Each may leave something in
/// progress on the host, and the next may be made once `is_ready`. Throws CommunicationError.
class Channel {
 public:
  virtual ~Channel() = default;
  virtual bool is_ready() = 0;
  /// What it is asked next waits for what the device was asked to compute so far.
  virtual void follow_compute() = 0;
  /// Behind all that it was asked so far.
  virtual std::shared_ptr<const StreamMark> mark() = 0;

  virtual void all_reduce(const TensorView& tensor, Reduction how) = 0;
  virtual void all_gather(const ConstTensorView& mine, const TensorView& all) = 0;
  virtual void reduce_scatter(const ConstTensorView& all, const TensorView& mine) = 0;
  virtual void all_to_all(const ConstTensorView& mine, const TensorView& all) = 0;
  virtual void broadcast(const TensorView& tensor, int root) = 0;
  virtual void send(const ConstTensorView& tensor, int to) = 0;
  virtual void receive(const TensorView& tensor, int from) = 0;

  /// Begins to end it, once it has done all it was asked; all its ranks do so.
  virtual void finalize() = 0;
  /// REQUIRES: finalized, and ready since.
  virtual void destroy() = 0;
  /// Ends it whatever it is doing: transfers under way are left, and their stream goes on.
  virtual void abort() noexcept = 0;
};

/// The library that makes channels, and the device beside whose operators they run. Everything else
/// about ranks on GPUs knows neither NCCL nor CUDA (channel_world.h), and is tested without them.
class ChannelBackend {
 public:
  virtual ~ChannelBackend() = default;
  virtual ComputeDevice& device() = 0;
  virtual std::size_t id_bytes() const = 0;
  /// What one rank makes and all ranks of a channel are told.
  virtual std::string new_id() = 0;
  /// Returns at once: the channel is ready when all its ranks have called this.
  virtual std::unique_ptr<Channel> connect(const std::string& id, int rank, int size) = 0;
  /// Behind all that the device was asked to compute so far.
  virtual std::shared_ptr<const StreamMark> compute_mark() = 0;
  /// Called before the host waits for the device in a way that knows no deadline.
  virtual void before_host_waits(std::function<void()> call) = 0;
};

}  // namespace rehearse
