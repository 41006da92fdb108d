#pragma once
#include "plan/model.h"
#include "plan/plan.h"
#include "runtime/communicator.h"
#include "runtime/train/parameter_store.h"
#include "runtime/train/tensor_pool.h"

namespace rehearse {

/// What the operators of one rank need to know and to reach. Rows of activations are tokens: the
/// micro-batch's sequences one behind the other, of each this context rank's part; with sequence
/// parallelism, outside of matrix products, this tensor rank's share of those rows.
struct RankContext {
  const Model& model;
  const Plan& plan;
  int seq_len = 0;
  DType dtype = DType::F32;
  ComputeDevice& device;
  TensorPool& pool;
  ParameterStore& store;
  Communicator& tensor;
  Communicator& context;

  bool splits_sequence() const { return plan.sequence_parallel && plan.tp > 1; }
  bool splits_vocabulary() const { return plan.vocabulary_parallel && plan.tp > 1; }
  std::int64_t tokens() const { return std::int64_t{plan.micro_batch} * seq_len / plan.cp; }
  std::int64_t split_tokens() const { return splits_sequence() ? tokens() / plan.tp : tokens(); }
  Tensor empty(TensorShape shape) const { return {pool, dtype, shape}; }
  Tensor wide(TensorShape shape) const { return {pool, DType::F32, shape}; }

  /// This tensor rank's share of rows that it has whole.
  Tensor own_rows(const Tensor& rows) const {
    return rows.rows(tensor.rank() * split_tokens(), split_tokens());
  }
};

}  // namespace rehearse
