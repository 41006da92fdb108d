// rehearse-mpi under mpirun, with a fake program in the place of rehearse.
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "kernels/profile_file.h"
#include "plan/write_file.h"
#include "runtime/child_process.h"
#include "tests/catch.h"
#include "tests/places.h"

using namespace rehearse;

namespace {

namespace fs = std::filesystem;
const std::string kFake = source_directory() + "/tests/runtime/fake_rehearse.sh";

/// A folder of its own for each test, removed afterwards.
class Folder {
 public:
  Folder() : path_(fs::temp_directory_path() / ("rehearse-mpi-" + std::to_string(getpid()))) {
    fs::create_directories(path_);
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name) << text;
    return (path_ / name).string();
  }
  fs::path path() const { return path_; }

 private:
  fs::path path_;
};

/// Open MPI refuses root, and more ranks than cores, unless told otherwise.
std::vector<std::string> mpirun(int ranks, const std::vector<std::string>& arguments) {
  setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
  setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
  setenv("OMPI_MCA_rmaps_base_oversubscribe", "1", 1);
  // Open MPI unloads its modules with what they leak, which no suppression can name.
  setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
  std::vector<std::string> command{MPIRUN, "-n", std::to_string(ranks),
                                   binary_directory() + "/rehearse-mpi", "run"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

ChildResult spread(int ranks, const std::string& scenario) {
  return run_child(mpirun(ranks, {scenario, "--program", kFake}));
}

int count(const std::string& text, const std::string& part) {
  int found = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

bool alive(int process) { return kill(process, 0) == 0; }

int process_id(const fs::path& file) {
  int id = 0;
  std::ifstream(file) >> id;
  return id;
}

template <typename Condition>
bool within_seconds(int seconds, Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

}  // namespace

TEST_CASE("ranks print together what one process prints alone") {
  const Folder folder;
  const std::string scenario = folder.write("plain", "a\nb\nc\nd\ne\n");
  const ChildResult alone = run_child({kFake, "run", scenario, "--json", "-", "--shard", "1/1"});
  REQUIRE(alone.exit_code == 0);
  const int ranks = GENERATE(1, 2, 3);
  CAPTURE(ranks);
  const ChildResult together = spread(ranks, scenario);
  CHECK(together.exit_code == 0);
  CHECK(together.out == alone.out);
}

TEST_CASE("two ranks measure their link: time grows with the message, and is told as JSON") {
  std::vector<std::string> command = mpirun(2, {});
  command.resize(3);
  const std::string device = binary_directory() + "/rehearse-device";
  command.insert(command.end(), {device, "links", "--json"});
  const ChildResult child = run_child(command);
  CAPTURE(child.err);
  REQUIRE(child.exit_code == 0);
  CHECK(child.out.find("\"schema\": \"links/1\"") != std::string::npos);
  CHECK(count(child.out, "\"collective\": ") == 5);
  CHECK(count(child.out, "\"median_s\": ") == 5 * 11);
  const ChildResult alone = run_child({device, "links"});
  CHECK(alone.exit_code == 1);
  CHECK(alone.err.find("mpirun -n 2") != std::string::npos);
}

TEST_CASE("what ranks measured together goes into a profile, in the place of older curves") {
  const std::string device = binary_directory() + "/rehearse-device";
  const auto path =
      std::filesystem::path(binary_directory()) / ("links-" + std::to_string(getpid()) + ".json");
  Profile profile;
  profile.gpu = profile.device.gpu = "cpu";
  profile.stack = "rehearse";
  profile.device.fp32_flops = 1e11;
  profile.device.memory_bandwidth_bytes_per_s = 1e10;
  profile.device.streaming_multiprocessors = 1;
  profile.collectives = {{.ranks = 2, .points = {{1, 1}, {2, 2}}},
                         {.ranks = 64, .points = {{1, 1}, {2, 2}}}};
  write_file_whole(path.string(), write_profile(profile), true);
  std::vector<std::string> command = mpirun(2, {});
  command.resize(3);
  command.insert(command.end(), {device, "links", "--into", path.string()});
  const ChildResult child = run_child(command);
  CAPTURE(child.err);
  REQUIRE(child.exit_code == 0);
  std::ifstream in(path);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  std::filesystem::remove(path);
  Problems problems;
  const auto completed = read_profile(text, path.string(), problems);
  REQUIRE(completed);
  REQUIRE(completed->collectives.size() == 6);
  CHECK(completed->collectives.front().ranks == 64);
  for (std::size_t i = 1; i < 6; ++i) {
    CHECK(completed->collectives[i].points.size() == 11);
    CHECK(completed->collectives[i].points.back().bytes == 64 << 20);
  }
  const ChildResult missing = run_child({device, "links", "--into", "nowhere.json"});
  CHECK(missing.exit_code == 1);
  CHECK(missing.err.find("nowhere.json cannot be read") != std::string::npos);
}

#ifdef REHEARSE_PROGRAM
TEST_CASE("ranks that start rehearse itself print what it prints alone") {
  for (const char* name : {"half-network", "layerwise-vs-pipeline"}) {
    const std::string scenario = source_directory() + "/scenarios/" + name + ".json";
    const ChildResult alone = run_child({REHEARSE_PROGRAM, "run", scenario, "--json", "-"});
    REQUIRE(alone.exit_code == 0);
    const ChildResult together = run_child(mpirun(2, {scenario}));
    CHECK(together.exit_code == 0);
    CHECK(together.err == "");
    CHECK((together.out == alone.out));  // too long to be printed
  }
}

TEST_CASE("ranks that start rehearse itself pass its problems on") {
  const Folder folder;
  const ChildResult child = run_child(mpirun(2, {folder.write("wrong.json", "{\"modle\": 1}")}));
  CHECK(child.exit_code == 2);
  CHECK(child.out == "");
  CHECK(count(child.err, "wrong.json:1:2: error:") == 1);
}
#endif

TEST_CASE("more ranks than variants leave some idle and change nothing") {
  const Folder folder;
  const std::string scenario = folder.write("plain", "only\n");
  const ChildResult alone = run_child({kFake, "run", scenario, "--json", "-", "--shard", "1/1"});
  CHECK(spread(3, scenario).out == alone.out);
}

TEST_CASE("the merged document goes to a file, and overwrites only when told") {
  const Folder folder;
  const std::string scenario = folder.write("plain", "a\nb\n");
  const std::string result = (folder.path() / "result.json").string();
  const std::vector<std::string> arguments{scenario, "--program", kFake, "--json", result};
  CHECK(run_child(mpirun(2, arguments)).exit_code == 0);
  const auto size = fs::file_size(result);
  CHECK(size > 0);
  const ChildResult again = run_child(mpirun(2, arguments));
  CHECK(again.exit_code != 0);
  CHECK(again.err.find("--force") != std::string::npos);
  auto forced = arguments;
  forced.push_back("--force");
  CHECK(run_child(mpirun(2, forced)).exit_code == 0);
  CHECK(fs::file_size(result) == size);
}

TEST_CASE("bad input is said once and passed on") {
  const Folder folder;
  const ChildResult child = spread(2, folder.write("bad", "a\nb\n"));
  CHECK(child.exit_code == 2);
  CHECK(child.out == "");
  CHECK(count(child.err, "error: no such model") == 1);
}

TEST_CASE("the failure of one share fails the whole, and nothing is printed as a result") {
  const Folder folder;
  const ChildResult crashed = spread(2, folder.write("crash", "a\nb\n"));
  CHECK(crashed.exit_code == 128 + SIGSEGV);
  CHECK(crashed.out == "");
  const ChildResult garbage = spread(2, folder.write("garbage", "a\nb\n"));
  CHECK(garbage.exit_code == 1);
  CHECK(garbage.out == "");
  CHECK(garbage.err.find("share 2 of 2 did not print a result/1 document") != std::string::npos);
}

TEST_CASE("no plan that fits in any share is exit code 3 with the whole result") {
  const Folder folder;
  const ChildResult child = spread(2, folder.write("nofit", "a\nb\n"));
  CHECK(child.exit_code == 3);
  CHECK(count(child.out, "\"name\"") == 2);
}

TEST_CASE("a program that cannot be started is an error of the environment") {
  const Folder folder;
  const ChildResult child =
      run_child(mpirun(2, {folder.write("plain", "a\n"), "--program", "/no/such/program"}));
  CHECK(child.exit_code == 1);
  CHECK(count(child.err, "cannot start /no/such/program") == 1);
}

TEST_CASE("a wrong command line is said by one rank only") {
  const ChildResult child = run_child(mpirun(2, {"--program"}));
  CHECK(child.exit_code == 2);
  CHECK(count(child.err, "--program needs a value") == 1);
}

TEST_CASE("stopping mpirun leaves no share running") {
  const Folder folder;
  const std::string scenario = folder.write("sleep", "a\nb\n");
  const auto command = mpirun(2, {scenario, "--program", kFake});
  const pid_t starter = fork();
  if (starter == 0) {
    std::vector<char*> arguments;
    for (const auto& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
    arguments.push_back(nullptr);
    execv(arguments[0], arguments.data());
    _exit(127);
  }
  const fs::path files[] = {scenario + ".1.pid", scenario + ".2.pid"};
  CHECK(within_seconds(30, [&] { return process_id(files[0]) > 0 && process_id(files[1]) > 0; }));
  const int shares[] = {process_id(files[0]), process_id(files[1])};
  kill(starter, SIGTERM);
  waitpid(starter, nullptr, 0);
  for (const int share : shares) {
    REQUIRE(share > 0);
    CHECK(within_seconds(10, [&] { return !alive(share); }));
  }
}
