#pragma once
#include "kernels/ops/cpu/thread_team.h"
#include "kernels/ops/operator_call.h"

namespace rehearse {

// The operators on the CPU: matrix products through OpenBLAS, everything else in plain code that
// reads and writes the tensors' types and sums in double. They are the backend of runs on CPUs
// and the reference that device code is compared with. REQUIRES: the call was checked. Values
// that lie outside their range (a token id, an offset) throw OperatorError.
void compute(const Gemm& call, ThreadTeam& team);
void compute(const GroupedGemm& call, ThreadTeam& team);
void compute(const ColumnSum& call, ThreadTeam& team);
void compute(const AttentionForward& call, ThreadTeam& team);
void compute(const AttentionBackward& call, ThreadTeam& team);
void compute(const AttentionJoin& call, ThreadTeam& team);
void compute(const PagedAppend& call, ThreadTeam& team);
void compute(const PagedAttention& call, ThreadTeam& team);
void compute(const Rope& call, ThreadTeam& team);
void compute(const NormForward& call, ThreadTeam& team);
void compute(const NormBackward& call, ThreadTeam& team);
void compute(const ActivationForward& call, ThreadTeam& team);
void compute(const ActivationBackward& call, ThreadTeam& team);
void compute(const Add& call, ThreadTeam& team);
void compute(const DropoutForward& call, ThreadTeam& team);
void compute(const DropoutBackward& call, ThreadTeam& team);
void compute(const Cast& call, ThreadTeam& team);
void compute(const Scale& call, ThreadTeam& team);
void compute(const EmbeddingForward& call, ThreadTeam& team);
void compute(const EmbeddingBackward& call, ThreadTeam& team);
void compute(const CrossEntropyForward& call, ThreadTeam& team);
void compute(const CrossEntropyRescale& call, ThreadTeam& team);
void compute(const CrossEntropyBackward& call, ThreadTeam& team);
void compute(const AdamUpdate& call, ThreadTeam& team);
void compute(const SquaredSum& call, ThreadTeam& team);
void compute(const ClipFactor& call, ThreadTeam& team);
void compute(const BucketCopy& call, ThreadTeam& team);
void compute(const BucketReduce& call, ThreadTeam& team);
void compute(const RouterForward& call, ThreadTeam& team);
void compute(const RouterBackward& call, ThreadTeam& team);
void compute(const MoeSort& call, ThreadTeam& team);
void compute(const MoePermute& call, ThreadTeam& team);
void compute(const MoeCombine& call, ThreadTeam& team);
void compute(const MoeWeightGradient& call, ThreadTeam& team);

/// "OpenBLAS 0.3.21 …", or that products run through this project's own loops.
std::string blas_description();

}  // namespace rehearse
