#pragma once
#include <cstdint>

namespace rehearse {

/// What is to be trained. One step processes `global_batch` sequences of `seq_len` tokens.
struct Workload {
  std::int64_t global_batch = 1;  ///< sequences a step
  int seq_len = 0;                ///< tokens a sequence; 0: the model's max_seq_len
  double tokens = 0;              ///< tokens of the whole run; 0: not stated
};

}  // namespace rehearse
