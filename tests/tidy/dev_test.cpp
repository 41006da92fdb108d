// The script `dev`, run in a folder of its own where apt-get, sudo, cmake and the rest are fakes
// that write down how they were called.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "runtime/child_process.h"
#include "tests/catch.h"
#include "tests/places.h"

using namespace rehearse;

namespace {

namespace fs = std::filesystem;

class Workshop {
 public:
  Workshop() : root_(fs::temp_directory_path() / ("rehearse-dev-" + std::to_string(getpid()))) {
    fs::remove_all(root_);
    fs::create_directories(root_ / "bin");
    fs::copy_file(std::filesystem::path(source_directory()) / "dev", root_ / "dev");
    for (const char* tool : {"bash", "env", "dirname", "mkdir", "cat", "nproc", "chmod", "grep",
                             "find", "sort", "xargs", "head", "tr", "tee", "timeout"}) {
      for (const char* folder : {"/usr/bin", "/bin"}) {
        if (!fs::exists(fs::path(folder) / tool) || fs::exists(root_ / "bin" / tool)) continue;
        fs::create_symlink(fs::path(folder) / tool, root_ / "bin" / tool);
      }
    }
    fake("dpkg-query", "case \" $MISSING \" in *\" ${!#} \"*) exit 1 ;; esac; echo installed");
    fake("apt-get", "echo apt-get \"$@\" >> calls");
    fake("sudo", "echo sudo >> calls; [ \"$1\" = -n ] && shift; exec \"$@\"");
    fake("id", "echo \"$WHO\"");
    fake("cmake",
         "echo cmake \"$@\" >> calls; [ -z \"$BROKEN\" ] || exit 1\n"
         "case \"$*\" in *--build*) mkdir -p build/release\n"
         "printf '#!/bin/bash\\necho rehearse \"$@\" >> calls; echo a table\\n'"
         " > build/release/rehearse; chmod +x build/release/rehearse;; esac");
    fake("ctest", "echo ctest \"$@\" >> calls; exit ${FAILING:-0}");
  }
  ~Workshop() { fs::remove_all(root_); }
  Workshop(const Workshop&) = delete;
  Workshop& operator=(const Workshop&) = delete;

  void fake(const std::string& name, const std::string& script) const {
    write("bin/" + name, "#!/bin/bash\n" + script + "\n");
    fs::permissions(root_ / "bin" / name, fs::perms::owner_all);
  }
  void remove(const std::string& name) const { fs::remove(root_ / "bin" / name); }
  void write(const std::string& name, const std::string& text) const {
    fs::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name) << text;
  }
  void set(const std::string& name, const std::string& value) {
    settings_.push_back(name + "=" + value);
  }
  bool exists(const std::string& name) const { return fs::exists(root_ / name); }
  std::string calls() const {
    std::ostringstream text;
    text << std::ifstream(root_ / "calls").rdbuf();
    return text.str();
  }

  /// Runs `dev` from another folder, with nothing on its standard input.
  ChildResult dev(const std::string& arguments) const {
    std::vector<std::string> command{"/usr/bin/env", "-i", "PATH=" + (root_ / "bin").string(),
                                     "WHO=0"};
    command.insert(command.end(), settings_.begin(), settings_.end());
    command.insert(
        command.end(),
        {"bash", "-c", "\"" + (root_ / "dev").string() + "\" " + arguments + " < /dev/null"});
    return run_child(command);
  }

 private:
  fs::path root_;
  std::vector<std::string> settings_;
};

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("dev demo builds, runs the main job and says where the results lie") {
  const Workshop workshop;
  const ChildResult child = workshop.dev("demo");
  CHECK(child.exit_code == 0);
  CHECK(child.out == "a table\n");
  CHECK(contains(child.err, "the results lie in results/gpt3-175b-dgx-h100/"));
  CHECK(workshop.exists("results/gpt3-175b-dgx-h100"));
  const std::string calls = workshop.calls();
  CHECK(contains(calls, "cmake --preset release\n"));
  CHECK(contains(calls, "cmake --build --preset release --target rehearse\n"));
  CHECK(contains(calls, "rehearse run scenarios/gpt3-175b-dgx-h100.json "));
  CHECK(contains(calls, " --json results/gpt3-175b-dgx-h100/result.json"));
  CHECK_FALSE(contains(calls, "apt-get"));
}

TEST_CASE("root installs exactly what is missing") {
  Workshop workshop;
  workshop.set("MISSING", "ccache libfmt-dev");
  const ChildResult child = workshop.dev("demo");
  CHECK(child.exit_code == 0);
  CHECK(contains(child.err, "dev: installing: ccache libfmt-dev\n"));
  CHECK(contains(workshop.calls(), "apt-get -qq update\n"));
  CHECK(contains(workshop.calls(), "install ccache libfmt-dev\n"));
  CHECK_FALSE(contains(workshop.calls(), "sudo"));
}

