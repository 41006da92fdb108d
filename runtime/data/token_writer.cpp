#include <array>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <system_error>

#include "plan/ensure.h"
#include "plan/write_file.h"
#include "runtime/data/token_file.h"

namespace rehearse {
namespace {

void append_number(std::string& bytes, std::uint64_t value, int width) {
  for (int i = 0; i < width; ++i) bytes += static_cast<char>(value >> (8 * i) & 255);
}

std::string header(int width, std::int64_t vocab, std::int64_t count) {
  std::string bytes = "RHTOKENS";
  append_number(bytes, 1, 4);
  append_number(bytes, static_cast<std::uint64_t>(width), 4);
  append_number(bytes, static_cast<std::uint64_t>(vocab), 8);
  append_number(bytes, static_cast<std::uint64_t>(count), 8);
  return bytes;
}

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

File open_text(const std::filesystem::path& path) {
  if (!std::filesystem::is_regular_file(path))
    throw std::runtime_error(path.string() + (std::filesystem::exists(path)
                                                  ? ": this is no regular file"
                                                  : ": there is no such file"));
  File file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file)
    throw std::runtime_error(path.string() + ": " + std::generic_category().message(errno));
  return file;
}

}  // namespace

void write_token_file(const std::filesystem::path& path, std::span<const std::int32_t> tokens,
                      std::int64_t vocab, bool force) {
  constexpr std::int64_t kNarrow = 1 << 16;
  const int width = vocab <= kNarrow ? 2 : 4;
  std::string bytes = header(width, vocab, static_cast<std::int64_t>(tokens.size()));
  for (const std::int32_t token : tokens) {
    ensure(token >= 0 && token < vocab, "tokens written lie in their vocabulary");
    append_number(bytes, static_cast<std::uint64_t>(token), width);
  }
  write_file_whole(path, bytes, force);
}

std::int64_t tokenize_bytes(const std::filesystem::path& text, const std::filesystem::path& output,
                            bool force) {
  constexpr int kWidth = 2;
  const File file = open_text(text);
  const auto count = static_cast<std::int64_t>(std::filesystem::file_size(text));
  if (count == 0) throw std::runtime_error(text.string() + ": there is no text in it");
  UnfinishedFile tokens(output, force);
  tokens.write(header(kWidth, kByteVocab, count));
  std::array<unsigned char, 1 << 16> piece;
  std::int64_t written = 0;
  std::string bytes;
  while (const std::size_t got = std::fread(piece.data(), 1, piece.size(), file.get())) {
    bytes.clear();
    for (std::size_t i = 0; i < got; ++i) append_number(bytes, piece[i], kWidth);
    tokens.write(bytes);
    written += static_cast<std::int64_t>(got);
  }
  if (std::ferror(file.get()) != 0 || written != count)
    throw std::runtime_error(text.string() + ": it changed or failed while it was read");
  tokens.finish();
  return count;
}

}  // namespace rehearse
