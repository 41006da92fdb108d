#pragma once
#include <string>
#include <vector>

#include "kernels/profile.h"
#include "kernels/profiler/measure.h"

namespace rehearse {

/// What was measured, and with what.
struct ProfileProvenance {
  DeviceFacts device;      ///< data-sheet rates where known; else `with_measured_rates` fills them
  std::string made_by;     ///< program, device, libraries, threads, seed, budget
  std::string table_name;  ///< of the file the table of measurements goes to
};

/// The measurements as a table of operators (docs/profiles.md, "own layout"), a row each: shape,
/// bytes, mode, median, 10th and 90th percentile, number of samples, and the stopwatch's remarks.
/// Measured memory beside tensors has rows of bytes alone, copies rows of bytes and time.
std::string measurement_table(const std::vector<ProfileTask>& tasks,
                              const Measurements& measurements, const std::string& gpu,
                              const MemoryOverheads& overheads = MemoryOverheads(),
                              const std::vector<CopyTime>& copies = {});

/// Takes out what the device cannot have taken, a clock that jumped or a sample that something else
/// interrupted, and reports it as a failure: one such would have the whole table refused.
void leave_out_impossible(Measurements& measurements, const std::vector<ProfileTask>& tasks,
                          const DeviceFacts& device);

/// Rates that the data sheet of a device would state, from the fastest operators measured: what is
/// known of a CPU. Fills only those that are zero.
DeviceFacts with_measured_rates(DeviceFacts device, const std::vector<ProfileTask>& tasks,
                                const Measurements& measurements);

/// A profile/1 of the stack "rehearse": every operator measured is priced as measured, others by
/// the fit through them.
Profile measured_profile(const std::string& table, const ProfileProvenance& provenance,
                         double launch_s);

}  // namespace rehearse
