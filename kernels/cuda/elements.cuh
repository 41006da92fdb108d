#pragma once
#include <cstdint>
#include <type_traits>
#include <utility>

#include "kernels/cuda/launch.cuh"

namespace rehearse {

__device__ __forceinline__ float device_float(float x) { return x; }
__device__ __forceinline__ float device_float(double x) { return static_cast<float>(x); }
__device__ __forceinline__ void device_store(float& element, float x) { element = x; }
__device__ __forceinline__ void device_store(Bf16& element, float x) { element = device_bf16(x); }
__device__ __forceinline__ void device_store(double& element, float x) { element = x; }

/// N neighbours of T, moved in one access. Global memory is fastest in accesses of 16 bytes a
/// lane: 8 bf16 or 4 fp32.
template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
  T element[N];
};
template <typename T>
inline constexpr int kFullPack = static_cast<int>(16 / sizeof(T));

template <int N, typename T>
__device__ __forceinline__ Pack<T, N> pack_at(const T* from) {
  expect_access(from, sizeof(Pack<T, N>));
  return *reinterpret_cast<const Pack<T, N>*>(from);
}
template <int N, typename T>
__device__ __forceinline__ void put_pack(T* to, const Pack<T, N>& pack) {
  expect_access(to, sizeof(Pack<T, N>));
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

template <int N, typename T>
__device__ __forceinline__ void unpack(float (&values)[N], const Pack<T, N>& pack) {
#pragma unroll
  for (int i = 0; i < N; ++i) values[i] = device_float(pack.element[i]);
}
template <int N, typename T>
__device__ __forceinline__ void load_pack(float (&values)[N], const T* from) {
  unpack(values, pack_at<N>(from));
}
template <int N, typename T>
__device__ __forceinline__ Pack<T, N> packed(const float (&values)[N]) {
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) device_store(pack.element[i], values[i]);
  return pack;
}
template <int N, typename T>
__device__ __forceinline__ void store_pack(T* to, const float (&values)[N]) {
  put_pack(to, packed<N, T>(values));
}

/// Whether rows of `width` elements that start at these tensors can be moved in packs of N: their
/// addresses and widths are multiples of a pack.
template <typename... Views>
bool packs_fit(int pack, std::int64_t width, const Views&... tensors) {
  const auto fits = [&](const ConstTensorView& tensor) {
    if (!tensor.given()) return true;
    const auto address = reinterpret_cast<std::uintptr_t>(tensor.data);
    return address % (static_cast<std::size_t>(pack) * element_bytes(tensor.dtype)) == 0 &&
           tensor.shape.stride % pack == 0;
  };
  return width % pack == 0 && (fits(tensors) && ...);
}

/// Calls body with a value of the element type; fp64 is refused, the CPU has it.
template <typename Body>
void with_device_type(const char* operator_name, DType dtype, Body&& body) {
  if (dtype == DType::F32) return std::forward<Body>(body)(float{});
  if (dtype == DType::Bf16) return std::forward<Body>(body)(Bf16{});
  throw OperatorError(std::string(operator_name) + ": kernels work in fp32 and bf16, not in " +
                      dtype_name(dtype));
}

/// Calls body with the pack's size as a constant: a full pack of T where tensors allow it, else
/// single elements.
template <typename T, typename Body>
void with_pack(bool fits, Body&& body) {
  if (fits)
    std::forward<Body>(body)(std::integral_constant<int, kFullPack<T>>{});
  else
    std::forward<Body>(body)(std::integral_constant<int, 1>{});
}

template <typename T>
const T* device_elements(const ConstTensorView& tensor) {
  return static_cast<const T*>(tensor.data);
}
template <typename T>
T* device_elements(const TensorView& tensor) {
  return static_cast<T*>(tensor.data);
}

// Memory answers after some 600 ns, so that an H200's 4.8 TB/s need 3 MB under way (Little's law):
// 22 KB a multiprocessor, all the time. A thread with one 16-byte load under way, waiting half of
// its life, has too little; kernels therefore issue several loads before they use the first.

constexpr int kElementwiseThreads = 256;

