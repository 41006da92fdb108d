#include "runtime/train/corpus.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <vector>

#include "plan/digest.h"
#include "runtime/shard_file.h"

namespace rehearse {
namespace {

bool is_token_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  std::array<char, 8> magic{};
  file.read(magic.data(), magic.size());
  return file && std::string_view(magic.data(), magic.size()) == "RHTOKENS";
}

/// The bytes of a file; without one, the text that is part of the program.
std::string text_of(const std::string& path) {
  if (path.empty()) return std::string(shipped_text());
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (file.bad()) throw std::runtime_error("cannot read " + path);
  return text;
}

}  // namespace

Corpus open_corpus(const std::string& path, int seq_len) {
  Corpus corpus;
  if (!path.empty() && is_token_file(path)) {
    const auto file = std::make_shared<TokenFile>(TokenFile::open(path));
    corpus.tokens = file->size();
    corpus.vocab = file->vocab();
    corpus.reader = [file, seq_len](std::int64_t sample, TokenRange range,
                                    std::span<std::int32_t> tokens,
                                    std::span<std::int32_t> labels) {
      read_sample(*file, seq_len, sample, range, tokens, labels);
    };
    return corpus;
  }
  const auto text = std::make_shared<const std::string>(text_of(path));
  corpus.tokens = static_cast<std::int64_t>(text->size());
  corpus.vocab = kByteVocab;
  corpus.reader = [text, seq_len](std::int64_t sample, TokenRange range,
                                  std::span<std::int32_t> tokens, std::span<std::int32_t> labels) {
    for (int i = range.begin; i < range.end; ++i) {
      const auto from = static_cast<std::size_t>(sample * seq_len + i);
      const auto to = static_cast<std::size_t>(i - range.begin);
      tokens[to] = static_cast<unsigned char>((*text)[from]);
      labels[to] = static_cast<unsigned char>((*text)[from + 1]);
    }
  };
  return corpus;
}

std::string corpus_digest(const Corpus& corpus, int seq_len) {
  constexpr std::int64_t kMostTokens = std::int64_t{16} << 20;  // read in a fraction of a second
  const std::int64_t samples = (corpus.tokens - 1) / seq_len;
  const std::int64_t most = std::max<std::int64_t>(1, kMostTokens / seq_len);
  const std::int64_t stride = std::max<std::int64_t>(1, (samples + most - 1) / most);
  const auto length = static_cast<std::size_t>(seq_len);
  std::vector<std::int32_t> tokens(length), labels(length);
  std::uint64_t digest = 0;
  for (std::int64_t sample = 0; sample < samples; sample += stride) {
    corpus.reader(sample, {0, seq_len}, tokens, labels);
    const std::uint64_t words[] = {
        digest, word_checksum({reinterpret_cast<const char*>(tokens.data()), 4 * length})};
    digest = word_checksum({reinterpret_cast<const char*>(words), sizeof words});
  }
  return hexadecimal(digest);
}

}  // namespace rehearse
