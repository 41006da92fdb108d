#include "plan/plan.h"

#include <algorithm>

#include "plan/ensure.h"

namespace rehearse {

std::int64_t micro_batches(const Plan& plan, std::int64_t global_batch) {
  const std::vector<int>& shares = plan.replica_micro_batches;
  if (!shares.empty()) return *std::max_element(shares.begin(), shares.end());
  const std::int64_t per_round = static_cast<std::int64_t>(plan.dp) * plan.micro_batch;
  ensure(per_round > 0 && global_batch % per_round == 0,
         "the global batch of a checked plan divides into its micro-batches");
  return global_batch / per_round;
}

std::vector<int> chunk_layers(const Plan& plan, int layers) {
  if (!plan.layer_split.empty()) return plan.layer_split;
  const int chunks = plan.pp * plan.virtual_stages;
  ensure(chunks >= 1, "a checked plan has a chunk");
  const int first_slot = plan.embedding_slot ? 1 : 0, last_slot = plan.loss_slot ? 1 : 0;
  const int slots = layers + first_slot + last_slot;
  std::vector<int> counts(static_cast<std::size_t>(chunks), slots / chunks);
  for (int i = 0; i < slots % chunks; ++i) ++counts[static_cast<std::size_t>(i)];
  counts.front() -= first_slot;
  counts.back() -= last_slot;
  ensure(counts.front() >= 0 && counts.back() >= 0, "a checked plan has a slot for each chunk");
  return counts;
}

double bytes_of(Precision precision) {
  switch (precision) {
    case Precision::Fp32:
      return 4;
    case Precision::Bf16:
    case Precision::Fp16:
      return 2;
    case Precision::Fp8:
      return 1;
  }
  ensure(false, "every precision has a size");
  return 0;
}

}  // namespace rehearse
