#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include "planner/validation.h"

namespace rehearse {

/// Runs with what was predicted for them, and the errors summed up.
struct ValidationResult {
  std::vector<MeasuredRun> runs;
  std::vector<RunPrediction> predictions;  ///< parallel to runs
  Validation summary;
  CrossValidation cross;
  std::vector<UnfittedHost> judged_host;
};

/// Tables for people: every run (unless `summary_only`), families, and all together.
std::string validation_text(const ValidationResult& result, std::size_t width, bool color,
                            bool summary_only);

/// {"overall", "families", "runs", "not_expressible"}; errors are fractions.
std::string validation_json(const ValidationResult& result);

/// The page of docs/: what is compared, per-family tables, how to make it again.
std::string validation_markdown(const ValidationResult& result);

}  // namespace rehearse
