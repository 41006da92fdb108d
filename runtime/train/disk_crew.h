#pragma once
#include "runtime/checkpoint_crew.h"
#include "runtime/train/trainer.h"

namespace rehearse {

/// The ranks of a run, where they read and write checkpoints together.
///
/// Disks are slower than any deadline of a transfer allows for, and some ranks have more to do than
/// others. So the work is done on a thread of its own, while ranks tell each other a few times a
/// second whether theirs is done: a rank that is gone is noticed within the deadline as ever, and a
/// slow disk is waited for. Only a disk that gives no beat at all on any rank for `patience_s` ends
/// the run.
class DiskCrew final : public CheckpointCrew {
 public:
  DiskCrew(Trainer& trainer, double patience_s) : trainer_(trainer), patience_s_(patience_s) {}

  int rank() const override { return trainer_.groups().world->rank(); }
  int size() const override { return trainer_.groups().world->size(); }
  void together(const Work& work) override;
  std::vector<std::string> texts(const std::string& mine) override;

 private:
  Trainer& trainer_;
  double patience_s_;
};

}  // namespace rehearse
