#include "kernels/layer.h"

#include <algorithm>
#include <map>

#include "plan/model_catalogue.h"
#include "tests/catch.h"

using namespace rehearse;

namespace {

/// A GPT layer of the kind Korthikanti et al. count: GeLU of width 4h, dropout, 16 bits.
LayerShape gpt_shape(int tp = 1, bool sequence_parallel = false) {
  LayerShape shape;
  shape.model = *find_model("megatron-22b");
  shape.tp = tp;
  shape.micro_batch = 4;
  shape.seq_len = 2048;
  shape.padded_vocab = padded_vocab(shape.model, tp);
  shape.sequence_parallel = sequence_parallel;
  shape.attention = AttentionKernel::Plain;
  shape.precision = Precision::Fp16;
  shape.dropout = 0.1;
  return shape;
}

LayerShape llama_shape(int tp = 1) {
  LayerShape shape = gpt_shape(tp, tp > 1);
  shape.model = *find_model("llama3-70b");
  shape.padded_vocab = padded_vocab(shape.model, tp);
  shape.attention = AttentionKernel::Flash;
  shape.precision = Precision::Bf16;
  shape.dropout = 0;
  return shape;
}

double flops(const std::vector<LayerItem>& items, bool memory_passes = false) {
  double sum = 0;
  for (const LayerItem& item : items)
    if (memory_passes || item.op.family != OperatorFamily::Memory) sum += item.op.flops;
  return sum;
}

double pass_flops(const std::vector<LayerItem>& items, Pass pass) {
  double sum = 0;
  for (const LayerItem& item : items)
    if (item.op.family != OperatorFamily::Memory && item.op.pass == pass) sum += item.op.flops;
  return sum;
}

std::map<CollectiveKind, int> collectives(const std::vector<LayerItem>& items) {
  std::map<CollectiveKind, int> counts;
  for (const LayerItem& item : items)
    if (item.is_collective) ++counts[item.collective];
  return counts;
}

double collective_bytes(const std::vector<LayerItem>& items) {
  double sum = 0;
  for (const LayerItem& item : items) sum += item.is_collective ? item.bytes : 0;
  return sum;
}

int casts(const std::vector<LayerItem>& items) {
  return static_cast<int>(std::count_if(items.begin(), items.end(), [](const LayerItem& item) {
    return !item.is_collective && item.op.name == OperatorName::Cast;
  }));
}

constexpr double kS = 2048, kB = 4, kH = 6144, kA = 64, kSbh = kS * kB * kH;

}  // namespace

TEST_CASE("a plain layer's products are 24bsh² + 4bs²h forward and twice that backward") {
  const LayerShape shape = gpt_shape();
  const double forward = 24 * kB * kS * kH * kH + 4 * kB * kS * kS * kH;
  CHECK(flops(layer_forward(shape)) == Approx(forward).epsilon(1e-12));
  CHECK(flops(layer_backward(shape)) == Approx(2 * forward).epsilon(1e-12));
}

TEST_CASE("a step of layers and head is the model's training FLOPs") {
  for (const char* name : {"megatron-22b", "llama3-70b", "nemotron4-15b", "qwen2.5-7b"}) {
    CAPTURE(name);
    LayerShape shape = gpt_shape();
    shape.model = *find_model(name);
    shape.padded_vocab = shape.model.vocab;
    const double counted =
        shape.model.layers * (flops(layer_forward(shape)) + flops(layer_backward(shape))) +
        flops(head_forward(shape)) + flops(head_backward(shape));
    CHECK(counted == Approx(training_flops(shape.model, kB * kS, static_cast<int>(kS),
                                           AttentionCount::FullSquare))
                         .epsilon(1e-12));
  }
}

TEST_CASE("flash attention computes half the square forward and 2.5 times that backward") {
  const LayerShape shape = llama_shape();
  const double weights = static_cast<double>(layer_parameters(shape.model) - 2 * 8192);
  const double linear = 2 * kB * kS * weights;
  const double core = 2 * kB * kS * kS * 8192;
  CHECK(flops(layer_forward(shape)) == Approx(linear + core).epsilon(1e-12));
  CHECK(flops(layer_backward(shape)) == Approx(2 * linear + 2.5 * core).epsilon(1e-12));
}

TEST_CASE("tensor ranks share a layer's products evenly") {
  for (const bool sequence_parallel : {false, true}) {
    CHECK(flops(layer_forward(gpt_shape(8, sequence_parallel))) * 8 ==
          Approx(flops(layer_forward(gpt_shape()))).epsilon(1e-12));
    CHECK(flops(layer_backward(gpt_shape(8, sequence_parallel))) * 8 ==
          Approx(flops(layer_backward(gpt_shape()))).epsilon(1e-12));
  }
}

