#include <cmath>
#include <vector>

#include "plan/schedule.h"
#include "sim/simulate.h"
#include "strategies/lower.h"
#include "tests/catch.h"

using namespace rehearse;

namespace {

double step_seconds(ScheduleKind kind, int p, int v, int m, double f, double b, double w,
                    double hop) {
  const std::vector<double> stages_f(static_cast<std::size_t>(p), f / v);
  const std::vector<double> stages_b(static_cast<std::size_t>(p), b / v);
  const std::vector<double> stages_w(static_cast<std::size_t>(p), w / v);
  const StepGraph graph =
      pipeline_graph(make_schedule(kind, p, v, m), {stages_f, stages_b, stages_w, hop});
  SimulationOptions options;
  options.steps = 1;
  const SimulationRecord record = simulate(graph, options);
  return record.end_s - record.begin_s;
}

}  // namespace

TEST_CASE("bubbles are the closed forms when transfers are free") {
  const int p = GENERATE(2, 4, 8);
  const int m = p * GENERATE(1, 2, 5);
  CAPTURE(p, m);
  const double f = 1e-3, b = 1.1e-3, w = 0.9e-3;
  const double work = m * (f + b + w);
  for (const ScheduleKind kind : {ScheduleKind::Gpipe, ScheduleKind::OneFOneB}) {
    const double step = step_seconds(kind, p, 1, m, f, b, w, 0);
    CHECK(1 - work / step == Approx((p - 1.0) / (m + p - 1)).epsilon(1e-9));
  }
  for (const int v : {2, 3}) {
    const double step = step_seconds(ScheduleKind::OneFOneB, p, v, m, f, b, w, 0);
    CHECK(step - work == Approx((p - 1) * (f + b + w) / v).epsilon(1e-9));
  }
  CHECK(step_seconds(ScheduleKind::LayerWise, p, 1, m, f, b, w, 0) ==
        Approx(p * work).epsilon(1e-9));
}

TEST_CASE("bubble rates of 1F1B and interleaved 1F1B are the published ones within 0.01") {
  // Qi et al. 2023, Zero Bubble Pipeline Parallelism (arXiv 2401.10241): stage times of Table 10
  // in ms (forward, input gradient, weight gradient, one hop) and the bubble rates of Table 5
  // made of them, on 8 stages.
  struct Published {
    int m, chunks;
    double f, b, w, hop, rate_1f1b, rate_interleaved;
  };
  const std::vector<Published> rows = {
      {24, 3, 18.522, 18.086, 9.337, 0.601, 0.2431, 0.1055},
      {32, 3, 18.513, 18.086, 9.331, 0.626, 0.1985, 0.0818},
      {64, 3, 18.546, 18.097, 9.321, 0.762, 0.1240, 0.0443},
      {24, 4, 29.718, 29.444, 19.927, 0.527, 0.2347, 0.0808},
      {32, 4, 29.802, 29.428, 19.530, 0.577, 0.1898, 0.0628},
      {64, 4, 29.935, 29.621, 19.388, 0.535, 0.1091, 0.0320},
  };
  for (const Published& row : rows) {
    CAPTURE(row.m, row.chunks);
    const double work = row.m * (row.f + row.b + row.w);
    const double plain =
        step_seconds(ScheduleKind::OneFOneB, 8, 1, row.m, row.f, row.b, row.w, row.hop);
    const double interleaved =
        step_seconds(ScheduleKind::OneFOneB, 8, row.chunks, row.m, row.f, row.b, row.w, row.hop);
    CHECK(std::abs(1 - work / plain - row.rate_1f1b) < 0.01);
    CHECK(std::abs(1 - work / interleaved - row.rate_interleaved) < 0.01);
  }
}
