#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <string>

#include "kernels/attention_time.h"
#include "kernels/profile_catalogue.h"
#include "kernels/profile_file.h"
#include "tests/catch.h"
#include "tests/kernels/profile_support.h"

using namespace rehearse;

TEST_CASE("every shipped profile reads back as it was written") {
  REQUIRE(shipped_profile_names() ==
          std::vector<std::string>{"a100-sxm-80gb.megatron", "b200-sxm.megatron",
                                   "h100-sxm-80gb.megatron", "h200-sxm.megatron"});
  for (const std::string& name : shipped_profile_names()) {
    CAPTURE(name);
    const std::string text(shipped_profile_text(name));
    Problems problems;
    const auto profile = read_profile(text, name, problems);
    CAPTURE(problems.text());
    REQUIRE(profile);
    CHECK(write_profile(*profile) == text);
    CHECK(profile->gpu + "." + profile->stack == name);
    CHECK(!profile->sources.empty());
  }
}

TEST_CASE("shipped profiles state errors of shapes left out that meet their aims") {
  for (const char* gpu : {"a100-sxm-80gb", "h100-sxm-80gb", "h200-sxm", "b200-sxm"}) {
    CAPTURE(gpu);
    const Profile* profile = shipped_profile(gpu, kDefaultStack);
    REQUIRE(profile);
    const bool hopper = std::string(gpu).front() == 'h';
    const auto bf16 =
        std::find_if(profile->gemm.begin(), profile->gemm.end(),
                     [](const GemmFit& fit) { return fit.precision == Precision::Bf16; });
    REQUIRE(bf16 != profile->gemm.end());
    CHECK(bf16->errors.large_samples > 5000);
    CHECK(bf16->errors.held_out_large > 0);
    CHECK(bf16->errors.held_out_large < (hopper ? 0.06 : 0.08));
    CHECK(bf16->residuals.knots().size() <= 600);
    REQUIRE(profile->attention.size() == 1);
    CHECK(profile->attention[0].errors.held_out_large > 0);
    CHECK(profile->attention[0].errors.held_out_large < 0.05);
  }
}

TEST_CASE("measured shapes come back verbatim, others by how near the evidence is") {
  Profile profile = small_profile();
  profile.samples.push_back(
      {.family = OperatorFamily::Gemm, .m = 4096, .n = 4096, .k = 4096, .seconds = 0.25e-3});
  profile.samples.push_back({.family = OperatorFamily::Memory,
                             .name = OperatorName::Norm,
                             .bytes = 1e8,
                             .seconds = 77e-6});
  const auto costs = profile_cost_model(profile, profile.device);
  const auto product = [&](std::int64_t m, std::int64_t n, std::int64_t k) {
    return costs->cost(gemm(OperatorName::Head, Pass::Forward, Precision::Bf16, m, n, k));
  };
  CHECK(product(4096, 4096, 4096).seconds == 0.25e-3);
  CHECK(product(4096, 4096, 4096).source == CostSource::Measured);
  CHECK(product(4096, 4096, 2048).source == CostSource::Interpolated);
  const Cost far = product(1 << 20, 16, 16);
  CHECK(far.source == CostSource::Fitted);
  CHECK(far.relative_error > product(4096, 4096, 2048).relative_error);
  CHECK(costs->cost(memory_operator(OperatorName::Norm, Pass::Forward, 1e8)).seconds == 77e-6);
  CHECK(costs->cost(memory_operator(OperatorName::Norm, Pass::Forward, 2e8)).source ==
        CostSource::Fitted);
}

TEST_CASE("a correction multiplies the tile model") {
  Profile profile = small_profile();
  const DeviceFacts device = profile.device;
  const Operator op = gemm(OperatorName::Qkv, Pass::Forward, Precision::Bf16, 4096, 4096, 4096);
  const double plain_s =
      tiled_gemm_s(op, profile.gemm[0].constants,
                   {.flops_per_s = device.bf16_flops,
                    .memory_bandwidth_bytes_per_s = device.memory_bandwidth_bytes_per_s,
                    .multiprocessors = device.streaming_multiprocessors});
  for (ResidualKnot& knot : profile.gemm[0].residuals.knots()) knot.value = std::log(1.25);
  const auto costs = profile_cost_model(profile, device, ClockRegime::Burst);
  CHECK(costs->cost(op).seconds == Approx(1.25 * plain_s));
}

