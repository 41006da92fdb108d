#include <fmt/format.h>

#include <filesystem>

#include "app/commands.h"
#include "app/output.h"
#include "plan/json_document.h"
#include "plan/json_value.h"
#include "planner/worker_pool.h"
#include "runtime/child_process.h"

namespace rehearse {
namespace {

struct DeviceReport {
  bool is_there = false;
  ChildResult result;
};

/// The other program reports on CUDA, NCCL, MPI and BLAS, which this one cannot link.
DeviceReport ask_device_program(bool json) {
  const std::string path = sibling_program("rehearse-device");
  if (!std::filesystem::exists(path)) return {};
  std::vector<std::string> command{path, "doctor"};
  if (json) command.push_back("--json");
  return {.is_there = true, .result = run_child(command)};
}

std::string json_report(const DeviceReport& device) {
  JsonValue own = JsonValue::object();
  own.add("version", JsonValue::of(program_version()));
  own.add("build_type", JsonValue::of(REHEARSE_BUILD_TYPE));
  own.add("simgrid", JsonValue::of(REHEARSE_SIMGRID_VERSION));
  own.add("boost", JsonValue::of(boost_version()));
  own.add("usable_cores", JsonValue::of(available_cores()));
  std::string text =
      "{\"schema\": \"doctor/1\", \"rehearse\": " + to_text(own, JsonLayout::Compact) +
      ", \"device\": ";
  text += device.is_there && device.result.exit_code == 0 ? device.result.out : "null";
  return text + "}\n";
}

}  // namespace

ExitCode doctor_command(const DoctorOptions& options) {
  const DeviceReport device = ask_device_program(options.json);
  if (options.json) {
    write_result("-", json_report(device), false);
    return ExitCode::Done;
  }
  std::string text = version_text() + "\n";
  text += fmt::format("  simulation     OK: SimGrid {}, {} cores for worker processes\n",
                      REHEARSE_SIMGRID_VERSION, available_cores());
  text += fmt::format("  topologies     OK: Boost {}\n\n", boost_version());
  if (!device.is_there)
    text +=
        "rehearse-device is not beside this program: nothing is known about GPUs, NCCL, MPI.\n"
        "Simulating needs none of them.\n";
  else
    text += device.result.out;
  write_result("-", text, false);
  if (!device.is_there || device.result.exit_code == 0) return ExitCode::Done;
  report_error("rehearse-device doctor failed: " + device.result.err);
  return ExitCode::Environment;
}

}  // namespace rehearse
