#include <iostream>

#include "runtime/device_commands.h"
#include "runtime/doctor.h"

namespace rehearse {

int command_doctor(Arguments arguments) {
  bool json = false;
  for (const auto& argument : arguments) {
    if (argument != "--json")
      throw ArgumentError("doctor does not take '" + argument + "'", meant(argument, {"--json"}));
    json = true;
  }
  const MachineFacts facts = probe_machine();
  std::cout << (json ? doctor_json(facts) : doctor_text(facts));
  return kExitDone;
}

}  // namespace rehearse
