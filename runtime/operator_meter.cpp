#include "runtime/operator_meter.h"

#include "kernels/price_cache.h"
#include "runtime/train/timed_device.h"

namespace rehearse {
/// Takes the time of each operator.
class OperatorMeter::Device final : public TimedDevice {
 public:
  Device(ComputeDevice& inner, OperatorMeter& meter) : TimedDevice(inner), meter_(meter) {}

 private:
  void ran(const OperatorCall& call, double start_s, double end_s) override {
    meter_.record(call, end_s - start_s);
  }
  void filled(double start_s, double end_s) override {
    if (!meter_.in_unit_)
      meter_.step_s_[operator_name(OperatorName::GradientAccumulate)] += end_s - start_s;
  }

  OperatorMeter& meter_;
};

OperatorMeter::OperatorMeter(const PlanFile& file, ComputeDevice& device)
    : file_(file), namer_(file), device_(std::make_unique<Device>(device, *this)) {}
OperatorMeter::~OperatorMeter() = default;

ComputeDevice& OperatorMeter::device() { return *device_; }

void OperatorMeter::attach(Trainer& trainer) {
  trainer.on_action = [this](const Action& action) {
    close_unit();
    namer_.begin_action(action.kind);
  };
  trainer.on_unit = [this, &trainer](const Unit& unit) {
    close_unit();
    namer_.begin_unit(unit.kind, unit.layer, place_in_chunk(trainer.store(), unit));
    open_ = namer_.operators();
    open_s_.assign(open_.size(), 0.0);
    in_unit_ = true;
  };
  trainer.on_actions_done = [this] {
    close_unit();
    namer_.leave_units();
  };
  double owned = 0;
  for (const OwnedPiece& piece : trainer.store().owned())
    owned += static_cast<double>(piece.elements);
  for (const Operator& op : optimizer_operators(static_cast<double>(trainer.parameters()), owned,
                                                file_.plan.precision, Precision::Fp32))
    step_work_[operator_name(op.name)].bytes = op.bytes;
}

void OperatorMeter::record(const OperatorCall& call, double seconds) {
  const PartNamer::Part part = namer_.name(call);
  if (part.item >= 0)
    open_s_[static_cast<std::size_t>(part.item)] += seconds;
  else
    step_s_[part.label] += seconds;
}

void OperatorMeter::close_unit() {
  if (!in_unit_) return;
  in_unit_ = false;
  for (std::size_t i = 0; i < open_.size(); ++i) {
    if (open_s_[i] <= 0) continue;
    Timed& timed = operators_[sample_key(open_[i]).words];
    timed.op = open_[i];
    timed.executions.push_back(open_s_[i]);
    timed.step_sum_s += open_s_[i];
    ++timed.step_count;
  }
}

void OperatorMeter::end_step() {
  for (auto& [key, timed] : operators_) {
    if (timed.step_count > 0) timed.seconds.push_back(timed.step_sum_s / timed.step_count);
    timed.step_sum_s = timed.step_count = 0;
  }
  for (auto& [name, work] : step_work_) work.seconds.push_back(step_s_[name]);
  step_s_.clear();
}

void OperatorMeter::forget() {
  operators_.clear();
  step_s_.clear();
  for (auto& [name, work] : step_work_) work.seconds.clear();
}

}  // namespace rehearse
