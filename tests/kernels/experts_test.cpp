#include <algorithm>
#include <numeric>
#include <string>

#include "kernels/expert_load.h"
#include "kernels/layer.h"
#include "plan/mixture.h"
#include "plan/model_catalogue.h"
#include "tests/catch.h"

using namespace rehearse;

namespace {

constexpr double kTokens = 2 * 4096;

LayerShape shape_of(const char* name, int ep = 1, int tp = 1) {
  LayerShape shape;
  shape.model = *find_model(name);
  shape.tp = shape.expert_tp = tp;
  shape.sequence_parallel = tp > 1;
  shape.ep = ep;
  shape.micro_batch = 2;
  shape.seq_len = 4096;
  shape.padded_vocab = shape.model.vocab;
  return shape;
}

double flops(const std::vector<LayerItem>& items) {
  double sum = 0;
  for (const LayerItem& item : items)
    if (item.op.family != OperatorFamily::Memory) sum += item.op.flops;
  return sum;
}

/// Bytes of the all-to-alls among experts, in order.
std::vector<double> exchanged(const std::vector<LayerItem>& items) {
  std::vector<double> bytes;
  for (const LayerItem& item : items)
    if (item.is_collective && item.group == CommGroup::Experts) bytes.push_back(item.bytes);
  return bytes;
}

double saved(const LayerShape& shape) {
  double bytes = 0;
  for (const SavedTensor& tensor : layer_saved_tensors(shape)) bytes += tensor.bytes;
  return bytes;
}

}  // namespace

TEST_CASE("the products of a mixture's layers make the FLOPs that its model counts") {
  const char* name = GENERATE("mixtral-8x7b", "grok-1", "deepseek-v2", "deepseek-v3",
                              "qwen3-30b-a3b", "qwen3-235b-a22b");
  CAPTURE(name);
  const LayerShape shape = shape_of(name);
  double forward = 0;
  for (int layer = 0; layer < shape.model.layers; ++layer)
    forward += flops(layer_forward(shape_of_layer(shape, layer, 0)));
  for (int module = 0; module < shape.model.mtp_layers; ++module)
    forward += flops(layer_forward(mtp_layer_shape(shape, module)));
  const double counted =
      recomputation_flops(shape.model, kTokens, 4096, AttentionCount::CausalHalf);
  CHECK(forward == Approx(counted).epsilon(1e-12));
}

TEST_CASE("a rank's share of the products does not depend on where experts lie") {
  const char* name = GENERATE("mixtral-8x7b", "deepseek-v3");
  const double alone = flops(layer_forward(shape_of(name)));
  for (const int ep : {2, 8}) CHECK(flops(layer_forward(shape_of(name, ep))) == Approx(alone));
  // Split over tensor ranks, only the product down to the latents is of the rank's own tokens.
  CHECK(2 * flops(layer_forward(shape_of(name, 4, 2))) == Approx(alone));
  LayerShape whole = shape_of(name, 8, 2);
  whole.expert_tp = 1;
  CHECK(2 * flops(layer_forward(whole)) == Approx(alone));
}

TEST_CASE("the backward of products is twice their forward, with values of another size too") {
  const LayerShape mixtral = shape_of("mixtral-8x7b", 8);
  const double attention = 4.0 * kTokens * 4096 / 2 * 4096;  // 32 heads of 128
  CHECK(flops(layer_backward(mixtral)) ==
        Approx(2 * flops(layer_forward(mixtral)) + 0.5 * attention).epsilon(1e-12));
  const LayerShape latent = shape_of("deepseek-v3", 8);
  const double pairs = kTokens * 4096 / 2 * 128;
  const double forward = 2 * pairs * (192 + 128), backward = 2 * pairs * (3 * 192 + 2 * 128);
  CHECK(flops(layer_backward(latent)) - backward ==
        Approx(2 * (flops(layer_forward(latent)) - forward)).epsilon(1e-12));
}

TEST_CASE("one expert that everybody passes is a dense block with a router") {
  LayerShape one = shape_of("mixtral-8x7b");
  one.model.experts = {.count = 1, .active = 1};
  LayerShape dense = one;
  dense.model = without_experts(one.model);
  CHECK(flops(layer_forward(one)) - 2 * kTokens * 4096 == Approx(flops(layer_forward(dense))));
  CHECK(layer_parameters_per_rank(one) - 4096 == layer_parameters_per_rank(dense));
}

TEST_CASE("dispatch and combine carry every token to each of its experts and back") {
  const double rows = kTokens * 2, bytes = rows * 4096 * 2;
  CHECK(exchanged(layer_forward(shape_of("mixtral-8x7b"))).empty());
  CHECK(exchanged(layer_forward(shape_of("mixtral-8x7b", 4))) == std::vector<double>{bytes, bytes});
  CHECK(exchanged(layer_backward(shape_of("mixtral-8x7b", 4))).size() == 2);
  // Tensor ranks split the sequence, and each sends its own part.
  CHECK(exchanged(layer_forward(shape_of("mixtral-8x7b", 4, 2))).front() == bytes / 2);
  LayerShape fp8 = shape_of("deepseek-v3", 64);
  fp8.precision = Precision::Fp8;
  fp8.fp8.gathers = true;
  const double elements = kTokens * 8 * 7168;
  CHECK(exchanged(layer_forward(fp8)) ==
        std::vector<double>{elements * (1 + 4.0 / 128), elements * 2});
  CHECK(exchanged(layer_backward(fp8)) ==
        std::vector<double>{elements * (1 + 4.0 / 128), elements * 2});
}

