// Operators from a trace of torch.profiler (Kineto's Chrome trace, recorded with shapes). Kernels
// carry the "External id" of the operator that launched them; an operator's time is the sum of its
// kernels'. Timestamps are microseconds.
//
// A product of the backward is told from its shapes: with y[m,n] = x[m,k] · w[k,n] among the
// forward's products, [m,n]·[n,k] makes the gradient of x, and the one that sums over the m tokens
// that of w.

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "kernels/fit/measured_files.h"

namespace rehearse {
namespace {

constexpr double kMicro = 1e-6;
using Sizes = std::vector<std::int64_t>;

/// An operator of the framework that launched kernels.
struct TracedOperator {
  const JsonValue* event = nullptr;
  std::string name;
  double begin = 0, end = 0;  ///< on its thread, microseconds
  std::int64_t thread = 0;
  double kernels_us = 0;
  int kernel_count = 0;
  bool in_backward = false;
};

/// How an operator's inputs hold a product: which of them are the factors.
struct ProductName {
  const char* name;
  std::size_t first;
};
constexpr ProductName kProducts[] = {
    {"aten::mm", 0}, {"aten::addmm", 1}, {"aten::bmm", 0}, {"aten::_scaled_mm", 0}};

/// How inputs hold queries and keys: from which on, and whether heads stand before the sequence.
struct AttentionName {
  const char* name;
  std::size_t query;
  bool heads_first;
  Pass pass;
};
constexpr AttentionName kAttentions[] = {
    {"aten::_scaled_dot_product_flash_attention", 0, true, Pass::Forward},
    {"aten::_scaled_dot_product_flash_attention_backward", 1, true, Pass::InputGradient},
    {"aten::_scaled_dot_product_cudnn_attention", 0, true, Pass::Forward},
    {"aten::_scaled_dot_product_cudnn_attention_backward", 1, true, Pass::InputGradient},
    {"aten::_flash_attention_forward", 0, false, Pass::Forward},
    {"aten::_flash_attention_backward", 1, false, Pass::InputGradient},
    {"flash_attn::_flash_attn_forward", 0, false, Pass::Forward},
    {"flash_attn::_flash_attn_backward", 1, false, Pass::InputGradient}};

/// Norms read and write whole tensors: so many of the first input's size.
struct NormName {
  const char* name;
  Pass pass;
  int moved;
};
constexpr NormName kNorms[] = {{"aten::native_layer_norm", Pass::Forward, 2},
                               {"aten::native_layer_norm_backward", Pass::InputGradient, 3},
                               {"aten::_fused_rms_norm", Pass::Forward, 2},
                               {"aten::_fused_rms_norm_backward", Pass::InputGradient, 3}};

template <class Table>
auto find_name(const Table& table, const std::string& name) -> decltype(&table[0]) {
  for (const auto& entry : table)
    if (entry.name == name) return &entry;
  return nullptr;
}

const JsonValue* argument(const JsonValue& event, const char* key) {
  const JsonValue* arguments = event.find("args");
  return arguments ? arguments->find(key) : nullptr;
}

/// The n-th input's sizes; empty where it is no tensor.
Sizes input_sizes(const JsonValue& event, std::size_t n) {
  const JsonValue* dims = argument(event, "Input Dims");
  if (!dims || n >= dims->items.size()) return {};
  Sizes sizes;
  for (const JsonValue& size : dims->items[n].items) sizes.push_back(size.integer);
  return sizes;
}

std::optional<Precision> input_precision(const JsonValue& event, std::size_t n) {
  static const std::map<std::string, Precision> known{{"c10::BFloat16", Precision::Bf16},
                                                      {"c10::Half", Precision::Fp16},
                                                      {"float", Precision::Fp32},
                                                      {"c10::Float8_e4m3fn", Precision::Fp8},
                                                      {"c10::Float8_e5m2", Precision::Fp8}};
  const JsonValue* types = argument(event, "Input type");
  if (!types || n >= types->items.size()) return std::nullopt;
  const auto at = known.find(types->items[n].text);
  return at == known.end() ? std::nullopt : std::optional(at->second);
}

bool all_positive(const Sizes& sizes) {
  return std::all_of(sizes.begin(), sizes.end(), [](std::int64_t size) { return size > 0; });
}

class TraceReader {
 public:
  TraceReader(const JsonDocument& document, const DeviceFacts& device, Problems& problems)
      : source_(document.source), root_(document.root), device_(device), problems_(problems) {}

