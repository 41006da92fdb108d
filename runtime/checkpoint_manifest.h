#pragma once
#include <filesystem>
#include <vector>

#include "runtime/checkpoint.h"
#include "runtime/shard_file.h"

namespace rehearse {

/// manifest.json of a checkpoint, format checkpoint/2: the state of the run, and what every rank's
/// file is like. It ends with a digest of itself.
struct CheckpointManifest {
  TrainingState state;
  std::vector<ShardFileFacts> files;  ///< by rank
};

std::string manifest_text(const CheckpointManifest& manifest);
/// Throws std::runtime_error with a sentence where there is none or it is damaged.
CheckpointManifest read_manifest(const std::filesystem::path& checkpoint);

std::filesystem::path manifest_path(const std::filesystem::path& checkpoint);
std::filesystem::path shard_path(const std::filesystem::path& checkpoint, int rank);

}  // namespace rehearse
