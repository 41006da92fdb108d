#pragma once
#include <stdexcept>

namespace rehearse {

/// A device has no memory left for what it was asked to hold: no fault of anybody's, and what the
/// plan is told.
class DeviceMemoryError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace rehearse
