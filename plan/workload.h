#pragma once
#include <cstdint>
#include <string>

#include "plan/plan_choices.h"

namespace rehearse {

/// Lengths of the documents that sequences are packed from. Attention stays inside a document.
struct Documents {
  double mean_tokens = 0;       ///< 0: sequences are whole documents
  double deviation_tokens = 0;  ///< of a log-normal distribution with that mean
  std::string lengths_file;     ///< one length a line, instead of a distribution
  int seed = 1;
  bool operator==(const Documents&) const = default;
};

/// How unevenly a router deals tokens out: experts' shares are drawn so that the busiest of
/// `ep` ranks has about this many times the mean.
struct Routing {
  double imbalance = 1;
  int seed = 1;
  bool operator==(const Routing&) const = default;
};

/// What is to be trained. One step processes `global_batch` sequences of `seq_len` tokens.
struct Workload {
  std::int64_t global_batch = 1;  ///< sequences a step
  int seq_len = 0;                ///< tokens a sequence; 0: the model's max_seq_len
  double tokens = 0;              ///< tokens of the whole run; 0: not stated
  Documents documents;
  Deal partition = Deal::Range;  ///< how samples of differing length are dealt out to replicas
  Routing routing;
};

}  // namespace rehearse
