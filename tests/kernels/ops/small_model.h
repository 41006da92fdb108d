#pragma once
#include <map>
#include <string>
#include <vector>

#include "plan/model.h"
#include "tests/kernels/ops/host_tensor.h"

namespace rehearse {

/// A whole decoder-only transformer put together of the operators, in any float type on the CPU, or
/// on a device that reaches the host's tensors:
/// GPT style (learned positions, LayerNorm, biases, GeLU, tied head) or Llama style (RoPE, RMSNorm,
/// grouped heads, SwiGLU, own head), as the Model says.
class SmallModel {
 public:
  using Tensors = std::map<std::string, HostTensor>;

  SmallModel(const Model& model, DType dtype, Random& random, ComputeDevice& device = cpu());

  /// Mean cross entropy over sequences of `seq_len` tokens, packed.
  double loss(const HostTensor& tokens, const HostTensor& targets, std::int64_t seq_len);
  /// Gradients of the last `loss`, by the name of the weight.
  Tensors gradients();

  const Model& model() const { return model_; }
  Tensors& weights() { return weights_; }

 private:
  /// What a layer's forward keeps for its backward.
  struct LayerActivations {
    HostTensor input, normed1, mean1, inverse1, qkv, attention, lse, projected;
    HostTensor sum, normed2, mean2, inverse2, up, activated, output;
  };
  void run(const OperatorCall& call) {
    device_.run(call);
    device_.synchronize();
  }
  HostTensor empty(TensorShape shape) const { return {dtype_, shape}; }
  HostTensor empty_wide(TensorShape shape) const { return {wide_, shape}; }
  bool is_layer_norm() const { return model_.norm == Norm::LayerNorm; }
  const HostTensor& weight(const std::string& name) const { return weights_.at(name); }

  HostTensor linear(const HostTensor& x, const std::string& name);
  HostTensor linear_backward(const HostTensor& x, const HostTensor& d_out, const std::string& name,
                             bool has_bias);
  void norm(const HostTensor& x, const std::string& name, HostTensor& out, HostTensor& mean,
            HostTensor& inverse, const HostTensor* residual, HostTensor* sum);
  HostTensor norm_backward(const HostTensor& x, const HostTensor& d_out, const std::string& name,
                           const HostTensor& mean, const HostTensor& inverse,
                           const HostTensor* d_residual);
  void layer_forward(LayerActivations& layer, const std::string& prefix);
  HostTensor layer_backward(LayerActivations& layer, const HostTensor& d_output,
                            const std::string& prefix);
  void rotate(HostTensor& qkv, bool inverse);
  HostTensor& gradient(const std::string& name);

  ComputeDevice& device_;
  Model model_;
  DType dtype_, wide_;
  Tensors weights_, gradients_;
  std::int64_t seq_len_ = 0;
  HostTensor tokens_, targets_, positions_, offsets_, table_;
  HostTensor embedded_, final_normed_, final_mean_, final_inverse_;
  HostTensor logits_, maximum_, sum_, hit_;
  std::vector<LayerActivations> layers_;
};

}  // namespace rehearse
