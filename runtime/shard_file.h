#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "runtime/checkpoint.h"
#include "runtime/tensor_box.h"

namespace rehearse {

// The file of one rank in a checkpoint, numbers little-endian:
//
//   byte  0  8  "RHSHARDS"
//         8  4  version, 1
//        12  4  bytes of the header
//        16  8  checksum of the header
//        24     the header, JSON: rank, world, step and the tensors' names, shapes, boxes,
//        checksums
//               and behind it the tensors' fp32 numbers, in the order of the header

/// What the header says of a tensor.
struct StoredShard {
  std::string name;
  std::vector<std::int64_t> shape;
  TensorBox box;
  std::uint64_t checksum = 0;
  std::int64_t offset = 0;  ///< of its first byte in the file
};

/// What identifies a whole rank file: its header holds the checksums of all else.
struct ShardFileFacts {
  std::int64_t bytes = 0;
  std::uint64_t header_checksum = 0;
  bool operator==(const ShardFileFacts&) const = default;
};

/// FNV-1a over 64-bit words instead of bytes, eight times as fast: a change within one word always
/// changes it. Trailing bytes are filled up with zeros.
std::uint64_t word_checksum(std::string_view bytes);

void write_shard_file(const std::filesystem::path& path, int rank, int world, std::int64_t step,
                      std::span<const TensorShard> shards, const CheckpointCrew::Beat& beat);

/// An open rank file. Every function throws std::runtime_error that names the file.
class ShardFile {
 public:
  /// Reads and checks the header, and that the file is as long as it says.
  explicit ShardFile(std::filesystem::path path);

  const std::vector<StoredShard>& shards() const { return shards_; }
  const ShardFileFacts& facts() const { return facts_; }
  /// The numbers of a tensor's box, checked against their checksum.
  std::vector<float> read(const StoredShard& shard) const;

 private:
  void parse_header(const std::string& text);

  std::filesystem::path path_;
  std::vector<StoredShard> shards_;
  ShardFileFacts facts_;
};

}  // namespace rehearse
