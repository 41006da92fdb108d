// The embedding's gradient: adds each token's row to the table's, in fp32. Bound by memory: reads
// d_out once, and reads and writes each row of the table once a chunk of tokens that holds it.
//
// No atomics: within a chunk, tokens are sorted by their row and then by their place, and whoever
// owns the first of equal ones adds all of them in order; chunks follow each other. The same
// inputs, the same bytes.
#include <algorithm>

#include "kernels/cuda/elements.cuh"

namespace rehearse {
namespace {

constexpr int kChunk = 4096;  // tokens sorted in a block's shared memory
constexpr int kSortThreads = 1024;
constexpr int kThreads = 128;
constexpr std::uint64_t kNoRow = ~std::uint64_t{0};  // of tokens that other ranks have

__device__ __forceinline__ std::uint64_t row_of(std::uint64_t key) { return key >> 32; }
__device__ __forceinline__ int token_of(std::uint64_t key) {
  return static_cast<int>(key & 0xffffffffu);
}

/// A block a chunk: keys of row and token, in rising order (Batcher's bitonic sorting network,
/// `size` a power of two).
__global__ void __launch_bounds__(kSortThreads)
    sort_tokens_kernel(const std::int32_t* tokens, int rows, std::int64_t first_row,
                       std::int64_t table_rows, int size, std::uint64_t* sorted) {
  std::uint64_t* keys = static_cast<std::uint64_t*>(dynamic_shared_memory());
  const int first = static_cast<int>(blockIdx.x) * kChunk, thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < size; i += kSortThreads) {
    const std::int64_t row = first + i < rows ? tokens[first + i] - first_row : -1;
    keys[i] = row < 0 || row >= table_rows
                  ? kNoRow
                  : static_cast<std::uint64_t>(row) << 32 | static_cast<std::uint64_t>(first + i);
  }
  __syncthreads();
  for (int length = 2; length <= size; length *= 2)
    for (int distance = length / 2; distance > 0; distance /= 2) {
      for (int i = thread; i < size; i += kSortThreads) {
        const int other = i ^ distance;
        if (other < i) continue;
        const std::uint64_t a = keys[i], b = keys[other];
        if ((a > b) == ((i & length) == 0)) {
          keys[i] = b;
          keys[other] = a;
        }
      }
      __syncthreads();
    }
  for (int i = thread; i < size; i += kSortThreads)
    sorted[static_cast<std::int64_t>(blockIdx.x) * size + i] = keys[i];
}

constexpr int kColumnPacks = 2;   // of a row that a thread takes
constexpr int kTokensAtOnce = 4;  // of equal ones, whose loads are under way together

/// A block a sorted key and slice of columns; blocks of keys that continue a run leave at once.
template <int N, typename T>
__global__ void __launch_bounds__(kThreads)
    add_tokens_kernel(const std::uint64_t* sorted, int size, const T* d_out, float* d_table,
                      int h) {
  const int at = static_cast<int>(blockIdx.x);
  const std::uint64_t row = row_of(sorted[at]);
  if (sorted[at] == kNoRow || (at > 0 && row_of(sorted[at - 1]) == row)) return;
  constexpr int kStep = kThreads * N;
  const int first =
      static_cast<int>(blockIdx.y) * kStep * kColumnPacks + static_cast<int>(threadIdx.x) * N;
  float* sums = d_table + static_cast<std::int64_t>(row) * h;
  float sum[kColumnPacks][N] = {};
#pragma unroll
  for (int p = 0; p < kColumnPacks; ++p)
    if (first + p * kStep < h) load_pack<N>(sum[p], sums + first + p * kStep);
  bool more = true;
  for (int i = at; more; i += kTokensAtOnce) {
    Pack<T, N> loaded[kTokensAtOnce][kColumnPacks] = {};
#pragma unroll
    for (int k = 0; k < kTokensAtOnce; ++k) {
      more = more && i + k < size && row_of(sorted[i + k]) == row;
      if (!more) continue;
      const T* from = d_out + static_cast<std::int64_t>(token_of(sorted[i + k])) * h;
#pragma unroll
      for (int p = 0; p < kColumnPacks; ++p)
        if (first + p * kStep < h) loaded[k][p] = pack_at<N>(from + first + p * kStep);
    }
    // What was not loaded adds zero.
#pragma unroll
    for (int k = 0; k < kTokensAtOnce; ++k)
#pragma unroll
      for (int p = 0; p < kColumnPacks; ++p)
#pragma unroll
        for (int j = 0; j < N; ++j) sum[p][j] += device_float(loaded[k][p].element[j]);
  }
#pragma unroll
  for (int p = 0; p < kColumnPacks; ++p)
    if (first + p * kStep < h) store_pack<N>(sums + first + p * kStep, sum[p]);
}

template <int N, typename T>
void add_chunks(const EmbeddingBackward& call, const std::uint64_t* sorted, int size,
                unsigned chunks, LaunchContext& context) {
  const auto h = int_size(call.d_out.size(1));
  for (unsigned chunk = 0; chunk < chunks; ++chunk)
    launch(context,
           {.grid = {static_cast<unsigned>(size), blocks_for(h, kThreads * N * kColumnPacks)},
            .block = {kThreads}},
           add_tokens_kernel<N, T>, sorted + static_cast<std::int64_t>(chunk) * size, size,
           device_elements<T>(call.d_out), device_elements<float>(call.d_table), h);
}

}  // namespace

void compute(const EmbeddingBackward& call, LaunchContext& context) {
  const auto rows = int_size(call.d_out.size(0)), h = int_size(call.d_out.size(1));
  const unsigned chunks = blocks_for(rows, kChunk);
  int size = 1;
  while (size < std::min(rows, kChunk)) size *= 2;
  auto* sorted = static_cast<std::uint64_t*>(context.workspace(
      static_cast<std::size_t>(chunks) * static_cast<std::size_t>(size) * sizeof(std::uint64_t)));
  launch(context,
         {.grid = {chunks},
          .block = {kSortThreads},
          .shared_bytes = static_cast<std::size_t>(size) * sizeof(std::uint64_t)},
         sort_tokens_kernel, device_elements<std::int32_t>(call.tokens), rows, call.first_row,
         call.d_table.size(0), size, sorted);
  with_device_type("embedding_backward", call.d_out.dtype, [&](auto tag) {
    using T = decltype(tag);
    // Four columns a pack in both types: sixteen bytes of the sums.
    constexpr int kPack = kFullPack<float>;
    if (packs_fit(kPack, h, call.d_out, call.d_table))
      add_chunks<kPack, T>(call, sorted, size, chunks, context);
    else
      add_chunks<1, T>(call, sorted, size, chunks, context);
  });
}

}  // namespace rehearse
