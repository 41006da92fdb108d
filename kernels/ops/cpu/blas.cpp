#include "kernels/ops/cpu/blas.h"

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "kernels/ops/cpu/cpu_operators.h"
#include "kernels/ops/cpu/dense_product.h"
#ifdef REHEARSE_HAS_OPENBLAS
#include <cblas.h>
#endif

namespace rehearse {
namespace {

/// Nothing to multiply: the product is zero.
template <typename Work>
bool is_trivial(const BlasProduct<Work>& product) {
  if (product.m == 0 || product.n == 0) return true;
  if (product.k > 0) return false;
  if (!product.accumulate)
    for (std::int64_t i = 0; i < product.m; ++i)
      std::fill_n(product.out + i * product.out_leading, product.n, Work{});
  return true;
}

}  // namespace

#ifdef REHEARSE_HAS_OPENBLAS

namespace {

int blas_int(std::int64_t size) {
  if (size > std::numeric_limits<int>::max())
    throw OperatorError("gemm: a size of " + std::to_string(size) + " is too large for OpenBLAS");
  return static_cast<int>(size);
}

CBLAS_TRANSPOSE transposed(bool yes) { return yes ? CblasTrans : CblasNoTrans; }

/// OpenBLAS has one number of threads a process; it is set where it differs from the team's.
void use_threads(const ThreadTeam& team) {
  if (openblas_get_num_threads() != team.threads()) openblas_set_num_threads(team.threads());
}

/// OpenBLAS refuses a leading dimension below the row length even where there is one row.
int leading(std::int64_t stride, std::int64_t columns) {
  return blas_int(std::max(stride, columns));
}

}  // namespace

void multiply(const BlasProduct<float>& p, ThreadTeam& team) {
  if (is_trivial(p)) return;
  use_threads(team);
  cblas_sgemm(CblasRowMajor, transposed(p.transpose_a), transposed(p.transpose_b), blas_int(p.m),
              blas_int(p.n), blas_int(p.k), 1.0f, p.a,
              leading(p.a_leading, p.transpose_a ? p.m : p.k), p.b,
              leading(p.b_leading, p.transpose_b ? p.k : p.n), p.accumulate ? 1.0f : 0.0f, p.out,
              leading(p.out_leading, p.n));
}

void multiply(const BlasProduct<double>& p, ThreadTeam& team) {
  if (is_trivial(p)) return;
  use_threads(team);
  cblas_dgemm(CblasRowMajor, transposed(p.transpose_a), transposed(p.transpose_b), blas_int(p.m),
              blas_int(p.n), blas_int(p.k), 1.0, p.a,
              leading(p.a_leading, p.transpose_a ? p.m : p.k), p.b,
              leading(p.b_leading, p.transpose_b ? p.k : p.n), p.accumulate ? 1.0 : 0.0, p.out,
              leading(p.out_leading, p.n));
}

std::string blas_description() {
  std::string config = openblas_get_config();
  while (!config.empty() && config.back() == ' ') config.pop_back();
  return config;
}

#else

namespace {

template <typename Work>
std::vector<double> as_doubles(const Work* data, std::int64_t stride, std::int64_t rows,
                               std::int64_t columns, bool transposed) {
  std::vector<double> block(static_cast<std::size_t>(rows * columns));
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < columns; ++j)
      block[static_cast<std::size_t>(i * columns + j)] =
          static_cast<double>(transposed ? data[j * stride + i] : data[i * stride + j]);
  return block;
}

template <typename Work>
void multiply_plainly(const BlasProduct<Work>& p, ThreadTeam& team) {
  if (is_trivial(p)) return;
  const auto a = as_doubles(p.a, p.a_leading, p.m, p.k, p.transpose_a);
  const auto b = as_doubles(p.b, p.b_leading, p.k, p.n, p.transpose_b);
  team.for_each_range(p.m, 1 + 65536 / (p.n * p.k + 1), [&](auto begin, auto end) {
    std::vector<double> row(static_cast<std::size_t>(p.n));
    for (std::int64_t i = begin; i < end; ++i) {
      Work* out = p.out + i * p.out_leading;
      for (std::int64_t j = 0; j < p.n; ++j)
        row[static_cast<std::size_t>(j)] = p.accumulate ? static_cast<double>(out[j]) : 0.0;
      multiply_add({row.data(), p.n}, {a.data() + i * p.k, p.k}, {b.data(), p.n},
                   {.m = 1, .n = p.n, .k = p.k});
      for (std::int64_t j = 0; j < p.n; ++j)
        out[j] = static_cast<Work>(row[static_cast<std::size_t>(j)]);
    }
  });
}

}  // namespace

void multiply(const BlasProduct<float>& product, ThreadTeam& team) {
  multiply_plainly(product, team);
}
void multiply(const BlasProduct<double>& product, ThreadTeam& team) {
  multiply_plainly(product, team);
}

std::string blas_description() { return "own loops (built without OpenBLAS)"; }

#endif

}  // namespace rehearse
