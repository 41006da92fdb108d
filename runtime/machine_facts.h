#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace rehearse {

/// The processor and memory that this process may use.
struct CpuFacts {
  std::string model;                  ///< as the kernel names it
  int sockets = 0;                    ///< 0: not stated
  int cores = 0;                      ///< physical ones of the machine; 0: not stated
  int usable_threads = 0;             ///< hardware threads this process may run on
  double quota_threads = 0;           ///< threads' worth of time its control group grants; 0: all
  double memory_bytes = 0;            ///< of the machine
  std::vector<std::string> features;  ///< vector extensions that decide kernel speed
};

struct GpuFacts {
  int index = 0;
  std::string name;
  std::string bus_id;  ///< "0000:1a:00.0", by which NVML finds the same device
  double memory_bytes = 0;
  int streaming_multiprocessors = 0;
  int capability_major = 0, capability_minor = 0;
  double l2_cache_bytes = 0;
  bool ecc = false;
  double power_limit_w = 0;    ///< enforced; 0: NVML does not say
  double max_sm_clock_hz = 0;  ///< 0: NVML does not say
};

/// What the CUDA runtime says. Versions are CUDA's own numbers: 1000 · major + 10 · minor.
struct CudaFacts {
  bool built_in = false;    ///< this program holds device code
  int runtime_version = 0;  ///< 0: not built in
  int driver_version = 0;   ///< highest CUDA version the driver serves; 0: no driver
  std::string problem;      ///< why no device can be used; empty if one can
  std::vector<GpuFacts> gpus;
};

/// The management library of the driver, looked for at run time.
struct NvmlFacts {
  bool found = false;
  std::string driver_version;  ///< "580.65.06"
  std::string problem;         ///< why it is not there or says nothing
};

/// A library that this program was built with or without.
struct LibraryFact {
  std::string name;
  bool built_in = false;
  std::string version;  ///< as the library itself says at run time; empty: it does not
  std::string detail;   ///< what else it says about itself; may be empty
};

/// Everything `doctor` reports.
struct MachineFacts {
  std::string host;
  CpuFacts cpu;
  CudaFacts cuda;
  NvmlFacts nvml;
  LibraryFact nccl, mpi, blas;
};

MachineFacts probe_machine();

CpuFacts probe_cpu();
/// Bytes that processes may still take before the kernel ends some: of the machine, and at most
/// what the control group of this one may have; 0 where nothing says it.
double available_memory_bytes();
/// The same of the texts of /proc/meminfo and the control group's memory.max.
double parse_available_memory(std::string_view meminfo, std::string_view group_limit);
/// The part of it that /proc/cpuinfo tells: model, sockets, cores, features.
CpuFacts parse_cpuinfo(std::string_view text);
/// Threads' worth of time that a control group's cpu.max grants ("150000 100000" is 1.5);
/// 0 for "max" or text that says neither.
double parse_cpu_quota(std::string_view text);

/// Devices as the CUDA runtime lists them; creates no context. Never throws: a machine without a
/// driver is a fact.
CudaFacts probe_cuda();

/// Loads `library` and adds to each of `gpus` what it says about the device of that bus id.
NvmlFacts probe_nvml(const char* library, std::vector<GpuFacts>& gpus);

LibraryFact probe_nccl();
LibraryFact probe_mpi();
LibraryFact probe_blas();

}  // namespace rehearse
