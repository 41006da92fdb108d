#pragma once
#include <string>

#include "app/result.h"
#include "app/text_table.h"

namespace rehearse {

/// One row a plan: times, shares of the step that add up to 100 %, memory.
TextTable plans_table(const VariantResult& variant);
/// Each plan's name with what it is.
std::string plan_list(const std::vector<PlanOutcome>& plans);
/// Where an average GPU's step goes; the last row is the sum.
TextTable breakdown_table(const PlanOutcome& outcome);
/// What the fullest stage's GPUs hold.
TextTable memory_table(const PlanOutcome& outcome);
/// Of plans that balance something: the step with each way, and how many more steps are made in the
/// same time than with the first.
TextTable balance_table(const std::vector<PlanOutcome>& plans);
TextTable links_table(const PlanOutcome& outcome);
/// Every variant but the first with its difference to it, plan by plan; of many only the winners.
TextTable variants_table(const RunResult& result, std::size_t scenario);

}  // namespace rehearse
