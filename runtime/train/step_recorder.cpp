#include "runtime/train/step_recorder.h"

#include <utility>

#include "kernels/operator.h"
#include "runtime/train/timed_device.h"

namespace rehearse {

/// Records when each operator was at work.
class StepRecorder::Device final : public TimedDevice {
 public:
  Device(ComputeDevice& inner, StepRecorder& recorder) : TimedDevice(inner), recorder_(recorder) {}

 private:
  void ran(const OperatorCall& call, double start_s, double end_s) override {
    recorder_.record(call, start_s, end_s);
  }
  void filled(double start_s, double end_s) override {
    if (recorder_.place_.chunk >= 0) return;
    recorder_.place_.tag = operator_name(OperatorName::GradientAccumulate);
    recorder_.log_.add(recorder_.place_, start_s, end_s);
  }

  StepRecorder& recorder_;
};

/// A transfer that is recorded once it is found done.
class StepRecorder::Watched final : public PendingTransfer {
 public:
  Watched(Transfer inner, ComputeDevice& device, EventLog& log, EventPlace place, std::string label,
          std::int64_t bytes)
      : inner_(std::move(inner)),
        device_(device),
        log_(log),
        place_(place),
        label_(std::move(label)),
        bytes_(bytes),
        start_s_(EventLog::now_s()) {}
  bool test() override {
    if (inner_ != nullptr && !inner_->test()) return false;
    record();
    return true;
  }
  void wait() override {
    finish(inner_);
    device_.synchronize();  // where the device waits for transfers, and not the host
    record();
  }

 private:
  void record() {
    if (std::exchange(is_recorded_, true)) return;
    place_.tag = label_;
    log_.add(place_, start_s_, EventLog::now_s(), static_cast<double>(bytes_));
  }

  Transfer inner_;
  ComputeDevice& device_;
  EventLog& log_;
  EventPlace place_;
  std::string label_;
  std::int64_t bytes_;
  double start_s_;
  bool is_recorded_ = false;
};

StepRecorder::StepRecorder(const PlanFile& file, int rank, ComputeDevice& device)
    : namer_(file), log_(rank), device_(std::make_unique<Device>(device, *this)) {}
StepRecorder::~StepRecorder() = default;

ComputeDevice& StepRecorder::device() { return *device_; }

void StepRecorder::attach(Trainer& trainer) {
  place_.stage = trainer.groups().at.pipeline;
  trainer.on_action = [this](const Action& action) {
    namer_.begin_action(action.kind);
    place_.chunk = action.chunk;
    place_.micro_batch = action.micro_batch;
    place_.layer = -1;
  };
  trainer.on_unit = [this, &trainer](const Unit& unit) {
    namer_.begin_unit(unit.kind, unit.layer, place_in_chunk(trainer.store(), unit));
    place_.layer = unit.layer;
  };
  trainer.on_actions_done = [this] {
    namer_.leave_units();
    place_.chunk = place_.micro_batch = place_.layer = -1;
  };
  RankGroups& groups = trainer.groups();
  const bool mirrored = trainer.schedule().placement == Placement::BothWays;
  for (Communicator* one : {groups.tensor.get(), groups.context.get(), groups.data.get(),
                            groups.stages.get(), groups.norm.get(), groups.world.get()})
    watch(*one, nullptr);
  watch(*groups.copies, mirrored ? "mirrored gradient all-reduce" : "tied embedding all-reduce");
}

void StepRecorder::watch(Communicator& communicator, const char* copies_label) {
  const int size = communicator.size();
  communicator.observe([this, copies_label, size](Transfer transfer, const TransferNote& note) {
    auto name = namer_.name(note);
    if (!name) return transfer;
    if (copies_label != nullptr) name->label = copies_label;
    EventPlace place = place_;
    place.stream = name->stream;
    // The lists of a layer count a gather by its whole result.
    const bool is_whole = note.traffic == Traffic::Tensor && note.kind == CollectiveKind::AllGather;
    return Transfer(std::make_unique<Watched>(std::move(transfer), *device_, log_, place,
                                              std::move(name->label),
                                              is_whole ? size * note.bytes : note.bytes));
  });
}

void StepRecorder::record(const OperatorCall& call, double start_s, double end_s) {
  const PartNamer::Part part = namer_.name(call);
  place_.tag = part.label;
  log_.add(place_, start_s, end_s);
}

void StepRecorder::begin_step(std::int64_t step) {
  namer_.leave_units();
  place_.chunk = place_.micro_batch = place_.layer = -1;
  log_.begin_step(step, EventLog::now_s());
}

void StepRecorder::end_step() { log_.end_step(EventLog::now_s()); }

void StepRecorder::write(const std::filesystem::path& folder, const std::string& title) const {
  if (log_.steps() > 0) log_.write(folder, "rehearse train", title);
}

}  // namespace rehearse
