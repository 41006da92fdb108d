#include "strategies/check_plan.h"

#include "plan/model_catalogue.h"
#include "tests/catch.h"

using namespace rehearse;

namespace {

/// Llama 3 70B on 64 GPUs: a plan that can be.
struct Question {
  Model model = *find_model("llama3-70b");
  Plan plan;
  Workload workload{.global_batch = 1024, .seq_len = 8192, .tokens = 0};
  int gpus = 64;

  Question() {
    plan.tp = 8;
    plan.pp = 4;
    plan.sequence_parallel = true;
  }
  std::vector<PlanFault> faults() const {
    return plan_faults(resolve(plan, gpus), model, workload, gpus);
  }
  /// The one fault there is, as "pointer: sentence (hint)".
  std::string fault() const {
    const auto all = faults();
    if (all.empty()) return "no fault";
    std::string text;
    for (const PlanFault& one : all)
      text += (text.empty() ? "" : " | ") + one.pointer + ": " + one.message +
              (one.hint.empty() ? "" : " (" + one.hint + ")");
    return text;
  }
};

}  // namespace

TEST_CASE("resolving a plan fills the replicas and says what follows from other choices") {
  Question q;
  q.plan.overlap.parameters = true;
  Plan plan = resolve(q.plan, 64);
  CHECK(plan.dp == 2);
  CHECK(plan.bucket_bytes == 4 * 40e6);
  CHECK_FALSE(plan.overlap.parameters);  // nothing is sharded
  CHECK(plan.sequence_parallel);
  q.plan.tp = 1;
  q.plan.pp = 1;
  q.plan.zero = 1;
  q.plan.gradient_precision = Precision::Bf16;
  plan = resolve(q.plan, 64);
  CHECK(plan.dp == 64);
  CHECK(plan.bucket_bytes == 2 * 64e6);
  CHECK(plan.overlap.parameters);
  CHECK_FALSE(plan.sequence_parallel);
  q.plan.dp = 16;
  CHECK(resolve(q.plan, 64).dp == 16);
}

TEST_CASE("a plan that can be has no faults") {
  Question q;
  CHECK(q.fault() == "no fault");
  q.plan.virtual_stages = 4;
  q.plan.zero = 1;
  CHECK(q.fault() == "no fault");
  q.plan = Plan{};
  CHECK(q.fault() == "no fault");
}

TEST_CASE("tensor groups beyond an NVLink domain are allowed") {
  Question q;
  q.model = *find_model("megatron-1t");
  q.workload.seq_len = 2048;
  q.plan.tp = 32;
  q.plan.pp = 2;
  CHECK(q.fault() == "no fault");
}

TEST_CASE("sizes that tensor ranks cannot share are named") {
  Question q;
  q.plan.tp = 16;
  CHECK(q.fault() ==
        "/tp: 16 tensor ranks cannot share the 8 key/value heads of llama3-70b evenly "
        "(tp must divide 8)");
  q.plan.tp = 3;
  q.plan.pp = 1;
  q.plan.sequence_parallel = false;
  q.gpus = 3;
  q.workload.global_batch = 1;
  CHECK(q.fault() ==
        "/tp: 3 tensor ranks cannot share the 64 attention heads of llama3-70b evenly "
        "(tp must divide 64) | /tp: 3 tensor ranks cannot share the 8 key/value heads of "
        "llama3-70b evenly (tp must divide 8) | /tp: 3 tensor ranks cannot share the 28672 "
        "feed-forward columns of llama3-70b evenly (tp must divide 28672)");
}

