#pragma once
#include <vector>

#include "kernels/fit/operator_table.h"
#include "kernels/profile.h"

namespace rehearse {

/// Fits of every operator bound by memory: of the tables' samples where there are any of the
/// architecture, else of others' as shares of bandwidth, else published shares.
std::vector<MemoryFit> fit_memory(const std::vector<OperatorTable>& tables,
                                  const DeviceFacts& device);

/// Rates of products and attention in other passes, from samples of the same table; published
/// ones where the tables have none.
PassRate fit_product_pass(const std::vector<OperatorTable>& tables, const GemmFit& fit, Pass pass,
                          const DeviceFacts& device, bool of_experts = false);
PassRate fit_attention_backward(const std::vector<OperatorTable>& tables);

/// Sustained over burst rate, from shapes measured in both modes; the generation's judged value
/// where there are none.
SourcedFactor fit_sustained_rate(const std::vector<OperatorTable>& tables,
                                 const DeviceFacts& device);

}  // namespace rehearse
