#include <CLI/CLI.hpp>

#include "app/command_line_parser.h"

// Commands that work on this machine for real, and what helps in a shell.

namespace rehearse {
namespace {

const Choices kDataActions{"tokenize"};
const Choices kRateSchedules{"constant", "linear", "cosine", "adaptive"};
const Choices kPartitions{"range", "random", "round-robin"};
const Choices kShells{"bash", "zsh", "fish"};

}  // namespace

void CommandLineParser::add_data() {
  CLI::App* app = command(
      "data", "Make a token file of a text, for training on it",
      "tokenize makes every byte of FILE a token; the format is described in docs/data.md.");
  choice(app, "ACTION", data_.action, kDataActions, "What to do")->required();
  file(app, "TEXT", data_.text, "The text")->required();
  file(app, "-o,--output", data_.output, "Write the tokens to FILE")->required();
  app->add_flag("-f,--force", data_.force, "Overwrite an existing file");
}

void CommandLineParser::add_profile() {
  CLI::App* app =
      command("profile", "Measure the operators of this machine's GPU or CPU into a profile",
              "Scenarios name the profile to be priced by it (docs/profiles.md).");
  value(app, "--device", profile_.device, "cpu|cuda[:N]",
        "What to measure (default: a GPU where there is one)");
  value(app, "--budget", profile_.budget, "TIME", "Time to take, for example 60s");
  value(app, "--threads", profile_.threads, "N", "Threads of a CPU (default: all usable)")
      ->check(CLI::Range(1, 4096));
  value(app, "--ranks", profile_.ranks, "N",
        "Measure a CPU while N - 1 other processes do so (default: 1)")
      ->check(CLI::Range(1, 4096));
  file(app, "--plan", profile_.plan, "Measure only what this plan/1 needs, on a CPU");
  file(app, "-o,--output", profile_.output, "Write the profile to FILE");
  app->add_flag("-f,--force", profile_.force, "Overwrite existing files");
}

void CommandLineParser::add_train() {
  CLI::App* app = command(
      "train", "Train a plan for real, in exactly its layout and order of work",
      "PLAN is what `rehearse run --plan-out` writes. Starts the plan's ranks here; under mpirun "
      "or srun,\nstart rehearse-device train instead (docs/training.md).");
  file(app, "PLAN", train_.plan, "The plan")->required();
  file(app, "--data", train_.data,
       "Train on FILE: tokens, or a text by its bytes (default: a text that ships with it)");
  value(app, "--steps", train_.steps, "N", "Steps of the whole run (default: the plan's, or 100)");
  app->add_flag("--no-predict", train_.no_predict,
                "Do not measure and simulate first where the plan says no step time");
  app->add_flag("--local", train_.local, "Start all ranks here (the default)");
  value(app, "--device", train_.device, "cpu|cuda[:N]", "What one rank computes on");
  value(app, "--threads", train_.threads, "N", "Threads of a rank on a CPU");
  value(app, "--seed", train_.seed, "N", "Seed of weights and order of samples (default: 1)");
  value(app, "--rate", train_.rate, "X", "Largest learning rate (default: 1e-3)");
  choice(app, "--rate-schedule", train_.rate_schedule, kRateSchedules, "How the rate changes");
  value(app, "--rate-batch", train_.rate_batch, "B",
        "Batch that the rate was chosen for: it grows with the root of the plan's over B");
  value(app, "--warmup", train_.warmup, "N", "Steps in which the rate rises");
  value(app, "--clip", train_.clip, "X", "Largest gradient norm (default: 1; 0: any)");
  value(app, "--weight-decay", train_.weight_decay, "X", "Decay of matrices (default: 0.1)");
  choice(app, "--partition", train_.partition, kPartitions, "How replicas share the samples");
  file(app, "--checkpoint", train_.checkpoint, "Write checkpoints into this folder");
  value(app, "--checkpoint-every", train_.checkpoint_every, "N", "Steps between checkpoints");
  app->add_flag("--resume", train_.resume, "Go on from the last good checkpoint");
  value(app, "--restarts", train_.restarts, "N", "Go on by itself after so many failures");
  value(app, "--deadline", train_.deadline, "TIME", "Longest wait for another rank");
  file(app, "--timeline", train_.timeline, "Write each rank's measured timeline into this folder");
  app->add_flag("--json", train_.json, "Print all steps as JSON");
}

void CommandLineParser::add_doctor() {
  CLI::App* app = command("doctor", "Say what this machine offers and what is missing", "");
  app->add_flag("--json", doctor_.json, "Print as JSON");
}

void CommandLineParser::add_shell_help() {
  CLI::App* app = command("completion", "Print a completion script for a shell",
                          "bash: source <(rehearse completion bash)");
  choice(app, "SHELL", completion_.shell, kShells, "The shell")->required();
  command("man", "Print the manual page (rehearse man | man -l -)", "");
}

}  // namespace rehearse
