// Errors against published tables, where their folder exists (REHEARSE_DATA_DIR; beside the
// source otherwise).

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <string>

#include "kernels/attention_time.h"
#include "kernels/fit/shape_fit.h"
#include "kernels/profile_catalogue.h"
#include "tests/catch.h"
#include "tests/places.h"

using namespace rehearse;

namespace {

std::string data_directory() {
  if (const char* given = std::getenv("REHEARSE_DATA_DIR")) return given;
  return source_directory() + "/../shared/data";
}

/// Empty where the folder is not there, which is said.
std::vector<OperatorTable> tables_of(const std::string& name, const DeviceFacts& device) {
  const std::string path = data_directory() + "/ops/" + name;
  std::ifstream file(path);
  if (!file) {
    std::cout << "SKIPPED: the folder of outside measurements is not there\n";
    return {};
  }
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  Problems problems;
  auto table = read_operator_table(text, path, device, problems);
  CAPTURE(problems.text());
  REQUIRE(table);
  return {*table};
}

const Profile& profile_of(const char* gpu) {
  const Profile* profile = shipped_profile(gpu, kDefaultStack);
  REQUIRE(profile);
  return *profile;
}

struct Mean {
  double sum = 0;
  int count = 0;
  void add(double predicted, double measured) {
    sum += std::abs(predicted / measured - 1);
    ++count;
  }
  double mean() const { return count ? sum / count : 0; }
};

}  // namespace

TEST_CASE("shipped profiles price products and attention as they were measured") {
  struct Gpu {
    const char* id;
    double products, attention;
  };
  for (const Gpu& gpu : {Gpu{"a100-sxm-80gb", 0.08, 0.05}, Gpu{"h100-sxm-80gb", 0.06, 0.05},
                         Gpu{"h200-sxm", 0.06, 0.05}, Gpu{"b200-sxm", 0.08, 0.05}}) {
    const Profile& profile = profile_of(gpu.id);
    const auto costs = profile_cost_model(profile, profile.device, ClockRegime::Burst);
    const auto products = tables_of("gemm_bf16_tn_all_gpus.csv", profile.device);
    const auto attentions = tables_of("attention_prefill_causal_bf16.csv", profile.device);
    if (products.empty() || attentions.empty()) return;
    Mean product, attention;
    for (const OperatorSample& sample : products[0].samples)
      if (std::min({sample.op.m, sample.op.n, sample.op.k}) >= 1024)
        product.add(costs->cost(sample.op).seconds, sample.seconds);
    for (const OperatorSample& sample : attentions[0].samples)
      if (sample.op.flops > 1e11) attention.add(costs->cost(sample.op).seconds, sample.seconds);
    std::cout << gpu.id << ": products " << 100 * product.mean() << " % of " << product.count
              << ", attention " << 100 * attention.mean() << " % of " << attention.count << "\n";
    CHECK(product.count > 5000);
    CHECK(product.mean() < gpu.products);
    CHECK(attention.count > 1000);
    CHECK(attention.mean() < gpu.attention);
  }
}

TEST_CASE("products left out of a fit are predicted as well as its profile says") {
  const Profile& profile = profile_of("h200-sxm");
  const auto tables = tables_of("gemm_bf16_tn_all_gpus.csv", profile.device);
  if (tables.empty()) return;
  const auto samples = forward_samples(tables, OperatorFamily::Gemm, Precision::Bf16);
  std::vector<FitSample> training;
  for (const FitSample& sample : samples)
    if (sample.fold != 0) training.push_back(sample);
  const GemmFit fit =
      fit_gemm(training, Precision::Bf16, profile.device, {.cross_validate = false});
  Mean left_out;
  for (const FitSample& sample : samples)
    if (sample.fold == 0 && sample.large)
      left_out.add(burst_time_s(sample.op, fit, profile.device), sample.seconds);
  std::cout << "H200 products left out: " << 100 * left_out.mean() << " % of " << left_out.count
            << "\n";
  CHECK(left_out.count > 1000);
  CHECK(left_out.mean() < 0.06);
}

TEST_CASE("products with scales for blocks take what DeepGEMM measured on an H800") {
  const std::string path = data_directory() + "/ops/deepgemm_h800_fp8.csv";
  std::ifstream file(path);
  if (!file) {
    std::cout << "SKIPPED: the folder of outside measurements is not there\n";
    return;
  }
  Profile profile = profile_of("h100-sxm-80gb");
  // Rates are of bursts, without the kernels that scale: those of an H100, whose H800 is as fast.
  const auto costs = profile_cost_model(profile, profile.device, ClockRegime::Burst);
  Mean all, large;
  double bias = 0;
  std::string line;
  std::getline(file, line);  // kind,groups,m,n,k,tflops,GBps
  while (std::getline(file, line)) {
    std::replace(line.begin(), line.end(), ',', ' ');
    std::istringstream row(line);
    std::string kind;
    std::int64_t groups = 0, m = 0, n = 0, k = 0;
    double tflops = 0;
    REQUIRE(row >> kind >> groups >> m >> n >> k >> tflops);
    Operator op = gemm(OperatorName::FfnUp, Pass::Forward, Precision::Fp8, m, n, k);
    op.batch = groups;
    op.flops *= static_cast<double>(groups);
    op.bytes *= static_cast<double>(groups);
    op.block_scaled = true;
    const double measured_s = op.flops / (tflops * 1e12);
    const double predicted_s = costs->cost(op).seconds;
    all.add(predicted_s, measured_s);
    if (m * groups < 4096) continue;
    large.add(predicted_s, measured_s);
    bias += std::log(predicted_s / measured_s);
  }
  std::cout << "block-scaled products: " << 100 * large.mean() << " % of " << large.count
            << " large ones, bias " << 100 * bias / large.count << " %, " << 100 * all.mean()
            << " % of " << all.count << "\n";
  REQUIRE(large.count == 10);
  CHECK(all.mean() < 0.12);
  CHECK(large.mean() < 0.12);
  CHECK(std::abs(bias / large.count) < 0.02);
}
