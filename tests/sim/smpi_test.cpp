// A collective against SimGrid's own MPI layer, which replays a trace of MPI calls on the same
// hardware with its own implementation of the algorithm.
#include <stdlib.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>

#include "sim/simulate.h"
#include "tests/catch.h"
#include "tests/sim/graph_builder.h"

namespace rehearse {
namespace {

constexpr int kRanks = 8;
constexpr double kBytes = 16777216;
constexpr double kBandwidth = 50e9;
constexpr SimulationOptions kOneStep{
    .steps = 1, .one_by_one = false, .interference = {}, .host_step_s = 0};

/// A folder of its own that goes with the test.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "rehearse-smpi-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~ScratchFolder() { std::filesystem::remove_all(path_); }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  std::string file(const char* name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

std::string output_of(const std::string& command) {
  std::string output;
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::array<char, 4096> buffer;
  while (const std::size_t n = fread(buffer.data(), 1, buffer.size(), pipe))
    output.append(buffer.data(), n);
  pclose(pipe);
  return output;
}

/// What SMPI says a ring all-reduce ("lr") takes on a star of duplex links without latency.
double smpi_ring_seconds() {
  const ScratchFolder folder;
  std::ofstream(folder.file("platform.xml"))
      << "<?xml version='1.0'?>\n"
         "<!DOCTYPE platform SYSTEM \"https://simgrid.org/simgrid.dtd\">\n"
         "<platform version=\"4.1\"><cluster id=\"c\" prefix=\"n\" suffix=\"\" radical=\"0-7\" "
         "speed=\"1Gf\" bw=\"50GBps\" lat=\"0us\" sharing_policy=\"SPLITDUPLEX\"/></platform>\n";
  std::ofstream trace(folder.file("trace.txt"));
  for (int rank = 0; rank < kRanks; ++rank)
    trace << rank << " init\n"
          << rank << " allreduce " << static_cast<long>(kBytes) << " 0\n"
          << rank << " finalize\n";
  trace.close();
  std::ofstream(folder.file("traces.txt")) << folder.file("trace.txt") << "\n";
  const std::string output =
      output_of("cd '" + folder.file(".") +
                "' && smpirun -np 8 -platform platform.xml -replay traces.txt "
                "--cfg=network/model:CM02 --cfg=network/crosstraffic:0 --cfg=network/TCP-gamma:0 "
                "--cfg=smpi/allreduce:lr --cfg=smpi/display-timing:yes "
                "--cfg=smpi/simulate-computation:no");
  CAPTURE(output);
  const std::string before = "Simulated time: ";
  const std::size_t at = output.find(before);
  REQUIRE(at != std::string::npos);
  return std::stod(output.substr(at + before.size()));
}

struct Star {
  GraphBuilder build;
  std::int32_t up[kRanks], down[kRanks], group = 0;
  Star() {
    std::vector<std::int32_t> devices;
    for (int rank = 0; rank < kRanks; ++rank) {
      devices.push_back(build.device());
      up[rank] = build.link(kBandwidth);
      down[rank] = build.link(kBandwidth);
    }
    group = build.group(devices);
  }
  GraphBuilder::FlowSpec to_next(int rank, double factor) const {
    return {factor, {{up[rank], 1}, {down[(rank + 1) % kRanks], 1}}};
  }
};

double fluid_ring_seconds() {
  Star star;
  std::vector<GraphBuilder::FlowSpec> flows;
  for (int rank = 0; rank < kRanks; ++rank)
    flows.push_back(star.to_next(rank, 2.0 * (kRanks - 1) / kRanks));
  star.build.comm(CommKind::Data, star.group, 0, star.build.pattern(flows), kBytes);
  return simulate(star.build.finish(), kOneStep).end_s;
}

double stepwise_ring_seconds() {
  Star star;
  std::vector<std::int32_t> pattern;
  for (int rank = 0; rank < kRanks; ++rank)
    pattern.push_back(star.build.pattern({star.to_next(rank, 1.0 / kRanks)}));
  std::vector<std::int32_t> before;
  for (int step = 0; step < 2 * (kRanks - 1); ++step) {
    std::vector<std::int32_t> now;
    for (int rank = 0; rank < kRanks; ++rank) {
      now.push_back(star.build.comm(CommKind::Data, star.group, 0, pattern[rank], kBytes));
      if (step == 0) continue;
      // A rank passes on what it got from the rank before, once its own last send is done.
      star.build.edge(before[(rank + kRanks - 1) % kRanks], now[rank]);
      star.build.edge(before[rank], now[rank]);
    }
    before = now;
  }
  return simulate(star.build.finish(), kOneStep).end_s;
}

TEST_CASE("a ring all-reduce takes what SMPI's replay of it takes") {
  const double closed_s = 2.0 * (kRanks - 1) / kRanks * kBytes / kBandwidth;
  CHECK(fluid_ring_seconds() == Approx(closed_s).epsilon(1e-12));
  CHECK(stepwise_ring_seconds() == Approx(closed_s).epsilon(1e-9));
  if (std::system("command -v smpirun > /dev/null 2>&1") != 0) {
    std::cout << "SKIPPED: smpirun is not installed\n";
    return;
  }
  CHECK(fluid_ring_seconds() == Approx(smpi_ring_seconds()).epsilon(2e-3));
}

}  // namespace
}  // namespace rehearse
