#include "app/unpack.h"

#include <stdexcept>
#include <string_view>

#ifdef REHEARSE_HAS_ZLIB
#include <zlib.h>

#include <algorithm>
#include <cstddef>
#endif

namespace rehearse {
namespace {

bool is_packed(std::string_view bytes) { return bytes.starts_with("\x1f\x8b\x08"); }

#ifdef REHEARSE_HAS_ZLIB
/// As much as a trace may have that is not packed.
constexpr std::size_t kMostBytes = std::size_t{1} << 30;
constexpr int kGzip = 15 + 16;  // the largest window, and gzip's frame only (zlib's manual)

/// zlib's state, ended whatever happens.
struct Stream {
  explicit Stream(const std::string& path) {
    if (inflateInit2(&state, kGzip) != Z_OK) throw std::runtime_error(path + ": zlib cannot start");
  }
  ~Stream() { inflateEnd(&state); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  z_stream state{};
};

std::string inflated(std::string& bytes, const std::string& path) {
  constexpr std::size_t kPiece = std::size_t{1} << 20;  // far below what zlib's counters hold
  Stream stream(path);
  std::string text, piece(kPiece, '\0');
  std::size_t read = 0;
  bool ended = false;
  while (!ended || read < bytes.size()) {
    if (ended && inflateReset2(&stream.state, kGzip) != Z_OK)
      throw std::runtime_error(path + ": zlib cannot start anew");
    const std::size_t offered = std::min(kPiece, bytes.size() - read);
    stream.state.next_in = reinterpret_cast<Bytef*>(bytes.data() + read);
    stream.state.avail_in = static_cast<uInt>(offered);
    stream.state.next_out = reinterpret_cast<Bytef*>(piece.data());
    stream.state.avail_out = static_cast<uInt>(kPiece);
    const int status = inflate(&stream.state, Z_NO_FLUSH);
    const std::size_t made = kPiece - stream.state.avail_out;
    const std::size_t taken = offered - stream.state.avail_in;
    ended = status == Z_STREAM_END;
    if (status != Z_OK && !ended && status != Z_BUF_ERROR)
      throw std::runtime_error(path + ": the packed file is damaged");
    if (!ended && taken == 0 && made == 0)
      throw std::runtime_error(path + ": the packed file is cut off");
    read += taken;
    text.append(piece, 0, made);
    if (text.size() > kMostBytes) throw std::runtime_error(path + " unpacks to more than 1 GiB");
  }
  return text;
}
#endif

}  // namespace

std::string unpacked(std::string bytes, const std::string& path) {
  if (!is_packed(bytes)) return bytes;
#ifdef REHEARSE_HAS_ZLIB
  return inflated(bytes, path);
#else
  throw std::runtime_error(path +
                           " is packed, and this program was built without zlib: unpack it first");
#endif
}

}  // namespace rehearse
