#include <nlohmann/json.hpp>

#include "runtime/doctor.h"
#include "tests/catch.h"

using namespace rehearse;

namespace {

MachineFacts gpu_node() {
  MachineFacts facts;
  facts.host = "node17";
  facts.cpu = {.model = "AMD EPYC 9654",
               .sockets = 2,
               .cores = 192,
               .usable_threads = 384,
               .quota_threads = 16,
               .memory_bytes = 1024.0 * 1024 * 1024 * 1024,
               .features = {"avx2", "fma"}};
  facts.cuda.built_in = true;
  facts.cuda.runtime_version = 13000;
  facts.cuda.driver_version = 13010;
  GpuFacts gpu;
  gpu.name = "NVIDIA H100 80GB HBM3";
  gpu.bus_id = "0000:1a:00.0";
  gpu.memory_bytes = 85e9;
  gpu.streaming_multiprocessors = 132;
  gpu.capability_major = 9;
  facts.cuda.gpus = {gpu};
  facts.nvml = {.found = true, .driver_version = "580.65.06"};
  facts.nccl = {.name = "NCCL", .built_in = true, .version = "2.28.9"};
  facts.mpi = {.name = "MPI"};
  facts.blas = {.name = "OpenBLAS", .built_in = true, .version = "0.3.21"};
  return facts;
}

const Ability& ability(const std::vector<Ability>& all, const std::string& what) {
  for (const auto& one : all)
    if (one.what == what) return one;
  throw std::runtime_error("no ability " + what);
}

}  // namespace

TEST_CASE("cores are counted once however many threads each has") {
  const CpuFacts cpu = parse_cpuinfo(
      "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nphysical id\t: 0\ncore id\t\t: 0\n"
      "flags\t\t: fpu sse2 avx2 fma avx512f\n\n"
      "processor\t: 1\nmodel name\t: Some CPU @ 2.00GHz\nphysical id\t: 0\ncore id\t\t: 0\n\n"
      "processor\t: 2\nmodel name\t: Some CPU @ 2.00GHz\nphysical id\t: 1\ncore id\t\t: 0\n\n"
      "processor\t: 3\nmodel name\t: Some CPU @ 2.00GHz\nphysical id\t: 1\ncore id\t\t: 0\n");
  CHECK(cpu.model == "Some CPU @ 2.00GHz");
  CHECK(cpu.sockets == 2);
  CHECK(cpu.cores == 2);
  CHECK(cpu.features == std::vector<std::string>{"avx2", "fma", "avx512f"});
}

TEST_CASE("a cpuinfo that names no cores leaves them unstated") {
  const CpuFacts cpu = parse_cpuinfo("processor\t: 0\nFeatures\t: fp asimd sve bf16\n");
  CHECK(cpu.model.empty());
  CHECK(cpu.cores == 0);
  CHECK(cpu.features == std::vector<std::string>{"asimd", "sve", "bf16"});
}

TEST_CASE("a control group's quota is read in threads") {
  CHECK(parse_cpu_quota("150000 100000\n") == Approx(1.5));
  CHECK(parse_cpu_quota("max 100000\n") == 0);
  CHECK(parse_cpu_quota("") == 0);
  CHECK(parse_cpu_quota("100000 0\n") == 0);
}

TEST_CASE("the processor of this machine has a name, a thread and memory") {
  const CpuFacts cpu = probe_cpu();
  CHECK_FALSE(cpu.model.empty());
  CHECK(cpu.usable_threads >= 1);
  CHECK(cpu.memory_bytes > 64e6);
}

TEST_CASE("NVML adds what it knows to the device of the same bus id") {
  GpuFacts known, other;
  known.bus_id = "0000:1a:00.0";
  other.bus_id = "0000:1b:00.0";
  std::vector<GpuFacts> gpus{other, known};
  const NvmlFacts facts = probe_nvml(FAKE_NVML, gpus);
  CHECK(facts.found);
  CHECK(facts.problem == "");
  CHECK(facts.driver_version == "580.65.06");
  CHECK(gpus[0].power_limit_w == 0);
  CHECK(gpus[1].power_limit_w == Approx(700));
  CHECK(gpus[1].max_sm_clock_hz == Approx(1980e6));
}

