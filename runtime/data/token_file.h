#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace rehearse {

// A file of token ids, all numbers little-endian:
//
//   byte  0  8  "RHTOKENS"
//         8  4  version, 1
//        12  4  bytes of a token, 2 or 4
//        16  8  vocabulary: every token is less than this
//        24  8  number of tokens
//        32     the tokens
//
// and nothing after them.
inline constexpr std::size_t kTokenHeaderBytes = 32;

/// A token file, mapped into memory: opening one of 100 GB reads only its header. Moves, does not
/// copy.
class TokenFile {
 public:
  /// Throws std::runtime_error with a sentence where the file cannot be read, is no token file, or
  /// is not as long as its header says.
  static TokenFile open(const std::filesystem::path& path);
  ~TokenFile();
  TokenFile(TokenFile&& other) noexcept;
  TokenFile& operator=(TokenFile&& other) noexcept;

  std::int64_t size() const { return size_; }    ///< tokens
  std::int64_t vocab() const { return vocab_; }  ///< every token is less than this
  /// Throws std::runtime_error where the file holds a token outside its vocabulary.
  /// REQUIRES: 0 ≤ i < size().
  std::int32_t at(std::int64_t i) const;
  /// Tokens [first, first + into.size()), under the terms of `at`.
  void copy(std::int64_t first, std::span<std::int32_t> into) const;

 private:
  TokenFile() = default;
  void read_header();

  std::string path_;
  const unsigned char* bytes_ = nullptr;
  std::size_t length_ = 0;  ///< bytes of the file
  std::int64_t size_ = 0, vocab_ = 0;
  int width_ = 0;
};

/// Writes tokens as a token file of the narrowest width, whole or not at all. Throws
/// std::runtime_error. REQUIRES: every token lies in [0, vocab).
void write_token_file(const std::filesystem::path& path, std::span<const std::int32_t> tokens,
                      std::int64_t vocab, bool force);

/// Tokens of a text that is tokenized by bytes: each byte is a token, the vocabulary is 256.
inline constexpr std::int64_t kByteVocab = 256;
/// Reads `text` in pieces and writes it as a token file, whole or not at all; returns the number
/// of tokens. Throws std::runtime_error, also where the text is empty.
std::int64_t tokenize_bytes(const std::filesystem::path& text, const std::filesystem::path& output,
                            bool force);

}  // namespace rehearse
