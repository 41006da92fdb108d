#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "plan/json_document.h"
#include "plan/problem.h"

namespace rehearse {

/// The state of reading one document: where problems go, and the pointer of the value at hand.
class Reading {
 public:
  /// `folder` is where relative file names in the document start from. Both references must
  /// outlive the reading.
  Reading(const SourceText& source, Problems& problems, std::filesystem::path folder = {})
      : source_(source), problems_(problems), folder_(std::move(folder)) {}

  /// A problem at a byte of the document, with the pointer of the value at hand. Beyond
  /// kMostProblems only the first that is left out is told.
  void problem(std::uint32_t offset, std::string message, std::string hint = "");
  /// A problem of another file that this one names.
  void pass_on(const Problem& problem);
  int problem_count() const { return count_; }

  const SourceText& source() const { return source_; }
  const std::filesystem::path& folder() const { return folder_; }
  const std::string& pointer() const { return pointer_; }

  /// While it lives, the value at hand is the named member or numbered item of the one before.
  class Inside {
   public:
    Inside(Reading& reading, std::string_view key);
    Inside(Reading& reading, std::size_t index);
    ~Inside() {
      reading_.pointer_.resize(length_);
      reading_.partial_ = partial_;
    }
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;

   private:
    Reading& reading_;
    std::size_t length_;
    bool partial_;
  };

  /// While it lives, the value at hand is the one of the pointer.
  class At {
   public:
    At(Reading& reading, std::string pointer)
        : reading_(reading), before_(std::exchange(reading.pointer_, std::move(pointer))) {}
    ~At() { reading_.pointer_ = std::move(before_); }
    At(const At&) = delete;
    At& operator=(const At&) = delete;

   private:
    Reading& reading_;
    std::string before_;
  };

  /// Whether the object at hand changes one that is complete already ({"base": …}), so that
  /// nothing is missing in it. Items of lists begin anew.
  bool partial() const { return partial_; }
  void set_partial(bool partial) { partial_ = partial; }

  static constexpr int kMostProblems = 100;

 private:
  const SourceText& source_;
  Problems& problems_;
  std::filesystem::path folder_;
  std::string pointer_;
  int count_ = 0;
  bool partial_ = false;
};

}  // namespace rehearse
