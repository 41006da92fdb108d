#include "kernels/profiler/profile_report.h"

#include <algorithm>
#include <cstdio>
#include <set>
#include <stdexcept>

#include "kernels/fit/fit_profile.h"
#include "kernels/fit/measured_labels.h"
#include "kernels/fit/operator_table.h"

namespace rehearse {
namespace {

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}
std::string whole(std::int64_t value) { return value == 0 ? "" : std::to_string(value); }

const char* dtype_spelling(DType dtype) {
  return dtype == DType::F8E4m3 ? "fp8" : dtype_name(dtype);
}

/// Columns that say what was measured.
std::vector<std::string> shape_cells(const ProfileTask& task) {
  const Operator& op = task.op;
  const bool is_gemm = op.family == OperatorFamily::Gemm;
  const bool is_attention = op.family == OperatorFamily::Attention;
  const auto of = [&](bool yes, std::int64_t value) { return yes ? whole(value) : std::string(); };
  return {task.label,
          pass_name(op.pass),
          dtype_spelling(task.dtype),
          of(is_gemm, op.m),
          of(is_gemm, op.n),
          of(is_gemm, op.k),
          of(is_gemm && op.batch > 1, op.batch),
          is_gemm ? (op.accumulate_fp32 ? "1" : "0") : "",
          of(is_attention, op.batch),
          of(is_attention, op.query_len),
          of(is_attention, op.key_len),
          of(is_attention, op.heads),
          of(is_attention, op.kv_heads),
          of(is_attention, op.head_dim),
          is_attention ? (op.causal ? "1" : "0") : "",
          op.family == OperatorFamily::Memory ? std::to_string(static_cast<std::int64_t>(op.bytes))
                                              : ""};
}

constexpr const char* kShapeColumns =
    "op,pass,dtype,m,n,k,batch,accumulate,b,s,kv_len,heads,kv_heads,head_dim,causal,bytes";

}  // namespace

std::string measurement_table(const std::vector<ProfileTask>& tasks,
                              const Measurements& measurements, const std::string& gpu,
                              const MemoryOverheads& overheads,
                              const std::vector<CopyTime>& copies) {
  std::set<std::string> remarks;
  for (const MeasuredOperator& one : measurements.operators)
    for (const auto& [name, value] : one.remarks) remarks.insert(name);
  std::string text =
      std::string("gpu,") + kShapeColumns + ",flops,least_bytes,mode,time_us,p10_us,p90_us,samples";
  for (const std::string& name : remarks) text += "," + name;
  text += "\n";
  for (const MeasuredOperator& one : measurements.operators) {
    text += gpu;
    for (const std::string& cell : shape_cells(tasks[one.task])) text += "," + cell;
    const Operator& op = tasks[one.task].op;
    text += "," + number(op.flops) + "," + number(op.bytes);
    text += one.sustained ? ",sustained" : ",burst";
    for (const double value : {one.seconds.median, one.seconds.p10, one.seconds.p90})
      text += "," + number(value * 1e6);
    text += "," + std::to_string(one.seconds.count);
    for (const std::string& name : remarks) {
      const auto remark = one.remarks.find(name);
      text += "," + (remark == one.remarks.end() ? std::string() : remark->second);
    }
    text += "\n";
  }
  // Rows of bytes: columns between the name and these, and columns after.
  constexpr int kBetween = 14, kTimes = 7;
  const auto bytes_of = [&](const std::string& name, double bytes) {
    return gpu + "," + name + std::string(kBetween, ',') + "," +
           std::to_string(static_cast<std::int64_t>(bytes));
  };
  for (const CopyTime& copy : copies)
    text += bytes_of("copy", copy.bytes) + ",0," + number(copy.bytes) + ",burst," +
            number(copy.seconds * 1e6) + ",,," + std::string(remarks.size(), ',') + "\n";
  for (const auto& [part, taken] : overhead_bytes(overheads))
    if (taken >= 1)
      text += bytes_of(part, taken) + std::string(kTimes + remarks.size(), ',') + "\n";
  return text;
}

void leave_out_impossible(Measurements& measurements, const std::vector<ProfileTask>& tasks,
                          const DeviceFacts& device) {
  std::erase_if(measurements.operators, [&](const MeasuredOperator& one) {
    const std::string why =
        why_impossible({.op = tasks[one.task].op, .seconds = one.seconds.median}, device);
    if (!why.empty()) measurements.failures.push_back({.task = one.task, .reason = why});
    return !why.empty();
  });
}

DeviceFacts with_measured_rates(DeviceFacts device, const std::vector<ProfileTask>& tasks,
                                const Measurements& measurements) {
  DeviceFacts fastest;
  for (const MeasuredOperator& one : measurements.operators) {
    const Operator& op = tasks[one.task].op;
    const double rate = op.flops / one.seconds.median;
    const auto label = measured_label(tasks[one.task].label);
    if (label && !label->priced_as) continue;  // their traffic is counted for themselves alone
    if (op.family == OperatorFamily::Memory)
      fastest.memory_bandwidth_bytes_per_s =
          std::max(fastest.memory_bandwidth_bytes_per_s, op.bytes / one.seconds.median);
    else if (op.precision == Precision::Fp32)
      fastest.fp32_flops = std::max(fastest.fp32_flops, rate);
    else if (op.precision == Precision::Bf16)
      fastest.bf16_flops = std::max(fastest.bf16_flops, rate);
    else if (op.precision == Precision::Fp8)
      fastest.fp8_flops = std::max(fastest.fp8_flops, rate);
  }
  const auto fill = [](double& rate, double measured) {
    if (rate <= 0) rate = measured;
  };
  fill(device.fp32_flops, fastest.fp32_flops);
  fill(device.bf16_flops, fastest.bf16_flops);
  fill(device.fp8_flops, fastest.fp8_flops);
  fill(device.memory_bandwidth_bytes_per_s, fastest.memory_bandwidth_bytes_per_s);
  return device;
}

Profile measured_profile(const std::string& table, const ProfileProvenance& provenance,
                         double launch_s) {
  Problems problems;
  const auto operators =
      read_operator_table(table, provenance.table_name, provenance.device, problems);
  // The table is our own: what is wrong with it is a measurement that cannot be.
  if (!operators)
    throw std::runtime_error("the measurements contradict each other:\n" + problems.text());
  Profile profile = fit_profile({*operators}, {.device = provenance.device,
                                               .stack = "rehearse",
                                               .made_by = provenance.made_by,
                                               .keep_samples = true});
  // Where no product is better split along k, as on CPUs, the fit drives the cost of splitting
  // beyond all bounds. A second forbids it as well, and can be written and read.
  constexpr double kNeverSplit_s = 1;
  for (GemmFit& fit : profile.gemm)
    fit.constants.split_s = std::min(fit.constants.split_s, kNeverSplit_s);
  // A GPU's power limit slows long steps; a processor is measured for a minute without pause.
  if (provenance.device.compute_capability == 0)
    profile.sustained_rate = {.value = 1, .source = "as measured, for a minute without pause"};
  profile.launch_s = {.value = launch_s, .source = "measured: an operator of one element"};
  return profile;
}

}  // namespace rehearse
