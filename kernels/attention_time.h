#pragma once
#include "kernels/gemm_time.h"
#include "kernels/profile.h"

namespace rehearse {

/// Time of flash attention, forward or backward, by tiles of 128 queries and 128 keys:
///   t = t0 + (C^p + (bytes/(beta·BW))^p)^(1/p)
///   C = tau · max(W/SM + tail·n_k, n_k) + wave · ⌈rows/SM⌉,  tau = 4·128²·d / (P/SM·e(d))
/// with n_k = ⌈keys/128⌉ (times the share of pairs that documents and windows leave), rows =
/// batch·heads·⌈queries/128⌉ and W the tile pairs that are computed: rows·n_k, or rows·(n_k + 1)/2
/// on and below the diagonal. The backward takes 2.5/rate times tau (five products instead of two).
/// Between the measured head sizes e is interpolated, beyond them held. Uncorrected: the residual
/// map is the caller's. Under 100 ns.
double attention_time_s(const Operator& op, const AttentionFit& fit, const ProductRates& rates);

/// Where the operator stands in the map of an attention fit's corrections.
ShapePoint attention_point(const Operator& op);
/// Likewise of a product; batches count as rows.
ShapePoint gemm_point(const Operator& op);

}  // namespace rehearse
