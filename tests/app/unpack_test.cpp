#include "app/unpack.h"

#include <stdexcept>

#include "tests/catch.h"

namespace rehearse {
namespace {

const std::string kText =
    "op,bytes,time_us\nnorm,1000000,5\nop,bytes,time_us\nnorm,1000000,5\n"
    "op,bytes,time_us\nnorm,1000000,5\n";

/// The text as gzip packs it.
std::string packed() {
  constexpr unsigned char kBytes[] = {
      0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0xff, 0xcb, 0x2f, 0xd0,
      0x49, 0xaa, 0x2c, 0x49, 0x2d, 0xd6, 0x29, 0xc9, 0xcc, 0x4d, 0x8d, 0x2f, 0x2d,
      0xe6, 0xca, 0xcb, 0x2f, 0xca, 0xd5, 0x31, 0x34, 0x00, 0x03, 0x1d, 0x53, 0xae,
      0x7c, 0x0a, 0xe5, 0x01, 0x3b, 0x8b, 0xfb, 0x0d, 0x60, 0x00, 0x00, 0x00};
  return {reinterpret_cast<const char*>(kBytes), sizeof kBytes};
}

}  // namespace

TEST_CASE("what is not packed is handed back as it is") {
  CHECK(unpacked(kText, "t.csv") == kText);
  CHECK(unpacked("", "t.csv").empty());
}

#ifdef REHEARSE_HAS_ZLIB
TEST_CASE("gzip files are unpacked, members one after the other too") {
  CHECK(unpacked(packed(), "t.csv.gz") == kText);
  CHECK(unpacked(packed() + packed(), "t.csv.gz") == kText + kText);
}

TEST_CASE("packed files that are cut off or damaged are told by their path") {
  const auto fails = [](const std::string& bytes, const std::string& with) {
    CHECK_THROWS_WITH(unpacked(bytes, "t.gz"), with);
  };
  for (const std::size_t length : {4u, 12u, 30u, 50u})
    fails(packed().substr(0, length), "t.gz: the packed file is cut off");
  std::string damaged = packed();
  damaged[20] = static_cast<char>(damaged[20] ^ 0x55);
  fails(damaged, "t.gz: the packed file is damaged");
  fails(packed() + "more", "t.gz: the packed file is damaged");
}
#else
TEST_CASE("without zlib a packed file is refused with what to do") {
  CHECK_THROWS_AS(unpacked(packed(), "t.gz"), std::runtime_error);
}
#endif

}  // namespace rehearse
