#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "plan/workload.h"

namespace rehearse {

/// Lengths of the documents of one sequence in order, or of the parts that lie in it. Where they
/// add up to less than the sequence, the rest is padding.
using PackedSequence = std::vector<int>;

/// Pairs of a query and a key in a document of so many tokens: each token attends to itself and to
/// those before it, to `window` tokens at most (0: no limit). With w = min(window, length) these
/// are w·length − w(w − 1)/2.
double attention_pairs(std::int64_t length, int window);

/// Pairs of queries [query_begin, query_end) and keys [key_begin, key_end) of one document, places
/// counted from its beginning.
struct PairBlock {
  std::int64_t query_begin = 0, query_end = 0, key_begin = 0, key_end = 0;
};
double attention_pairs(const PairBlock& block, int window);

/// Pairs of a sequence as a share of those that causality alone leaves, both with half of the
/// diagonal: FLOPs of causal attention are counted as half of the square. Equal documents of d
/// tokens without padding have d / seq_len of them.
double pair_share(const PackedSequence& sequence, int seq_len, int window);

/// Documents of these lengths as sequences, in order; the last may not be full.
std::vector<PackedSequence> packed(const std::vector<int>& lengths, int seq_len, Packing packing);

/// What one step processes.
struct StepSequences {
  std::vector<PackedSequence> sequences;  ///< in the order in which they are dealt out
  std::int64_t documents = 0;             ///< that they hold, parts counted as whole ones
  std::int64_t file_step = 0;   ///< which step of the file's, from 0; of drawn documents 0
  std::int64_t file_steps = 0;  ///< in the file; 0: drawn
};

/// `count` sequences of `seq_len` tokens. Of a file, the sequences follow each other (in a random
/// order where `partition` says so), epoch after epoch, as in runtime/data/batches.h; the seed
/// chooses the step. Else documents are drawn until there are enough.
/// REQUIRES: documents_fault returned nothing.
StepSequences step_sequences(const Documents& documents, Deal partition, int seq_len,
                             std::int64_t count);

/// Why there are no such sequences, as a sentence without a full stop; empty: nothing.
std::string documents_fault(const Documents& documents, int seq_len, std::int64_t count);

/// Which of a step's sequences each replica works on, in its order; `counts`: how many each takes.
/// Range and Random: neighbours together. RoundRobin: one to each in turn, those with all of theirs
/// passed over.
std::vector<std::vector<std::int64_t>> dealt(Deal partition,
                                             const std::vector<std::int64_t>& counts);

}  // namespace rehearse
