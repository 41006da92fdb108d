#pragma once
#include <cstdint>
#include <vector>

namespace rehearse {

/// Training programs, for what a plan does not say; Generic: none.
enum class Framework : std::uint8_t {
  Generic,
  Megatron,
  MegatronDeepspeed,
  LlmFoundryFsdp,
  Torchtitan,
  Nanotron,
  Rehearse,  ///< this project's own runner (runtime/train)
};

/// Which transfers may run beside computation. Off means the computation waits for them.
struct Overlap {
  bool gradients = true;    ///< gradient reduction beside the last micro-batch's backward
  bool parameters = false;  ///< ZeRO parameter gathers beside the next step's forward
  bool pipeline = true;     ///< activations are sent without stopping the sender
  bool tensor = true;       ///< tensor collectives that the next operator does not need, beside it
  /// Tensor collectives in pieces beside the products before or after them (Megatron-LM's
  /// tp-comm-overlap, PyTorch's asynchronous tensor parallelism).
  bool tensor_pieces = false;
  bool context = true;   ///< ring attention: the next keys and values beside the block at work
  bool experts = false;  ///< dispatch and combine beside the other micro-batch's computation
  bool operator==(const Overlap&) const = default;
};

/// How context ranks attend over each other's tokens: keys and values go round in a ring (Liu et
/// al. 2023, arXiv 2310.01889), or all-to-alls turn tokens into heads and back (DeepSpeed-Ulysses,
/// arXiv 2309.14509).
enum class ContextKind : std::uint8_t { Ring, AllToAll };

/// What is done with the tokens of the experts of a mixture.
struct ExpertPlan {
  int tp = 0;           ///< tensor ranks that share one expert; 0: as the plan's tp
  double capacity = 0;  ///< tokens an expert takes, as a multiple of the mean; 0: all that come
  bool pad = false;     ///< with a capacity: buffers are padded up to it
  int node_limit = 0;   ///< nodes that a token's experts may lie on (DeepSeek-V3); 0: all
  bool operator==(const ExpertPlan&) const = default;
};

enum class Aggregation : std::uint8_t {
  AllReduce,        ///< replicas reduce gradients among themselves
  ParameterServer,  ///< servers hold the weights, and combine gradients as they arrive
  LocalSgd,         ///< replicas train alone and average weights every `period` steps
};
enum class Synchrony : std::uint8_t {
  Synchronous,   ///< a step begins with the update of all
  BoundedStale,  ///< a replica may be `staleness` steps ahead of the slowest
  Asynchronous,  ///< nobody waits
};
enum class Weighting : std::uint8_t {
  Even,
  Samples,      ///< by the samples behind a gradient
  Reliability,  ///< by a given number for each replica
};

/// How the gradients of replicas become one update.
struct Updates {
  Aggregation aggregation = Aggregation::AllReduce;
  Synchrony synchrony = Synchrony::Synchronous;
  Weighting weighting = Weighting::Samples;
  int servers = 1;               ///< parameter servers, each with a share of the weights
  int staleness = 1;             ///< bounded-stale: steps ahead of the slowest
  int period = 1;                ///< local SGD: steps between averages
  std::vector<int> reliability;  ///< relative weight of each replica, where weighting asks
  bool operator==(const Updates&) const = default;
};

/// What lies in host memory and crosses PCIe.
struct Offload {
  bool optimizer = false;  ///< states, updated by the host's cores
  bool gradients = false;  ///< sums of gradients
  double activations = 0;  ///< share of saved activations, fetched back before their backward
  bool operator==(const Offload&) const = default;
};

enum class Fp8Scaling : std::uint8_t {
  Delayed,  ///< one scale a tensor, from the history of its largest value
  Current,  ///< one scale a tensor, from a pass over it
  Block,    ///< a scale for 1×128 of activations and 128×128 of weights (DeepSeek-V3)
  Mx,       ///< a scale for 32 elements in hardware (MXFP8)
};

/// Which products of an fp8 plan are fp8, and what it costs beside them.
struct Fp8Recipe {
  Fp8Scaling scaling = Fp8Scaling::Delayed;
  bool weight_gradient = true;   ///< weight gradients too; else bf16
  bool attention_output = true;  ///< the projection after attention too
  bool gathers = false;          ///< ZeRO-3 and sequence-parallel gathers move fp8
  int bf16_ends = 0;             ///< first and last layers that stay bf16
  bool operator==(const Fp8Recipe&) const = default;
};

/// In what a saved activation waits for its backward.
enum class StoredAs : std::uint8_t {
  Computed,  ///< in the precision that the backward reads it in
  Fp8,       ///< one byte, with a scale for 128 elements
  E5m6,      ///< 12 bits (DeepSeek-V3, arXiv 2412.19437, §3.3.3), likewise scaled
};

/// Activations that are saved in fewer bits than they are computed with.
struct ActivationStore {
  /// Inputs of activation functions (Megatron-LM's activation-func-fp8-input-store).
  StoredAs ffn_activation = StoredAs::Computed;
  /// What attention makes, for its own backward and that of the projection after it, once for both.
  StoredAs attention_result = StoredAs::Computed;
  bool operator==(const ActivationStore&) const = default;
};

/// In what order things are dealt out: consecutive runs, one after the other, or by lot.
enum class Deal : std::uint8_t { Range, RoundRobin, Random };

/// How lengths of documents are spread about their mean.
enum class LengthDistribution : std::uint8_t { LogNormal, Uniform };

/// How documents become sequences of equal length.
enum class Packing : std::uint8_t {
  Cut,    ///< one after the other without gaps; a sequence's end cuts the document
  Whole,  ///< a document that does not fit into what is left begins the next sequence
};

/// How a mixed cluster's replicas share the samples of a step.
enum class BatchSplit : std::uint8_t {
  Even,
  BySpeed,  ///< in proportion to what the replica's slowest stage can do
};

}  // namespace rehearse
