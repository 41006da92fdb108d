#pragma once
#include <optional>
#include <string_view>

#include "kernels/fit/operator_table.h"
#include "plan/json_document.h"

namespace rehearse {

// Files of other programs' measurements. Each reader reports what is wrong with its place and
// returns nothing then; the digest is left to the caller.

/// A table that nccl-tests printed.
bool is_nccl_text(std::string_view text);
std::optional<OperatorTable> read_nccl_text(const SourceText& source, Problems& problems);

/// The JSON of nccl-tests' `-J`. REQUIRES: it has "results".
std::optional<OperatorTable> read_nccl_json(const JsonDocument& document, Problems& problems);

/// A trace of torch.profiler with shapes recorded. REQUIRES: it has "traceEvents".
std::optional<OperatorTable> read_kernel_trace(const JsonDocument& document,
                                               const DeviceFacts& device, Problems& problems);

}  // namespace rehearse
