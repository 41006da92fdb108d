#include "runtime/shard_file.h"

#include <bit>
#include <cstring>
#include <fstream>
#include <limits>
#include <stdexcept>

#include "plan/digest.h"
#include "plan/ensure.h"
#include "plan/json_document.h"
#include "plan/write_file.h"

namespace rehearse {
namespace {

static_assert(std::endian::native == std::endian::little, "files are written as memory has them");

constexpr std::string_view kMagic = "RHSHARDS";
constexpr std::size_t kPreambleBytes = 24;
/// Headers of the largest runs have some thousand tensors a rank, 200 bytes each.
constexpr JsonLimits kHeaderLimits{.bytes = std::size_t{256} << 20, .values = 20'000'000};

/// Bytes between two beats of whoever writes: less than a second on any disk worth its name.
constexpr std::size_t kWrittenAtOnce = std::size_t{64} << 20;

[[noreturn]] void refuse(const std::filesystem::path& path, const std::string& reason) {
  throw std::runtime_error(path.string() + ": " + reason);
}

JsonValue list_of(const std::vector<std::int64_t>& numbers) {
  JsonValue list = JsonValue::list();
  for (const std::int64_t number : numbers) list.items.push_back(JsonValue::of(number));
  return list;
}

std::string_view bytes_of(const TensorShard& shard) {
  const auto elements = TensorBox{shard.begin, shard.extent}.elements();
  return {reinterpret_cast<const char*>(shard.data),
          static_cast<std::size_t>(elements) * sizeof(float)};
}

void check(const TensorShard& shard) {
  ensure(shard.begin.size() == shard.shape.size() && shard.extent.size() == shard.shape.size(),
         "a shard's box has as many dimensions as its tensor");
  for (std::size_t d = 0; d < shard.shape.size(); ++d)
    ensure(shard.begin[d] >= 0 && shard.extent[d] >= 0 &&
               shard.begin[d] + shard.extent[d] <= shard.shape[d],
           "a shard's box lies in its tensor");
}

std::string header_text(int rank, int world, std::int64_t step, std::span<const TensorShard> shards,
                        const CheckpointCrew::Beat& beat) {
  JsonValue header = JsonValue::object(), tensors = JsonValue::list();
  for (const TensorShard& shard : shards) {
    check(shard);
    JsonValue tensor = JsonValue::object();
    tensor.add("name", JsonValue::of(shard.name));
    tensor.add("shape", list_of(shard.shape));
    tensor.add("begin", list_of(shard.begin));
    tensor.add("extent", list_of(shard.extent));
    tensor.add("checksum", JsonValue::of(hexadecimal(word_checksum(bytes_of(shard)))));
    tensors.items.push_back(std::move(tensor));
    beat();
  }
  header.add("schema", JsonValue::of("shards/1"));
  header.add("rank", JsonValue::of(rank));
  header.add("world", JsonValue::of(world));
  header.add("step", JsonValue::of(step));
  header.add("tensors", std::move(tensors));
  return to_text(header, JsonLayout::Compact);
}

template <class Number>
std::string raw(Number number) {
  return {reinterpret_cast<const char*>(&number), sizeof number};
}

template <class Number>
Number raw_at(const char* bytes) {
  Number number;
  std::memcpy(&number, bytes, sizeof number);
  return number;
}

/// Fields of a header whose checksum is right were written by this program, so that what does not
/// read is another program's doing; any of it is refused with the same sentence.
class HeaderReader {
 public:
  explicit HeaderReader(const std::filesystem::path& path) : path_(path) {}

  const JsonValue& member(const JsonValue& object, const char* key) const {
    const JsonValue* value = object.find(key);
    if (!value) refuse(path_, std::string("its header lacks \"") + key + "\"");
    return *value;
  }
  std::vector<std::int64_t> numbers(const JsonValue& object, const char* key) const {
    std::vector<std::int64_t> result;
    for (const JsonValue& item : member(object, key).items) {
      if (item.kind != JsonKind::Integer || item.integer < 0)
        refuse(path_, std::string("\"") + key + "\" of its header is no list of sizes");
      result.push_back(item.integer);
    }
    return result;
  }
  StoredShard shard(const JsonValue& tensor) const {
    StoredShard result;
    result.name = member(tensor, "name").text;
    result.shape = numbers(tensor, "shape");
    result.box = {numbers(tensor, "begin"), numbers(tensor, "extent")};
    result.checksum = std::strtoull(member(tensor, "checksum").text.c_str(), nullptr, 16);
    const std::size_t dimensions = result.shape.size();
    bool inside = result.box.begin.size() == dimensions && result.box.extent.size() == dimensions;
    for (std::size_t d = 0; inside && d < dimensions; ++d)
      inside = result.box.extent[d] <= result.shape[d] &&
               result.box.begin[d] <= result.shape[d] - result.box.extent[d];
    if (!inside) refuse(path_, "the box of \"" + result.name + "\" does not lie in its tensor");
    return result;
  }

