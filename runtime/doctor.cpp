#include "runtime/doctor.h"

#include <cstdio>
#include <sstream>

namespace rehearse {
namespace {

std::string gibibytes(double bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f GiB", bytes / (1024.0 * 1024.0 * 1024.0));
  return text;
}

void line(std::ostringstream& out, std::string_view head, std::string_view text) {
  out << "  " << head << std::string(head.size() < 10 ? 10 - head.size() : 1, ' ') << text << '\n';
}

std::string library_text(const LibraryFact& fact) {
  if (!fact.built_in) return "not built in";
  std::string text = fact.version.empty() ? "version unknown" : fact.version;
  if (!fact.detail.empty()) text += " (" + fact.detail + ")";
  return text;
}

void cpu_lines(std::ostringstream& out, const CpuFacts& cpu) {
  std::string cores = std::to_string(cpu.usable_threads) + " usable threads";
  if (cpu.cores > 0) {
    cores += ", " + std::to_string(cpu.cores) + " cores";
    if (cpu.sockets > 1) cores += " on " + std::to_string(cpu.sockets) + " sockets";
  }
  if (cpu.quota_threads > 0) {
    char quota[48];
    std::snprintf(quota, sizeof quota, ", time for %.3g of them", cpu.quota_threads);
    cores += quota;
  }
  line(out, "CPU", cpu.model);
  line(out, "", cores + ", " + gibibytes(cpu.memory_bytes) + " memory");
  std::string features;
  for (const auto& feature : cpu.features) features += (features.empty() ? "" : " ") + feature;
  if (!features.empty()) line(out, "", features);
}

std::string gpu_text(const GpuFacts& gpu) {
  std::ostringstream text;
  text << gpu.name << ", " << gibibytes(gpu.memory_bytes) << ", " << gpu.streaming_multiprocessors
       << " SMs, compute capability " << gpu.capability_major << '.' << gpu.capability_minor;
  if (gpu.power_limit_w > 0) text << ", " << gpu.power_limit_w << " W";
  if (gpu.max_sm_clock_hz > 0) text << ", up to " << gpu.max_sm_clock_hz * 1e-6 << " MHz";
  return text.str();
}

void cuda_lines(std::ostringstream& out, const CudaFacts& cuda, const NvmlFacts& nvml) {
  line(out, "CUDA",
       cuda.built_in ? "runtime " + cuda_version_text(cuda.runtime_version) : "not built in");
  if (cuda.driver_version > 0)
    line(out, "driver", "serves CUDA up to " + cuda_version_text(cuda.driver_version));
  if (cuda.built_in && !cuda.problem.empty()) line(out, "", cuda.problem);
  for (const auto& gpu : cuda.gpus) line(out, "GPU " + std::to_string(gpu.index), gpu_text(gpu));
  if (nvml.problem.empty())
    line(out, "NVML", "driver " + nvml.driver_version);
  else
    line(out, "NVML", nvml.problem);
}

}  // namespace

std::string cuda_version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::vector<Ability> abilities(const MachineFacts& facts) {
  const bool gpu = facts.cuda.built_in && !facts.cuda.gpus.empty();
  const std::string gpu_count = std::to_string(facts.cuda.gpus.size());
  return {
      {"CPU operators", true,
       facts.blas.built_in ? "matrix products by OpenBLAS"
                           : "matrix products by plain loops: slow without OpenBLAS"},
      {"GPU operators", gpu,
       gpu ? "on " + gpu_count + (facts.cuda.gpus.size() == 1 ? " device" : " devices")
           : facts.cuda.problem},
      {"ranks on CPUs", facts.mpi.built_in,
       facts.mpi.built_in ? "through MPI, started by mpirun or srun"
                          : "this program was built without MPI"},
      {"ranks on GPUs", gpu && facts.nccl.built_in,
       !gpu                  ? facts.cuda.problem
       : facts.nccl.built_in ? "through NCCL"
                             : "this program was built without NCCL"},
  };
}

std::string doctor_text(const MachineFacts& facts) {
  std::ostringstream out;
  out << "This machine (" << facts.host << ")\n";
  cpu_lines(out, facts.cpu);
  cuda_lines(out, facts.cuda, facts.nvml);
  line(out, "NCCL", library_text(facts.nccl));
  line(out, "MPI", library_text(facts.mpi));
  line(out, "BLAS",
       facts.blas.built_in ? facts.blas.name + " " + library_text(facts.blas)
                           : library_text(facts.blas));
  out << "What works here\n";
  for (const auto& ability : abilities(facts)) {
    out << "  " << (ability.works ? "yes  " : "no   ") << ability.what
        << std::string(16 - ability.what.size(), ' ') << ability.reason << '\n';
  }
  return std::move(out).str();
}

}  // namespace rehearse