TEST_CASE("input and weight gradients of linear layers each cost a forward") {
  const LayerShape shape = llama_shape();
  const double core = 2.5 * 2 * kB * kS * kS * 8192;
  const auto backward = layer_backward(shape);
  CHECK(pass_flops(backward, Pass::InputGradient) ==
        Approx(pass_flops(backward, Pass::WeightGradient) + core).epsilon(1e-12));
}

TEST_CASE("full recomputation repeats the forward with its collectives") {
  LayerShape shape = gpt_shape(8, true);
  const auto plain = layer_backward(shape);
  shape.recompute = Recompute::Full;
  const auto full = layer_backward(shape);
  CHECK(flops(full, true) ==
        Approx(flops(plain, true) + flops(layer_forward(shape), true)).epsilon(1e-12));
  CHECK(collective_bytes(full) == collective_bytes(plain) + collective_bytes(layer_forward(shape)));
  const auto repeated = std::count_if(full.begin(), full.end(),
                                      [](const LayerItem& item) { return item.op.recomputed; });
  CHECK(repeated == static_cast<int>(layer_forward(shape).size()));
}

TEST_CASE("selective recomputation repeats the plain attention core only") {
  LayerShape shape = gpt_shape();
  const double plain = flops(layer_backward(shape));
  shape.recompute = Recompute::Selective;
  CHECK(flops(layer_backward(shape)) == Approx(plain + 4 * kB * kS * kS * kH).epsilon(1e-12));
  shape = llama_shape();
  const double flash = flops(layer_backward(shape));
  shape.recompute = Recompute::Selective;
  CHECK(flops(layer_backward(shape)) == flash);
}

TEST_CASE("recomputation by operator repeats every other product and no attention") {
  LayerShape shape = llama_shape();
  const Model& m = shape.model;
  const double plain = flops(layer_backward(shape));
  shape.recompute = Recompute::Operators;
  // Of q, k, v, output, gate, up and down: k, output and up.
  const double h = m.hidden, key = m.kv_heads * m.head_dim;
  const double repeated = 2 * kB * kS * h * (key + h + m.ffn);
  CHECK(flops(layer_backward(shape)) == Approx(plain + repeated).epsilon(1e-12));
  shape = gpt_shape();
  const double gpt = flops(layer_backward(shape));
  shape.recompute = Recompute::Operators;  // of q, k, v, output, up and down: k, output and down
  CHECK(flops(layer_backward(shape)) ==
        Approx(gpt + 2 * kB * kS * kH * (kH + kH + 4 * kH)).epsilon(1e-12));
}

TEST_CASE("tensor parallelism reduces twice forward and twice backward") {
  const LayerShape shape = gpt_shape(8);
  using Counts = std::map<CollectiveKind, int>;
  CHECK(collectives(layer_forward(shape)) == Counts{{CollectiveKind::AllReduce, 2}});
  CHECK(collectives(layer_backward(shape)) == Counts{{CollectiveKind::AllReduce, 2}});
  CHECK(collective_bytes(layer_forward(shape)) == 2 * 2 * kSbh);
  CHECK(collectives(layer_forward(gpt_shape())).empty());
  CHECK(collectives(layer_backward(gpt_shape())).empty());
}

TEST_CASE("sequence parallelism gathers and scatters, and gathers saved inputs once more") {
  const LayerShape shape = gpt_shape(8, true);
  using Counts = std::map<CollectiveKind, int>;
  CHECK(collectives(layer_forward(shape)) ==
        Counts{{CollectiveKind::AllGather, 2}, {CollectiveKind::ReduceScatter, 2}});
  CHECK(collectives(layer_backward(shape)) ==
        Counts{{CollectiveKind::AllGather, 4}, {CollectiveKind::ReduceScatter, 2}});
  CHECK(collective_bytes(layer_forward(shape)) == 4 * 2 * kSbh);
}

TEST_CASE("a collective beside the next item is never needed by it") {
  for (const bool sequence_parallel : {false, true}) {
    const auto items = layer_backward(gpt_shape(8, sequence_parallel));
    int beside = 0;
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (!items[i].beside_next) continue;
      ++beside;
      REQUIRE(i + 1 < items.size());
      CHECK(items[i].is_collective);
      CHECK_FALSE(items[i + 1].is_collective);
      CHECK(items[i + 1].op.name == items[i].op.name);
      CHECK(items[i + 1].op.pass != items[i].op.pass);
    }
    CHECK(beside == (sequence_parallel ? 4 : 2));
  }
}

