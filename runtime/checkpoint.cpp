#include "runtime/checkpoint.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <sstream>
#include <stdexcept>

#include "plan/ensure.h"
#include "plan/write_file.h"
#include "runtime/checkpoint_manifest.h"
#include "runtime/shard_file.h"

namespace rehearse {
namespace {

/// The steps of checkpoints, finished or not, the latest first.
std::vector<std::int64_t> steps_in(const std::filesystem::path& root) {
  std::vector<std::int64_t> found;
  std::error_code missing;
  for (const auto& entry : std::filesystem::directory_iterator(root, missing)) {
    const std::string name = entry.path().filename().string();
    long long step = 0;
    int used = 0;
    // Names that this program would not give are none of its checkpoints.
    if (entry.is_directory() && std::sscanf(name.c_str(), "step-%lld%n", &step, &used) == 1 &&
        static_cast<std::size_t>(used) == name.size() && step_folder(root, step) == entry.path())
      found.push_back(step);
  }
  std::sort(found.begin(), found.end(), std::greater<>());
  return found;
}

bool is_finished(const std::filesystem::path& root, std::int64_t step) {
  return std::filesystem::exists(manifest_path(step_folder(root, step)));
}

/// Makes an empty folder, or empties one that was begun: the manifest goes first, without which it
/// is unfinished.
void prepare_folder(const std::filesystem::path& root, const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  std::filesystem::remove(manifest_path(folder));
  flush_folder(folder);
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    std::filesystem::remove_all(entry.path());
  flush_folder(root);
  flush_folder(root.has_parent_path() ? root.parent_path() : ".");
}

void remove_checkpoint(const std::filesystem::path& folder) {
  std::filesystem::remove(manifest_path(folder));  // half removed it must not look whole
  std::filesystem::remove_all(folder);
}

/// The files of a checkpoint that one of several sharers reads: one after another, by turns.
bool is_of_share(std::size_t file, int place, int sharers) {
  return file % static_cast<std::size_t>(sharers) == static_cast<std::size_t>(place);
}

ShardFile open_file(const std::filesystem::path& checkpoint, const CheckpointManifest& manifest,
                    std::size_t rank) {
  const std::filesystem::path path = shard_path(checkpoint, static_cast<int>(rank));
  ShardFile file(path);
  if (!(file.facts() == manifest.files[rank]))
    throw std::runtime_error(path.string() + ": it is not the file that manifest.json means");
  return file;
}

/// The files of a checkpoint, each the one that its manifest means.
std::vector<ShardFile> open_files(const std::filesystem::path& checkpoint,
                                  const CheckpointManifest& manifest) {
  std::vector<ShardFile> files;
  for (std::size_t rank = 0; rank < manifest.files.size(); ++rank)
    files.push_back(open_file(checkpoint, manifest, rank));
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
          const std::filesystem::path& checkpoint, const CheckpointCrew::Beat& beat) {
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
      beat();
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

std::filesystem::path step_folder(const std::filesystem::path& root, std::int64_t step) {
  char name[32];
  std::snprintf(name, sizeof name, "step-%08lld", static_cast<long long>(step));
  return root / name;
}

void save_checkpoint(const std::filesystem::path& root, const TrainingState& state,
                     std::span<const TensorShard> shards, CheckpointCrew& crew) {
  const std::filesystem::path folder = step_folder(root, state.step);
  const bool is_first = crew.rank() == 0;
  crew.together([&](const CheckpointCrew::Beat&) {
    if (is_first) prepare_folder(root, folder);
  });
  crew.together([&](const CheckpointCrew::Beat& beat) {
    write_shard_file(shard_path(folder, crew.rank()), crew.rank(), crew.size(), state.step, shards,
                     beat);
  });
  crew.together([&](const CheckpointCrew::Beat& beat) {
    if (!is_first) return;
    CheckpointManifest manifest{.state = state, .files = {}};
    for (int other = 0; other < crew.size(); ++other) {
      manifest.files.push_back(ShardFile(shard_path(folder, other)).facts());
      beat();
    }
    write_file_whole(manifest_path(folder), manifest_text(manifest), true);
  });
}

TrainingState load_checkpoint(const std::filesystem::path& checkpoint,
                              std::span<const TensorShard> shards,
                              const CheckpointCrew::Beat& beat) {
  const CheckpointManifest manifest = read_manifest(checkpoint);
  const std::vector<ShardFile> files = open_files(checkpoint, manifest);
  const TensorIndex index = index_of(files);
  for (const TensorShard& shard : shards) {
    const auto found = index.find(shard.name);
    fill(shard, found == index.end() ? std::vector<Candidate>{} : found->second, checkpoint, beat);
  }
  return manifest.state;
}

TrainingState read_training_state(const std::filesystem::path& checkpoint) {
  return read_manifest(checkpoint).state;
}

std::string checkpoint_fault(const std::filesystem::path& checkpoint, int place, int sharers,
                             const CheckpointCrew::Beat& beat) {
  try {
    const CheckpointManifest manifest = read_manifest(checkpoint);
    for (std::size_t rank = 0; rank < manifest.files.size(); ++rank) {
      if (!is_of_share(rank, place, sharers)) continue;
      const ShardFile file = open_file(checkpoint, manifest, rank);
      for (const StoredShard& stored : file.shards()) {
        file.read(stored);
        beat();
      }
    }
    return "";
  } catch (const std::exception& error) {
    return error.what();
  }
}

LastGood find_last_good(const std::filesystem::path& root, CheckpointCrew& crew) {
  // The first rank looks for all, so that all look at the same ones.
  std::string steps;
  if (crew.rank() == 0)
    for (const std::int64_t step : steps_in(root)) steps += std::to_string(step) + ' ';
  std::istringstream all(crew.from_first(steps));
  LastGood result;
  for (std::int64_t step = 0; all >> step;) {
    std::string fault;
    crew.together([&](const CheckpointCrew::Beat& beat) {
      fault = checkpoint_fault(step_folder(root, step), crew.rank(), crew.size(), beat);
    });
    const std::vector<std::string> faults = crew.texts(fault);
    const auto first = std::find_if(faults.begin(), faults.end(),
                                    [](const std::string& text) { return !text.empty(); });
    if (first == faults.end()) {
      result.step = step;
      break;
    }
    result.passed_over.push_back(*first);
    const bool finished = is_finished(root, step);
    if (crew.from_first(finished ? "finished" : "") == "finished")
      result.passed_steps.push_back(step);
  }
  return result;
}

std::optional<std::int64_t> latest_finished(const std::filesystem::path& root) {
  for (const std::int64_t step : steps_in(root))
    if (is_finished(root, step)) return step;
  return std::nullopt;
}

std::filesystem::path set_aside(const std::filesystem::path& root, std::int64_t step) {
  const std::filesystem::path folder = step_folder(root, step);
  const std::string name = "passed-over-" + folder.filename().string();
  std::filesystem::path target = root / name;
  for (int i = 2; std::filesystem::exists(target); ++i)
    target = root / (name + "-" + std::to_string(i));
  std::filesystem::rename(folder, target);
  flush_folder(root);
  return target;
}

void remove_old_checkpoints(const std::filesystem::path& root, std::int64_t written, int keep) {
  ensure(keep >= 1, "at least one checkpoint is kept");
  int kept = 0;
  for (const std::int64_t step : steps_in(root)) {
    if (step > written) continue;
    if (kept >= keep)
      remove_checkpoint(step_folder(root, step));
    else if (is_finished(root, step))
      ++kept;
  }
}

}  // namespace rehearse
