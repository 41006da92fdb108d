// Every header compiles alone, so that files may include what they need in any order. A header
// that some .cpp file includes first is compiled alone by the build; the others are compiled here.
#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include "tests/catch.h"
#include "tests/places.h"
#include "tests/tidy/source_tree.h"

using namespace rehearse;
using namespace rehearse::tidy;

namespace {

/// Headers that the host's compiler can read: those of device code and of libraries that this
/// build is without are left to the targets that use them.
bool for_the_host(const SourceFile& file) {
  if (file.extension() != ".h") return false;
  const auto headers = includes(file);
  return std::none_of(headers.begin(), headers.end(), [](const std::string& header) {
    return header.starts_with("cu") || header == "nccl.h" || header == "mpi.h" ||
           header.ends_with(".cuh");
  });
}

/// Includes the header before anything else, and so shows that it needs nothing before it.
bool begins_with(const SourceFile& source, const std::string& header) {
  const auto headers = includes(source);
  return !headers.empty() && headers.front() == header;
}

std::string compile_alone(const std::string& header) {
  std::vector<std::string> command{HOST_COMPILER, "-std=c++20", "-fsyntax-only", "-Wall",
                                   "-Wextra"};
  command.insert(command.end(),
                 {"-I", source_directory(), "-include", header, "-x", "c++", "/dev/null"});
  std::string line;
  for (const auto& part : command) line += "'" + part + "' ";
  FILE* pipe = popen((line + "2>&1").c_str(), "r");
  std::string output;
  char buffer[4096];
  while (const auto count = fread(buffer, 1, sizeof buffer, pipe)) output.append(buffer, count);
  return pclose(pipe) == 0 ? "" : header + " does not compile alone:\n" + output;
}

}  // namespace

TEST_CASE("every header compiles alone") {
  const std::vector<SourceFile> files = source_files(source_directory());
  std::vector<std::string> headers;
  for (const auto& file : files) {
    const bool built_first = std::any_of(files.begin(), files.end(), [&](const SourceFile& source) {
      return source.extension() == ".cpp" && begins_with(source, file.path);
    });
    if (for_the_host(file) && !built_first) headers.push_back(file.path);
  }
  REQUIRE(!headers.empty());

  std::atomic<std::size_t> next = 0;
  std::mutex mutex;
  std::string faults;
  const auto work = [&] {
    for (std::size_t i = next++; i < headers.size(); i = next++) {
      const std::string fault = compile_alone(headers[i]);
      const std::lock_guard lock(mutex);
      faults += fault;
    }
  };
  std::vector<std::jthread> workers;
  for (unsigned i = 0; i < std::max(1u, std::thread::hardware_concurrency()); ++i)
    workers.emplace_back(work);
  workers.clear();
  CHECK(faults == "");
}
