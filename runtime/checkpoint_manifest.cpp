#include "runtime/checkpoint_manifest.h"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "plan/digest.h"
#include "plan/json_document.h"

namespace rehearse {
namespace {

[[noreturn]] void refuse(const std::filesystem::path& path, const std::string& reason) {
  throw std::runtime_error(path.string() + ": " + reason);
}

/// The bits of a double: JSON has no infinities, and a sign of zero is easily lost.
std::string bits_of(double value) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return hexadecimal(bits);
}

constexpr const char* kShuffled = "random";

JsonValue data_json(const DataIdentity& data) {
  JsonValue out = JsonValue::object();
  out.add("tokens", JsonValue::of(data.tokens));
  out.add("digest", JsonValue::of(data.digest));
  out.add("seq_len", JsonValue::of(data.seq_len));
  out.add("global_batch", JsonValue::of(data.global_batch));
  out.add("order", JsonValue::of(data.is_shuffled ? kShuffled : "file"));
  return out;
}

class ManifestReader {
 public:
  explicit ManifestReader(const std::filesystem::path& path) : path_(path) {}

  const JsonValue& member(const JsonValue& object, const char* key) const {
    const JsonValue* value = object.find(key);
    if (!value) refuse(path_, std::string("it lacks \"") + key + "\"");
    return *value;
  }
  std::int64_t whole(const JsonValue& object, const char* key) const {
    const JsonValue& value = member(object, key);
    if (value.kind != JsonKind::Integer || value.integer < 0)
      refuse(path_, std::string("\"") + key + "\" is no whole number");
    return value.integer;
  }
  std::uint64_t bits(const JsonValue& object, const char* key) const {
    const std::string& text = member(object, key).text;
    std::uint64_t value = 0;
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
    if (fault != std::errc() || end != text.data() + text.size())
      refuse(path_, std::string("\"") + key + "\" is no hexadecimal number");
    return value;
  }

 private:
  const std::filesystem::path& path_;
};

}  // namespace

std::filesystem::path manifest_path(const std::filesystem::path& checkpoint) {
  return checkpoint / "manifest.json";
}

std::filesystem::path shard_path(const std::filesystem::path& checkpoint, int rank) {
  char name[32];
  std::snprintf(name, sizeof name, "rank-%05d.shards", rank);
  return checkpoint / name;
}

std::string manifest_text(const CheckpointManifest& manifest) {
  JsonValue scalars = JsonValue::list(), files = JsonValue::list();
  for (const auto& [name, value] : manifest.state.scalars) {
    JsonValue scalar = JsonValue::object();
    scalar.add("name", JsonValue::of(name));
    // For people, and as text, which no reader rounds; the bits are what is read.
    if (std::isfinite(value)) scalar.add("value", JsonValue::of(number_text(value)));
    scalar.add("bits", JsonValue::of(bits_of(value)));
    scalars.items.push_back(std::move(scalar));
  }
  for (const ShardFileFacts& facts : manifest.files) {
    JsonValue file = JsonValue::object();
    file.add("bytes", JsonValue::of(facts.bytes));
    file.add("header_checksum", JsonValue::of(hexadecimal(facts.header_checksum)));
    files.items.push_back(std::move(file));
  }
  JsonValue root = JsonValue::object();
  root.add("schema", JsonValue::of("checkpoint/2"));
  root.add("step", JsonValue::of(manifest.state.step));
  root.add("seed", JsonValue::of(hexadecimal(manifest.state.seed)));
  root.add("plan_digest", JsonValue::of(manifest.state.plan_digest));
  root.add("layout", JsonValue::of(manifest.state.layout));
  root.add("model_digest", JsonValue::of(manifest.state.model_digest));
  root.add("data", data_json(manifest.state.data));
  root.add("scalars", std::move(scalars));
  root.add("files", std::move(files));
  const std::string digest = digest_text(to_text(root, JsonLayout::Compact));
  root.add("digest", JsonValue::of(digest));
  return to_text(root);
}

CheckpointManifest read_manifest(const std::filesystem::path& checkpoint) {
  const std::filesystem::path path = manifest_path(checkpoint);
  if (!std::filesystem::exists(path))
    refuse(checkpoint, "the checkpoint is unfinished: it has no manifest.json");
  Problems problems;
  JsonDocument document = parse_json_file(path.string(), problems);
  if (!document.parsed || !problems.empty() || !document.root.is_object())
    refuse(path, "it is damaged: no JSON");
  JsonValue& root = document.root;
  const ManifestReader reader(path);
  const std::string digest = reader.member(root, "digest").text;
  std::erase_if(root.members, [](const JsonMember& member) { return member.key == "digest"; });
  if (digest != digest_text(to_text(root, JsonLayout::Compact)))
    refuse(path, "it is damaged: its digest differs");
  if (reader.member(root, "schema").text != "checkpoint/2")
    refuse(path, "its schema is not checkpoint/2");

  CheckpointManifest manifest;
  manifest.state.step = reader.whole(root, "step");
  manifest.state.seed = reader.bits(root, "seed");
  manifest.state.plan_digest = reader.member(root, "plan_digest").text;
  manifest.state.layout = reader.member(root, "layout").text;
  manifest.state.model_digest = reader.member(root, "model_digest").text;
  const JsonValue& data = reader.member(root, "data");
  manifest.state.data = {.tokens = reader.whole(data, "tokens"),
                         .digest = reader.member(data, "digest").text,
                         .seq_len = reader.whole(data, "seq_len"),
                         .global_batch = reader.whole(data, "global_batch"),
                         .is_shuffled = reader.member(data, "order").text == kShuffled};
  for (const JsonValue& scalar : reader.member(root, "scalars").items) {
    const std::uint64_t bits = reader.bits(scalar, "bits");
    double value = 0;
    std::memcpy(&value, &bits, sizeof value);
    manifest.state.scalars.emplace_back(reader.member(scalar, "name").text, value);
  }
  for (const JsonValue& file : reader.member(root, "files").items)
    manifest.files.push_back({reader.whole(file, "bytes"), reader.bits(file, "header_checksum")});
  return manifest;
}

}  // namespace rehearse
