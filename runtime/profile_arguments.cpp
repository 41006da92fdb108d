#include "runtime/profile_arguments.h"

#include "plan/units.h"
#include "runtime/command_line.h"

namespace rehearse {

double budget_of(const std::string& text) {
  const ParsedQuantity parsed = parse_quantity(text, Dimension::Seconds);
  if (!parsed.value || *parsed.value < 1)
    throw ArgumentError("--budget is at least a second, not '" + text + "'",
                        parsed.hint.empty() ? "for example --budget 5min" : parsed.hint);
  return *parsed.value;
}

std::optional<int> gpu_index_of(const std::string& text) {
  if (text == "cuda") return 0;
  if (text.rfind("cuda:", 0) != 0) return std::nullopt;
  const ParsedQuantity index = parse_quantity(text.substr(5), Dimension::Count);
  if (!index.value || *index.value < 0 || *index.value >= 1024) return std::nullopt;
  return static_cast<int>(*index.value);
}

}  // namespace rehearse
