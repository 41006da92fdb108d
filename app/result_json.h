#pragma once
#include <string>

#include "app/result.h"

namespace rehearse {

/// The whole result as a result/1 document: SI numbers with units in their keys, the same bytes
/// for the same result. Shares of one run merge by appending their "variants" in order; everything
/// else in their documents is equal.
std::string result_json(const RunResult& result);

/// One row a variant and plan, with a head; RFC 4180, numbers as in the JSON.
std::string result_csv(const RunResult& result);

}  // namespace rehearse
