// A disk that is full under a checkpoint: a tmpfs in a mount namespace of the test's own, which is
// gone with the last process in it, however that ends.
#include <unistd.h>

#include <algorithm>
#include <iterator>

#include "tests/catch.h"
#include "tests/runtime/train/train_program.h"

using namespace rehearse;

namespace {

/// Trains into a small tmpfs on $1, whose size $2 is, and then, with space enough, once more with
/// --resume. Leaves behind what both runs said, and what the first left. Open MPI has its files
/// apart: who is root in a namespace only may not write to the folder that root has for them.
constexpr const char* kScript = R"(
folder=$1; notes=$2; size=$3; shift 3
mount -t tmpfs -o "size=$size" tmpfs "$folder" || exit 0
touch "$notes/mounted"
mkdir "$notes/tmp"; export TMPDIR="$notes/tmp"
"$@" >"$notes/full.out" 2>"$notes/full.err"
echo $? >"$notes/full.code"
ls -A "$folder"/* >"$notes/full.list"
df "$folder" >"$notes/full.df"
mount -o remount,size=64m tmpfs "$folder"
"$@" --resume >"$notes/again.out" 2>"$notes/again.err"
echo $? >"$notes/again.code"
)";

std::uintmax_t bytes_under(const fs::path& folder) {
  constexpr std::uintmax_t kPage = 4096;  // tmpfs takes whole pages
  std::uintmax_t sum = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) sum += (entry.file_size() / kPage + 1) * kPage;
  return sum;
}

}  // namespace

TEST_CASE(
    "a disk that is full under a checkpoint ends the run, which goes on where there is room") {
  const RunFolder folder;
  const std::string plan = folder.write("plan.json", small_plan(2, 1));
  const std::string text = folder.write("text.txt", some_text());
  const auto words = [&](const std::string& checkpoints) {
    return std::vector<std::string>{plan,         "--data",       text,
                                    "--steps",    "12",           "--json",
                                    "--deadline", "60s",          "--checkpoint-every",
                                    "4",          "--checkpoint", checkpoints};
  };
  const std::string whole = folder.file("whole"), small = folder.file("small");
  const ChildResult undisturbed = train(words(whole));  // keeps the checkpoints of steps 8 and 12
  REQUIRE(undisturbed.exit_code == 0);
  fs::create_directory(small);
  const std::uintmax_t room = 3 * bytes_under(whole) / 4;  // for one checkpoint and a half

  std::vector<std::string> command{
      "/usr/bin/env", "unshare",       geteuid() == 0 ? "-m" : "-rm", "sh", "-c", kScript, "sh",
      small,          folder.file(""), std::to_string(room)};
  command.insert(command.end(), {kDevice, "train"});
  for (const std::string& word : words(small)) command.push_back(word);
  const ChildResult both = run_child(command);
  if (!fs::exists(folder.file("mounted"))) {
    WARN("SKIPPED: no tmpfs can be mounted here: " + both.err);
    return;
  }
  const std::string error = contents(folder.file("full.err"));
  INFO(error << contents(folder.file("full.list")) << contents(folder.file("full.df"))
             << contents(folder.file("again.err")));
  CHECK(contents(folder.file("full.code")) == "1\n");
  CHECK(error.find("No space left on device") != std::string::npos);
  CHECK(error.find(small + "/step-00000008") != std::string::npos);
  const std::string told = "rehearse-device: error:";
  CHECK(error.find(told) == error.rfind(told));
  CHECK(contents(folder.file("full.list")).find("step-00000004") != std::string::npos);

  CHECK(contents(folder.file("again.code")) == "0\n");
  const auto expected = losses(undisturbed.out);
  const auto found = losses(contents(folder.file("again.out")));
  REQUIRE(expected.size() == 12);
  REQUIRE(found.size() == 8);
  CHECK(std::equal(found.begin(), found.end(), expected.begin() + 4));
  CHECK(fs::is_empty(small));  // the tmpfs is gone
}
