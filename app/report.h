#pragma once
#include <string>

#include "app/result.h"

namespace rehearse {

struct ReportStyle {
  std::size_t width = 100;  ///< 0: as wide as it takes
  bool color = false;
};

/// The answer for people: the plans compared and why one wins, where its step goes, its memory
/// and links, what-ifs, assumptions. The text is not a stable interface; result/1 is.
std::string report_text(const RunResult& result, const ReportStyle& style);

}  // namespace rehearse
