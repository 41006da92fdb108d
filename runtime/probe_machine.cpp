#include <unistd.h>

#include <array>

#include "runtime/machine_facts.h"

namespace rehearse {

MachineFacts probe_machine() {
  MachineFacts facts;
  std::array<char, 256> host{};
  if (gethostname(host.data(), host.size() - 1) == 0) facts.host = host.data();
  facts.cpu = probe_cpu();
  facts.cuda = probe_cuda();
  facts.nvml = probe_nvml("libnvidia-ml.so.1", facts.cuda.gpus);
  facts.nccl = probe_nccl();
  facts.mpi = probe_mpi();
  facts.blas = probe_blas();
  return facts;
}

}  // namespace rehearse
