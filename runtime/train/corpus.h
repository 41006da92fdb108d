#pragma once
#include <memory>
#include <string>

#include "runtime/train/trainer.h"

namespace rehearse {

/// The tokens that a run trains on.
struct Corpus {
  std::int64_t tokens = 0;
  std::int64_t vocab = 0;
  SampleReader reader;
};

/// Opens a token file, or reads a text as bytes. Throws std::runtime_error.
Corpus open_corpus(const std::string& path, int seq_len);

}  // namespace rehearse
