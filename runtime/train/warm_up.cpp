#include "runtime/train/warm_up.h"

#include "runtime/train/solo_world.h"

namespace rehearse {

SampleReader made_up_text(std::int64_t vocab) {
  return [vocab](std::int64_t sample, TokenRange range, std::span<std::int32_t> tokens,
                 std::span<std::int32_t> labels) {
    const auto token = [&](std::int64_t i) {
      return static_cast<std::int32_t>((sample * 7919 + i * 104729) % vocab);
    };
    for (int i = range.begin; i < range.end; ++i) {
      tokens[static_cast<std::size_t>(i - range.begin)] = token(i);
      labels[static_cast<std::size_t>(i - range.begin)] = token(i + 1);
    }
  };
}

std::shared_ptr<TensorPool> warmed_pool(const PlanFile& file, const TrainOptions& options,
                                        const World& world, ComputeDevice& device) {
  auto pool = std::make_shared<TensorPool>(device);
  const auto solo = solo_world(world.rank(), world.size(), device);
  const auto tokens =
      static_cast<std::int64_t>(file.workload.global_batch) * 4 * file.workload.seq_len + 1;
  Trainer trainer(file, options, *solo, device, tokens, made_up_text(file.model.vocab), pool);
  trainer.step();
  device.synchronize();
  // By itself a rank's messages leave at once.
  if (file.plan.pp > 1) pool->reserve(trainer.message_bytes(), PipelineMail::kDepartures);
  return pool;
}

}  // namespace rehearse
