#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/ops/compute_device.h"
#include "plan/model.h"
#include "plan/plan.h"

namespace rehearse {

/// A part of a tensor of the model that this rank holds: a box of it. The same tensor has the same
/// name and shape in every layout, whatever ranks share it.
struct NamedBox {
  std::string name;
  std::vector<std::int64_t> shape;          ///< of the whole tensor
  std::vector<std::int64_t> begin, extent;  ///< of the box
  std::int64_t offset = 0;                  ///< of its first element inside the parameter
  double deviation = 0;                     ///< of the initial weights; they are normal
  double mean = 0;

  std::int64_t elements() const;
};

/// The boxes that make up elements [begin, end) of a parameter, as far as they lie in `box`: a
/// range that begins or ends inside of a row of a matrix takes up to three.
std::vector<NamedBox> boxes_in_range(const NamedBox& box, std::int64_t begin, std::int64_t end);

/// A matrix or vector of weights as operators take it; of several boxes where operators fuse
/// tensors (queries, keys and values; gate and up). Rows that belong to no box are padding of the
/// vocabulary: zero for ever.
struct Parameter {
  std::vector<NamedBox> boxes;
  TensorShape shape;
  std::int64_t offset = 0;  ///< in the flat arrays of the rank
  std::int32_t unit = 0;    ///< embedding, layer or head that it belongs to
  bool decays = false;      ///< matrices; biases and norms are spared by weight decay
  bool is_copy = false;     ///< another rank of the same replica counts it in the gradient norm
  bool sums_over_sequence = false;  ///< its gradient is of this tensor rank's tokens only
  std::int64_t elements() const { return shape.elements(); }
};

/// Which tensor rank's part of the model.
struct TensorSlice {
  int rank = 0, size = 1;
};

/// Parameters of the parts of a model on one tensor rank, in the order of execution. Offsets are
/// left at 0. Names: "embedding", "positions", "layer3.query.weight", "final_norm.bias", "head".
std::vector<Parameter> embedding_weights(const Model& model, const Plan& plan, TensorSlice slice);
std::vector<Parameter> layer_weights(const Model& model, const Plan& plan, TensorSlice slice,
                                     int layer);
/// `with_table`: the head's matrix too; of a tied head that is the embedding's.
std::vector<Parameter> head_weights(const Model& model, const Plan& plan, TensorSlice slice,
                                    bool with_table);

/// Places of the parameters of a layer in `layer_weights`; −1 where the model has none.
struct LayerPlaces {
  explicit LayerPlaces(const Model& model);
  int norm1_weight = -1, norm1_bias = -1, qkv_weight = -1, qkv_bias = -1;
  int projection_weight = -1, projection_bias = -1;
  int norm2_weight = -1, norm2_bias = -1, up_weight = -1, up_bias = -1;
  int down_weight = -1, down_bias = -1;
  int count = 0;
};

/// Writes the initial weights of a parameter, fp32 on the host: element i of a tensor is a
/// function of the seed, the tensor's name and i alone (Philox and Box-Muller), so that every
/// layout starts from the same weights. GPT-2's: N(0, 0.02), output projections of blocks divided
/// by √(2·layers); norms one, biases zero (Radford et al. 2019, §2.3).
void initial_weights(const Parameter& parameter, std::uint64_t seed, float* out);

}  // namespace rehearse