 private:
  const std::filesystem::path& path_;
};

}  // namespace

std::uint64_t word_checksum(std::string_view bytes) {
  std::uint64_t hash = 14695981039346656037u;
  while (!bytes.empty()) {
    std::uint64_t word = 0;
    const std::size_t length = std::min(bytes.size(), sizeof word);
    std::memcpy(&word, bytes.data(), length);
    hash = (hash ^ word) * 1099511628211u;
    bytes.remove_prefix(length);
  }
  return hash;
}

void write_shard_file(const std::filesystem::path& path, int rank, int world, std::int64_t step,
                      std::span<const TensorShard> shards, const CheckpointCrew::Beat& beat) {
  const std::string header = header_text(rank, world, step, shards, beat);
  UnfinishedFile file(path, true);
  file.write(kMagic);
  file.write(raw(std::uint32_t{1}) + raw(static_cast<std::uint32_t>(header.size())) +
             raw(word_checksum(header)));
  file.write(header);
  for (const TensorShard& shard : shards) {
    const std::string_view bytes = bytes_of(shard);
    for (std::size_t at = 0; at < bytes.size(); at += kWrittenAtOnce) {
      file.write(bytes.substr(at, kWrittenAtOnce));
      beat();
    }
  }
  file.finish();
}

ShardFile::ShardFile(std::filesystem::path path) : path_(std::move(path)) {
  std::ifstream in(path_, std::ios::binary);
  if (!in) refuse(path_, "it is missing or cannot be read");
  facts_.bytes = static_cast<std::int64_t>(std::filesystem::file_size(path_));
  std::string preamble(kPreambleBytes, '\0');
  in.read(preamble.data(), static_cast<std::streamsize>(preamble.size()));
  if (!in) refuse(path_, "it is cut off within its first bytes");
  if (!preamble.starts_with(kMagic)) refuse(path_, "it is no file of a checkpoint, or damaged");
  if (raw_at<std::uint32_t>(preamble.data() + 8) != 1)
    refuse(path_, "its version is not 1, or it is damaged");
  const auto length = raw_at<std::uint32_t>(preamble.data() + 12);
  if (length > facts_.bytes - static_cast<std::int64_t>(kPreambleBytes))
    refuse(path_, "it is cut off within its header, or damaged");
  std::string header(length, '\0');
  in.read(header.data(), static_cast<std::streamsize>(header.size()));
  facts_.header_checksum = word_checksum(header);
  if (!in || facts_.header_checksum != raw_at<std::uint64_t>(preamble.data() + 16))
    refuse(path_, "its header is damaged: the checksum differs");
  parse_header(header);
}

void ShardFile::parse_header(const std::string& text) {
  Problems problems;
  const JsonDocument document = parse_json(text, path_.string(), problems, kHeaderLimits);
  if (!document.parsed || !problems.empty()) refuse(path_, "its header is no JSON");
  const HeaderReader reader(path_);
  auto offset = static_cast<std::int64_t>(kPreambleBytes + text.size());
  for (const JsonValue& tensor : reader.member(document.root, "tensors").items) {
    StoredShard shard = reader.shard(tensor);
    shard.offset = offset;
    offset += shard.box.elements() * static_cast<std::int64_t>(sizeof(float));
    shards_.push_back(std::move(shard));
  }
  if (offset != facts_.bytes)
    refuse(path_, "it has " + std::to_string(facts_.bytes) + " bytes instead of " +
                      std::to_string(offset) + ": it was cut off or added to");
}

std::vector<float> ShardFile::read(const StoredShard& shard) const {
  std::vector<float> numbers(static_cast<std::size_t>(shard.box.elements()));
  std::ifstream in(path_, std::ios::binary);
  in.seekg(shard.offset);
  const std::size_t bytes = numbers.size() * sizeof(float);
  in.read(reinterpret_cast<char*>(numbers.data()), static_cast<std::streamsize>(bytes));
  if (!in) refuse(path_, "\"" + shard.name + "\" cannot be read");
  if (word_checksum({reinterpret_cast<const char*>(numbers.data()), bytes}) != shard.checksum)
    refuse(path_, "\"" + shard.name + "\" is damaged: its checksum differs");
  return numbers;
}

}  // namespace rehearse
