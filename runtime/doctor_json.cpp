#include <nlohmann/json.hpp>

#include "runtime/doctor.h"

namespace rehearse {
namespace {

using Json = nlohmann::ordered_json;

Json json_of(const CpuFacts& cpu) {
  return {{"model", cpu.model},
          {"sockets", cpu.sockets},
          {"cores", cpu.cores},
          {"usable_threads", cpu.usable_threads},
          {"quota_threads", cpu.quota_threads},
          {"memory_bytes", cpu.memory_bytes},
          {"features", cpu.features}};
}

Json json_of(const GpuFacts& gpu) {
  return {{"index", gpu.index},
          {"name", gpu.name},
          {"bus_id", gpu.bus_id},
          {"memory_bytes", gpu.memory_bytes},
          {"streaming_multiprocessors", gpu.streaming_multiprocessors},
          {"compute_capability", {gpu.capability_major, gpu.capability_minor}},
          {"l2_cache_bytes", gpu.l2_cache_bytes},
          {"ecc", gpu.ecc},
          {"power_limit_w", gpu.power_limit_w},
          {"max_sm_clock_hz", gpu.max_sm_clock_hz}};
}

Json json_of(const CudaFacts& cuda) {
  Json gpus = Json::array();
  for (const auto& gpu : cuda.gpus) gpus.push_back(json_of(gpu));
  const auto version = [](int number) { return number > 0 ? cuda_version_text(number) : ""; };
  return {{"built_in", cuda.built_in},
          {"runtime_version", version(cuda.runtime_version)},
          {"driver_version", version(cuda.driver_version)},
          {"problem", cuda.problem},
          {"gpus", std::move(gpus)}};
}

Json json_of(const LibraryFact& fact) {
  return {{"name", fact.name},
          {"built_in", fact.built_in},
          {"version", fact.version},
          {"detail", fact.detail}};
}

}  // namespace

std::string doctor_json(const MachineFacts& facts) {
  Json works = Json::array();
  for (const auto& ability : abilities(facts))
    works.push_back(
        Json{{"what", ability.what}, {"works", ability.works}, {"reason", ability.reason}});
  const Json document = {{"schema", "doctor/1"},
                         {"host", facts.host},
                         {"cpu", json_of(facts.cpu)},
                         {"cuda", json_of(facts.cuda)},
                         {"nvml",
                          {{"found", facts.nvml.found},
                           {"driver_version", facts.nvml.driver_version},
                           {"problem", facts.nvml.problem}}},
                         {"nccl", json_of(facts.nccl)},
                         {"mpi", json_of(facts.mpi)},
                         {"blas", json_of(facts.blas)},
                         {"abilities", std::move(works)}};
  // A device may name itself in bytes that are no UTF-8; they are replaced, not refused.
  return document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace rehearse