TEST_CASE("the busiest rank bounds a layer, and a capacity bounds the busiest rank") {
  Plan plan;
  CHECK(expert_load(plan, {.imbalance = 1.4}) == 1);  // one rank has all experts
  plan.ep = 8;
  CHECK(expert_load(plan, {.imbalance = 1.4}) == 1.4);
  CHECK(expert_load(plan, {.imbalance = 20}) == 8);  // all tokens go to one rank
  plan.experts.capacity = 1.25;
  CHECK(expert_load(plan, {.imbalance = 1.4}) == 1.25);
  CHECK(expert_load(plan, {.imbalance = 1.1}) == 1.1);
  plan.experts.pad = true;
  CHECK(expert_load(plan, {.imbalance = 1.1}) == 1.25);

  LayerShape even = shape_of("mixtral-8x7b", 8), busy = even;
  busy.expert_load = 1.5;
  CHECK(exchanged(layer_forward(busy)).front() == 1.5 * exchanged(layer_forward(even)).front());
  const double experts = 2 * kTokens * 2 * 3 * 4096 * 14336;
  CHECK(flops(layer_forward(busy)) - flops(layer_forward(even)) == Approx(0.5 * experts));
}

TEST_CASE("what ranks drop is what comes beyond their capacity") {
  const Routing even{.imbalance = 1}, uneven{.imbalance = 1.5}, all{.imbalance = 8};
  CHECK(dropped_share(64, 8, 0, 32, even, 1.0) == 0);
  CHECK(dropped_share(64, 8, 0, 32, even, 0.75) == Approx(0.25));
  CHECK(dropped_share(64, 8, 0, 32, all, 2.0) == Approx(1 - 2.0 / 8));
  // Between: none at a capacity that the busiest of all layers keeps, else less than an eighth of
  // the excess of the busiest where that is the only one.
  CHECK(dropped_share(64, 8, 0, 32, uneven, 8.0) == 0);
  const double some = dropped_share(64, 8, 0, 32, uneven, 1.25);
  CHECK(some > (1.5 - 1.25) / 8 - 1e-12);
  CHECK(some < 0.25);
  CHECK(some < dropped_share(64, 8, 0, 32, uneven, 1.1));
}

TEST_CASE("ranks hold all parameters of a mixture between them") {
  for (const char* name : {"mixtral-8x22b", "grok-1", "deepseek-v2", "deepseek-v3"}) {
    CAPTURE(name);
    const LayerShape whole = shape_of(name);
    CHECK(layer_parameters_per_rank(whole) == static_cast<double>(layer_parameters(whole.model)));
    const LayerShape parted = shape_of(name, 8);
    CHECK(8 * expert_parameters_per_rank(parted) == expert_parameters_per_rank(whole));
    CHECK(layer_parameters_per_rank(whole) - expert_parameters_per_rank(whole) ==
          layer_parameters_per_rank(parted) - expert_parameters_per_rank(parted));
    const LayerShape split = shape_of(name, 4, 2);
    CHECK(8 * expert_parameters_per_rank(split) == expert_parameters_per_rank(whole));
  }
  const LayerShape v3 = shape_of("deepseek-v3");
  CHECK(expert_parameters_per_rank(shape_of_layer(v3, 2, 0)) == 0);
  CHECK(expert_parameters_per_rank(shape_of_layer(v3, 3, 0)) == 256.0 * 3 * 7168 * 2048);
}

TEST_CASE("a grouped product has a product for each expert of its mean rows") {
  int found = 0;
  for (const LayerItem& item : layer_forward(shape_of("deepseek-v3", 64))) {
    if (item.is_collective || item.op.name != OperatorName::ExpertUp) continue;
    ++found;
    CHECK(item.op.batch == 4);
    CHECK(item.op.m == static_cast<std::int64_t>(kTokens) * 8 / 4);
    CHECK(item.op.n == 2 * 2048);
    CHECK(item.op.k == 7168);
  }
  CHECK(found == 1);
}

