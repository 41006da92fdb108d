#include <algorithm>
#include <boost/version.hpp>

#include "app/command_line.h"

namespace rehearse {

std::string program_version() { return REHEARSE_VERSION; }

std::string boost_version() {
  std::string version = BOOST_LIB_VERSION;  // "1_74"
  std::replace(version.begin(), version.end(), '_', '.');
  return version;
}

std::string version_text() {
  return "rehearse " + program_version() + " (" + REHEARSE_BUILD_TYPE + "; SimGrid " +
         REHEARSE_SIMGRID_VERSION + "; Boost " + boost_version() + ")";
}

}  // namespace rehearse