TEST_CASE("long steps compute slower than bursts and move data as fast") {
  const Profile profile = small_profile();
  const auto burst = profile_cost_model(profile, profile.device, ClockRegime::Burst);
  const auto steady = profile_cost_model(profile, profile.device, ClockRegime::Sustained);
  const Operator big = gemm(OperatorName::Qkv, Pass::Forward, Precision::Bf16, 8192, 8192, 8192);
  CHECK(steady->cost(big).seconds / burst->cost(big).seconds == Approx(1 / 0.8).epsilon(0.02));
  const Operator add = memory_operator(OperatorName::Norm, Pass::Forward, 1e9);
  CHECK(steady->cost(add).seconds == burst->cost(add).seconds);
}

TEST_CASE("what was timed beside an fp8 product is not priced in a step") {
  Profile profile = small_profile();
  GemmFit fp8 = profile.gemm.front();
  fp8.precision = Precision::Fp8;
  fp8.residuals = {};
  profile.gemm.push_back(fp8);
  profile.device.fp8_flops = 2e15;
  profile.sustained_rate.value = 1;
  const Operator op = gemm(OperatorName::Qkv, Pass::Forward, Precision::Fp8, 8192, 4096, 4096);
  const double alone_s = profile_cost_model(profile, profile.device)->cost(op).seconds;
  profile.gemm.back().constants.scaling_s = 2e-12;
  profile.gemm.back().constants.start_s += 5e-6;
  CHECK(profile_cost_model(profile, profile.device)->cost(op).seconds == Approx(alone_s));
  CHECK(profile_cost_model(profile, profile.device, ClockRegime::Burst)->cost(op).seconds ==
        Approx(alone_s + 5e-6 + 2e-12 * 8192 * 4096));
}

TEST_CASE("gradients of weights compute at their own rate") {
  const Profile profile = small_profile();
  const auto costs = profile_cost_model(profile, profile.device, ClockRegime::Burst);
  const auto time = [&](Pass pass) {
    return costs->cost(gemm(OperatorName::Qkv, pass, Precision::Bf16, 8192, 8192, 8192)).seconds;
  };
  CHECK(time(Pass::WeightGradient) / time(Pass::Forward) == Approx(1 / 0.5).epsilon(0.03));
  CHECK(time(Pass::InputGradient) == Approx(time(Pass::Forward)));
}

TEST_CASE("other GPUs of an architecture are scaled with a wider error, others not at all") {
  const DeviceFacts h100 = shipped_profile("h100-sxm-80gb", kDefaultStack)->device;
  DeviceFacts limited = h100;
  limited.gpu = "h100-500w";
  limited.power_w = 500;
  const Operator op = gemm(OperatorName::Qkv, Pass::Forward, Precision::Bf16, 8192, 8192, 8192);
  const Cost own = device_cost_model(h100)->cost(op), scaled = device_cost_model(limited)->cost(op);
  CHECK(own.source == CostSource::Interpolated);
  CHECK(scaled.source == CostSource::Scaled);
  CHECK(scaled.relative_error > own.relative_error);
  // Power goes with the cube of the clock.
  CHECK(scaled.seconds / own.seconds == Approx(std::cbrt(700.0 / 500)).epsilon(0.02));
  DeviceFacts volta = h100;
  volta.gpu = "v100";
  volta.compute_capability = 70;
  CHECK(nearest_profile(volta, kDefaultStack) == nullptr);
  CHECK(device_cost_model(volta)->cost(op).source == CostSource::DataSheet);
  CHECK(nearest_profile(h100, "no such stack") == nullptr);
}

TEST_CASE("the cache's bandwidth goes over into the memory's between 0.6 and 2 of its size") {
  const MemoryFit fit{.operators = {"norm"}, .cached_share = 1.2, .memory_share = 0.6};
  CHECK(memory_share(fit, 20e6, 50e6) == 1.2);
  CHECK(memory_share(fit, 30e6, 50e6) == Approx(1.2));
  CHECK(memory_share(fit, std::sqrt(30e6 * 100e6), 50e6) == Approx(std::sqrt(1.2 * 0.6)));
  CHECK(memory_share(fit, 100e6, 50e6) == 0.6);
  CHECK(memory_share(fit, 1e6, 0) == 0.6);
}

