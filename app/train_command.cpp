#include "app/commands.h"
#include "app/device_program.h"
#include "app/train_prediction.h"
#include "plan/json_value.h"

namespace rehearse {

ExitCode train_command(const TrainCommandOptions& options) {
  std::vector<std::string> arguments{"train", options.plan};
  const auto pass = [&](const char* name, const std::string& value) {
    if (!value.empty()) arguments.insert(arguments.end(), {name, value});
  };
  const auto flag = [&](const char* name, bool is_set) {
    if (is_set) arguments.emplace_back(name);
  };
  pass("--data", options.data);
  pass("--steps", options.steps);
  pass("--device", options.device);
  pass("--threads", options.threads);
  pass("--deadline", options.deadline);
  pass("--seed", options.seed);
  pass("--rate", options.rate);
  pass("--rate-schedule", options.rate_schedule);
  pass("--rate-batch", options.rate_batch);
  pass("--warmup", options.warmup);
  pass("--clip", options.clip);
  pass("--weight-decay", options.weight_decay);
  pass("--partition", options.partition);
  pass("--checkpoint", options.checkpoint);
  pass("--checkpoint-every", options.checkpoint_every);
  pass("--restarts", options.restarts);
  pass("--timeline", options.timeline);
  flag("--resume", options.resume);
  flag("--json", options.json);
  flag("--local", options.local);
  if (const auto step_s = predict_step_here(options))
    pass("--predicted-step", number_text(*step_s) + "s");
  return run_device_program(arguments);
}

}  // namespace rehearse
