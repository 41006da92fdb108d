#include <cmath>
#include <cstdio>
#include <string>

#include "kernels/attention_time.h"
#include "kernels/fit/fit_profile.h"
#include "kernels/fit/residual_fit.h"
#include "kernels/fit/simplex_search.h"
#include "kernels/profile_file.h"
#include "tests/catch.h"
#include "tests/kernels/profile_support.h"

using namespace rehearse;

namespace {

/// Van der Corput's sequence: evenly spread, the same every time.
double spread(unsigned i, unsigned base) {
  double value = 0, part = 1;
  for (; i > 0; i /= base) value += (part /= base) * static_cast<double>(i % base);
  return value;
}

std::int64_t extent(unsigned i, unsigned base) {
  return 8 * std::llround(std::exp2(4 + 8 * spread(i, base)));
}

std::string text_of(double value) {
  char text[64];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

/// Products of a GPU that follows the tile model exactly but for a slope along k, and attention.
std::string own_table(const Profile& truth, unsigned rows) {
  const auto costs = profile_cost_model(truth, truth.device, ClockRegime::Burst);
  std::string text = "op,pass,dtype,m,n,k,b,s,heads,kv_heads,head_dim,bytes,time_us\n";
  for (unsigned i = 1; i <= rows; ++i) {
    const Operator op = gemm(OperatorName::Qkv, Pass::Forward, Precision::Bf16, extent(i, 2),
                             extent(i, 3), extent(i, 5));
    const double bend = 1 + 0.02 * (std::log2(static_cast<double>(op.k)) - 11);
    text += "gemm,forward,bf16," + std::to_string(op.m) + "," + std::to_string(op.n) + "," +
            std::to_string(op.k) + ",,,,,,," + text_of(costs->cost(op).seconds * bend * 1e6) + "\n";
  }
  for (unsigned i = 1; i <= rows / 4; ++i) {
    const Operator op = attention(Pass::Forward, Precision::Bf16, 1 + i % 4, 128 * (1 + i % 31),
                                  128 * (1 + i % 31), 8, 8, i % 2 ? 128 : 64, true);
    text += "attention,forward,bf16,,,," + std::to_string(op.batch) + "," +
            std::to_string(op.query_len) + ",8,8," + std::to_string(op.head_dim) + ",," +
            text_of(costs->cost(op).seconds * 1e6) + "\n";
  }
  for (int i = 1; i <= 20; ++i) {
    const Operator op = memory_operator(OperatorName::Norm, Pass::Forward, 1e6 * i * i);
    text += "norm,forward,,,,,,,,,," + text_of(op.bytes) + "," +
            text_of(costs->cost(op).seconds * 1e6) + "\n";
  }
  return text;
}

OperatorTable table_of(const std::string& text, const DeviceFacts& device) {
  Problems problems;
  auto table = read_operator_table(text, "own.csv", device, problems);
  CAPTURE(problems.text());
  REQUIRE(table);
  return *table;
}

Problems problems_of(const std::string& text, const std::string& path = "bad.csv") {
  Problems problems;
  CHECK(!read_operator_table(text, path, small_profile().device, problems));
  CHECK(!problems.empty());
  return problems;
}

}  // namespace

TEST_CASE("the simplex search finds the bottom of a curved valley") {
  const auto rosenbrock = [](const std::vector<double>& x) {
    return 100 * std::pow(x[1] - x[0] * x[0], 2) + std::pow(1 - x[0], 2);
  };
  const auto at = simplex_search(rosenbrock, {-1.2, 1}, {0.5, 0.5}, 400);
  CHECK(at[0] == Approx(1).margin(1e-3));
  CHECK(at[1] == Approx(1).margin(1e-3));
}

TEST_CASE("few knots reproduce a smooth correction between measured shapes") {
  std::vector<ResidualSample> samples;
  const auto truth = [](const ShapePoint& at) { return 0.02 * at[0] - 0.01 * at[1]; };
  for (unsigned i = 1; i <= 600; ++i) {
    const ShapePoint at{10 * spread(i, 2), 10 * spread(i, 3), 0, 0};
    samples.push_back({.at = at, .value = truth(at), .weight = 1});
  }
  const ResidualMap map = fit_residuals(samples, 100);
  CHECK(map.knots().size() <= 100);
  double error = 0;
  for (unsigned i = 601; i <= 700; ++i) {
    const ShapePoint at{1 + 8 * spread(i, 2), 1 + 8 * spread(i, 3), 0, 0};
    error += std::abs(map.at(at).value - truth(at)) / 100;
  }
  CHECK(error < 0.01);
}

TEST_CASE("a fit finds the machine behind a table, and predicts shapes left out") {
  const Profile truth = small_profile();
  const OperatorTable table = table_of(own_table(truth, 800), truth.device);
  FitRequest request;
  request.device = truth.device;
  request.stack = "test";
  const Profile profile = fit_profile({table}, request);
  REQUIRE(profile.gemm.size() == 1);
  CHECK(profile.gemm[0].errors.samples > 700);
  CHECK(profile.gemm[0].errors.held_out < 0.03);
  REQUIRE(profile.attention.size() == 1);
  CHECK(profile.attention[0].errors.held_out < 0.03);
  CHECK(profile.attention[0].start_s == Approx(truth.attention[0].start_s).epsilon(0.2));
  const auto norm = profile.memory[1];
  CHECK(norm.operators[0] == "norm/forward");
  CHECK(norm.evidence == CostSource::Fitted);
  CHECK(norm.memory_share == Approx(0.8).epsilon(0.03));
  CHECK(norm.cached_share == Approx(1.2).epsilon(0.1));
  // Same tables, same bytes.
  CHECK(write_profile(fit_profile({table}, request)) == write_profile(profile));
}

TEST_CASE("measured operators are kept on request and priced as measured") {
  const Profile truth = small_profile();
  const OperatorTable table = table_of(own_table(truth, 40), truth.device);
  FitRequest request;
  request.device = truth.device;
  request.stack = "test";
  request.options.cross_validate = false;
  request.keep_samples = true;
  Problems problems;
  const auto profile =
      read_profile(write_profile(fit_profile({table}, request)), "kept.json", problems);
  CAPTURE(problems.text());
  REQUIRE(profile);
  const auto costs = profile_cost_model(*profile, profile->device);
  for (const OperatorSample& sample : table.samples) {
    const Cost cost = costs->cost(sample.op);
    CHECK(cost.source == CostSource::Measured);
    CHECK(cost.seconds == Approx(sample.seconds).epsilon(1e-12));
  }
}

TEST_CASE("sustained measurements beside bursts give the sustained rate") {
  std::string text = "op,m,n,k,mode,time_us\n";
  const Profile truth = small_profile();
  const auto costs = profile_cost_model(truth, truth.device, ClockRegime::Burst);
  for (int i = 1; i <= 10; ++i) {
    const Operator op =
        gemm(OperatorName::Qkv, Pass::Forward, Precision::Bf16, 1024 * i, 4096, 4096);
    const std::string shape = "gemm," + std::to_string(op.m) + ",4096,4096,";
    text += shape + "burst," + text_of(costs->cost(op).seconds * 1e6) + "\n";
    text += shape + "sustained," + text_of(costs->cost(op).seconds * 1e6 / 0.9) + "\n";
  }
  FitRequest request;
  request.device = truth.device;
  const Profile profile = fit_profile({table_of(text, truth.device)}, request);
  CHECK(profile.sustained_rate.value == Approx(0.9).epsilon(1e-4));
}

TEST_CASE("memory beside tensors is kept by a fit, and needs bytes but no time") {
  const DeviceFacts device = small_profile().device;
  const std::string rows =
      "op,bytes,time_us\nnorm,1000000,5\ncontext,431000000,\ncommunicator,90000000,\n";
  const Profile profile =
      fit_profile({table_of(rows, device)}, {.device = device, .stack = "test", .made_by = ""});
  CHECK(profile.overheads.context.bytes == 431e6);
  CHECK(profile.overheads.context.source == "measured: own.csv");
  CHECK(profile.overheads.communicator.bytes == 90e6);
  CHECK(profile.overheads.matrix_workspace.bytes == 0);
  Problems problems;
  const auto read = read_profile(write_profile(profile), "p.json", problems);
  REQUIRE(read);
  CHECK(read->overheads.context.bytes == 431e6);
  CHECK(problems_of("op,bytes,time_us\nnorm,1000000,5\ncontext,,\n").text().find("bad.csv:3") !=
        std::string::npos);
}

TEST_CASE("bad tables are refused with the place of every mistake") {
  struct Bad {
    const char *text, *message;
    int line, column;
  };
  const Bad cases[] = {
      {"", "empty", 1, 1},
      {"a,b,c\n1,2,3\n", "no table of operators has these columns", 1, 1},
      {"op,m,n,time_us\ngemm,64,64,10\n", "no column \"k\"", 2, 1},
      {"op,m,n,k,time_us\ngemm,64,64,64,-5\n", "-5", 2, 15},
      {"op,m,n,k,time_us\ngemm,64,64,64,nan\n", "no number", 2, 15},
      {"op,m,n,k,time_us\ngemm,64,64,64,1e300\n", "cannot be", 2, 15},
      {"op,m,n,k,time_us\ngemm,64,64,64.5,5\n", "whole number", 2, 12},
      {"op,m,n,k,time_us\ngem,64,64,64,5\n", "no operator is called \"gem\"", 2, 1},
      {"op,m,n,k,time_us,time_ms\ngemm,64,64,64,5,5\n", "two units", 1, 18},
      {"op,m,n,k,time_us\ngemm,8192,8192,8192,0.9\n", "faster than the data sheet", 2, 21},
      {"op,m,n,k,time_us\ngemm,64,64,64,5000000\n", "thousand times slower", 2, 15},
      {"op,m,n,k,time_us\ngemm,64,64\n", "the line has 3 cells", 2, 1},
      {"op,m,n,k,m,time_us\ngemm,64,64,64,64,5\n", "there twice", 1, 10},
      {"op,m,n,k,dtype,time_us\ngemm,64,64,64,bf61,5\n", "\"bf61\" is no dtype", 2, 15},
      {"op,m,n,k,time_us\n\"gemm,64,64,64,5\n", "quote", 2, 1},
      {"m,n,k,h200_sxm_us\n1,2,3,4\n", "which precision", 1, 1}};
  for (const Bad& bad : cases) {
    CAPTURE(bad.text);
    const Problems problems = problems_of(bad.text);
    CAPTURE(problems.text());
    REQUIRE(!problems.empty());
    const Problem& first = problems.all().front();
    CHECK(first.message.find(bad.message) != std::string::npos);
    CHECK(first.line == bad.line);
    CHECK(first.column == bad.column);
  }
}

TEST_CASE("all mistakes of a table are told, and rows about other GPUs are left out") {
  const Problems problems =
      problems_of("op,m,n,k,time_us\ngemm,64,64,64,-1\ngemm,64,64,64,6\nwhat,1,1,1,7\n");
  CHECK(problems.count() == 2);
  DeviceFacts device = small_profile().device;
  Problems none;
  const auto table =
      read_operator_table("op,gpu,m,n,k,time_us\ngemm,example,64,64,64,6\ngemm,other,64,64,64,6\n",
                          "two.csv", device, none);
  REQUIRE(table);
  CHECK(table->samples.size() == 1);
  REQUIRE(table->notes.size() == 1);
  CHECK(table->notes[0].find("1 rows about other GPUs") == 0);
}
