#include "kernels/ops/tensor.h"

#include <cmath>
#include <limits>

#include "tests/catch.h"
#include "tests/kernels/ops/host_tensor.h"

using namespace rehearse;

TEST_CASE("bf16 rounds to nearest, ties to even, and keeps infinities and NaN") {
  CHECK(to_float(to_bf16(1.0f)) == 1.0f);
  CHECK(to_float(to_bf16(1.0f + 0x1p-8f)) == 1.0f);  // a tie goes to the even neighbour
  CHECK(to_float(to_bf16(1.0f + 3 * 0x1p-8f)) == 1.0f + 0x1p-6f);  // and this one up
  CHECK(to_float(to_bf16(1.0f + 0x1.2p-8f)) == 1.0f + 0x1p-7f);
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(to_float(to_bf16(infinity)) == infinity);
  CHECK(to_float(to_bf16(-infinity)) == -infinity);
  CHECK(std::isnan(to_float(to_bf16(std::nanf("")))));
  CHECK(to_float(to_bf16(std::numeric_limits<float>::max())) == infinity);
}

TEST_CASE("every fp8 value survives the way through float, and conversion picks the nearest") {
  for (int bits = 0; bits < 256; ++bits) {
    const F8E4m3 value{static_cast<std::uint8_t>(bits)};
    if (std::isnan(to_float(value))) continue;
    CAPTURE(bits, to_float(value));
    CHECK(to_f8e4m3(to_float(value)).bits == value.bits);
  }
  Random random(7);
  for (int i = 0; i < 2000; ++i) {
    const float x = static_cast<float>(static_cast<double>(random() >> 11) * 0x1p-53 * 1000 - 500);
    const float rounded = to_float(to_f8e4m3(x));
    for (int bits = 0; bits < 256; ++bits) {
      const float other = to_float(F8E4m3{static_cast<std::uint8_t>(bits)});
      if (!std::isnan(other)) CHECK(std::fabs(x - rounded) <= std::fabs(x - other));
    }
  }
  CHECK(to_float(to_f8e4m3(1e9f)) == 448.0f);  // saturates
}

TEST_CASE("slices of rows and columns address the same elements as indices do") {
  Random random(1);
  HostTensor tensor = random_tensor(random, DType::F32, {3, 5, 4});
  const TensorView columns = slice_columns(tensor.view(), 2, 2);
  CHECK(columns.shape.stride == 20);
  CHECK(static_cast<float*>(columns.data)[0] == static_cast<float>(tensor.at(8)));
  const TensorView rows = slice_rows(tensor.view(), 1, 2);
  CHECK(static_cast<float*>(rows.data)[0] == static_cast<float>(tensor.at(20)));
  CHECK(rows.shape.text() == "[2, 5, 4]");
  CHECK(!columns.shape.contiguous());
  CHECK(reshaped(tensor.view(), {15, 4}).size(0) == 15);
}

namespace {

std::string refusal(const OperatorCall& call) {
  try {
    check(call);
  } catch (const OperatorError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a call whose tensors do not fit is refused with a sentence that names them") {
  HostTensor a(DType::F32, {4, 3}), b(DType::F32, {5, 3}), out(DType::F32, {4, 5});
  CHECK(refusal(Gemm{.a = a, .b = b, .out = out, .transpose_b = true}).empty());
  CHECK(refusal(Gemm{.a = a, .b = b, .out = out}) ==
        "gemm: tensor \"b\" is fp32 [5, 3], but should be [3, 5]");
  HostTensor narrow(DType::Bf16, {5, 3});
  CHECK(refusal(Gemm{.a = a, .b = narrow, .out = out, .transpose_b = true}) ==
        "gemm: tensor \"b\" is bf16 [5, 3], but should be of fp32");
  CHECK(refusal(Add{.a = a, .b = a, .out = out}) ==
        "add: tensor \"a\" is [4, 3], but should be [4, 5]");
  CHECK(refusal(Add{.a = {}, .b = a, .out = a}) == "add: tensor \"a\" is [], but should be [4, 3]");
  TensorView crooked = a.view();
  crooked.data = static_cast<std::byte*>(crooked.data) + 1;
  CHECK(refusal(Add{.a = crooked, .b = a, .out = a}) ==
        "add: the memory of tensor \"a\" is not aligned to its fp32 elements");
  CHECK(refusal(Add{.a = slice_columns(a.view(), 0, 2), .b = a, .out = a}).find("should be") !=
        std::string::npos);
  HostTensor heads(DType::F32, {4, 3, 8}), kv(DType::F32, {4, 2, 8}), offsets = int_tensor({0, 4});
  const AttentionShape shape{.query_offsets = offsets, .key_offsets = offsets};
  CHECK(refusal(AttentionForward{
            .query = heads, .key = kv, .value = kv, .out = heads, .shape = shape}) ==
        "attention_forward: 3 heads are no multiple of 2 key/value heads");
  CHECK(refusal(DropoutBackward{.d_out = a, .mask = a, .d_x = a, .probability = 1.5f})
            .find("probability") != std::string::npos);
}

TEST_CASE("values outside their range are refused on the CPU, not read") {
  HostTensor x(DType::F32, {2, 1, 4}), table(DType::F32, {3, 4}), positions = int_tensor({0, 3});
  CHECK_THROWS_AS(cpu().run(Rope{.x = x, .cosine_sine = table, .positions = positions}),
                  OperatorError);
  HostTensor experts = int_tensor({0, 5}, {2, 1}), destination(DType::I32, {2, 1});
  HostTensor offsets(DType::I32, {4});
  CHECK_THROWS_AS(
      cpu().run(MoeSort{.experts = experts, .destination = destination, .offsets = offsets}),
      OperatorError);
}