TEST_CASE("broken profiles are refused with the place of every mistake") {
  struct Broken {
    const char *from, *to, *pointer, *message;
  };
  Profile profile = small_profile();
  for (const int ranks : {2, 4})
    profile.collectives.push_back(
        {.ranks = ranks, .source = "chosen", .points = {{1024, 1e-5}, {2048, 2e-5}}});
  const std::string whole = write_profile(profile);
  const Broken cases[] = {
      {"\"gpu\":", "\"gpuu\":", "/gpuu", "unknown key \"gpuu\""},
      {"\"efficiency\": 0.7", "\"efficiency\": -0.7", "/gemm/0/constants/efficiency", "-0.7"},
      {"\"norm\"", "\"nrom\"", "/memory/0/operators", "no operator is called \"nrom\""},
      {"4096, 4096, 4096, 0]", "4096, 4096, 0]", "/gemm/0/knots/0", "a list of 3 sizes"},
      {"4096, 4096, 4096, 0]", "4096, -4096, 4096, 0]", "/gemm/0/knots/0/1", "-4096"},
      {"4096, 4096, 4096, 0]", "4096, 4096, 4096, \"x\"]", "/gemm/0/knots/0/3", "number"},
      {"\"profile/1\"", "\"profile/2\"", "/schema", "profile/2"},
      {"\"bytes\": 2048", "\"bytes\": 512", "/collectives/0/points", "ascending"},
      {"\"ranks\": 2", "\"ranks\": 1", "/collectives/0/ranks", "1"},
      {"\"ranks\": 4", "\"ranks\": 2", "/collectives", "as many ranks"},
      {"\"all_reduce\"", "\"all_reduced\"", "/collectives/0/collective", "all_reduced"},
      {"\"launch\": {\n    \"time_s\": ", "\"launch\": {\n    \"time_s\": -", "/launch/time_s",
       "-"}};
  for (const Broken& broken : cases) {
    std::string text = whole;
    const std::size_t at = text.find(broken.from);
    CAPTURE(broken.from, text);
    REQUIRE(at != std::string::npos);
    text.replace(at, std::string(broken.from).size(), broken.to);
    Problems problems;
    CHECK(!read_profile(text, "broken.json", problems));
    REQUIRE(!problems.empty());
    const auto& all = problems.all();
    const auto found = std::find_if(all.begin(), all.end(), [&](const Problem& problem) {
      return problem.pointer == broken.pointer;
    });
    CAPTURE(problems.text());
    REQUIRE(found != all.end());
    CHECK(found->line > 0);
    CHECK(found->message.find(broken.message) != std::string::npos);
  }
  Problems problems;
  CHECK(!read_profile(whole.substr(0, whole.size() / 2), "cut.json", problems));
  CHECK(!problems.empty());
}

TEST_CASE("an operator is priced in a microsecond once its shape is known") {
  const DeviceFacts device = shipped_profile("h100-sxm-80gb", kDefaultStack)->device;
  const auto costs = device_cost_model(device);
  std::vector<Operator> ops;
  for (int i = 1; i <= 100; ++i) {
    ops.push_back(gemm(OperatorName::Qkv, Pass::Forward, Precision::Bf16, 64 * i, 4096, 4096));
    ops.push_back(attention(Pass::Forward, Precision::Bf16, i, 4096, 4096, 8, 8, 128, true));
    ops.push_back(memory_operator(OperatorName::Norm, Pass::Forward, 1e6 * i));
  }
  double sum = 0, best_s = 1;
  for (int batch = 0; batch < 30; ++batch) {
    const auto begin = std::chrono::steady_clock::now();
    for (const Operator& op : ops) sum += costs->cost(op).seconds;
    best_s = std::min(
        best_s, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  CHECK(sum > 0);
  CHECK(best_s / static_cast<double>(ops.size()) < 1e-6);
}

TEST_CASE("all shipped profiles load in 20 ms") {
  // Time on the processor, so that a busy machine does not fail it.
  double best_s = 1;
  for (int batch = 0; batch < 5; ++batch) {
    const std::clock_t begin = std::clock();
    for (const std::string& name : shipped_profile_names()) {
      Problems problems;
      REQUIRE(read_profile(shipped_profile_text(name), name, problems));
    }
    best_s = std::min(best_s, static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC);
  }
  CHECK(best_s < 20e-3);
}
