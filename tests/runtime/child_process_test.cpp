// Several processes that are started, waited for and ended together.
#include "runtime/child_process.h"

#include <csignal>

#include "tests/catch.h"
#include "tests/runtime/scratch_folder.h"

using namespace rehearse;

namespace {

std::vector<std::string> shell(const std::string& script) { return {"/bin/sh", "-c", script}; }

bool is_running(const std::filesystem::path& file) {
  std::ifstream stream(file);
  int pid = 0;
  return stream >> pid && kill(pid, 0) == 0;
}

}  // namespace

TEST_CASE("processes started together run beside each other and are all waited for") {
  const ScratchFolder folder("processes");
  const std::string a = folder.file("a").string(), b = folder.file("b").string();
  const auto meets = [](const std::string& mine, const std::string& other) {
    return shell("touch " + mine + "; while [ ! -e " + other + " ]; do sleep 0.01; done; " +
                 "echo done >" + mine);
  };
  CHECK(run_together({meets(a, b), meets(b, a)}) == 0);
  CHECK(std::filesystem::file_size(a) > 0);
  CHECK(std::filesystem::file_size(b) > 0);
}

TEST_CASE("when one of several processes fails, the others are ended and its code is told") {
  const ScratchFolder folder("processes");
  const std::string pid = folder.file("pid").string();
  const std::vector<std::string> waits = shell("echo $$ >" + pid + "; exec sleep 600");
  CHECK(run_together({waits, shell("while [ ! -s " + pid + " ]; do sleep 0.01; done; exit 3")}) ==
        3);
  CHECK_FALSE(is_running(pid));
}

TEST_CASE("several processes end once they may not go on, also one that will not listen") {
  const ScratchFolder folder("processes");
  const std::string deaf = folder.file("deaf").string();
  const std::vector<std::string> ignores =
      shell("trap '' TERM; echo $$ >" + deaf + "; while true; do sleep 1; done");
  const auto may_go_on = [&] { return !is_running(deaf); };
  CHECK(run_together({ignores, shell("exec sleep 600")}, may_go_on) != 0);
  CHECK_FALSE(is_running(deaf));
}

TEST_CASE("of several programs one that cannot be started ends those before it") {
  const ScratchFolder folder("processes");
  const std::string pid = folder.file("pid").string();
  CHECK_THROWS_WITH(
      run_together({shell("echo $$ >" + pid + "; exec sleep 600"), {"/nowhere/at/all"}}),
      Catch::Contains("cannot start /nowhere/at/all"));
  CHECK_FALSE(is_running(pid));
}