TEST_CASE("ranks and GPUs must agree") {
  Question q;
  q.plan.dp = 4;
  CHECK(q.fault() ==
        "/dp: dp·tp·cp·pp = 4·8·1·4 = 128 ranks do not fit on 64 GPUs "
        "(\"dp\": 2 at most)");
  q.plan.dp = 1;
  CHECK(q.fault() ==
        "/dp: dp·tp·cp·pp = 1·8·1·4 = 32 ranks leave 32 of the 64 GPUs idle "
        "(\"dp\": 2, or leave it out)");
  q.plan.dp = 0;
  q.plan.pp = 5;
  CHECK(q.fault() ==
        "/tp: tp·cp·pp = 40 does not divide the 64 GPUs of the cluster "
        "(choose tp and pp whose product divides the number of GPUs)");
  q.plan.pp = 10;
  CHECK(q.fault() ==
        "/dp: dp·tp·cp·pp = 1·8·1·10 = 80 ranks do not fit on 64 GPUs "
        "(tp·cp·pp alone is 80)");
}

TEST_CASE("groups larger than the cluster are named") {
  Question q;
  q.gpus = 4;
  CHECK(q.fault() == "/tp: a tensor group of 8 ranks is larger than the cluster of 4 GPUs");
  q.plan.tp = 1;
  q.plan.pp = 8;
  CHECK(q.fault() == "/pp: a pipeline of 8 ranks is larger than the cluster of 4 GPUs");
  q.plan.pp = 1;
  q.plan.dp = 8;
  CHECK(q.fault() == "/dp: a data group of 8 ranks is larger than the cluster of 4 GPUs");
}

TEST_CASE("more stages than layers are refused, with slots counted as layers") {
  Question q;
  q.model.layers = 3;
  CHECK(q.fault() ==
        "/pp: 4 pipeline stages are more than the 3 layers of llama3-70b "
        "(pp · virtual_stages of at most 3)");
  q.plan.loss_slot = true;
  CHECK(q.fault() == "no fault");
  q.plan.loss_slot = false;
  q.model.layers = 7;
  q.plan.virtual_stages = 2;
  CHECK(q.fault() ==
        "/virtual_stages: 4 stages of 2 model chunks are more than the 7 layers of "
        "llama3-70b (pp · virtual_stages of at most 7)");
}

TEST_CASE("a layer split has one entry a chunk and all layers") {
  Question q;
  q.plan.layer_split = {40, 40};
  CHECK(q.fault() ==
        "/layer_split: the layer split has 2 entries for 4 model chunks "
        "(one entry for each of pp · virtual_stages chunks, in model order)");
  q.plan.layer_split = {20, 20, 20, 21};
  CHECK(q.fault() == "/layer_split: the layer split adds up to 81 layers, and llama3-70b has 80");
  q.plan.layer_split = {30, 0, 30, 20};
  CHECK(q.fault() == "/layer_split: chunk 1 of the layer split cannot have 0 layers");
  q.plan.layer_split = {0, 40, 40, 0};
  CHECK(q.fault() == "no fault");
  q.plan.embedding_slot = true;
  CHECK(q.faults().size() == 1);
}

TEST_CASE("the global batch must divide into micro-batches") {
  Question q;
  q.workload.global_batch = 1023;
  CHECK(q.fault() ==
        "/micro_batch: a global batch of 1023 sequences does not divide into "
        "micro-batches of 1 on 2 replicas (a global batch that is a multiple of 2)");
  q.workload.global_batch = 4;
  q.plan.micro_batch = 4;
  CHECK(q.faults().size() == 1);
}

TEST_CASE("schedules that do not exist are explained") {
  Question q;
  q.plan.virtual_stages = 2;
  q.workload.global_batch = 2 * 6;  // 6 micro-batches do not divide among 4 stages
  REQUIRE(q.faults().size() == 1);
  CHECK(q.faults()[0].pointer == "/virtual_stages");
  CHECK(q.faults()[0].message == why_not_schedulable(ScheduleKind::OneFOneB, 4, 2, 6));
  q.workload.global_batch = 1024;
  q.plan.schedule = ScheduleKind::Gpipe;
  REQUIRE(q.faults().size() == 1);
  CHECK(q.faults()[0].message == why_not_schedulable(ScheduleKind::Gpipe, 4, 2, 512));
}

