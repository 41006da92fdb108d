#include "plan/reading.h"

namespace rehearse {

void Reading::problem(std::uint32_t offset, std::string message, std::string hint) {
  ++count_;
  if (count_ > kMostProblems) return;
  if (count_ == kMostProblems) {
    problems_.add(source_.problem_at(offset, "", "too many problems; those after are not shown"));
    return;
  }
  problems_.add(source_.problem_at(offset, pointer_, std::move(message), std::move(hint)));
}

void Reading::pass_on(const Problem& problem) {
  if (++count_ < kMostProblems) problems_.add(problem);
}

Reading::Inside::Inside(Reading& reading, std::string_view key)
    : reading_(reading), length_(reading.pointer_.size()), partial_(reading.partial_) {
  reading.pointer_ += '/' + pointer_token(key);
}

Reading::Inside::Inside(Reading& reading, std::size_t index)
    : reading_(reading), length_(reading.pointer_.size()), partial_(reading.partial_) {
  reading.pointer_ += '/' + std::to_string(index);
  reading.partial_ = false;
}

}  // namespace rehearse
