#pragma once
#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>

namespace rehearse {

/// Counts what a pool that reuses blocks of the same size alone would take from a device. Blocks
/// are shared; the last owner gives them back. The pool outlives its blocks.
class SizePool {
 public:
  using Block = std::shared_ptr<const std::int64_t>;  ///< its bytes

  Block take(std::int64_t bytes) {
    Size& size = sizes_[bytes];
    size.bytes = bytes;
    ++size.alive;
    if (size.alive > size.most) {
      size.most = size.alive;
      pooled_bytes_ += bytes;
    }
    alive_bytes_ += bytes;
    most_alive_bytes_ = std::max(most_alive_bytes_, alive_bytes_);
    return {&size.bytes, [this, &size](const std::int64_t*) {
              --size.alive;
              alive_bytes_ -= size.bytes;
            }};
  }
  std::int64_t pooled_bytes() const { return pooled_bytes_; }
  std::int64_t most_alive_bytes() const { return most_alive_bytes_; }

 private:
  struct Size {
    std::int64_t bytes = 0, alive = 0, most = 0;
  };
  std::map<std::int64_t, Size> sizes_;
  std::int64_t pooled_bytes_ = 0, alive_bytes_ = 0, most_alive_bytes_ = 0;
};

}  // namespace rehearse
