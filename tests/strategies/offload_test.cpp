#include "strategies/host_rates.h"
#include "strategies/memory.h"
#include "tests/strategies/lowering_support.h"

using namespace rehearse;

namespace {

/// One GPU with 10 GB/s to its host, whose memory moves 20 GB/s.
ClusterSpec one_gpu() {
  ClusterSpec spec = dgx_spec(1);
  NodeSpec& node = spec.groups[0].node;
  node.gpus = node.nics = 1;
  node.gpu.pcie_bandwidth_bytes_per_s = 10e9 / 0.85;
  node.host_memory_bandwidth_bytes_per_s = 25e9;
  return spec;
}

Question question_of(int layers) {
  Question question;
  question.model = small_model(layers);
  question.workload.global_batch = 1;
  question.workload.seq_len = 1024;
  question.plan.dp = 1;
  question.plan.bucket_bytes = 1e12;  // all in one
  return question;
}

double host_s(const Simulated& run) {
  return run.of(Rank{0}).exposed_s[static_cast<std::size_t>(CommKind::Host)];
}
double host_bytes(const Simulated& run) {
  return run.of(Rank{0}).bytes[static_cast<std::size_t>(CommKind::Host)];
}

double parameters_of(const Question& question) {
  return static_cast<double>(
      count_parameters(question.model, padded_vocab(question.model, 1)).total());
}

double saved_per_layer(const Question& question) {
  double bytes = 0;
  for (const SavedTensor& tensor :
       layer_saved_tensors(layer_shape(question.model, question.plan, question.workload.seq_len)))
    bytes += tensor.bytes;
  return bytes;
}

double part(const StageMemory& memory, const std::string& name) {
  for (const MemoryPart& p : memory.parts)
    if (p.name == name) return p.bytes;
  return 0;
}

StageMemory memory_of(const Question& question, int micro_batches = 1) {
  return stage_memory(question.model, question.plan, question.workload,
                      make_schedule(question.plan.schedule, 1, 1, micro_batches))[0];
}

}  // namespace

TEST_CASE("a copy to the host goes at the slower of PCIe and the GPU's share of host memory") {
  NodeSpec node = *find_node("dgx-h100");
  CHECK(host_rates(node).memory_bytes_per_s == Approx(0.8 * 614.4e9 / 8));
  CHECK(host_rates(node).copy_bytes_per_s ==
        Approx(std::min(0.85 * node.gpu.pcie_bandwidth_bytes_per_s, 0.8 * 614.4e9 / 8)));
}

TEST_CASE("an offloaded optimizer in one bucket costs copy, update and copy, one after the other") {
  Question question = question_of(4);
  const Cluster cluster = build(one_gpu());
  const FlatCosts costs;
  const double parameters = parameters_of(question);
  const double before_s = simulate_plan(question, cluster, costs).metrics.step_time_s;
  question.plan.offload.optimizer = true;
  const Simulated run = simulate_plan(question, cluster, costs);
  // fp32 gradients out, Adam's 4 + 24 + 2 bytes, 16-bit weights back.
  const double expected_s = parameters * 4 / 10e9 + parameters * 30 / 20e9 + parameters * 2 / 10e9;
  CHECK(host_s(run) == Approx(expected_s).epsilon(1e-9));
  CHECK(host_bytes(run) == Approx(6 * parameters).epsilon(1e-9));
  const double adam_s = 30 * parameters / 1.5e12 + 11 * parameters / 300e12;
  CHECK(run.metrics.step_time_s == Approx(before_s - adam_s + expected_s).epsilon(1e-9));
}

TEST_CASE("buckets let copies and updates of an offloaded optimizer run beside each other") {
  Question question = question_of(8);
  question.plan.offload.optimizer = true;
  const Cluster cluster = build(one_gpu());
  const double whole_s = host_s(simulate_plan(question, cluster, FlatCosts()));
  question.plan.bucket_bytes = 4 * 12e6;  // some layer each
  const double parts_s = host_s(simulate_plan(question, cluster, FlatCosts()));
  const double adam_s = parameters_of(question) * 30 / 20e9;
  CHECK(parts_s < whole_s);
  CHECK(parts_s > adam_s);  // the host's memory is the bottleneck, and stays busy
}

