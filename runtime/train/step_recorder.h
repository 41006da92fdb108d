#pragma once
#include <memory>

#include "runtime/timeline_writer.h"
#include "runtime/train/part_namer.h"
#include "runtime/train/trainer.h"

namespace rehearse {

/// Records what one rank does as the simulation's own timeline: operators and transfers under the
/// names of the lists that the simulation prices (part_namer.h).
///
/// An operator's event is its call, waited for. A transfer's begins where the rank gives it to its
/// communicator and ends where the rank finds it done: of one that goes beside other work that is
/// up to its next look. Messages between stages are recorded by their senders.
class StepRecorder {
 public:
  StepRecorder(const PlanFile& file, int rank, ComputeDevice& device);
  ~StepRecorder();

  /// For the trainer to compute on.
  ComputeDevice& device();
  /// Call once, before the first step. The trainer does not outlive the recorder.
  void attach(Trainer& trainer);
  void begin_step(std::int64_t step);
  void end_step();
  /// Peak memory of the rank, to be written too.
  void set_memory(RankMemory memory) { log_.set_memory(std::move(memory)); }
  /// Writes the steps recorded, if there are any.
  void write(const std::filesystem::path& folder, const std::string& title) const;

 private:
  class Device;
  class Watched;
  void watch(Communicator& communicator, const char* copies_label);
  void record(const OperatorCall& call, double start_s, double end_s);

  PartNamer namer_;
  EventLog log_;
  EventPlace place_;  ///< of what follows
  std::unique_ptr<Device> device_;
};

}  // namespace rehearse
