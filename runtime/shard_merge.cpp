#include "runtime/shard_merge.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "runtime/command_line.h"

namespace rehearse {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kVariants = "variants";

std::string share_name(std::size_t index, std::size_t count) {
  return "share " + std::to_string(index + 1) + " of " + std::to_string(count);
}

Json read_document(const ShardReport& shard, const std::string& name) {
  Json document = Json::parse(shard.document, nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded() || !document.is_object() ||
      document.value("schema", "") != "result/1")
    throw std::runtime_error(name + " did not print a result/1 document");
  if (!document.contains(kVariants) || !document[kVariants].is_array())
    throw std::runtime_error(name + " printed a result/1 document without variants");
  return document;
}

/// Everything but the variants is said by every share alike; else they are of different files
/// or of different versions of the program.
void require_same_frame(const Json& first, const Json& other, const std::string& name) {
  for (const auto& [key, value] : first.items()) {
    if (key == kVariants) continue;
    if (!other.contains(key) || other[key] != value)
      throw std::runtime_error(name + " disagrees with the first share about \"" + key + "\"");
  }
  if (other.size() != first.size())
    throw std::runtime_error(name + " says more than the first share");
}

bool failed(int exit_code) { return exit_code != kExitDone && exit_code != kExitInfeasible; }

bool has_variants(const ShardReport& shard) {
  const Json document = Json::parse(shard.document, nullptr, /*allow_exceptions=*/false);
  return document.is_object() && document.contains(kVariants) && !document[kVariants].empty();
}

}  // namespace

int merged_exit_code(const std::vector<ShardReport>& shards) {
  int worst = kExitDone;
  bool any_fits = false, any_infeasible = false;
  for (const auto& shard : shards) {
    if (failed(shard.exit_code)) worst = std::max(worst, shard.exit_code);
    any_infeasible = any_infeasible || shard.exit_code == kExitInfeasible;
    any_fits = any_fits || (shard.exit_code == kExitDone && has_variants(shard));
  }
  if (worst != kExitDone) return worst;
  return any_infeasible && !any_fits ? kExitInfeasible : kExitDone;
}

std::string merged_document(const std::vector<ShardReport>& shards) {
  Json whole;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::string name = share_name(i, shards.size());
    Json document = read_document(shards[i], name);
    if (i == 0) {
      whole = std::move(document);
      continue;
    }
    require_same_frame(whole, document, name);
    for (auto& variant : document[kVariants]) whole[kVariants].push_back(std::move(variant));
  }
  return whole.dump(2) + "\n";
}

std::string merged_messages(const std::vector<ShardReport>& shards) {
  std::vector<std::string> seen;
  std::string all;
  for (const auto& shard : shards) {
    if (std::find(seen.begin(), seen.end(), shard.messages) != seen.end()) continue;
    seen.push_back(shard.messages);
    all += shard.messages;
  }
  return all;
}

}  // namespace rehearse