/// A thread takes kPacks packs: it loads all of them, then computes and stores. A body has
/// `Loaded<N>`, what it reads for a pack, `load<N>(index of its first element)`, and
/// `store<N>(index, loaded)`, which may write where `load` read.
template <int N, int kPacks, typename Body>
__global__ void __launch_bounds__(kElementwiseThreads)
    elementwise_kernel(Body body, std::int64_t count) {
  constexpr std::int64_t kStep = kElementwiseThreads * N;
  const std::int64_t first =
      static_cast<std::int64_t>(blockIdx.x) * kStep * kPacks + threadIdx.x * N;
  typename Body::template Loaded<N> loaded[kPacks];
#pragma unroll
  for (int p = 0; p < kPacks; ++p)
    if (first + p * kStep < count) loaded[p] = body.template load<N>(first + p * kStep);
#pragma unroll
  for (int p = 0; p < kPacks; ++p)
    if (first + p * kStep < count) body.template store<N>(first + p * kStep, loaded[p]);
}

/// The same where tensors begin `begin` elements before a pack's bounds, all of them: these, and
/// what a last pack leaves over, the first block takes one by one.
template <int N, int kPacks, typename Body>
__global__ void __launch_bounds__(kElementwiseThreads)
    peeled_kernel(Body body, std::int64_t begin, std::int64_t count) {
  const std::int64_t end = begin + (count - begin) / N * N;
  constexpr std::int64_t kStep = kElementwiseThreads * N;
  const std::int64_t first =
      begin + static_cast<std::int64_t>(blockIdx.x) * kStep * kPacks + threadIdx.x * N;
  typename Body::template Loaded<N> loaded[kPacks];
#pragma unroll
  for (int p = 0; p < kPacks; ++p)
    if (first + p * kStep < end) loaded[p] = body.template load<N>(first + p * kStep);
#pragma unroll
  for (int p = 0; p < kPacks; ++p)
    if (first + p * kStep < end) body.template store<N>(first + p * kStep, loaded[p]);
  if (blockIdx.x != 0) return;
  const auto single = static_cast<std::int64_t>(threadIdx.x);  // fewer than a pack at either end
  if (single < begin) body.template store<1>(single, body.template load<1>(single));
  if (end + single < count)
    body.template store<1>(end + single, body.template load<1>(end + single));
}

/// Elements before the first pack of these flat tensors, or −1 where they differ in it.
template <typename... Views>
std::int64_t peeled_elements(int pack, const Views&... tensors) {
  std::int64_t begin = -1;
  bool alike = true;
  const auto look = [&](const ConstTensorView& tensor) {
    if (!tensor.given()) return;
    const auto place =
        static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(tensor.data) /
                                  element_bytes(tensor.dtype) % static_cast<std::uintptr_t>(pack));
    const std::int64_t here = (pack - place) % pack;
    alike = alike && (begin < 0 || here == begin);
    begin = here;
  };
  (look(tensors), ...);
  return alike ? begin : -1;
}

template <int N, int kPacks = 2, typename Body>
void launch_elementwise(LaunchContext& context, const Body& body, std::int64_t count) {
  launch(context,
         {.grid = {blocks_for(count, std::int64_t{kElementwiseThreads} * N * kPacks)},
          .block = {kElementwiseThreads}},
         elementwise_kernel<N, kPacks, Body>, body, count);
}

/// A body over flat, contiguous tensors that begin anywhere and have any number of elements, in
/// full packs of T, the widest type: a share of a sharded tensor, a bucket. Only tensors that lie
/// differently to each other take single elements. REQUIRES: the body minds only pointers.
template <typename T, int kPacks = 2, typename Body, typename... Views>
void launch_flat(LaunchContext& context, const Body& body, std::int64_t count,
                 const Views&... tensors) {
  constexpr int kPack = kFullPack<T>;
  const std::int64_t begin = peeled_elements(kPack, tensors...);
  if (begin < 0 || count < kPack + begin)
    return launch_elementwise<1, kPacks>(context, body, count);
  if (begin == 0 && count % kPack == 0)
    return launch_elementwise<kPack, kPacks>(context, body, count);
  launch(context,
         {.grid = {blocks_for(count - begin, std::int64_t{kElementwiseThreads} * kPack * kPacks)},
          .block = {kElementwiseThreads}},
         peeled_kernel<kPack, kPacks, Body>, body, begin, count);
}

}  // namespace rehearse