TEST_CASE("offloaded gradients leave during the backward and need no copy at the end") {
  Question question = question_of(8);
  question.plan.bucket_bytes = 4 * 12e6;
  question.plan.offload.optimizer = true;
  const Cluster cluster = build(one_gpu());
  const Simulated kept = simulate_plan(question, cluster, FlatCosts());
  question.plan.offload.gradients = true;
  const Simulated sent = simulate_plan(question, cluster, FlatCosts());
  CHECK(host_bytes(sent) == Approx(host_bytes(kept)).epsilon(1e-9));
  // With two micro-batches each sends its own.
  question.workload.global_batch = 2;
  const Simulated twice = simulate_plan(question, cluster, FlatCosts());
  CHECK(host_bytes(twice) - host_bytes(sent) == Approx(4 * parameters_of(question)).epsilon(1e-9));
}

TEST_CASE("activations of all layers but the last go to the host and come back") {
  Question question = question_of(6);
  const Cluster cluster = build(one_gpu());
  for (const double share : {0.25, 1.0}) {
    question.plan.offload.activations = share;
    const double layer = share * saved_per_layer(question);
    const Simulated run = simulate_plan(question, cluster, FlatCosts());
    CHECK(host_bytes(run) == Approx(2 * 5 * layer).epsilon(1e-9));
    // No copy can be faster than the way: five layers there, five back.
    CHECK(run.metrics.step_time_s >= 10 * layer / 10e9);
  }
}

TEST_CASE("a fast way to the host hides activations behind the layers at work") {
  Question question = question_of(6);
  ClusterSpec spec = one_gpu();
  spec.groups[0].node.gpu.pcie_bandwidth_bytes_per_s = 64e9;
  spec.groups[0].node.host_memory_bandwidth_bytes_per_s = 1e12;
  const Cluster cluster = build(spec);
  question.plan.recompute = Recompute::Full;  // one boundary a layer
  const double before_s = simulate_plan(question, cluster, FlatCosts()).metrics.step_time_s;
  question.plan.offload.activations = 1;
  const Simulated run = simulate_plan(question, cluster, FlatCosts());
  CHECK(run.metrics.step_time_s == Approx(before_s).epsilon(1e-6));
  CHECK(host_bytes(run) > 0);
}

TEST_CASE("what is offloaded is on the host and not on the device") {
  Question question = question_of(8);
  const StageMemory all = memory_of(question, 3);
  const double parameters = parameters_of(question);
  question.plan.offload.optimizer = true;
  CHECK(part(memory_of(question), "optimizer") == 0);
  CHECK(memory_of(question).host_bytes == Approx(12 * parameters).epsilon(1e-12));
  question.plan.dp = 4;
  question.plan.zero = 2;
  question.plan.offload.gradients = true;
  CHECK(memory_of(question).host_bytes == Approx((12 + 4) * parameters / 4).epsilon(1e-12));
  question.plan.dp = 1;
  question.plan.zero = 0;
  question.plan.offload = {};
  question.plan.offload.activations = 0.5;
  question.plan.schedule = ScheduleKind::Gpipe;
  const StageMemory half = memory_of(question, 3);
  question.plan.offload = {};
  const StageMemory whole = memory_of(question, 3);
  const double ids = 3 * 8.0 * 1024;
  CHECK(part(half, "activations") - ids ==
        Approx((part(whole, "activations") - ids) / 2).epsilon(1e-12));
  CHECK(half.host_bytes == Approx((part(whole, "activations") - ids) / 2).epsilon(1e-12));
  CHECK(part(half, "offload buffers") == Approx(saved_per_layer(question)).epsilon(1e-12));
  CHECK(all.host_bytes == 0);
}
