#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>
#include <utility>

#include "runtime/machine_facts.h"

namespace rehearse {
namespace {

std::string read_text(const char* path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  return std::move(text).str();
}

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\n") - first + 1);
}

/// The extensions that GEMM and attention speed hangs on: x86 names, then Arm's.
constexpr std::string_view kDecisiveFeatures[] = {
    "avx2", "fma", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "asimd", "sve", "bf16"};

std::vector<std::string> decisive_features(std::string_view flags) {
  std::set<std::string, std::less<>> all;
  std::istringstream words{std::string(flags)};
  for (std::string word; words >> word;) all.insert(word);
  std::vector<std::string> found;
  for (const auto feature : kDecisiveFeatures)
    if (all.contains(feature)) found.emplace_back(feature);
  return found;
}

int usable_threads() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
}

}  // namespace

CpuFacts parse_cpuinfo(std::string_view text) {
  CpuFacts facts;
  std::set<std::string> sockets;
  std::set<std::pair<std::string, std::string>> cores;
  std::string socket, core;
  const auto end_of_thread = [&] {
    if (!socket.empty() && !core.empty()) cores.emplace(socket, core);
    socket.clear();
    core.clear();
  };
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    const auto colon = line.find(':');
    if (colon == std::string::npos) {
      end_of_thread();
      continue;
    }
    const auto key = trimmed(std::string_view(line).substr(0, colon));
    const auto value = trimmed(std::string_view(line).substr(colon + 1));
    if (key == "model name" && facts.model.empty()) facts.model = value;
    if (key == "physical id") sockets.insert(socket = std::string(value));
    if (key == "core id") core = value;
    if ((key == "flags" || key == "Features") && facts.features.empty())
      facts.features = decisive_features(value);
  }
  end_of_thread();
  facts.sockets = static_cast<int>(sockets.size());
  facts.cores = static_cast<int>(cores.size());
  return facts;
}

double parse_cpu_quota(std::string_view text) {
  double quota = 0, period = 0;
  std::istringstream words{std::string(text)};
  if (!(words >> quota >> period) || quota <= 0 || period <= 0) return 0;
  return quota / period;
}

CpuFacts probe_cpu() {
  CpuFacts facts = parse_cpuinfo(read_text("/proc/cpuinfo"));
  if (facts.model.empty()) {
    utsname system{};
    facts.model = uname(&system) == 0 ? std::string("unnamed ") + system.machine : "unknown";
  }
  facts.usable_threads = usable_threads();
  facts.quota_threads = parse_cpu_quota(read_text("/sys/fs/cgroup/cpu.max"));
  facts.memory_bytes =
      static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGE_SIZE));
  return facts;
}

double parse_available_memory(std::string_view meminfo, std::string_view group_limit) {
  constexpr std::string_view kField = "MemAvailable:";
  double available = 0, limit = 0;
  if (const auto at = meminfo.find(kField); at != std::string_view::npos)
    std::istringstream(std::string(meminfo.substr(at + kField.size()))) >> available;
  available *= 1024;  // "MemAvailable:   21937348 kB"
  const bool is_limited = static_cast<bool>(std::istringstream(std::string(group_limit)) >> limit);
  return is_limited ? std::min(available, limit) : available;
}

double available_memory_bytes() {
  return parse_available_memory(read_text("/proc/meminfo"), read_text("/sys/fs/cgroup/memory.max"));
}

}  // namespace rehearse
