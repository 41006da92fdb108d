#pragma once
#include <string>
#include <vector>

namespace rehearse {

/// What one share of a scenario's variants came to.
struct ShardReport {
  int exit_code = 0;
  std::string document;  ///< result/1; empty where the share failed
  std::string messages;  ///< what the process wrote to standard error
};

/// The exit code of the whole from those of its shares: the highest of the failures (1, 2 and
/// from 4 on); where none failed, 3 only if no share that had variants found a plan that fits.
int merged_exit_code(const std::vector<ShardReport>& shards);

/// The result/1 document that one process would have printed, from the documents of the shares
/// in their order, byte for byte. Throws std::runtime_error, naming the share, where a document
/// cannot be read or does not belong to the others.
std::string merged_document(const std::vector<ShardReport>& shards);

/// The messages of all shares in their order, each distinct text once.
std::string merged_messages(const std::vector<ShardReport>& shards);

}  // namespace rehearse
