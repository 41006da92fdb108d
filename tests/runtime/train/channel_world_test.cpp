// Ranks on GPUs made of threads (fake_gpus.h): that they end, well or not, and strand nobody. That
// they train like one rank is checked by train_parity.cpp.
#include "runtime/channel_world.h"

#include <unistd.h>

#include <thread>

#include "runtime/train/warm_up.h"
#include "tests/catch.h"
#include "tests/runtime/train/fake_gpus.h"

using namespace rehearse;

namespace {

PlanFile file_of(const std::function<void(Plan&)>& layout, int layers = 2) {
  PlanFile file;
  Model& model = file.model;
  model.layers = layers;
  model.hidden = 16;
  model.heads = model.kv_heads = 2;
  model.head_dim = 8;
  model.ffn = 32;
  model.vocab = 50;
  model.max_seq_len = 8;
  file.workload = {.global_batch = 8, .seq_len = 8};
  file.plan.dp = 1;
  file.plan.precision = Precision::Fp32;
  layout(file.plan);
  file.gpus = world_size(file.plan);
  for (int rank = 0; rank < file.gpus; ++rank) file.rank_to_device.push_back(rank);
  const int pieces = file.plan.pp * file.plan.virtual_stages;
  for (int piece = 0; piece < pieces; ++piece) file.layer_split.push_back(layers / pieces);
  return file;
}

struct RankEnd {
  std::string fault;    ///< empty: it ended well
  int allocations = 0;  ///< in steps
};

constexpr std::int64_t kTokens = 1000;

/// Three steps of each rank on a thread of its own.
std::vector<RankEnd> ends_of(const PlanFile& file, FakeFabric& fabric, const SampleReader& reader,
                             double deadline_s = 60) {
  const int ranks = world_size(file.plan);
  const HeldPort held;
  std::vector<RankEnd> ends(static_cast<std::size_t>(ranks));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] {
      RankEnd& end = ends[static_cast<std::size_t>(rank)];
      FakeGpu gpu(fabric, rank);
      std::unique_ptr<World> world;
      try {
        world = channel_world(
            std::make_unique<Rendezvous>(
                rank, ranks,
                Rendezvous::Place{"127.0.0.1", held.port(), rank == 0 ? dup(held.socket()) : -1},
                deadline_s),
            deadline_s, gpu);
        Trainer trainer(file, {}, *world, gpu, kTokens, reader, warmed_pool(file, {}, *world, gpu));
        const int before = gpu.allocations();
        for (int step = 0; step < 3; ++step) trainer.step();
        end.allocations = gpu.allocations() - before;
        world->end();
      } catch (const std::runtime_error& error) {
        end.fault = error.what();
        if (world != nullptr) world->abort(1);
      }
    });
  for (std::thread& thread : threads) thread.join();
  return ends;
}

void check_ends_well(const PlanFile& file) {
  FakeFabric fabric;
  for (const RankEnd& end : ends_of(file, fabric, made_up_text(file.model.vocab))) {
    CHECK(end.fault.empty());
    CHECK(end.allocations == 0);
  }
  CHECK(fabric.made > 0);
  CHECK(fabric.ended_well == fabric.made);
  CHECK(fabric.aborted == 0);
  CHECK(fabric.misuses == 0);
  CHECK(fabric.hangs == 0);
}

}  // namespace

TEST_CASE("ranks on GPUs end their communicators together, and allocate nothing in a step") {
  check_ends_well(file_of([](Plan& plan) { plan.dp = 2; }));
  check_ends_well(file_of([](Plan& plan) {
    plan.dp = 2;
    plan.zero = 1;
    plan.bucket_bytes = 1000;
  }));
  check_ends_well(file_of([](Plan& plan) {
    plan.tp = 2;
    plan.sequence_parallel = true;
  }));
  check_ends_well(file_of([](Plan& plan) { plan.cp = 4; }));
}

TEST_CASE("stages on GPUs never wait in a circle, whatever the schedule") {
  const std::pair<ScheduleKind, int> schedules[] = {
      {ScheduleKind::LayerWise, 1}, {ScheduleKind::Gpipe, 1}, {ScheduleKind::OneFOneB, 2},
      {ScheduleKind::ZbH1, 1},      {ScheduleKind::ZbH2, 1},  {ScheduleKind::ZbV, 2}};
  for (const auto& [schedule, chunks] : schedules) {
    CAPTURE(static_cast<int>(schedule));
    check_ends_well(file_of(
        [&](Plan& plan) {
          plan.pp = 4;
          plan.schedule = schedule;
          plan.virtual_stages = chunks;
        },
        8));
  }
  check_ends_well(file_of([](Plan& plan) {
    plan.dp = plan.tp = plan.pp = 2;
    plan.overlap.pipeline = false;
  }));
}

TEST_CASE("a rank on a GPU that fails in a step ends all others, and no device hangs") {
  for (const auto& layout : {+[](Plan& plan) { plan.pp = 4; }, +[](Plan& plan) { plan.dp = 4; },
                             +[](Plan& plan) { plan.dp = plan.pp = 2; }}) {
    const PlanFile file = file_of(layout, 4);
    FakeFabric fabric;
    std::atomic<int> read{0};
    const SampleReader good = made_up_text(file.model.vocab);
    // Some way into a step one rank meets a token that its model does not know.
    const auto ends = ends_of(file, fabric, [&](auto sample, auto range, auto tokens, auto labels) {
      good(sample, range, tokens, labels);
      if (++read == 11) tokens[0] = 1000;
    });
    int own_faults = 0;
    for (const RankEnd& end : ends) {
      INFO(end.fault);
      const bool is_own = end.fault.find("token 1000") != std::string::npos;
      own_faults += is_own ? 1 : 0;
      CHECK((is_own || end.fault.find("could not go on") != std::string::npos ||
             end.fault.find("is gone") != std::string::npos));
    }
    CHECK(own_faults == 1);
    CHECK(fabric.aborted == fabric.made);
    CHECK(fabric.misuses == 0);
    CHECK(fabric.hangs == 0);
  }
}

TEST_CASE("a rank on a GPU that stops answering is given up after the deadline") {
  const PlanFile file = file_of([](Plan& plan) { plan.dp = 2; });
  FakeFabric fabric;
  std::atomic<int> read{0};
  const SampleReader good = made_up_text(file.model.vocab);
  const auto ends = ends_of(
      file, fabric,
      [&](auto sample, auto range, auto tokens, auto labels) {
        good(sample, range, tokens, labels);
        if (++read == 6) std::this_thread::sleep_for(std::chrono::seconds(4));
      },
      2);
  int waited = 0;
  for (const RankEnd& end : ends) {
    INFO(end.fault);
    CHECK_FALSE(end.fault.empty());
    waited += end.fault.find("an all-reduce was not done in 2 s") != std::string::npos ? 1 : 0;
  }
  CHECK(waited == 1);
  CHECK(fabric.aborted == fabric.made);
  CHECK(fabric.hangs == 0);
}
