// Checkpoints: whatever layout wrote them, any other reads them back bit for bit; whatever happens
// to their files, nothing wrong is loaded and an earlier good one is found.
#include "runtime/checkpoint.h"

#include <sys/resource.h>
#include <sys/wait.h>

#include <cmath>
#include <csignal>
#include <functional>
#include <limits>
#include <map>
#include <random>

#include "tests/catch.h"
#include "tests/runtime/scratch_folder.h"

using namespace rehearse;

namespace {

using Shape = std::vector<std::int64_t>;

struct WholeTensor {
  std::string name;
  Shape shape;
};

const std::vector<WholeTensor> kTensors{
    {"embedding", {37, 12}}, {"qkv", {24, 12}}, {"norm", {12}}, {"experts", {3, 5, 7}}};

/// The number at an element: another one for every tensor and place.
float number_at(const std::string& name, std::int64_t index) {
  return static_cast<float>(name.size() * 100'000 + index) * 1.25f;
}

/// A shard with memory of its own.
struct OwnedShard {
  TensorShard shard;
  std::vector<float> numbers;

  OwnedShard(const WholeTensor& tensor, Shape begin, Shape extent)
      : shard{tensor.name, tensor.shape, std::move(begin), std::move(extent), nullptr} {
    std::size_t elements = 1;
    for (const std::int64_t length : shard.extent) elements *= static_cast<std::size_t>(length);
    numbers.assign(elements, std::numeric_limits<float>::quiet_NaN());
  }

  /// Calls `visit(number, index in the whole tensor)` for every element of the box.
  template <class Visit>
  void each(const Visit& visit) {
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      auto rest = static_cast<std::int64_t>(i);
      std::int64_t index = 0, stride = 1;
      for (std::size_t d = shard.shape.size(); d-- > 0;) {
        index += (rest % shard.extent[d] + shard.begin[d]) * stride;
        rest /= shard.extent[d];
        stride *= shard.shape[d];
      }
      visit(numbers[i], index);
    }
  }
  void fill() {
    each([&](float& number, std::int64_t index) { number = number_at(shard.name, index); });
  }
  bool is_right() {
    bool right = true;
    each([&](float& number, std::int64_t index) {
      right = right && number == number_at(shard.name, index);
    });
    return right;
  }
};

using Rank = std::vector<OwnedShard>;

std::vector<TensorShard> shards_of(Rank& rank) {
  std::vector<TensorShard> shards;
  for (OwnedShard& owned : rank) {
    owned.shard.data = owned.numbers.data();
    shards.push_back(owned.shard);
  }
  return shards;
}

/// Cuts a box at random until it is in `pieces` pieces, and deals them to ranks at random.
void deal(const WholeTensor& tensor, int pieces, std::mt19937& random, std::vector<Rank>& ranks) {
  std::vector<std::pair<Shape, Shape>> boxes{{Shape(tensor.shape.size(), 0), tensor.shape}};
  for (int cut = 1; cut < pieces; ++cut) {
    const std::size_t which = random() % boxes.size(), d = random() % tensor.shape.size();
    auto [begin, extent] = boxes[which];
    if (extent[d] < 2) continue;
    const std::int64_t at = 1 + static_cast<std::int64_t>(random()) % (extent[d] - 1);
    boxes[which].second[d] = at;
    begin[d] += at;
    extent[d] -= at;
    boxes.emplace_back(begin, extent);
  }
  for (const auto& [begin, extent] : boxes)
    ranks[random() % ranks.size()].emplace_back(tensor, begin, extent);
}

std::vector<Rank> random_layout(int world, std::mt19937& random) {
  std::vector<Rank> ranks(static_cast<std::size_t>(world));
  for (const WholeTensor& tensor : kTensors) {
    deal(tensor, 1 + static_cast<int>(random() % 6), random, ranks);
    // Sometimes a replica, cut in another way: boxes then overlap.
    if (random() % 2 == 0) deal(tensor, 1 + static_cast<int>(random() % 6), random, ranks);
  }
  return ranks;
}

/// A rank of several in one process: what they do together happens one after the other.
class CrewOfOneThread final : public CheckpointCrew {
 public:
  /// `after`: called with the number of what was done together, from 1, by the first rank.
  CrewOfOneThread(int rank, int size, std::function<void(int)> after)
      : rank_(rank), size_(size), after_(std::move(after)) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void together(const Work& work) override {
    work([] {});
    if (after_) after_(++done_);
  }
  std::vector<std::string> texts(const std::string& mine) override { return {mine}; }

