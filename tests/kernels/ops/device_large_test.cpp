// Tensors of more elements than 32 bits count, on a GPU: an index that overflows reads and writes
// elsewhere. The CPU would take minutes for them, so that each result is compared where it was
// made of known values: at both ends and around the elements 2^31 and 2^32.
#include <algorithm>

#include "tests/catch.h"
#include "tests/kernels/ops/device_under_test.h"

using namespace rehearse;

namespace {

constexpr std::int64_t kWidth = 4096;
constexpr std::int64_t kRows = (std::int64_t{1} << 20) + 24;  // times kWidth: 2^32 and some
constexpr std::size_t kBytes = static_cast<std::size_t>(kRows * kWidth) * sizeof(Bf16);

/// Two matrices of kRows × kWidth bf16 on the device: 17 GB. Null where that is not there.
class LargeMatrices {
 public:
  LargeMatrices() {
    ComputeDevice* device = device_under_test();
    if (device == nullptr) {
      WARN("SKIPPED: " + why_no_device());
      return;
    }
    if (!device_is_fast()) {
      WARN("SKIPPED: only on a real device");
      return;
    }
    try {
      in_ = DeviceBuffer(*device, kBytes);
      out_ = DeviceBuffer(*device, kBytes);
    } catch (const std::exception& error) {
      WARN(std::string("SKIPPED: 17 GB are needed: ") + error.what());
      return;
    }
    device_ = device;
    device->fill_bytes(in_.data(), 0, kBytes);
    device->fill_bytes(out_.data(), 0xff, kBytes);  // NaN: what is not written shows
  }
  ComputeDevice* device() const { return device_; }
  TensorView in(TensorShape shape) const { return {in_.data(), DType::Bf16, shape}; }
  TensorView out(TensorShape shape) const { return {out_.data(), DType::Bf16, shape}; }

  /// Rows worth looking at: the ends, and those on both sides of elements 2^31 and 2^32.
  static std::vector<std::int64_t> rows() {
    constexpr std::int64_t kMiddle = (std::int64_t{1} << 31) / kWidth;
    return {0, kMiddle - 1, kMiddle, 2 * kMiddle - 1, 2 * kMiddle, kRows - 1};
  }
  void put_row(std::int64_t row, const HostTensor& values) {
    device_->upload(static_cast<Bf16*>(in_.data()) + row * kWidth, values.data(), values.bytes());
  }
  HostTensor row_of(const TensorView& matrix, std::int64_t row) const {
    HostTensor values(DType::Bf16, {1, kWidth});
    device_->download(values.data(), static_cast<const Bf16*>(matrix.data) + row * kWidth,
                      values.bytes());
    return values;
  }

 private:
  ComputeDevice* device_ = nullptr;
  DeviceBuffer in_, out_;
};

/// Runs `call` on the large matrices and `small` on the CPU, a row at a time, and compares them.
void compare_rows(LargeMatrices& large, std::uint64_t seed, const OperatorCall& call,
                  const std::function<OperatorCall(const TensorView&, const TensorView&)>& small) {
  Random random(seed);
  std::vector<HostTensor> rows;
  for (const std::int64_t row : LargeMatrices::rows()) {
    rows.push_back(random_tensor(random, DType::Bf16, {1, kWidth}));
    large.put_row(row, rows.back());
  }
  large.device()->run(call);
  large.device()->synchronize();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::int64_t row = LargeMatrices::rows()[i];
    HostTensor expected(DType::Bf16, {1, kWidth});
    cpu().run(small(rows[i].view(), expected.view()));
    CAPTURE(row);
    CHECK(relative_error(large.row_of(large.out({kRows, kWidth}), row), expected) <=
          error_bound(DType::Bf16));
  }
}

}  // namespace

TEST_CASE("device: long tensors: elementwise operators reach elements beyond 2^32") {
  LargeMatrices large;
  if (large.device() == nullptr) return;
  const TensorShape matrix{kRows, kWidth};
  compare_rows(
      large, 190, Add{.a = large.in(matrix), .b = large.in(matrix), .out = large.out(matrix)},
      [](const TensorView& x, const TensorView& out) { return Add{.a = x, .b = x, .out = out}; });
  compare_rows(
      large, 191,
      ActivationForward{.kind = Activation::Gelu, .x = large.in(matrix), .out = large.out(matrix)},
      [](const TensorView& x, const TensorView& out) {
        return ActivationForward{.kind = Activation::Gelu, .x = x, .out = out};
      });
}

