#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace rehearse {

/// One thing wrong with the user's input, with its place.
struct Problem {
  std::string file;
  int line = 0;             ///< 1-based; 0: the whole file
  int column = 0;           ///< 1-based, in bytes
  std::string pointer;      ///< JSON pointer of the value ("/plan/tp"); empty: the document
  std::string message;      ///< a sentence without a full stop
  std::string hint;         ///< how to mend it; may be empty
  std::string source_line;  ///< the offending line, for the caret; may be empty
};

/// All problems of an input, reported in one go.
class Problems {
 public:
  void add(Problem problem) { problems_.push_back(std::move(problem)); }
  bool empty() const { return problems_.empty(); }
  std::size_t count() const { return problems_.size(); }
  const std::vector<Problem>& all() const { return problems_; }

  /// `file:line:col: error: /pointer: message`, the source line cut at 100 columns, a caret, and
  /// `help: hint`, one block a problem in the order of their places.
  std::string text() const;

 private:
  std::vector<Problem> problems_;
};

}  // namespace rehearse