 private:
  int rank_, size_;
  std::function<void(int)> after_;
  int done_ = 0;
};

/// All ranks of a checkpoint in one process. Together they make the folder, write their files, and
/// write the manifest: rank 0 comes first, and the others when it has written its file.
void save_all(const std::filesystem::path& root, const TrainingState& state,
              std::vector<Rank>& ranks) {
  const int world = static_cast<int>(ranks.size());
  const auto others = [&](int done) {
    if (done != 2) return;
    for (int rank = 1; rank < world; ++rank) {
      CrewOfOneThread crew(rank, world, nullptr);
      save_checkpoint(root, state, shards_of(ranks[static_cast<std::size_t>(rank)]), crew);
    }
  };
  CrewOfOneThread first(0, world, others);
  save_checkpoint(root, state, shards_of(ranks[0]), first);
}

LastGood last_good(const std::filesystem::path& root) {
  LoneCrew crew;
  return find_last_good(root, crew);
}

void fill_all(std::vector<Rank>& ranks) {
  for (Rank& rank : ranks)
    for (OwnedShard& owned : rank) owned.fill();
}

/// A checkpoint of two ranks, halves of each tensor's rows.
void save_halves(const std::filesystem::path& root, std::int64_t step) {
  std::vector<Rank> ranks(2);
  for (const WholeTensor& tensor : kTensors) {
    Shape begin(tensor.shape.size(), 0), extent = tensor.shape;
    extent[0] /= 2;
    ranks[0].emplace_back(tensor, begin, extent);
    begin[0] = extent[0];
    extent[0] = tensor.shape[0] - extent[0];
    ranks[1].emplace_back(tensor, begin, extent);
  }
  fill_all(ranks);
  save_all(root, {.step = step, .seed = 1, .plan_digest = "p", .scalars = {}}, ranks);
}

Rank whole_tensors() {
  Rank rank;
  for (const WholeTensor& tensor : kTensors)
    rank.emplace_back(tensor, Shape(tensor.shape.size(), 0), tensor.shape);
  return rank;
}

std::string load_refusal(const std::filesystem::path& checkpoint) {
  Rank rank = whole_tensors();
  return refusal([&] { load_checkpoint(checkpoint, shards_of(rank)); });
}

bool says(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// Runs `work` in a child process, which ends with 0 where it returns and 1 where it throws.
template <class Work>
int in_child(const Work& work) {
  const pid_t child = fork();
  if (child == 0) {
    try {
      work();
    } catch (const std::exception&) {
      _exit(1);
    }
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

}  // namespace

TEST_CASE("a checkpoint of any layout loads into any other, bit for bit") {
  const ScratchFolder folder("layouts");
  for (unsigned seed = 0; seed < 60; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    auto written = random_layout(1 + static_cast<int>(random() % 4), random);
    fill_all(written);
    save_all(folder.path(), {.step = seed, .seed = seed, .plan_digest = "p", .scalars = {}},
             written);
    const auto last = last_good(folder.path());
    REQUIRE(last.step);
    CHECK(last.passed_over.empty());
    for (Rank& rank : random_layout(1 + static_cast<int>(random() % 4), random)) {
      load_checkpoint(step_folder(folder.path(), *last.step), shards_of(rank));
      for (OwnedShard& owned : rank) CHECK(owned.is_right());
    }
  }
}

TEST_CASE("the state of a run comes back bit for bit, infinities and signs of zero too") {
  const ScratchFolder folder("state");
  const TrainingState state{.step = 1200,
                            .seed = 0xfedcba9876543210u,
                            .plan_digest = "0123456789abcdef",
                            .layout = "dp 2, tp 4",
                            .model_digest = "fedcba9876543210",
                            .data = {.tokens = 1'000'003,
                                     .digest = "00ff00ff00ff00ff",
                                     .seq_len = 128,
                                     .global_batch = 16,
                                     .is_shuffled = true},
                            .scalars = {{"rate", 0.1},
                                        {"best loss", std::numeric_limits<double>::infinity()},
                                        {"zero", -0.0},
                                        {"least", std::numeric_limits<double>::denorm_min()}}};
  std::vector<Rank> one(1);
  one[0] = whole_tensors();
  fill_all(one);
  save_all(folder.path(), state, one);
  const TrainingState back = read_training_state(folder.file("step-00001200"));
  CHECK(back.step == state.step);
  CHECK(back.seed == state.seed);
  CHECK(back.plan_digest == state.plan_digest);
  CHECK(back.layout == state.layout);
  CHECK(back.model_digest == state.model_digest);
  CHECK(back.data == state.data);
  REQUIRE(back.scalars.size() == 4);
  CHECK(back.scalars == state.scalars);
  CHECK(std::signbit(back.scalars[2].second));
}

TEST_CASE("a byte changed anywhere in a checkpoint is noticed") {
  const ScratchFolder folder("corrupt");
  save_halves(folder.path(), 7);
  const auto checkpoint = folder.file("step-00000007");
  REQUIRE(checkpoint_fault(checkpoint) == "");
  std::mt19937 random(5);
  for (const char* name : {"rank-00000.shards", "rank-00001.shards", "manifest.json"}) {
    const std::string good = bytes_of_file(checkpoint / name);
    for (int trial = 0; trial < 150; ++trial) {
      std::string bad = good;
      const std::size_t at = trial < 40 ? static_cast<std::size_t>(trial) : random() % bad.size();
      bad[at] = static_cast<char>(bad[at] ^ (1 << random() % 8));
      // A blank between JSON's tokens may change: it says nothing.
      if (std::string(name) == "manifest.json" && (good[at] == ' ' || good[at] == '\n')) continue;
      write_bytes(checkpoint / name, bad);
      CAPTURE(name, at);
      CHECK(checkpoint_fault(checkpoint) != "");
      CHECK(load_refusal(checkpoint) != "");
    }
    write_bytes(checkpoint / name, good);
  }
  CHECK(checkpoint_fault(checkpoint) == "");
}

TEST_CASE("a file cut off at any place, missing, or of another checkpoint is refused") {
  const ScratchFolder folder("truncated");
  save_halves(folder.path(), 7);
  const auto checkpoint = folder.file("step-00000007");
  const auto file = checkpoint / "rank-00001.shards";
  const std::string good = bytes_of_file(file);
  for (std::size_t length = 0; length < good.size(); length += 1 + length / 16) {
    write_bytes(file, good.substr(0, length));
    CHECK(load_refusal(checkpoint) != "");
  }
  write_bytes(file, good.substr(0, good.size() - 4));
  CHECK(says(load_refusal(checkpoint), "cut off"));
  CHECK(says(load_refusal(checkpoint), "rank-00001.shards"));
  std::filesystem::remove(file);
  CHECK(says(load_refusal(checkpoint), "missing"));
  save_halves(folder.path(), 8);
  std::filesystem::copy_file(folder.file("step-00000008") / "rank-00001.shards", file);
  CHECK(says(load_refusal(checkpoint), "not the file that manifest.json means"));
}

TEST_CASE("tensors that a checkpoint lacks, in name, shape or part, are named") {
  const ScratchFolder folder("lacking");
  std::vector<Rank> ranks(1);
  ranks[0].emplace_back(WholeTensor{"a", {4, 4}}, Shape{0, 0}, Shape{4, 3});
  fill_all(ranks);
  save_all(folder.path(), {.step = 1, .plan_digest = "", .scalars = {}}, ranks);
  const auto load = [&](const WholeTensor& tensor) {
    Rank rank;
    rank.emplace_back(tensor, Shape(tensor.shape.size(), 0), tensor.shape);
    return refusal([&] { load_checkpoint(folder.file("step-00000001"), shards_of(rank)); });
  };
  CHECK(says(load({"b", {4, 4}}), "tensor \"b\" is not in it"));
  CHECK(says(load({"a", {4, 5}}), "has the shape [4, 4], not [4, 5]"));
  CHECK(says(load({"a", {4, 4}}), "no file has its elements from [0, 3]"));
}

TEST_CASE("a checkpoint that is unfinished or damaged is passed over for the last good one") {
  const ScratchFolder folder("last-good");
  CHECK(!last_good(folder.file("nowhere")).step);
  for (const int step : {10, 20, 30, 40}) save_halves(folder.path(), step);
  std::filesystem::remove(folder.file("step-00000040") / "manifest.json");
  const auto file = folder.file("step-00000030") / "rank-00000.shards";
  std::string bytes = bytes_of_file(file);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  write_bytes(file, bytes);
  const LastGood last = last_good(folder.path());
  CHECK(last.step == 20);
  CHECK(last.passed_steps == std::vector<std::int64_t>{30});
  REQUIRE(last.passed_over.size() == 2);
  CHECK(says(last.passed_over[0], "unfinished"));
  CHECK(says(last.passed_over[1], "damaged"));
}

TEST_CASE("old checkpoints are removed, the latest finished ones and what is newer stay") {
  const ScratchFolder folder("old");
  for (const int step : {10, 20, 30, 40, 50}) save_halves(folder.path(), step);
  std::filesystem::remove(folder.file("step-00000050") / "manifest.json");
  std::filesystem::remove(folder.file("step-00000010") / "manifest.json");
  remove_old_checkpoints(folder.path(), 40, 2);
  for (const auto& [name, there] : std::map<std::string, bool>{{"step-00000010", false},
                                                               {"step-00000020", false},
                                                               {"step-00000030", true},
                                                               {"step-00000040", true},
                                                               {"step-00000050", true}})
    CHECK(std::filesystem::exists(folder.file(name)) == there);
}

TEST_CASE("a checkpoint just written stays, whatever later ones lie beside it") {
  const ScratchFolder folder("later");
  for (const int step : {500, 600, 2, 4, 6}) save_halves(folder.path(), step);
  remove_old_checkpoints(folder.path(), 6, 2);
  for (const auto& [name, there] : std::map<std::string, bool>{{"step-00000002", false},
                                                               {"step-00000004", true},
                                                               {"step-00000006", true},
                                                               {"step-00000500", true},
                                                               {"step-00000600", true}})
    CHECK(std::filesystem::exists(folder.file(name)) == there);
}

TEST_CASE("a checkpoint that was passed over is set aside: it neither counts nor is lost") {
  const ScratchFolder folder("aside");
  for (const int step : {10, 20}) save_halves(folder.path(), step);
  const std::string bytes = bytes_of_file(folder.file("step-00000020") / "rank-00001.shards");
  CHECK(latest_finished(folder.path()) == 20);
  CHECK(set_aside(folder.path(), 20) == folder.file("passed-over-step-00000020"));
  CHECK(latest_finished(folder.path()) == 10);
  CHECK(last_good(folder.path()).step == 10);
  CHECK(bytes_of_file(folder.file("passed-over-step-00000020") / "rank-00001.shards") == bytes);
  save_halves(folder.path(), 20);
  CHECK(set_aside(folder.path(), 20) == folder.file("passed-over-step-00000020-2"));
}

TEST_CASE("a checkpoint that is written anew keeps nothing of a larger one begun before") {
  const ScratchFolder folder("anew");
  save_halves(folder.path(), 10);
  std::filesystem::remove(folder.file("step-00000010") / "manifest.json");
  std::vector<Rank> one(1);
  one[0] = whole_tensors();
  fill_all(one);
  save_all(folder.path(), {.step = 10, .plan_digest = "", .scalars = {}}, one);
  CHECK(!std::filesystem::exists(folder.file("step-00000010") / "rank-00001.shards"));
  CHECK(last_good(folder.path()).step == 10);
}

TEST_CASE(
    "ranks that check a checkpoint read a share of its files each, and all of them together") {
  const ScratchFolder folder("shares");
  std::vector<Rank> ranks(5);
  for (std::size_t rank = 0; rank < ranks.size(); ++rank)
    ranks[rank].emplace_back(WholeTensor{"a", {5, 4}}, Shape{static_cast<std::int64_t>(rank), 0},
                             Shape{1, 4});
  fill_all(ranks);
  save_all(folder.path(), {.step = 1, .plan_digest = "", .scalars = {}}, ranks);
  const auto checkpoint = folder.file("step-00000001");
  for (int bad = 0; bad < 5; ++bad) {
    char name[32];
    std::snprintf(name, sizeof name, "rank-%05d.shards", bad);
    const std::string good = bytes_of_file(checkpoint / name);
    write_bytes(checkpoint / name, good.substr(0, good.size() - 1) + "~");
    for (const int sharers : {1, 2, 3, 7}) {
      int noticed = 0;
      for (int place = 0; place < sharers; ++place)
        noticed += says(checkpoint_fault(checkpoint, place, sharers), name) ? 1 : 0;
      CHECK(noticed == 1);
    }
    write_bytes(checkpoint / name, good);
  }
}

TEST_CASE("where a disk is full the checkpoint fails with a reason and the last one stays") {
  const ScratchFolder folder("full");
  save_halves(folder.path(), 10);
  for (const rlim_t bytes : {0, 100, 1500, 2000}) {
    const int status = in_child([&] {
      std::signal(SIGXFSZ, SIG_IGN);  // write then fails, as on a full disk
      const rlimit limit{bytes, bytes};
      setrlimit(RLIMIT_FSIZE, &limit);
      const std::string reason = refusal([&] { save_halves(folder.path(), 20); });
      if (!says(reason, "cannot write") || !says(reason, "rank-0000")) _exit(2);
      throw std::runtime_error(reason);
    });
    CHECK(WEXITSTATUS(status) == 1);
    CHECK(last_good(folder.path()).step == 10);
  }
  // Nothing half-written is left beside the files.
  for (const auto& entry : std::filesystem::directory_iterator(folder.file("step-00000020")))
    CHECK(entry.path().extension() == ".shards");
  save_halves(folder.path(), 20);
  CHECK(last_good(folder.path()).step == 20);
}

TEST_CASE("a rank killed at any point of a save leaves the last checkpoint good") {
  const ScratchFolder folder("killed");
  save_halves(folder.path(), 10);
  // Killed when the folder is there and when the file is, and within it by how far a write gets.
  for (int moment = 1; moment <= 2; ++moment) {
    const int status = in_child([&] {
      Rank rank = whole_tensors();
      for (OwnedShard& owned : rank) owned.fill();
      CrewOfOneThread crew(0, 1, [&](int done) {
        if (done == moment) raise(SIGKILL);
      });
      save_checkpoint(folder.path(), {.step = 20, .plan_digest = "", .scalars = {}},
                      shards_of(rank), crew);
    });
    CHECK(WIFSIGNALED(status));
    CHECK(last_good(folder.path()).step == 10);
  }
  const int status = in_child([&] {
    const rlimit limit{2000, 2000};  // the signal that a write beyond it gets ends the process
    setrlimit(RLIMIT_FSIZE, &limit);
    save_halves(folder.path(), 20);
  });
  CHECK(WIFSIGNALED(status));
  CHECK(last_good(folder.path()).step == 10);
  // Saving the same step again, over what is left, works.
  save_halves(folder.path(), 20);
  CHECK(last_good(folder.path()).step == 20);
}
