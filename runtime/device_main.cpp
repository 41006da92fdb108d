#include <string>
#include <vector>

#include "runtime/device_commands.h"
#include "runtime/doctor.h"

namespace {

/// "rehearse-device 0.1.0 (CUDA 13.0, NCCL 2.28.9, Open MPI v4.1.4, OpenBLAS 0.3.21; Release)".
/// Asks the libraries only what they answer without touching a device.
std::string version_line() {
  using namespace rehearse;
  std::string parts;
  const auto add = [&](const std::string& part) { parts += (parts.empty() ? "" : ", ") + part; };
#if REHEARSE_HAS_CUDA
  add("CUDA " REHEARSE_CUDA_VERSION);
#endif
  if (const auto nccl = probe_nccl(); nccl.built_in) add("NCCL " + nccl.version);
  if (const auto mpi = probe_mpi(); mpi.built_in) add(mpi.version);
  if (const auto blas = probe_blas(); blas.built_in) add("OpenBLAS " + blas.version);
  if (parts.empty()) parts = "no CUDA, NCCL, MPI or OpenBLAS";
  return "rehearse-device " REHEARSE_VERSION " (" + parts + "; " REHEARSE_BUILD_TYPE ")";
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const rehearse::Program program{
      .name = "rehearse-device",
      .summary = "what one device or one rank does for real",
      .version = version_line(),
      .verbs = {{"bench", "[--device cuda[:N]] [--budget TIME]",
                 "time our matrix products beside cuBLASLt called bare", rehearse::command_bench},
                {"data", "tokenize FILE -o OUT [--force]",
                 "make a token file of a text, a token each byte", rehearse::command_data},
                {"doctor", "[--json]", "what this machine offers, and what works on it",
                 rehearse::command_doctor},
                {"floors", "TABLE",
                 "what bounds each operator of a profile's table, and the bars it is held to",
                 rehearse::command_floors},
                {"links", "[--json] [--into PROFILE]",
                 "measure MPI between ranks here: mpirun -n 2 rehearse-device links",
                 rehearse::command_links},
                {"profile",
                 "[--device cpu|cuda[:N]] [--threads N] [--ranks N | --plan PLAN] [--budget TIME] "
                 "[-o FILE] [--force]",
                 "measure this device's operators into a profile", rehearse::command_profile},
                {"train", "PLAN [--data FILE] [--steps N] [--checkpoint FOLDER] [--resume]",
                 "train a plan for real: one rank under mpirun, or all ranks here",
                 rehearse::command_train}},
  };
  return rehearse::run_program(program, arguments);
}
