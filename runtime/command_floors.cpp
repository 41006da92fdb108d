#include <fstream>
#include <iostream>
#include <sstream>

#include "kernels/profiler/floors.h"
#include "runtime/device_commands.h"

namespace rehearse {

int command_floors(Arguments arguments) {
  if (arguments.size() != 1 || arguments[0].rfind("-", 0) == 0)
    throw ArgumentError("floors takes one table", "rehearse-device floors my-gpu.csv");
  std::ifstream file(arguments[0]);
  if (!file) throw std::runtime_error("cannot read " + arguments[0]);
  std::ostringstream text;
  text << file.rdbuf();
  Problems problems;
  const auto rows = read_measured_rows(text.str(), arguments[0], problems);
  if (!rows) {
    std::cerr << problems.text();
    return kExitBadInput;
  }
  const FloorReport report = floors_of(*rows);
  std::cout << floors_text(report);
  return report.passes() ? kExitDone : kExitTolerance;
}

}  // namespace rehearse
