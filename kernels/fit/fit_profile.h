#pragma once
#include <string>
#include <vector>

#include "kernels/fit/operator_table.h"
#include "kernels/fit/shape_fit.h"
#include "kernels/profile.h"

namespace rehearse {

struct FitRequest {
  DeviceFacts device;
  std::string stack, made_by;
  FitOptions options;
  double sustained_rate = 0;  ///< 0: from the tables, or judged
  /// Every measured operator of the GPU itself is put into the profile and priced as measured.
  bool keep_samples = false;
};

/// A measured operator as a profile keeps it.
ProfileSample profile_sample(const Operator& op, double seconds);

/// A profile of one GPU from measured tables. Deterministic. A minute for sixty thousand products
/// with cross-validation.
Profile fit_profile(const std::vector<OperatorTable>& tables, const FitRequest& request);

}  // namespace rehearse
