#include "runtime/data/token_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <utility>

#include "plan/ensure.h"

namespace rehearse {
namespace {

constexpr std::string_view kMagic = "RHTOKENS";
/// Tokens are handled as signed 32-bit numbers.
constexpr std::uint64_t kMostVocab = std::uint64_t{1} << 31;

[[noreturn]] void refuse(const std::string& path, const std::string& reason) {
  throw std::runtime_error(path + ": " + reason);
}

std::uint64_t number_at(const unsigned char* bytes, int width) {
  std::uint64_t value = 0;
  for (int i = width - 1; i >= 0; --i) value = value << 8 | bytes[i];
  return value;
}

}  // namespace

TokenFile TokenFile::open(const std::filesystem::path& path) {
  TokenFile file;
  file.path_ = path.string();
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) refuse(file.path_, std::generic_category().message(errno));
  struct stat facts {};
  const bool regular = ::fstat(descriptor, &facts) == 0 && S_ISREG(facts.st_mode);
  void* mapped = MAP_FAILED;
  if (regular && facts.st_size > 0)
    mapped = ::mmap(nullptr, static_cast<std::size_t>(facts.st_size), PROT_READ, MAP_PRIVATE,
                    descriptor, 0);
  const int error = errno;
  ::close(descriptor);
  if (!regular) refuse(file.path_, "this is no regular file");
  if (facts.st_size == 0) refuse(file.path_, "the file is empty");
  if (mapped == MAP_FAILED)
    refuse(file.path_, "it cannot be mapped: " + std::generic_category().message(error));
  file.bytes_ = static_cast<const unsigned char*>(mapped);
  file.length_ = static_cast<std::size_t>(facts.st_size);
  file.read_header();
  return file;
}

void TokenFile::read_header() {
  if (length_ < kTokenHeaderBytes || std::memcmp(bytes_, kMagic.data(), kMagic.size()) != 0)
    refuse(path_, "this is no token file; `rehearse data tokenize` makes one of a text");
  const std::uint64_t version = number_at(bytes_ + 8, 4), width = number_at(bytes_ + 12, 4);
  const std::uint64_t vocab = number_at(bytes_ + 16, 8), count = number_at(bytes_ + 24, 8);
  if (version != 1)
    refuse(path_, "its version is " + std::to_string(version) + ", and only 1 is known");
  if (width != 2 && width != 4)
    refuse(path_, "its tokens have " + std::to_string(width) + " bytes instead of 2 or 4");
  if (vocab == 0 || vocab > kMostVocab)
    refuse(path_, "its vocabulary of " + std::to_string(vocab) + " is not in 1 to 2^31");
  // Divided, not multiplied: a corrupt count may be any number.
  const std::uint64_t payload = length_ - kTokenHeaderBytes;
  if (payload % width != 0 || payload / width != count)
    refuse(path_, "its header promises " + std::to_string(count) + " tokens of " +
                      std::to_string(width) + " bytes, but " + std::to_string(payload) +
                      " bytes follow: it was cut off or damaged");
  width_ = static_cast<int>(width);
  vocab_ = static_cast<std::int64_t>(vocab);
  size_ = static_cast<std::int64_t>(count);
}

TokenFile::~TokenFile() {
  if (bytes_) ::munmap(const_cast<unsigned char*>(bytes_), length_);
}

TokenFile::TokenFile(TokenFile&& other) noexcept { *this = std::move(other); }

TokenFile& TokenFile::operator=(TokenFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(bytes_, other.bytes_);
  std::swap(length_, other.length_);
  std::swap(size_, other.size_);
  std::swap(vocab_, other.vocab_);
  std::swap(width_, other.width_);
  return *this;
}

std::int32_t TokenFile::at(std::int64_t i) const {
  ensure(i >= 0 && i < size_, "a token is asked for that the file has");
  const auto offset = kTokenHeaderBytes + static_cast<std::size_t>(i * width_);
  const std::uint64_t token = number_at(bytes_ + offset, width_);
  if (token >= static_cast<std::uint64_t>(vocab_))
    refuse(path_, "token " + std::to_string(i) + " is " + std::to_string(token) +
                      ", outside its vocabulary of " + std::to_string(vocab_));
  return static_cast<std::int32_t>(token);
}

void TokenFile::copy(std::int64_t first, std::span<std::int32_t> into) const {
  for (std::size_t i = 0; i < into.size(); ++i) into[i] = at(first + static_cast<std::int64_t>(i));
}

}  // namespace rehearse
