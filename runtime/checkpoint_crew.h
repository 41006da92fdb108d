#pragma once
#include <functional>
#include <string>
#include <vector>

namespace rehearse {

/// The ranks that write or read a checkpoint together, as one of them sees it. All of them call the
/// same functions in the same order.
class CheckpointCrew {
 public:
  /// Tells that the work goes on; called after each piece of it.
  using Beat = std::function<void()>;
  using Work = std::function<void(const Beat& beat)>;

  virtual ~CheckpointCrew() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// Does `work` on this rank, while the others do theirs; returns when all have done it. Throws
  /// what `work` throws. It is for disks, which may take long: the work may run on another thread.
  virtual void together(const Work& work) = 0;
  /// What each rank gives, [rank].
  virtual std::vector<std::string> texts(const std::string& mine) = 0;

  /// What the first rank gives.
  std::string from_first(const std::string& mine) { return texts(rank() == 0 ? mine : "").front(); }
};

/// One rank, alone.
class LoneCrew final : public CheckpointCrew {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void together(const Work& work) override {
    work([] {});
  }
  std::vector<std::string> texts(const std::string& mine) override { return {mine}; }
};

}  // namespace rehearse