TEST_CASE("others install with sudo, and are told so") {
  Workshop workshop;
  workshop.set("WHO", "1000");
  workshop.set("MISSING", "catch2");
  const ChildResult child = workshop.dev("test");
  CHECK(child.exit_code == 0);
  CHECK(contains(child.err, "dev: installing with sudo: catch2\n"));
  CHECK(contains(workshop.calls(), "sudo\napt-get -qq update\nsudo\n"));
}

TEST_CASE("without sudo the command for root is given") {
  Workshop workshop;
  workshop.set("WHO", "1000");
  workshop.set("MISSING", "catch2 graphviz");
  workshop.remove("sudo");
  const ChildResult child = workshop.dev("test");
  CHECK(child.exit_code == 1);
  CHECK(contains(child.err, "as root, run: apt-get install catch2 graphviz"));
  CHECK_FALSE(contains(workshop.calls(), "cmake"));
}

TEST_CASE("a system without apt-get is told what the build needs, and tries") {
  Workshop workshop;
  workshop.remove("apt-get");
  const ChildResult child = workshop.dev("build");
  CHECK(child.exit_code == 0);
  CHECK(contains(child.err, "this is no Debian system"));
  CHECK(contains(child.err, "libsimgrid-dev"));
  CHECK(contains(workshop.calls(), "cmake --build --preset release\n"));
}

TEST_CASE("an installation that fails stops before the build") {
  Workshop workshop;
  workshop.set("MISSING", "g++");
  workshop.fake("apt-get", "exit 100");
  const ChildResult child = workshop.dev("demo");
  CHECK(child.exit_code == 1);
  CHECK(contains(child.err, "apt-get update failed"));
  CHECK_FALSE(contains(workshop.calls(), "cmake"));
}

TEST_CASE("installing can be forbidden") {
  Workshop workshop;
  workshop.set("MISSING", "g++");
  workshop.set("REHEARSE_INSTALL", "0");
  CHECK(workshop.dev("demo").exit_code == 0);
  CHECK_FALSE(contains(workshop.calls(), "apt-get"));
}

TEST_CASE("dev test passes ctest's arguments and exit code on") {
  Workshop workshop;
  workshop.set("FAILING", "8");
  const ChildResult child = workshop.dev("test -L unit");
  CHECK(child.exit_code == 8);
  CHECK(contains(workshop.calls(), "ctest --preset release --parallel "));
  CHECK(contains(workshop.calls(), " -L unit\n"));
}

TEST_CASE("tests do not run where the build fails") {
  Workshop workshop;
  workshop.set("BROKEN", "1");
  CHECK(workshop.dev("test").exit_code != 0);
  CHECK_FALSE(contains(workshop.calls(), "ctest"));
}

TEST_CASE("dev bench runs every benchmark that was built, and fails where there is none") {
  const Workshop workshop;
  CHECK(workshop.dev("bench").exit_code == 1);
  workshop.write("build/release/rehearse_bench_sim", "#!/bin/bash\necho bench \"$@\" >> calls\n");
  workshop.write("build/release/rehearse_bench.txt", "no program\n");
  CHECK(workshop.dev("bench").exit_code == 1);
  workshop.dev("bench; chmod +x $(dirname \"$PATH\")/build/release/rehearse_bench_sim");
  CHECK(workshop.dev("bench --benchmark_filter=x").exit_code == 0);
  CHECK(contains(workshop.calls(), "bench --benchmark_filter=x\n"));
}

TEST_CASE("a loop's verdict goes by the median of its rounds, and fails outside of its bars") {
  const auto verdict = [](const std::string& rows) {
    return run_child({"/bin/bash", "-c",
                      "PATH=/usr/bin:/bin; printf '" + rows +
                          "' | awk -v time_bar=10 -v memory_bar=3 -f " +
                          std::string(source_directory()) + "/tests/loops/table.awk"});
  };
  // Errors of +30, +5 and -8 %; the middle one counts.
  const std::string rounds =
      "a\\t1\\t1.3\\t100\\t101\\t9\\t40\\na\\t1\\t1.05\\t100\\t101\\t9\\t40\\n"
      "a\\t1\\t0.92\\t100\\t101\\t9\\t40\\n";
  const ChildResult within = verdict(rounds);
  CHECK(within.exit_code == 0);
  CHECK(contains(within.out, "| +5.0 % |"));
  CHECK(contains(within.out, "verdict: within 10 % of the step times and 3 % of the memory"));
  const ChildResult slow = verdict(rounds + "b\\t1\\t1.2\\t100\\t100\\t9\\t-\\n");
  CHECK(slow.exit_code == 1);
  CHECK(contains(slow.out, ": b (time)\n"));
  const ChildResult full = verdict("b\\t1\\t1\\t100\\t104\\t9\\t-\\n");
  CHECK(full.exit_code == 1);
  CHECK(contains(full.out, ": b (memory)\n"));
  CHECK(verdict("b\\t1\\t1\\t\\t\\t9\\t-\\n").exit_code == 1);  // nothing measured
  CHECK(verdict("").exit_code == 1);
}