TEST_CASE("device: long tensors: norms reach rows beyond element 2^32") {
  LargeMatrices large;
  if (large.device() == nullptr) return;
  const TensorShape matrix{kRows, kWidth};
  Random random(192);
  HostTensor weight = random_tensor(random, DType::Bf16, {kWidth}), one(DType::F32, {1});
  DeviceBuffer weights(*large.device(), weight.bytes()),
      statistics(*large.device(), static_cast<std::size_t>(kRows) * sizeof(float));
  large.device()->upload(weights.data(), weight.data(), weight.bytes());
  compare_rows(
      large, 193,
      NormForward{.kind = Norm::RmsNorm,
                  .x = large.in(matrix),
                  .weight = TensorView(weights.data(), DType::Bf16, {kWidth}),
                  .out = large.out(matrix),
                  .inverse_deviation = TensorView(statistics.data(), DType::F32, {kRows})},
      [&](const TensorView& x, const TensorView& out) {
        return NormForward{
            .kind = Norm::RmsNorm, .x = x, .weight = weight, .out = out, .inverse_deviation = one};
      });
}

TEST_CASE("device: long tensors: products reach rows beyond element 2^32") {
  LargeMatrices large;
  if (large.device() == nullptr) return;
  constexpr std::int64_t kInputs = kWidth;
  Random random(194);
  HostTensor weight = random_tensor(random, DType::Bf16, {kWidth, kInputs}, 0.1);
  DeviceBuffer weights(*large.device(), weight.bytes());
  large.device()->upload(weights.data(), weight.data(), weight.bytes());
  compare_rows(large, 195,
               Gemm{.a = large.in({kRows, kInputs}),
                    .b = TensorView(weights.data(), DType::Bf16, {kWidth, kInputs}),
                    .out = large.out({kRows, kWidth}),
                    .transpose_b = true},
               [&](const TensorView& x, const TensorView& out) {
                 return Gemm{.a = x, .b = weight, .out = out, .transpose_b = true};
               });
}

TEST_CASE("device: long tensors: cross entropy reaches logits beyond element 2^32") {
  LargeMatrices large;
  if (large.device() == nullptr) return;
  Random random(196);
  const auto column = [&](DType dtype) {
    return DeviceBuffer(*large.device(), static_cast<std::size_t>(kRows) * element_bytes(dtype));
  };
  DeviceBuffer targets = column(DType::I32), maximum = column(DType::F32), sum = column(DType::F32),
               logit = column(DType::F32);
  large.device()->fill_bytes(targets.data(), 0, static_cast<std::size_t>(kRows) * 4);
  std::vector<HostTensor> rows;
  for (const std::int64_t row : LargeMatrices::rows()) {
    rows.push_back(random_tensor(random, DType::Bf16, {1, kWidth}, 3));
    large.put_row(row, rows.back());
  }
  large.device()->run(
      CrossEntropyForward{.logits = large.in({kRows, kWidth}),
                          .targets = TensorView(targets.data(), DType::I32, {kRows}),
                          .vocabulary = kWidth,
                          .maximum = TensorView(maximum.data(), DType::F32, {kRows}),
                          .sum = TensorView(sum.data(), DType::F32, {kRows}),
                          .target_logit = TensorView(logit.data(), DType::F32, {kRows})});
  large.device()->synchronize();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::int64_t row = LargeMatrices::rows()[i];
    const HostTensor target = int_tensor({0});
    HostTensor m(DType::F32, {1}), s(DType::F32, {1}), l(DType::F32, {1}), got(DType::F32, {1});
    cpu().run(CrossEntropyForward{.logits = rows[i],
                                  .targets = target,
                                  .vocabulary = kWidth,
                                  .maximum = m,
                                  .sum = s,
                                  .target_logit = l});
    CAPTURE(row);
    large.device()->download(got.data(), static_cast<const float*>(sum.data()) + row, 4);
    CHECK(relative_error(got, s) <= error_bound(DType::F32));
    large.device()->download(got.data(), static_cast<const float*>(logit.data()) + row, 4);
    CHECK(relative_error(got, l) <= error_bound(DType::F32));
  }
}
