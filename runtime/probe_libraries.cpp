#include <array>

#include "runtime/machine_facts.h"

#if REHEARSE_HAS_NCCL
#include <nccl.h>
#endif
#if REHEARSE_HAS_MPI
#include <mpi.h>
#endif
#if REHEARSE_HAS_OPENBLAS
#include <cblas.h>
#endif

namespace rehearse {

LibraryFact probe_nccl() {
  LibraryFact fact{.name = "NCCL"};
#if REHEARSE_HAS_NCCL
  fact.built_in = true;
  int code = 0;
  if (ncclGetVersion(&code) == ncclSuccess) {
    // nccl.h, NCCL_VERSION: 1000·major + 100·minor + patch up to 2.8, then 10000·major + …
    const int major_unit = code < 10000 ? 1000 : 10000;
    fact.version = std::to_string(code / major_unit) + "." +
                   std::to_string(code % major_unit / 100) + "." + std::to_string(code % 100);
  }
#endif
  return fact;
}

LibraryFact probe_mpi() {
  LibraryFact fact{.name = "MPI"};
#if REHEARSE_HAS_MPI
  fact.built_in = true;
  // Allowed before MPI_Init (MPI 3.1, §8.1.1).
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  if (MPI_Get_library_version(text.data(), &length) == MPI_SUCCESS) {
    const std::string whole(text.data(), static_cast<std::size_t>(length));
    fact.version = whole.substr(0, whole.find_first_of(",\n"));
  }
#endif
  return fact;
}

LibraryFact probe_blas() {
  LibraryFact fact{.name = "OpenBLAS"};
#if REHEARSE_HAS_OPENBLAS
  fact.built_in = true;
  const std::string config = openblas_get_config();  // "OpenBLAS 0.3.21 NO_LAPACKE … Haswell …"
  if (const auto space = config.find(' '); space != std::string::npos)
    fact.version = config.substr(space + 1, config.find(' ', space + 1) - space - 1);
  fact.detail = std::string(openblas_get_corename()) + " kernels, " +
                std::to_string(openblas_get_num_threads()) + " threads";
#endif
  return fact;
}

}  // namespace rehearse