  std::optional<OperatorTable> read() {
    const std::size_t before = problems_.count();
    table_.path = source_.file();
    table_.kind = "torch.profiler trace";
    collect_operators();
    add_kernels();
    if (problems_.count() > before) return std::nullopt;
    mark_backward();
    collect_forward_products();
    for (const auto& [id, op] : operators_)
      if (op.kernel_count > 0) sample(op);
    if (table_.samples.empty() && problems_.count() == before) explain_nothing();
    if (problems_.count() > before) return std::nullopt;
    add_notes();
    return std::move(table_);
  }

 private:
  void problem(const JsonValue& value, const std::string& message, const std::string& hint = "") {
    problems_.add(source_.problem_at(value.offset, "", message, hint));
  }

  static std::string text_of(const JsonValue& event, const char* key) {
    const JsonValue* value = event.find(key);
    return value && value->is_text() ? value->text : "";
  }
  static double number_of(const JsonValue& event, const char* key) {
    const JsonValue* value = event.find(key);
    return value && value->is_number() ? value->number : 0;
  }
  const std::vector<JsonValue>& events() const { return root_.find("traceEvents")->items; }

  void collect_operators() {
    for (const JsonValue& event : events()) {
      if (text_of(event, "cat") != "cpu_op" || text_of(event, "ph") != "X") continue;
      const double begin = number_of(event, "ts");
      const JsonValue* thread = event.find("tid");
      TracedOperator op{.event = &event,
                        .name = text_of(event, "name"),
                        .begin = begin,
                        .end = begin + number_of(event, "dur"),
                        .thread = thread ? thread->integer : 0};
      if (op.name.rfind("autograd::engine::evaluate_function", 0) == 0)
        backward_[op.thread].emplace_back(op.begin, op.end);
      const JsonValue* id = argument(event, "External id");
      if (id && id->is_number()) operators_[id->integer] = std::move(op);
    }
    for (auto& [thread, spans] : backward_) std::sort(spans.begin(), spans.end());
  }

  void add_kernels() {
    for (const JsonValue& event : events()) {
      if (text_of(event, "cat") != "kernel") continue;
      ++kernel_count_;
      const JsonValue* time = event.find("dur");
      if (!time || !time->is_number()) {
        problem(event, "a kernel has no \"dur\"");
        continue;
      }
      if (time->number < 0) {
        problem(*time, "a kernel takes a negative time");
        continue;
      }
      const JsonValue* id = argument(event, "External id");
      const auto at = id && id->is_number() ? operators_.find(id->integer) : operators_.end();
      if (at == operators_.end()) {
        ++unowned_;
        continue;
      }
      at->second.kernels_us += time->number;
      ++at->second.kernel_count;
    }
  }

  void mark_backward() {
    for (auto& [id, op] : operators_) {
      const auto spans = backward_.find(op.thread);
      if (spans == backward_.end()) continue;
      auto after = std::upper_bound(spans->second.begin(), spans->second.end(),
                                    std::pair(op.begin, op.end + 1));
      while (after != spans->second.begin() && !op.in_backward) {
        --after;
        op.in_backward = after->first <= op.begin && op.end <= after->second;
        if (after->second < op.begin) break;
      }
    }
  }

  struct Product {
    std::int64_t m = 0, n = 0, k = 0, batch = 1;
  };
  /// The shapes of a product's factors; nothing where they do not fit together.
  std::optional<Product> product_of(const TracedOperator& op, std::size_t first) {
    const Sizes a = input_sizes(*op.event, first), b = input_sizes(*op.event, first + 1);
    const std::size_t rank = op.name == "aten::bmm" ? 3 : 2;
    if (a.size() != rank || b.size() != rank) return std::nullopt;
    const Product product{
        .m = a[rank - 2], .n = b[rank - 1], .k = a[rank - 1], .batch = rank == 3 ? a[0] : 1};
    if (!all_positive(a) || !all_positive(b) || b[rank - 2] != product.k) {
      problem(*op.event, "the factors of " + op.name + " do not fit together");
      return std::nullopt;
    }
    return product;
  }

  void collect_forward_products() {
    for (const auto& [id, op] : operators_) {
      const ProductName* name = find_name(kProducts, op.name);
      if (!name || op.in_backward || op.kernel_count == 0) continue;
      if (const auto product = product_of(op, name->first))
        forward_.insert({product->m, product->n, product->k});
    }
  }

  /// Which pass a product of the backward is; nothing where no forward product matches.
  std::optional<Pass> backward_pass(const Product& product) const {
    if (forward_.count({product.m, product.k, product.n}) > 0) return Pass::InputGradient;
    const auto sums_over_tokens = [&](std::int64_t in, std::int64_t out) {
      return forward_.count({product.k, out, in}) > 0;
    };
    if (sums_over_tokens(product.m, product.n) || sums_over_tokens(product.n, product.m))
      return Pass::WeightGradient;
    return std::nullopt;
  }

