// Compares predicted collectives inside one node with measurements of others. Prints a table; run
// with "[errors]" to see it alone.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "strategies/collective_cost.h"
#include "tests/catch.h"
#include "tests/places.h"
#include "tests/strategies/collective_shapes.h"

namespace rehearse {
namespace {

std::filesystem::path data_directory() {
  if (const char* given = std::getenv("REHEARSE_DATA_DIR")) return given;
  return std::filesystem::path(source_directory()) / ".." / "shared" / "data";
}

std::optional<CommunicatorShape> shape_of(const std::string& gpu, int gpus) {
  if (gpu == "a100_sxm80") return shapes::a100(1, gpus);
  if (gpu == "h100_sxm" || gpu == "h200_sxm") return shapes::h100(1, gpus);
  if (gpu == "b200_sxm" || gpu == "gb200") return shapes::b200(1, gpus);
  return std::nullopt;
}

std::optional<CollectiveKind> kind_of(const std::string& name) {
  if (name == "all_reduce") return CollectiveKind::AllReduce;
  if (name == "all_gather") return CollectiveKind::AllGather;
  if (name == "reduce_scatter") return CollectiveKind::ReduceScatter;
  if (name == "alltoall") return CollectiveKind::AllToAll;
  return std::nullopt;
}

/// Errors of (predicted − measured)/measured.
struct Errors {
  int count = 0;
  double absolute = 0, relative = 0, worst = 0;
  void add(double error) {
    ++count;
    absolute += std::abs(error);
    relative += error;
    worst = std::max(worst, std::abs(error));
  }
  double mean() const { return absolute / count; }
};

std::vector<std::string> cells(const std::string& line) {
  std::vector<std::string> result;
  std::istringstream stream(line);
  for (std::string cell; std::getline(stream, cell, ',');) result.push_back(cell);
  if (!result.empty() && result.back().ends_with('\r')) result.back().pop_back();
  return result;
}

}  // namespace

TEST_CASE("Collectives on NVLink are within 15 % of measured curves from 64 KiB up", "[errors]") {
  const auto path = data_directory() / "ops" / "nccl_intranode.csv";
  std::ifstream file(path);
  if (!file) {
    WARN("SKIPPED: no measurements at " << path.string() << " (set REHEARSE_DATA_DIR)");
    return;
  }
  std::map<std::string, Errors> by_curve, by_set;
  constexpr double kMebibyte = 1048576;
  Errors large, small;
  std::string line;
  std::getline(file, line);
  REQUIRE(cells(line) ==
          std::vector<std::string>{"gpu", "nccl", "op", "dtype", "gpus", "bytes", "us"});
  while (std::getline(file, line)) {
    const std::vector<std::string> row = cells(line);
    REQUIRE(row.size() == 7);
    const double bytes = std::stod(row[5]), measured_s = std::stod(row[6]) * 1e-6;
    const auto kind = kind_of(row[2]);
    const auto shape = shape_of(row[0], std::stoi(row[4]));
    // Eight-bit sums have no NVLS and are not what training reduces.
    if (!kind || !shape || row[3] != "half") continue;
    const double error = nccl_choice(*kind, *shape, bytes).seconds(bytes) / measured_s - 1;
    (bytes >= kMebibyte ? large : small).add(error);
    if (bytes < 65536) continue;
    by_curve[row[0] + " " + row[2] + " " + row[4]].add(error);
    by_set[row[0] + " " + row[2]].add(error);
  }
  std::printf("%-28s %6s %8s %8s %8s\n", "GPU, collective, GPUs", "points", "mean %", "bias %",
              "worst %");
  for (const auto& [name, e] : by_curve)
    std::printf("%-28s %6d %8.1f %+8.1f %8.1f\n", name.c_str(), e.count, 100 * e.mean(),
                100 * e.relative / e.count, 100 * e.worst);
  std::printf(
      "from 1 MiB: %d points, mean %.1f %%; below, from 512 bytes: %d points, mean %.1f %%\n",
      large.count, 100 * large.mean(), small.count, 100 * small.mean());
  CHECK(large.mean() <= .05);
  CHECK(small.mean() <= .10);
  CHECK(by_curve.size() == 56);  // 4 GPUs of 2, 4, 8 and GB200 of 2, 4; four collectives each
  for (const auto& [name, e] : by_curve) {
    CAPTURE(name, e.mean());
    CHECK(e.mean() <= .15);
  }
  for (const auto& [name, e] : by_set) {
    CAPTURE(name, e.mean());
    CHECK(e.mean() <= .10);
  }
}

TEST_CASE("Published all-reduce curves of other sites are met within 10 % on average", "[errors]") {
  // Single published figures, not used in the fit: bus bandwidth in GB/s. H100: NVIDIA's LLM
  // benchmark recipes, DGX H100, nccl-tests. H200: stas00/ml-engineering. Below 16 MiB the sites
  // differ among themselves by up to half (2 MiB: 64.5 and 86.9 here, 98 in the fitted set).
  const struct {
    const char* where;
    double mib, gbps;
  } figures[] = {{"h100", 2, 86.9},    {"h100", 4, 135.4},   {"h100", 16, 237.2},
                 {"h100", 64, 361.7},  {"h100", 128, 400.5}, {"h100", 256, 422.3},
                 {"h100", 512, 436.8}, {"h200", 2, 64.5},    {"h200", 8, 155.5},
                 {"h200", 32, 275.8},  {"h200", 128, 401.9}, {"h200", 512, 450.3}};
  Errors errors;
  for (const auto& figure : figures) {
    const double bytes = figure.mib * 1048576;
    const double measured_s = bytes * 14 / 8 / (figure.gbps * 1e9);
    const double error =
        nccl_choice(CollectiveKind::AllReduce, shapes::h100(1, 8), bytes).seconds(bytes) /
            measured_s -
        1;
    errors.add(error);
    CAPTURE(figure.where, figure.mib, error);
    if (figure.mib >= 16) CHECK(std::abs(error) < .10);
  }
  CHECK(errors.mean() < .10);
  std::printf("%-28s %6d %8.1f %+8.1f %8.1f\n", "other sites, all_reduce 8", errors.count,
              100 * errors.mean(), 100 * errors.relative / errors.count, 100 * errors.worst);
}

namespace {

/// One row of the table of two nodes.
struct TwoNodeRow {
  CollectiveKind kind;
  int per_node;
  double bytes, measured_s;
};

/// Rows of the A100 servers between two nodes, from 1 MiB.
std::vector<TwoNodeRow> two_node_rows(std::ifstream& file) {
  std::vector<TwoNodeRow> rows;
  std::string line;
  std::getline(file, line);
  REQUIRE(cells(line) == std::vector<std::string>{"cluster", "op", "num_workers",
                                                  "devices_per_node", "bytes_or_size", "us"});
  while (std::getline(file, line)) {
    const std::vector<std::string> row = cells(line);
    REQUIRE(row.size() == 6);
    const int per_node = std::stoi(row[3]);
    const double bytes = std::stod(row[4]);
    if (row[0] != "a100_dgx" || std::stoi(row[2]) != 2 * per_node || bytes < 1048576) continue;
    rows.push_back(
        {row[1] == "all_reduce" ? CollectiveKind::AllReduce : CollectiveKind::SendReceive, per_node,
         bytes, std::stod(row[5]) * 1e-6});
  }
  return rows;
}

/// Mean rate of messages of at least 48 MiB between two nodes with one rank each.
double large_bytes_per_s(const std::vector<TwoNodeRow>& rows, CollectiveKind kind) {
  double bytes = 0, seconds = 0;
  for (const TwoNodeRow& row : rows) {
    if (row.kind != kind || row.per_node != 1 || row.bytes < 48 * 1048576.) continue;
    bytes += row.bytes;
    seconds += row.measured_s;
  }
  return bytes / seconds;
}

}  // namespace

TEST_CASE("Two nodes: NICs fitted on sends and on one pair foretell larger all-reduces",
          "[errors]") {
  const auto path = data_directory() / "ops" / "network_a100_two_nodes.csv";
  std::ifstream file(path);
  if (!file) {
    WARN("SKIPPED: no measurements at " << path.string() << " (set REHEARSE_DATA_DIR)");
    return;
  }
  const std::vector<TwoNodeRow> rows = two_node_rows(file);
  // DGX A100's data sheet has a NIC of 25 GB/s for each GPU, by which NCCL chooses its algorithm.
  // What of it payload gets is read off one-way sends, and what is left of that both ways off the
  // all-reduce of one pair; all-reduces of more ranks have no part in either.
  const double one_way = large_bytes_per_s(rows, CollectiveKind::SendReceive);
  const double both_ways = large_bytes_per_s(rows, CollectiveKind::AllReduce);
  const auto predicted_s = [&](const TwoNodeRow& row, int nics) {
    CommunicatorShape shape = shapes::a100(2, row.per_node);
    shape.nic_goodput = one_way / shape.nic_bandwidth_bytes_per_s;
    shape.nic_duplex = both_ways / one_way;
    shape.nics_per_node = nics;
    return nccl_choice(row.kind, shape, row.bytes).seconds(row.bytes);
  };
  std::map<std::string, Errors> by_group, nearer;
  for (const TwoNodeRow& row : rows) {
    const double error = predicted_s(row, row.per_node) / row.measured_s - 1;
    const double half = predicted_s(row, std::max(1, row.per_node / 2)) / row.measured_s - 1;
    const bool sends = row.kind == CollectiveKind::SendReceive;
    const std::string name =
        std::string(sends ? "send" : "all_reduce") + " " + std::to_string(2 * row.per_node);
    by_group[name].add(error);
    nearer[name].add(std::abs(half) < std::abs(error) ? half : error);
  }
  std::printf("two nodes: %.2f GB/s one way, %.2f each way\n", one_way * 1e-9, both_ways * 1e-9);
  for (const auto& [name, e] : by_group) {
    const Errors& other = nearer[name];
    std::printf("%-28s %6d %8.1f %+8.1f %8.1f; nearer of all and half the NICs %5.1f %8.1f\n",
                ("two nodes, " + name).c_str(), e.count, 100 * e.mean(), 100 * e.relative / e.count,
                100 * e.worst, 100 * other.mean(), 100 * other.worst);
  }
  REQUIRE(by_group.size() == 5);
  CHECK(one_way == Approx(7.80e9).epsilon(.01));
  CHECK(both_ways == Approx(5.85e9).epsilon(.01));
  CHECK(by_group["send 2"].mean() < .03);
  CHECK(by_group["all_reduce 2"].mean() < .15);
  // The table flips between all NICs and half of them (docs/collectives.md).
  CHECK(nearer["all_reduce 4"].mean() < .15);
  CHECK(nearer["all_reduce 8"].mean() < .15);
}

}  // namespace rehearse
