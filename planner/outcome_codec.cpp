#include "planner/outcome_codec.h"

#include <cstring>
#include <stdexcept>
#include <type_traits>
#include <vector>

namespace rehearse {
namespace {

/// Both archives offer the same call, so that one list of fields per type serves both ways.
class Packer {
 public:
  void raw(void* data, std::size_t size) { bytes.append(static_cast<const char*>(data), size); }
  std::size_t count(std::size_t size) {
    raw(&size, sizeof size);
    return size;
  }
  std::string bytes;
};

class Unpacker {
 public:
  explicit Unpacker(std::string_view bytes) : rest(bytes) {}
  void raw(void* data, std::size_t size) {
    if (size > rest.size()) throw std::runtime_error("a worker's result ends early");
    if (size > 0) std::memcpy(data, rest.data(), size);
    rest.remove_prefix(size);
  }
  std::size_t count(std::size_t) {
    std::size_t size = 0;
    raw(&size, sizeof size);
    // Every element takes at least one byte, which bounds what a broken count can ask for.
    if (size > rest.size()) throw std::runtime_error("a worker's result ends early");
    return size;
  }
  std::string_view rest;
};

template <class Archive, class T>
requires std::is_trivially_copyable_v<T>
void transfer(Archive& archive, T& value) { archive.raw(&value, sizeof value); }

template <class Archive>
void transfer(Archive& archive, std::string& text) {
  text.resize(archive.count(text.size()));
  archive.raw(text.data(), text.size());
}

template <class Archive, class T>
void transfer(Archive& archive, std::vector<T>& values);

// Structured bindings name every field: a type that gains one no longer compiles here, so no
// field can be forgotten on the way.

template <class Archive, class... Fields>
void transfer_all(Archive& archive, Fields&... fields) {
  (transfer(archive, fields), ...);
}

template <class Archive>
void transfer(Archive& archive, PlanFault& value) {
  auto& [pointer, message, hint] = value;
  transfer_all(archive, pointer, message, hint);
}

template <class Archive>
void transfer(Archive& archive, MemoryPart& value) {
  auto& [name, bytes] = value;
  transfer_all(archive, name, bytes);
}

template <class Archive>
void transfer(Archive& archive, StageMemory& value) {
  auto& [stage, parts, in_flight, host_bytes] = value;
  transfer_all(archive, stage, parts, in_flight, host_bytes);
}

template <class Archive>
void transfer(Archive& archive, StageReport& value) {
  auto& [stage, time, memory, capacity] = value;
  transfer_all(archive, stage, time, memory, capacity);
}

template <class Archive>
void transfer(Archive& archive, StepMetrics& value) {
  auto& [step_time, devices, load_balance, links] = value;
  transfer_all(archive, step_time, devices, load_balance, links);
}

template <class Archive>
void transfer(Archive& archive, LinkReport& value) {
  auto& [name, kind, members, bandwidth, bytes, utilisation] = value;
  transfer_all(archive, name, kind, members, bandwidth, bytes, utilisation);
}

template <class Archive>
void transfer(Archive& archive, Timeline& value) {
  auto& [step_time, tags, ranks, represented, events] = value;
  transfer_all(archive, step_time, tags, ranks, represented, events);
}

template <class Archive>
void transfer(Archive& archive, Updates& value) {
  auto& [aggregation, synchrony, weighting, servers, staleness, period, reliability] = value;
  transfer_all(archive, aggregation, synchrony, weighting, servers, staleness, period, reliability);
}

template <class Archive>
void transfer(Archive& archive, Plan& value) {
  auto& [name, dp, tp, cp, pp, ep, tensor_rows, context, context_balanced, experts, virtual_stages,
         micro_batch, schedule, zero, shard, prefetch, reshard_after_forward,
         reduce_every_micro_batch, sequence_parallel, vocabulary_parallel, recompute,
         recompute_layers, recompute_operators, offload, attention, precision, fp8, store,
         gradient_precision, moment_precision, dropout, bucket_bytes, overlap, updates, batch_split,
         replica_micro_batches, rebalance_every, stage_placement, rank_order, layer_split,
         embedding_slot, loss_slot, balanced_split, schedule_group, actions, framework, stated] =
      value;
  transfer_all(archive, name, dp, tp, cp, pp, ep, tensor_rows, context, context_balanced, experts,
               virtual_stages, micro_batch, schedule, zero, shard, prefetch, reshard_after_forward,
               reduce_every_micro_batch, sequence_parallel, vocabulary_parallel, recompute,
               recompute_layers, recompute_operators, offload, attention, precision, fp8, store,
               gradient_precision, moment_precision, dropout, bucket_bytes, overlap, updates,
               batch_split, replica_micro_batches, rebalance_every, stage_placement, rank_order,
               layer_split, embedding_slot, loss_slot, balanced_split, schedule_group, actions,
               framework, stated);
}

template <class Archive>
void transfer(Archive& archive, PricedOperator& value) {
  auto& [name, source, relative_error] = value;
  transfer_all(archive, name, source, relative_error);
}

template <class Archive>
void transfer(Archive& archive, PriceEvidence& value) {
  auto& [relative_error, data_sheet_error, weakest] = value;
  transfer_all(archive, relative_error, data_sheet_error, weakest);
}

template <class Archive>
void transfer(Archive& archive, ExpectedError& value) {
  auto& [relative_error, source] = value;
  transfer_all(archive, relative_error, source);
}

template <class Archive>
void transfer(Archive& archive, BalanceWay& value) {
  auto& [name, step_time, is_used] = value;
  transfer_all(archive, name, step_time, is_used);
}

template <class Archive>
void transfer(Archive& archive, BalanceComparison& value) {
  auto& [what, ways] = value;
  transfer_all(archive, what, ways);
}

template <class Archive>
void transfer(Archive& archive, PlanOutcome& value) {
  auto& [plan, faults, fits, metrics, stages, devices, links, used_links, timeline, updates_per_s,
         mean_staleness, tokens_per_s, mfu, hfu, model_flops, executed_flops, peak_flops,
         evidence_share, prices, expected_error, balance, notes, assumptions, phases] = value;
  transfer_all(archive, plan, faults, fits, metrics, stages, devices, links, used_links, timeline,
               updates_per_s, mean_staleness, tokens_per_s, mfu, hfu, model_flops, executed_flops,
               peak_flops, evidence_share, prices, expected_error, balance, notes, assumptions,
               phases);
}

template <class Archive, class T>
void transfer(Archive& archive, std::vector<T>& values) {
  values.resize(archive.count(values.size()));
  if constexpr (std::is_trivially_copyable_v<T>) {
    archive.raw(values.data(), values.size() * sizeof(T));
  } else {
    for (T& value : values) transfer(archive, value);
  }
}

}  // namespace

std::string pack_outcome(PlanOutcome outcome) {
  Packer packer;
  transfer(packer, outcome);
  return std::move(packer.bytes);
}

PlanOutcome unpack_outcome(std::string_view bytes) {
  Unpacker unpacker(bytes);
  PlanOutcome outcome;
  transfer(unpacker, outcome);
  if (!unpacker.rest.empty()) throw std::runtime_error("a worker's result has an unknown end");
  return outcome;
}

}  // namespace rehearse
