#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "plan/plan_choices.h"

namespace rehearse {

/// Lengths of the documents that sequences are packed from. Attention stays inside a document.
struct Documents {
  double mean_tokens = 0;       ///< 0: sequences are whole documents
  double deviation_tokens = 0;  ///< standard deviation of the distribution; 0: all are alike
  LengthDistribution distribution = LengthDistribution::LogNormal;
  Packing packing = Packing::Cut;
  std::string lengths_file;  ///< one length a line, instead of a distribution
  std::vector<int> lengths;  ///< what the file says; filled by whoever reads it
  int seed = 1;              ///< of the drawing; with a file: which of its steps is taken
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
