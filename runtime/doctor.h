#pragma once
#include <string>
#include <vector>

#include "runtime/machine_facts.h"

namespace rehearse {

/// Something this build of the program may be able to do on this machine.
struct Ability {
  std::string what;  ///< "measure GPU operators"
  bool works = false;
  std::string reason;  ///< what it rests on, or what is missing
};

/// What works here and what does not, from the facts alone.
std::vector<Ability> abilities(const MachineFacts& facts);

/// Facts and abilities for a reader, lines of at most 100 columns where names allow.
std::string doctor_text(const MachineFacts& facts);

/// The same as one doctor/1 document.
std::string doctor_json(const MachineFacts& facts);

/// "13.0" from CUDA's 13000.
std::string cuda_version_text(int version);

}  // namespace rehearse
