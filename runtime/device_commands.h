#pragma once
#include "runtime/command_line.h"

namespace rehearse {

// The commands of rehearse-device, each in a file of its name.
int command_bench(Arguments arguments);
int command_data(Arguments arguments);
int command_doctor(Arguments arguments);
int command_floors(Arguments arguments);
int command_links(Arguments arguments);
int command_profile(Arguments arguments);
int command_train(Arguments arguments);

}  // namespace rehearse