TEST_CASE("a split backward does the same work with weight gradients last") {
  for (const bool sequence_parallel : {false, true}) {
    const LayerShape shape = gpt_shape(8, sequence_parallel);
    const auto joint = layer_backward(shape), split = layer_backward(shape, true);
    CHECK(split.size() == joint.size());
    CHECK(flops(split, true) == Approx(flops(joint, true)).epsilon(1e-12));
    CHECK(collective_bytes(split) == collective_bytes(joint));
    const auto first = std::find_if(split.begin(), split.end(), [](const LayerItem& item) {
      return item.op.pass == Pass::WeightGradient;
    });
    CHECK(std::all_of(first, split.end(), [](const LayerItem& item) {
      return item.op.pass == Pass::WeightGradient && !item.beside_next;
    }));
  }
}

TEST_CASE("vocabulary parallelism adds three small all-reduces to the loss") {
  const auto items = head_forward(gpt_shape(8, true));
  int small = 0;
  for (const LayerItem& item : items) {
    if (!item.is_collective || item.op.name != OperatorName::CrossEntropy) continue;
    ++small;
    CHECK(item.collective == CollectiveKind::AllReduce);
    CHECK(item.bytes == 4 * kS * kB);
  }
  CHECK(small == 3);
  LayerShape whole = gpt_shape(8);
  whole.vocabulary_parallel = false;
  CHECK(collectives(head_forward(whole)).empty());
  CHECK(flops(head_forward(whole)) == Approx(2 * kB * kS * kH * whole.padded_vocab));
  CHECK(collectives(embedding_forward(whole)).empty());
  CHECK(collectives(embedding_forward(gpt_shape(8))).at(CollectiveKind::AllReduce) == 1);
}

TEST_CASE("weight gradients accumulate in the gradients' precision") {
  LayerShape shape = llama_shape();
  const auto traffic = [](const LayerShape& at) {
    for (const LayerItem& item : layer_backward(at))
      if (item.op.name == OperatorName::FfnDown && item.op.pass == Pass::WeightGradient)
        return item.op.bytes;
    return 0.0;
  };
  const double tokens = kB * kS, hidden = 8192, ffn = 28672;
  CHECK(traffic(shape) == Approx(2 * tokens * (hidden + ffn) + 8 * hidden * ffn).epsilon(1e-12));
  shape.gradient_precision = Precision::Bf16;
  CHECK(traffic(shape) == Approx(2 * tokens * (hidden + ffn) + 4 * hidden * ffn).epsilon(1e-12));
}

TEST_CASE("fp8 plans cast each operand of a linear layer and keep the rest in bf16") {
  LayerShape shape = llama_shape();
  CHECK(casts(layer_forward(shape)) == 0);
  shape.precision = Precision::Fp8;
  CHECK(casts(layer_forward(shape)) == 4);
  CHECK(casts(layer_backward(shape)) == 4);
  CHECK(casts(head_forward(shape)) == 0);
  for (const LayerItem& item : layer_forward(shape)) {
    if (item.op.family == OperatorFamily::Gemm) CHECK(item.op.precision == Precision::Fp8);
    if (item.op.family == OperatorFamily::Attention) CHECK(item.op.precision == Precision::Bf16);
  }
  CHECK(flops(layer_forward(shape)) == flops(layer_forward(llama_shape())));
}

TEST_CASE("sequence parallelism divides the traffic of norms and residual adds") {
  const auto traffic = [](const LayerShape& shape) {
    double bytes = 0;
    for (const LayerItem& item : layer_forward(shape))
      if (!item.is_collective &&
          (item.op.name == OperatorName::Norm || item.op.name == OperatorName::ResidualAdd))
        bytes += item.op.bytes;
    return bytes;
  };
  CHECK(traffic(gpt_shape(8, true)) * 8 == Approx(traffic(gpt_shape(8, false))).epsilon(1e-12));
}

TEST_CASE("Adam moves 30 bytes a parameter with fp32 gradients and 28 with bf16") {
  const auto adam = [](Precision gradients) {
    for (const Operator& op : optimizer_operators(100, 10, Precision::Bf16, gradients))
      if (op.name == OperatorName::Adam) return op.bytes;
    return 0.0;
  };
  CHECK(adam(Precision::Fp32) == 300);
  CHECK(adam(Precision::Bf16) == 280);
}
