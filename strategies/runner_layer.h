#pragma once
#include <cstdint>
#include <vector>

#include "kernels/layer_parts.h"
#include "plan/plan.h"
#include "strategies/size_pool.h"

namespace rehearse {

/// The tensors that the runner's layers, embedding and head take and give back, in their order:
/// each function here stands beside the one of its name in runtime/train.
class RunnerTensorWalk {
 public:
  using Block = SizePool::Block;

  struct Norm {
    Block mean, inverse_deviation;
  };
  struct Attention {
    Block query_key_value, key_value, out, head_out, log_sum_exp;
  };
  struct Layer {
    Block input, normed1, projected_sum, normed2, up, activated;
    Norm norm1, norm2;
    Attention attention;
  };
  struct Head {
    Block input, normed, logits, targets, maximum, sum, target_logit;
    Norm norm;
  };
  /// Products of a weight gradient that wait for the second half of a split backward.
  struct WeightWork {
    struct Product {
      Block x, d_whole, d_out;
      std::int64_t gathers = 0;  ///< width of the input that is gathered first; 0: none is
      std::int32_t unit = 0;
    };
    bool deferred = false;
    std::int32_t unit = 0;
    std::vector<Product> products;
  };

  RunnerTensorWalk(SizePool& pool, const LayerShape& shape, const Plan& plan)
      : pool_(pool), shape_(shape), plan_(plan), at_(shape) {}

  Block layer_forward(const Block& input, bool recomputes, Layer& state);
  Block layer_backward(Layer& state, bool recomputes, const Block& d_output, WeightWork& work);
  Block embedding_forward();
  void embedding_backward(const Block& d_out);
  void head_forward(const Block& input, const Block& targets, Head& state);
  Block head_backward(Head& state, Block& losses, WeightWork& work);
  void weight_gradients(WeightWork& work, std::int32_t unit);

  /// Activations that a stage sends or receives, a number of 4 bytes for each token.
  Block boundary() { return split_rows(at_.hidden); }
  Block of_tokens() { return wide(at_.tokens); }
  Block wide(std::int64_t count) { return pool_.take(4 * count); }

 private:
  enum class Cut { Columns, Rows, None };
  struct Result {
    Block out, log_sum_exp;
  };
  Block rows(std::int64_t width) { return elements(at_.tokens * width); }
  Block split_rows(std::int64_t width) { return elements(at_.split_tokens * width); }
  Block elements(std::int64_t count) {
    return pool_.take(count * static_cast<std::int64_t>(at_.element_bytes));
  }
  Block key_values() { return rows(2 * at_.key); }

  Block compute(Layer& state);
  Block norm(Norm& state);
  Block linear(const Block& x, std::int64_t in, std::int64_t out, Cut cut);
  Block linear_backward(const Block& x, const Block& d_out, std::int64_t in, Cut cut,
                        WeightWork& work);
  void attention(const Block& fused, Attention& state);
  void ring(Attention& state);
  void ring_backward(const Attention& state);
  void exchange(std::int64_t width);
  void head_exchange(Attention& state);
  void head_exchange_backward();

  SizePool& pool_;
  const LayerShape& shape_;
  const Plan& plan_;
  LayerWidths at_;
};

}  // namespace rehearse
