#include "planner/calibration.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "plan/field_table.h"
#include "plan/json_document.h"
#include "planner/factor_fit.h"
#include "planner/validation.h"

namespace rehearse {
namespace {

constexpr Range kFactor{.minimum = 0.05, .maximum = 20};
constexpr Range kShareOfTime{.minimum = 0, .maximum = 100};
constexpr Range kRuns{.minimum = 0, .maximum = 1e9};

const FieldTable<Calibration>& calibration_table() {
  static const FieldTable<Calibration> table =
      FieldTable<Calibration>("calibration/1", "Factors of one system, fitted to its own runs")
          .constant("schema", "calibration/1", "name of the format")
          .required()
          .number("computing", &Calibration::computing, kFactor, "time of operators")
          .required()
          .number("network", &Calibration::network, kFactor, "time of transfers between nodes")
          .required()
          .number("host", &Calibration::host, kFactor, "time of issuing operators")
          .required()
          .integer("fitted_runs", &Calibration::fitted_runs, kRuns, "runs fitted to")
          .integer("left_out_runs", &Calibration::left_out_runs, kRuns, "runs checked with")
          .number("left_out_error", &Calibration::left_out_error, kShareOfTime,
                  "mean absolute error of the runs left out, a fraction")
          .number("unfitted_error", &Calibration::unfitted_error, kShareOfTime,
                  "the same without the factors")
          .number("relative_error", &Calibration::relative_error, kShareOfTime,
                  "half width of the 90 % interval as a factor");
  return table;
}

enum Factor : std::size_t { kComputing, kNetwork, kHost, kFactors };

/// What no factor changes: collectives inside a node.
constexpr const char* kInsideNode = "tensor comm.";

Factor factor_of(const std::string& part) {
  if (part == "host") return kHost;
  for (const char* name :
       {"gradient reduction", "parameter gathers", "pipeline transfers", "scalars"})
    if (part == name) return kNetwork;
  return kComputing;  // the bubble, and waiting, are other stages' computing
}

FactorSample sample_of(const MeasuredRun& run, const RunPrediction& prediction) {
  FactorSample sample{.parts = std::vector<double>(kFactors, 0.0), .total = 1, .weight = 1};
  for (const Contribution& part : prediction.contributions) {
    const double share = part.seconds / run.measured.step_time_s;
    if (part.name == kInsideNode)
      sample.total -= share;
    else
      sample.parts[factor_of(part.name)] += share;
  }
  return sample;
}

struct LeftOut {
  double mean = 0, interval = 0;
};

LeftOut errors_of(const std::vector<MeasuredRun>& runs,
                  const std::vector<RunPrediction>& predictions) {
  std::vector<double> logs;
  LeftOut result;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    double error = 0;
    if (!step_time_error(runs[i], predictions[i], error)) continue;
    result.mean += std::abs(error);
    logs.push_back(std::abs(std::log1p(error)));
  }
  if (logs.empty()) return result;
  result.mean /= static_cast<double>(logs.size());
  std::sort(logs.begin(), logs.end());
  const auto at = static_cast<std::size_t>(std::ceil(0.9 * static_cast<double>(logs.size())));
  result.interval = std::expm1(logs[std::min(at, logs.size() - 1)]);
  return result;
}

double bounded(double factor) { return std::clamp(factor, kFactor.minimum, kFactor.maximum); }

}  // namespace

std::optional<Calibration> read_calibration(std::string_view text, const std::string& path,
                                            Problems& problems) {
  const JsonDocument document = parse_json(text, path, problems);
  if (!document.parsed) return std::nullopt;
  Calibration calibration;
  Reading reading(document.source, problems);
  if (!calibration_table().read(document.root, reading, calibration)) return std::nullopt;
  return calibration;
}

std::string write_calibration(const Calibration& calibration) {
  return to_text(calibration_table().to_json(calibration));
}

ClusterSpec calibrated(ClusterSpec cluster, const Calibration& calibration) {
  for (NodeGroup& group : cluster.groups)
    group.node.nic_bandwidth_bytes_per_s /= calibration.network;
  return cluster;
}

std::vector<MeasuredRun> calibrated(std::vector<MeasuredRun> runs, const Calibration& calibration) {
  for (MeasuredRun& run : runs) {
    run.cluster = calibrated(std::move(run.cluster), calibration);
    run.computing = calibration.computing;
    run.host = calibration.host;
    run.relative_error = calibration.relative_error;
  }
  return runs;
}

CalibrationRuns split_for_calibration(const std::vector<MeasuredRun>& runs, double left_out_share) {
  std::vector<const MeasuredRun*> timed;
  for (const MeasuredRun& run : runs)
    if (run.measured.step_time_s > 0 && run.not_expressible.empty()) timed.push_back(&run);
  constexpr std::uint32_t kSeed = 20240611;  // any; fixed, so that the split can be repeated
  std::mt19937 random(kSeed);
  for (std::size_t i = timed.size(); i > 1; --i) std::swap(timed[i - 1], timed[random() % i]);
  const auto count =
      static_cast<std::size_t>(std::lround(left_out_share * static_cast<double>(timed.size())));
  CalibrationRuns parts;
  for (std::size_t i = 0; i < timed.size(); ++i)
    (i < count ? parts.left_out : parts.fitted).push_back(*timed[i]);
  return parts;
}

Calibration calibrate(const CalibrationRuns& runs, int jobs,
                      const std::function<void(std::size_t)>& on_done) {
  constexpr double kPull = 0.02;  // of a factor, against the weight 1 of a run
  const auto fitted = predict_all(runs.fitted, jobs, on_done);
  std::vector<FactorSample> samples;
  for (std::size_t i = 0; i < fitted.size(); ++i)
    if (fitted[i].not_expressible.empty()) samples.push_back(sample_of(runs.fitted[i], fitted[i]));
  const std::vector<double> factors =
      fit_factors(samples, std::vector<double>(kFactors, 1.0), kPull);

  Calibration calibration{.computing = bounded(factors[kComputing]),
                          .network = bounded(factors[kNetwork]),
                          .host = bounded(factors[kHost])};
  calibration.fitted_runs = static_cast<int>(samples.size());
  calibration.left_out_runs = static_cast<int>(runs.left_out.size());
  calibration.unfitted_error = errors_of(runs.left_out, predict_all(runs.left_out, jobs, {})).mean;
  const auto checked = calibrated(runs.left_out, calibration);
  const LeftOut left_out = errors_of(checked, predict_all(checked, jobs, {}));
  calibration.left_out_error = left_out.mean;
  calibration.relative_error = std::max(left_out.interval, 0.01);
  return calibration;
}

}  // namespace rehearse
