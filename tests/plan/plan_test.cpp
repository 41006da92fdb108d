#include "plan/plan.h"

#include "tests/catch.h"

using namespace rehearse;

TEST_CASE("an even split gives earlier chunks the remainder") {
  Plan plan;
  plan.pp = 4;
  CHECK(chunk_layers(plan, 16) == std::vector<int>{4, 4, 4, 4});
  CHECK(chunk_layers(plan, 18) == std::vector<int>{5, 5, 4, 4});
  plan.virtual_stages = 2;
  CHECK(chunk_layers(plan, 9) == std::vector<int>{2, 1, 1, 1, 1, 1, 1, 1});
}

TEST_CASE("slots for embedding and loss count as layers of the first and last chunk") {
  Plan plan;
  plan.pp = 4;
  plan.embedding_slot = plan.loss_slot = true;
  CHECK(chunk_layers(plan, 126) == std::vector<int>{31, 32, 32, 31});  // Llama 3 405B, 126 layers
  plan.loss_slot = false;
  CHECK(chunk_layers(plan, 15) == std::vector<int>{3, 4, 4, 4});
}

TEST_CASE("a given layer split is taken as it is") {
  Plan plan;
  plan.pp = 2;
  plan.layer_split = {7, 3};
  CHECK(chunk_layers(plan, 10) == std::vector<int>{7, 3});
}

TEST_CASE("a replica works through its share of the global batch") {
  Plan plan;
  plan.dp = 16;
  plan.micro_batch = 2;
  CHECK(micro_batches(plan, 1536) == 48);
}

TEST_CASE("elements have the sizes of their formats") {
  CHECK(bytes_of(Precision::Fp32) == 4);
  CHECK(bytes_of(Precision::Bf16) == 2);
  CHECK(bytes_of(Precision::Fp16) == 2);
  CHECK(bytes_of(Precision::Fp8) == 1);
}