TEST_CASE("tensors kept by a layer of Mixtral and of DeepSeek-V3 are those of the formula") {
  // Bytes a token, at 16 bits: two norm inputs, qkv input, q, k, v, log-sum-exp, output's input;
  // router's input and probabilities; for each expert passed its input, both halves of SwiGLU,
  // its product, and a weight.
  const double attention = 2 * (4096 + 4096 + 4096 + 2 * 1024 + 4096) + 4 * 32;
  const double experts = 2 * 4096 + 2 * 4096 + 4 * 8 + 2 * (2 * (4096 + 3 * 14336) + 4);
  CHECK(saved(shape_of("mixtral-8x7b", 8)) == Approx(kTokens * (attention + experts)));
  // Latents before and after their norms; heads of 192 and 128.
  const double latents = 2 * 2 * (1536 + 512);
  const double heads = 2 * 128 * (192 + 192 + 128 + 128) + 4 * 128;
  const double routed = 8 * (2 * (7168 + 3 * 2048) + 4) + 4 * 256;
  const double others = 2 * 7168 * 4 + 2 * 3 * 2048;
  LayerShape shape = shape_of("deepseek-v3", 64);
  CHECK(saved(shape) == Approx(kTokens * (latents + heads + routed + others)));
  // Made again from the latents: queries and keys of 192 and values of 128, but for the key that
  // all heads share.
  const double before = flops(layer_backward(shape));
  shape.recompute = Recompute::Selective;
  shape.repeated.latent_up = true;
  const double again = 2 * 128 * (192 + 192 + 128) - 2 * 64;
  CHECK(saved(shape) == Approx(kTokens * (latents + heads - again + routed + others)));
  const double ups = 1536.0 * 128 * 192 + 512.0 * 128 * 256;
  CHECK(flops(layer_backward(shape)) - before == Approx(kTokens * 2 * ups).epsilon(1e-9));
}

TEST_CASE("by operator a mixture repeats its router and first grouped product, and no all-to-all") {
  LayerShape shape = shape_of("mixtral-8x7b", 8);
  shape.recompute = Recompute::Operators;
  std::vector<LayerItem> repeated;
  for (const LayerItem& item : layer_backward(shape))
    if (item.op.recomputed) repeated.push_back(item);
  CHECK(exchanged(repeated).empty());
  // Keys' and the output's products of q, k, v, output; router; gate and up of a rank's one expert,
  // which gets a rank's worth of rows, two a token.
  const double hidden = 4096, keys = 8 * 128, ffn = 14336;
  CHECK(flops(repeated) ==
        Approx(2 * kTokens * hidden * (keys + hidden + 8) + 2 * (2 * kTokens) * hidden * 2 * ffn));
  double exchanged_rows = 0;
  for (const SavedTensor& tensor : layer_saved_tensors(shape))
    if (std::string(tensor.name).find(" rows") != std::string::npos) exchanged_rows += tensor.bytes;
  CHECK(exchanged_rows == Approx(2 * 2.0 * (2 * kTokens) * hidden));
  LayerShape whole = shape;
  whole.recompute = Recompute::None;
  CHECK(saved(shape) < saved(whole));
  // Kept and made again beside the backward: no less than everything is kept.
  CHECK(saved(shape) + layer_backward_workspace_bytes(shape) >= saved(whole));
}

TEST_CASE("each layer's busiest rank is drawn, and has the stated share in the mean") {
  const double imbalance = GENERATE(1.05, 1.5, 3.0);
  CAPTURE(imbalance);
  const Model model = *find_model("mixtral-8x7b");
  Plan plan;
  plan.dp = plan.ep = 4;
  const LayerShape shape = layer_shape(model, plan, 4096, {.imbalance = imbalance, .seed = 7});
  double sum = 0, least = 4, most = 1;
  for (int layer = 0; layer < model.layers; ++layer) {
    const double load = shape_of_layer(shape, layer, layer).expert_load;
    CHECK(load == shape_of_layer(shape, layer, 0).expert_load);
    sum += load;
    least = std::min(least, load);
    most = std::max(most, load);
  }
  CHECK(sum / model.layers == Approx(imbalance).epsilon(1e-9));
  CHECK(least < imbalance);
  CHECK(most > imbalance);
  CHECK(most <= 4);
  const LayerShape other = layer_shape(model, plan, 4096, {.imbalance = imbalance, .seed = 8});
  CHECK(shape_of_layer(other, 0, 0).expert_load != shape_of_layer(shape, 0, 0).expert_load);

  plan.experts.capacity = imbalance;
  const LayerShape bounded = layer_shape(model, plan, 4096, {.imbalance = imbalance, .seed = 7});
  for (int layer = 0; layer < model.layers; ++layer)
    CHECK(shape_of_layer(bounded, layer, layer).expert_load ==
          std::min(imbalance, shape_of_layer(shape, layer, layer).expert_load));
  plan.experts.pad = true;
  const LayerShape padded = layer_shape(model, plan, 4096, {.imbalance = imbalance, .seed = 7});
  CHECK(shape_of_layer(padded, 3, 3).expert_load == imbalance);
}

TEST_CASE("the busiest of ranks with one expert each is the most popular expert") {
  // Of two equally likely orders the shares are e^(σz) over their sum.
  const double share = busiest_share(2, 2, 1e-3, 1, 0);
  CHECK(share > 1);
  CHECK(share < 1.01);
  CHECK(busiest_share(2, 2, 60, 1, 0) == Approx(2));
  CHECK(busiest_share(8, 1, 5, 1, 0) == 1);
  CHECK(busiest_share(8, 4, 0, 1, 0) == 1);
}