  void sample(const TracedOperator& op) {
    if (const ProductName* product = find_name(kProducts, op.name))
      return sample_product(op, *product);
    if (const AttentionName* attention = find_name(kAttentions, op.name))
      return sample_attention(op, *attention);
    if (const NormName* norm = find_name(kNorms, op.name)) return sample_norm(op, *norm);
    ++others_[op.name];
  }

  void sample_product(const TracedOperator& op, const ProductName& name) {
    const auto product = product_of(op, name.first);
    const auto precision = input_precision(*op.event, name.first);
    if (!product || !precision) return leave_out(op);
    const auto pass = op.in_backward ? backward_pass(*product) : Pass::Forward;
    if (!pass) return leave_out(op);
    take(op, batched_gemm(OperatorName::Qkv, *pass, *precision, product->batch, product->m,
                          product->n, product->k));
  }

  void sample_attention(const TracedOperator& op, const AttentionName& name) {
    const Sizes query = input_sizes(*op.event, name.query);
    const Sizes key = input_sizes(*op.event, name.query + 1);
    const auto precision = input_precision(*op.event, name.query);
    if (query.size() != 4 || key.size() != 4 || !precision) return leave_out(op);
    if (!all_positive(query) || !all_positive(key))
      return problem(*op.event, "a size of " + op.name + " is not positive");
    const std::size_t heads = name.heads_first ? 1 : 2, tokens = name.heads_first ? 2 : 1;
    take(op, attention(name.pass, *precision, query[0], query[tokens], key[tokens], query[heads],
                       key[heads], query[3], is_causal(*op.event)));
  }

  /// Attention of language models is causal where the trace does not say otherwise.
  static bool is_causal(const JsonValue& event) {
    const JsonValue* values = argument(event, "Concrete Inputs");
    if (!values) return true;
    return std::none_of(values->items.begin(), values->items.end(),
                        [](const JsonValue& value) { return value.text == "False"; });
  }

  void sample_norm(const TracedOperator& op, const NormName& name) {
    const Sizes sizes = input_sizes(*op.event, 0);
    const auto precision = input_precision(*op.event, 0);
    if (sizes.empty() || !precision) return leave_out(op);
    if (!all_positive(sizes))
      return problem(*op.event, "a size of " + op.name + " is not positive");
    double bytes = bytes_of(*precision) * name.moved;
    for (const std::int64_t size : sizes) bytes *= static_cast<double>(size);
    take(op, memory_operator(OperatorName::Norm, name.pass, bytes));
  }

  void take(const TracedOperator& traced, const Operator& op) {
    OperatorSample sample;
    sample.op = op;
    sample.seconds = traced.kernels_us * kMicro;
    sample.sustained = true;  // kernels of a step run at the clocks of steps
    const std::string why = why_impossible(sample, device_);
    if (!why.empty())
      return problem(*traced.event, "the kernels of " + traced.name + ": " + why,
                     "times of a trace are microseconds");
    table_.samples.push_back(sample);
  }

  void leave_out(const TracedOperator& op) { ++others_[op.name]; }

  /// Nothing could be used: says what the profiler must record.
  void explain_nothing() {
    if (kernel_count_ == 0)
      return problem(root_, "the trace has no kernels of a GPU",
                     "profile with activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]");
    problem(root_, "no kernel of the trace belongs to an operator with known shapes",
            "profile with record_shapes=True");
  }

  void add_notes() {
    int count = 0;
    std::string names;
    for (const auto& [name, times] : others_) {
      count += times;
      if (names.size() < 120) names += (names.empty() ? "" : ", ") + name;
    }
    if (count > 0)
      table_.notes.push_back(std::to_string(count) +
                             " operators that are not priced by shape are left out: " + names);
    if (unowned_ > 0)
      table_.notes.push_back(std::to_string(unowned_) +
                             " kernels that no operator launched are left out");
  }

  const SourceText& source_;
  const JsonValue& root_;
  const DeviceFacts& device_;
  Problems& problems_;
  OperatorTable table_;
  std::map<std::int64_t, TracedOperator> operators_;                         ///< by external id
  std::map<std::int64_t, std::vector<std::pair<double, double>>> backward_;  ///< by thread
  std::set<std::tuple<std::int64_t, std::int64_t, std::int64_t>> forward_;   ///< m, n, k
  std::map<std::string, int> others_;
  int kernel_count_ = 0, unowned_ = 0;
};

}  // namespace

std::optional<OperatorTable> read_kernel_trace(const JsonDocument& document,
                                               const DeviceFacts& device, Problems& problems) {
  return TraceReader(document, device, problems).read();
}

}  // namespace rehearse
