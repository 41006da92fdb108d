#include "tests/places.h"

namespace rehearse {

const std::string& source_directory() {
  static const std::string kDirectory = REHEARSE_SOURCE_DIR;
  return kDirectory;
}

const std::string& binary_directory() {
  static const std::string kDirectory = REHEARSE_BINARY_DIR;
  return kDirectory;
}

}  // namespace rehearse
