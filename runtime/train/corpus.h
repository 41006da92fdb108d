#pragma once
#include <memory>
#include <string>
#include <string_view>

#include "runtime/train/trainer.h"

namespace rehearse {

/// The tokens that a run trains on.
struct Corpus {
  std::int64_t tokens = 0;
  std::int64_t vocab = 0;
  SampleReader reader;
};

/// The text that ships with the program (scenarios/data), put into it when it is built.
std::string_view shipped_text();
inline constexpr const char* kShippedTextName = "scenarios/data/lighthouse-log.txt";

/// Opens a token file, or reads a text as bytes; an empty path is the shipped text. Throws
/// std::runtime_error.
Corpus open_corpus(const std::string& path, int seq_len);

/// 16 hexadecimal digits that tell a corpus from another by its tokens, however they are stored: of
/// all samples, or where they are more than 16 M tokens, of as many at even distances.
std::string corpus_digest(const Corpus& corpus, int seq_len);

}  // namespace rehearse
