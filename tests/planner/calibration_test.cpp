// Factors of one's own system: fitted, written, read, and wrong files told.

#include "planner/calibration.h"

#include <fstream>
#include <iterator>

#include "planner/factor_fit.h"
#include "planner/validation.h"
#include "tests/catch.h"
#include "tests/places.h"

namespace rehearse {
namespace {

std::vector<MeasuredRun> published_runs(const std::string& family) {
  std::ifstream file(source_directory() + "/tests/planner/published_runs.json");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  Problems problems;
  auto runs = read_measured_runs(text, "published_runs.json", problems);
  REQUIRE(runs.has_value());
  std::erase_if(*runs, [&](const MeasuredRun& run) { return run.family != family; });
  return std::move(*runs);
}

std::string problems_of(const std::string& text) {
  Problems problems;
  CHECK_FALSE(read_calibration(text, "own.json", problems).has_value());
  return problems.text();
}

}  // namespace

TEST_CASE("factors that made the times are found again") {
  std::vector<FactorSample> samples;
  for (int i = 1; i <= 20; ++i) {
    FactorSample sample{.parts = {0.6 / i + 0.1, 0.02 * i}, .total = 0, .weight = 1};
    sample.total = 1.3 * sample.parts[0] + 0.7 * sample.parts[1];
    samples.push_back(sample);
  }
  const auto factors = fit_factors(samples, {1, 1}, 1e-9);
  CHECK(factors[0] == Approx(1.3).epsilon(1e-6));
  CHECK(factors[1] == Approx(0.7).epsilon(1e-6));
  CHECK(fit_factors({}, {1, 2}, 0.1)[1] == Approx(2));
}

TEST_CASE("a machine that computes a quarter slower is found out from its runs") {
  auto runs = published_runs("sc21_table1");
  REQUIRE(runs.size() == 7);
  const Calibration slow{.computing = 1.25};
  const auto truth = predict_all(calibrated(runs, slow), 2, {});
  for (std::size_t i = 0; i < runs.size(); ++i) runs[i].measured.step_time_s = truth[i].step_time_s;
  const CalibrationRuns parts = split_for_calibration(runs, 0.3);
  CHECK(parts.left_out.size() == 2);
  CHECK(parts.fitted.size() == 5);
  const Calibration found = calibrate(parts, 2, {});
  CHECK(found.computing == Approx(1.25).epsilon(0.02));
  CHECK(found.left_out_error < 0.02);
  CHECK(found.unfitted_error > 0.1);
  CHECK(found.left_out_runs == 2);
}

TEST_CASE("a calibration is read as it was written") {
  const Calibration written{.computing = 1.1, .network = 0.9, .host = 2, .fitted_runs = 12};
  Problems problems;
  const auto read = read_calibration(write_calibration(written), "own.json", problems);
  REQUIRE(read.has_value());
  CHECK(read->computing == written.computing);
  CHECK(read->network == written.network);
  CHECK(read->host == written.host);
  CHECK(read->fitted_runs == 12);
  CHECK(write_calibration(*read) == write_calibration(written));
}

TEST_CASE("mistakes in a calibration are told with their places, and nothing is half read") {
  const std::string told =
      problems_of(R"({"schema": "calibration/1", "computing": -1, "network": 1, "hots": 1})");
  CHECK(told.find("/computing") != std::string::npos);
  CHECK(told.find("host") != std::string::npos);
  CHECK(problems_of("{").find("own.json") != std::string::npos);
  CHECK_FALSE(problems_of(R"({"schema": "profile/1"})").empty());
}

}  // namespace rehearse
