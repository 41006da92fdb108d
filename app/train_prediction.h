#pragma once
#include <optional>
#include <string>

namespace rehearse {

struct TrainCommandOptions;

/// What a step of a plan will take on this machine's cores, for a plan that does not say it itself:
/// measures one rank's operators for some ten seconds and, of several ranks, what passes
/// between two, and simulates the plan with that. Nothing where the plan says it, or where it is
/// not this machine's CPU that trains; says on stderr what it does, and why where it cannot.
std::optional<double> predict_step_here(const TrainCommandOptions& options);

}  // namespace rehearse