TEST_CASE("sequences must suit the plan and the model") {
  Question q;
  q.workload.seq_len = 8190;
  CHECK(q.fault() ==
        "/sequence_parallel: sequences of 8190 tokens do not divide among 8 tensor "
        "ranks (a sequence length that is a multiple of 8)");
  q = Question();
  q.model = *find_model("gpt3-175b");
  q.workload.seq_len = 4096;
  CHECK(q.fault() ==
        ": gpt3-175b has learned positions for 2048 tokens, and the workload's "
        "sequences have 4096");
}

TEST_CASE("what is not supported yet is refused in a sentence") {
  Question q;
  q.plan.zero = 4;
  CHECK(q.fault() == "/zero: there is no ZeRO stage 4 (0, 1, 2 or 3)");
  q.plan.zero = 1;
  q.plan.shard = 2;
  CHECK(q.fault() ==
        "/shard: shards of 2 data ranks need gradients or weights to be sharded "
        "(\"zero\": 2 or 3)");
  q = Question();
  q.plan.ep = 2;
  CHECK(q.fault().find("is a dense model and has no experts (\"ep\": 1)") != std::string::npos);
  q = Question();
  q.plan.gradient_precision = Precision::Fp8;
  CHECK(q.fault() == "/gradient_precision: gradients cannot be summed in fp8 (fp32 or bf16)");
}

TEST_CASE("what context ranks cannot share is named") {
  Question q;
  q.plan.cp = 2;
  q.plan.pp = 2;
  CHECK(q.faults().empty());
  q.plan.attention = AttentionKernel::Plain;
  CHECK(q.fault() ==
        "/attention: context ranks join partial results by what flash attention keeps "
        "(\"attention\": \"flash\")");
  q.plan.attention = AttentionKernel::Flash;
  q.plan.sequence_parallel = false;
  q.workload.seq_len = 1026;
  CHECK(q.fault() ==
        "/cp: sequences of 1026 tokens do not divide into the 4 pieces of 2 context ranks "
        "(a sequence length that is a multiple of 4)");
  q.plan.context = ContextKind::AllToAll;
  q.model.heads = q.model.kv_heads = 24;
  CHECK(q.fault() ==
        "/cp: all-to-all attention gives each of 16 tensor and context ranks a share of the "
        "heads, and llama3-70b has 24 (\"context\": \"ring\" shares out tokens instead)");
}

TEST_CASE("numbers out of range are refused before anything is divided by them") {
  Question q;
  q.plan.tp = 0;
  CHECK(q.faults()[0].message == "the number of data-parallel replicas must be at least 1, not 0");
  CHECK(q.faults()[1].message == "the number of tensor-parallel ranks must be at least 1, not 0");
  q = Question();
  q.plan.micro_batch = 0;
  CHECK(q.fault() ==
        "/micro_batch: the number of sequences of a micro-batch must be at least 1, not 0");
  q = Question();
  q.plan.dropout = 1;
  CHECK(q.faults().size() == 1);
  q = Question();
  q.plan.bucket_bytes = -1;
  CHECK(q.faults().size() == 1);
  q = Question();
  q.plan.zero = -1;
  CHECK(q.fault() == "/zero: there is no ZeRO stage -1");
}

TEST_CASE("a rank order names each axis once") {
  Question q;
  q.plan.rank_order = {Axis::Pipeline, Axis::Tensor, Axis::Data, Axis::Context};
  CHECK(q.fault() == "no fault");
  q.plan.rank_order = {Axis::Pipeline, Axis::Tensor, Axis::Data, Axis::Data};
  CHECK(q.faults().size() == 1);
  CHECK(q.faults()[0].pointer == "/rank_order");
}

TEST_CASE("all faults of a plan are told at once") {
  Question q;
  q.plan.zero = 4;
  q.plan.tp = 16;
  q.plan.micro_batch = 3;
  q.plan.layer_split = {1};
  CHECK(q.faults().size() == 4);
}
