#pragma once
#include <cstddef>
#include <string>

#include "app/result.h"

namespace rehearse {

/// A plan of a variant as a plan/1 document: what is needed to run it, and what is expected of it.
/// REQUIRES: the plan is possible.
std::string plan_file_of(const VariantResult& variant, std::size_t plan);

}  // namespace rehearse