TEST_CASE("a machine without NVML says so") {
  std::vector<GpuFacts> gpus;
  const NvmlFacts facts = probe_nvml("libno-such-library.so.1", gpus);
  CHECK_FALSE(facts.found);
  CHECK(facts.problem == "libno-such-library.so.1 is not there: it comes with the NVIDIA driver");
}

TEST_CASE("a library without NVML's functions is found and refused") {
  std::vector<GpuFacts> gpus;
  const NvmlFacts facts = probe_nvml("libm.so.6", gpus);
  CHECK(facts.found);
  CHECK(facts.problem == "libm.so.6 lacks the functions of NVML");
}

TEST_CASE("CUDA's answer is a device or a reason") {
  const CudaFacts cuda = probe_cuda();
  CHECK(cuda.gpus.empty() == !cuda.problem.empty());
  CHECK((cuda.runtime_version > 0) == cuda.built_in);
}

TEST_CASE("each library that is built in tells its version") {
  for (const auto& fact : {probe_nccl(), probe_mpi(), probe_blas()}) {
    CAPTURE(fact.name);
    CHECK(fact.version.empty() == !fact.built_in);
  }
}

TEST_CASE("what works follows from what is there") {
  MachineFacts facts = gpu_node();
  CHECK(ability(abilities(facts), "ranks on GPUs").works);
  CHECK_FALSE(ability(abilities(facts), "ranks on CPUs").works);

  facts.nccl.built_in = false;
  CHECK(ability(abilities(facts), "GPU operators").works);
  CHECK(ability(abilities(facts), "ranks on GPUs").reason == "this program was built without NCCL");

  facts.cuda.gpus.clear();
  facts.cuda.problem = "no NVIDIA driver is loaded on this machine";
  CHECK_FALSE(ability(abilities(facts), "GPU operators").works);
  CHECK(ability(abilities(facts), "ranks on GPUs").reason == facts.cuda.problem);
  CHECK(ability(abilities(facts), "CPU operators").works);
}

TEST_CASE("the doctor's page reads as a person expects") {
  CHECK(doctor_text(gpu_node()) ==
        "This machine (node17)\n"
        "  CPU       AMD EPYC 9654\n"
        "            384 usable threads, 192 cores on 2 sockets, time for 16 of them, "
        "1024.0 GiB memory\n"
        "            avx2 fma\n"
        "  CUDA      runtime 13.0\n"
        "  driver    serves CUDA up to 13.1\n"
        "  GPU 0     NVIDIA H100 80GB HBM3, 79.2 GiB, 132 SMs, compute capability 9.0\n"
        "  NVML      driver 580.65.06\n"
        "  NCCL      2.28.9\n"
        "  MPI       not built in\n"
        "  BLAS      OpenBLAS 0.3.21\n"
        "What works here\n"
        "  yes  CPU operators   matrix products by OpenBLAS\n"
        "  yes  GPU operators   on 1 device\n"
        "  no   ranks on CPUs   this program was built without MPI\n"
        "  yes  ranks on GPUs   through NCCL\n");
}

TEST_CASE("the doctor's document holds the same facts") {
  const auto document = nlohmann::json::parse(doctor_json(gpu_node()));
  CHECK(document["schema"] == "doctor/1");
  CHECK(document["cuda"]["runtime_version"] == "13.0");
  CHECK(document["cuda"]["gpus"][0]["streaming_multiprocessors"] == 132);
  CHECK(document["cpu"]["memory_bytes"] == 1099511627776.0);
  CHECK(document["abilities"].size() == abilities(gpu_node()).size());
}

TEST_CASE("the memory left is the machine's, or less where a control group has a limit") {
  const std::string meminfo =
      "MemTotal:       24578948 kB\nMemFree:        17000000 kB\nMemAvailable:   20000000 kB\n";
  CHECK(parse_available_memory(meminfo, "max\n") == 20000000.0 * 1024);
  CHECK(parse_available_memory(meminfo, "") == 20000000.0 * 1024);
  CHECK(parse_available_memory(meminfo, "1073741824\n") == 1073741824.0);
  CHECK(parse_available_memory("", "max\n") == 0);
}

TEST_CASE("a device name that is no UTF-8 does not spoil the document") {
  MachineFacts facts = gpu_node();
  facts.cuda.gpus[0].name = "GPU \xff";
  CHECK(nlohmann::json::accept(doctor_json(facts)));
}