TEST_CASE("what dev does not know is refused with what it knows") {
  const Workshop workshop;
  const ChildResult command = workshop.dev("tset");
  CHECK(command.exit_code == 2);
  CHECK(contains(command.err, "there is no command 'tset'"));
  CHECK(contains(command.err, "./dev test"));
  const ChildResult preset = workshop.dev("build fast");
  CHECK(preset.exit_code == 2);
  CHECK(contains(preset.err, "there are release, asan, cpu and gpu"));
  CHECK(workshop.dev("format --chekc").exit_code == 2);
  CHECK(workshop.calls() == "");
}

namespace {

/// A machine with a GPU: nvcc, and a build whose tests are two programs.
class GpuWorkshop : public Workshop {
 public:
  GpuWorkshop() {
    fake("nvcc", "");
    fake("nvidia-smi", "case \"$*\" in *compute_cap*) echo 9.0 ;; *) echo NVIDIA H200 ;; esac");
    fake("compute-sanitizer", "echo sanitizer \"$@\" >> calls; exit ${SANITIZER:-0}");
    // Configuring lists the programs, building makes all of them but those that are $UNBUILT.
    fake("cmake",
         "echo cmake \"$@\" >> calls; mkdir -p build/gpu\n"
         "case \"$1\" in\n"
         "-S) printf 'kernels_cuda_test\\nruntime_cuda_test\\n' > build/gpu/gpu_tests.txt ;;\n"
         "--build) for program in rehearse-device kernels_cuda_test runtime_cuda_test; do\n"
         "  [ \"$program\" = \"$UNBUILT\" ] && continue\n"
         "  printf '#!/bin/bash\\necho %s \"$@\" >> calls\\n' $program > build/gpu/$program\n"
         "  printf 'case $1 in $MISSED) exit 4 ;; esac\\n' >> build/gpu/$program\n"
         "  chmod +x build/gpu/$program; done ;;\n"
         "esac");
  }
};

}  // namespace

TEST_CASE("dev gpu build makes every program whose tests want a GPU, for the GPU at hand") {
  const GpuWorkshop workshop;
  CHECK(workshop.dev("gpu build").exit_code == 0);
  CHECK(contains(workshop.calls(), "-DCMAKE_CUDA_ARCHITECTURES=90"));
  CHECK(
      contains(workshop.calls(), "--target rehearse-device kernels_cuda_test runtime_cuda_test\n"));
}

TEST_CASE("dev gpu test fails where one of its programs is not there") {
  GpuWorkshop workshop;
  CHECK(workshop.dev("gpu test").exit_code == 0);
  CHECK(contains(workshop.calls(), "ctest --test-dir build/gpu "));
  GpuWorkshop lacking;
  lacking.set("UNBUILT", "runtime_cuda_test");
  const ChildResult child = lacking.dev("gpu test");
  CHECK(child.exit_code == 1);
  CHECK(contains(child.err, "the GPU tests of runtime_cuda_test were not built"));
  CHECK_FALSE(contains(lacking.calls(), "ctest"));
}

TEST_CASE("dev gpu all runs every step, whatever one of them finds, and names those that failed") {
  GpuWorkshop workshop;
  workshop.set("SANITIZER", "9");
  workshop.set("FAILING", "8");
  const ChildResult child = workshop.dev("gpu all");
  CHECK(child.exit_code == 1);
  CHECK(contains(child.err, "these steps failed: test sanitize\n"));
  CHECK(contains(workshop.calls(), "rehearse-device bench\n"));
  CHECK(contains(workshop.calls(), "rehearse-device profile --device cuda -o"));
  CHECK(contains(workshop.calls(), "rehearse-device floors results/gpu/h200-sxm.rehearse.csv\n"));
  const GpuWorkshop good;
  CHECK(good.dev("gpu all").exit_code == 0);
}

TEST_CASE("dev gpu bench and profile fail where a bar is missed") {
  GpuWorkshop workshop;
  workshop.set("MISSED", "floors");
  CHECK(workshop.dev("gpu profile").exit_code == 4);
  CHECK(workshop.dev("gpu bench").exit_code == 0);
  workshop.set("MISSED", "bench");
  CHECK(workshop.dev("gpu bench").exit_code == 4);
}
