#include "runtime/checkpoint.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <stdexcept>

#include "plan/ensure.h"
#include "plan/write_file.h"
#include "runtime/checkpoint_manifest.h"
#include "runtime/shard_file.h"

namespace rehearse {
namespace {

std::filesystem::path step_folder(const std::filesystem::path& root, std::int64_t step) {
  char name[32];
  std::snprintf(name, sizeof name, "step-%08lld", static_cast<long long>(step));
  return root / name;
}

/// The folders of checkpoints, finished or not, the latest step first.
std::vector<std::filesystem::path> step_folders(const std::filesystem::path& root) {
  std::vector<std::pair<std::int64_t, std::filesystem::path>> found;
  std::error_code missing;
  for (const auto& entry : std::filesystem::directory_iterator(root, missing)) {
    const std::string name = entry.path().filename().string();
    long long step = 0;
    int used = 0;
    if (entry.is_directory() && std::sscanf(name.c_str(), "step-%lld%n", &step, &used) == 1 &&
        static_cast<std::size_t>(used) == name.size())
      found.emplace_back(step, entry.path());
  }
  std::sort(found.begin(), found.end(), std::greater<>());
  std::vector<std::filesystem::path> folders;
  for (auto& [step, path] : found) folders.push_back(std::move(path));
  return folders;
}

/// The files of a checkpoint, each the one that its manifest means.
std::vector<ShardFile> open_files(const std::filesystem::path& checkpoint,
                                  const CheckpointManifest& manifest) {
  std::vector<ShardFile> files;
  for (std::size_t rank = 0; rank < manifest.files.size(); ++rank) {
    const std::filesystem::path path = shard_path(checkpoint, static_cast<int>(rank));
    files.emplace_back(path);
    if (!(files.back().facts() == manifest.files[rank]))
      throw std::runtime_error(path.string() + ": it is not the file that manifest.json means");
  }
  return files;
}

/// A box of a tensor in one of the files.
struct Candidate {
  const ShardFile* file = nullptr;
  const StoredShard* stored = nullptr;
};
using TensorIndex = std::map<std::string, std::vector<Candidate>>;

TensorIndex index_of(const std::vector<ShardFile>& files) {
  TensorIndex index;
  for (const ShardFile& file : files)
    for (const StoredShard& stored : file.shards()) index[stored.name].push_back({&file, &stored});
  return index;
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text;
  for (const std::int64_t length : shape)
    text += (text.empty() ? "" : ", ") + std::to_string(length);
  return "[" + text + "]";
}

void fill(const TensorShard& shard, std::vector<Candidate> candidates,
          const std::filesystem::path& checkpoint) {
  const auto refuse = [&](const std::string& reason) {
    throw std::runtime_error(checkpoint.string() + ": tensor \"" + shard.name + "\" " + reason);
  };
  const TensorBox wanted{shard.begin, shard.extent};
  // The same box in one piece, where there is one, spares reading others.
  std::stable_partition(candidates.begin(), candidates.end(),
                        [&](const Candidate& one) { return one.stored->box == wanted; });
  std::vector<TensorBox> open;
  if (wanted.elements() > 0) open.push_back(wanted);
  for (const Candidate& one : candidates) {
    if (one.stored->shape != shard.shape)
      refuse("has the shape " + shape_text(one.stored->shape) + ", not " + shape_text(shard.shape));
    std::vector<float> numbers;
    std::vector<TensorBox> still_open;
    for (const TensorBox& box : open) {
      const TensorBox common = intersection(box, one.stored->box);
      if (common.elements() == 0) {
        still_open.push_back(box);
        continue;
      }
      if (numbers.empty()) numbers = one.file->read(*one.stored);
      copy_box(common, one.stored->box, numbers.data(), wanted, shard.data);
      for (TensorBox& rest : difference(box, common)) still_open.push_back(std::move(rest));
    }
    open = std::move(still_open);
  }
  if (open.empty()) return;
  refuse(candidates.empty() ? "is not in it"
                            : "is not whole in it: no file has its elements from " +
                                  shape_text(open.front().begin));
}

}  // namespace

void save_checkpoint(const std::filesystem::path& root, int rank, int world,
                     const TrainingState& state, std::span<const TensorShard> shards,
                     const std::function<void()>& barrier) {
  ensure(rank >= 0 && rank < world, "a checkpoint is written by one of its ranks");
  const std::filesystem::path folder = step_folder(root, state.step);
  if (rank == 0) {
    std::filesystem::create_directories(folder);
    // Without it the folder is unfinished, while its files are replaced.
    std::filesystem::remove(manifest_path(folder));
  }
  barrier();
  write_shard_file(shard_path(folder, rank), rank, world, state.step, shards);
  barrier();
  if (rank != 0) return;
  CheckpointManifest manifest{.state = state, .files = {}};
  for (int other = 0; other < world; ++other)
    manifest.files.push_back(ShardFile(shard_path(folder, other)).facts());
  write_file_whole(manifest_path(folder), manifest_text(manifest), true);
}

TrainingState load_checkpoint(const std::filesystem::path& checkpoint,
                              std::span<const TensorShard> shards) {
  const CheckpointManifest manifest = read_manifest(checkpoint);
  const std::vector<ShardFile> files = open_files(checkpoint, manifest);
  const TensorIndex index = index_of(files);
  for (const TensorShard& shard : shards) {
    const auto found = index.find(shard.name);
    fill(shard, found == index.end() ? std::vector<Candidate>{} : found->second, checkpoint);
  }
  return manifest.state;
}

TrainingState read_training_state(const std::filesystem::path& checkpoint) {
  return read_manifest(checkpoint).state;
}

std::string checkpoint_fault(const std::filesystem::path& checkpoint) {
  try {
    for (const ShardFile& file : open_files(checkpoint, read_manifest(checkpoint)))
      for (const StoredShard& stored : file.shards()) file.read(stored);
    return "";
  } catch (const std::exception& error) {
    return error.what();
  }
}

LastGood find_last_good(const std::filesystem::path& root) {
  LastGood result;
  for (const std::filesystem::path& folder : step_folders(root)) {
    result.some_finished |= std::filesystem::exists(manifest_path(folder));
    const std::string fault = checkpoint_fault(folder);
    if (fault.empty()) {
      result.checkpoint = folder;
      break;
    }
    result.passed_over.push_back(fault);
  }
  return result;
}

void remove_old_checkpoints(const std::filesystem::path& root, int keep) {
  ensure(keep >= 1, "at least one checkpoint is kept");
  int kept = 0;
  for (const std::filesystem::path& folder : step_folders(root)) {
    const bool finished = std::filesystem::exists(manifest_path(folder));
    if (kept >= keep)
      std::filesystem::remove_all(folder);
    else if (finished)
      ++kept;
  }
}

}  // namespace rehearse
