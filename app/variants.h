#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "plan/json_value.h"
#include "plan/reading.h"
#include "plan/table.h"

namespace rehearse {

/// One new value of a what-if or sweep, where it is written in the file.
struct Setting {
  std::string pointer;
  std::uint32_t key_offset = 0;
  JsonValue value;
};

/// Settings that make one variant of a scenario.
struct Variation {
  std::string name;     ///< "half the network", "nodes = 64"
  std::string context;  ///< put before its problems; says which variation they are in
  std::vector<Setting> settings;
};

/// Reads "what_if" and "sweep" of a scenario document. With `each_alone` every value of a sweep
/// is a variation by itself: enough to check values, without their combinations. More than
/// kMostVariants are refused with a problem.
std::vector<Variation> read_variations(const JsonValue& scenario, Reading& reading,
                                       bool each_alone);
inline constexpr std::size_t kMostVariants = 10'000;

/// Puts the value where the pointer says, making objects on the way that the table knows. What is
/// wrong with the pointer is reported at its place; then nothing is changed.
/// `tree`: the scenario with names expanded. `lenient`: the tree has problems of its own, so a
/// way that ends early is not the pointer's fault.
void apply_setting(const Setting& setting, const Table& table, JsonValue& tree, Reading& reading,
                   bool lenient);

}  // namespace rehearse
