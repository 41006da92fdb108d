#pragma once
#include <cstdint>
#include <vector>

#include "runtime/train/parameters.h"
#include "runtime/train/tensor_pool.h"

namespace rehearse {

/// Neighbouring units whose gradients are reduced together, and a range of the flat arrays.
struct GradientBucket {
  std::int64_t offset = 0, elements = 0;  ///< padded so that data ranks share it evenly
  std::vector<std::int32_t> units;
};

/// A piece of one parameter among what this rank updates: all of it, or with ZeRO what lies in the
/// rank's share of the bucket.
struct OwnedPiece {
  std::int32_t parameter = 0;
  std::int64_t offset = 0, elements = 0;  ///< in the flat arrays of weights and gradients
  std::int64_t state_offset = 0;          ///< in the flat arrays of the optimizer's state
};

/// A unit of a chunk of the model: embedding, one layer, or the head with its norm.
enum class ModelUnit : std::uint8_t { Embedding, Layer, Head };
struct Unit {
  ModelUnit kind = ModelUnit::Layer;
  std::int32_t layer = -1;  ///< of the model
  std::int32_t chunk = 0;
  std::vector<std::int32_t> parameters;  ///< places in the store; a tied head names the embedding's
  std::int32_t bucket = 0;
};

/// The parameters of a rank in flat arrays: weights in the type of the computation, gradients in
/// fp32, and the optimizer's state (fp32 master weights, unless the weights are fp32 themselves,
/// and two moments) of what the rank updates.
class ParameterStore {
 public:
  struct Shares {
    int count = 1;  ///< ranks that share the optimizer's state; 1 without ZeRO
    int rank = 0;
  };
  explicit ParameterStore(TensorPool& pool, DType dtype) : pool_(&pool), dtype_(dtype) {}

  /// Adds a unit behind those of its chunk; chunks come one after the other.
  std::int32_t add_unit(Unit unit, std::vector<Parameter> parameters);
  /// Lets a unit use another unit's parameter too.
  void share_parameter(std::int32_t unit, std::int32_t parameter);
  /// Lays the arrays out. A bucket is closed once it holds `bucket_parameters`, counted from the
  /// end of the chunk, where the backward begins.
  void build(double bucket_parameters, Shares shares);
  /// Writes the initial weights.
  void initialise(std::uint64_t seed);

  const std::vector<Unit>& units() const { return units_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  const std::vector<GradientBucket>& buckets() const { return buckets_; }
  const std::vector<OwnedPiece>& owned() const { return owned_; }
  const Shares& shares() const { return shares_; }

  ConstTensorView weight(std::int32_t parameter) const;
  TensorView gradient(std::int32_t parameter) const;

  /// Ranges of the flat arrays.
  TensorView weights(std::int64_t offset, std::int64_t elements) const;
  TensorView gradients(std::int64_t offset, std::int64_t elements) const;
  /// The reduced gradient of what this rank owns; without ZeRO a range of `gradients`.
  TensorView owned_gradient(const OwnedPiece& piece) const;
  /// The whole share of a bucket (with ZeRO), or the whole bucket.
  TensorView owned_gradient(const GradientBucket& bucket) const;
  TensorView master(const OwnedPiece& piece) const;
  TensorView first_moment(const OwnedPiece& piece) const;
  TensorView second_moment(const OwnedPiece& piece) const;
  /// This rank's share of a bucket in the array of weights.
  TensorView own_weights(const GradientBucket& bucket) const;

  bool has_master() const { return dtype_ != DType::F32; }
  void clear_gradients();
  /// Casts master weights to the weights of what this rank owns, after they were loaded.
  void weights_from_master();
  std::int64_t parameter_count() const;
  /// Memory of the flat arrays.
  struct Bytes {
    std::size_t weights = 0, gradients = 0, optimizer = 0;
  };
  Bytes bytes() const;

 private:
  /// Casts values into the array of weights, as many at a time as `staging` holds.
  void write_narrow(std::int64_t offset, const std::vector<float>& values,
                    const DeviceBuffer& staging);
  std::int64_t share(const GradientBucket& bucket) const { return bucket.elements / shares_.count; }

  TensorPool* pool_;
  DType dtype_;
  Shares shares_;
  std::vector<Unit> units_;
  std::vector<Parameter> parameters_;
  std::vector<GradientBucket> buckets_;
  std::vector<std::int64_t> bucket_state_;  ///< by bucket: first place in the state arrays
  std::vector<OwnedPiece> owned_;
  std::int64_t total_ = 0, state_total_ = 0;
  Tensor weights_, gradients_, shard_gradients_, master_, first_moment_, second_moment_;
};

}  // namespace rehearse
