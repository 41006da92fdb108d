// Every layout trains like one rank: train_parity.cpp compares, one process a rank under mpirun.
#include <sstream>

#include "runtime/child_process.h"
#include "tests/catch.h"
#include "tests/runtime/train/train_program.h"

using namespace rehearse;

namespace {

void check_parity(int ranks, const std::string& words) {
  std::vector<std::string> program{TRAIN_PARITY};
  std::istringstream stream(words);
  for (std::string word; stream >> word;) program.push_back(word);
  const ChildResult result = run_child(mpirun(ranks, program));
  INFO(ranks << " ranks, " << words << '\n' << result.out << result.err);
  CHECK(result.exit_code == 0);
}

/// Ranks as on GPUs, but for the GPUs.
void check_on_fake_gpus(const std::string& words) {
  std::vector<std::string> program{TRAIN_PARITY, "gpus=fake"};
  std::istringstream stream(words);
  for (std::string word; stream >> word;) program.push_back(word);
  const ChildResult result = run_child(program);
  INFO(words << '\n' << result.out << result.err);
  CHECK(result.exit_code == 0);
}

}  // namespace

TEST_CASE("ranks that talk as on GPUs train like one: data and tensor ranks") {
  check_on_fake_gpus("dp=2");
  check_on_fake_gpus("dp=2 zero=1 model=llama bucket_bytes=1000");
  check_on_fake_gpus("tp=2 sp=1 model=llama recompute=1");
}

TEST_CASE("ranks that talk as on GPUs train like one: stages") {
  check_on_fake_gpus("pp=2 model=llama tied=1");
  check_on_fake_gpus("pp=2 schedule=layer-wise");
  check_on_fake_gpus("pp=2 schedule=zb-v chunks=2");
  check_on_fake_gpus("pp=2 chunks=2 overlap=0 model=llama");
  check_on_fake_gpus("pp=4 schedule=dualpipe zero=1");
}

TEST_CASE("ranks that talk as on GPUs train like one: context ranks") {
  check_on_fake_gpus("cp=4 micro_batch=2 layers=2 model=llama");
  check_on_fake_gpus("cp=2 layers=2 context=all-to-all micro_batch=2 model=llama");
}

TEST_CASE("ranks that talk as on GPUs train like one: all axes, and bf16") {
  check_on_fake_gpus("dp=2 tp=2 pp=2 zero=1 model=llama");
  check_on_fake_gpus("cp=2 pp=2 precision=bf16 layers=2");
}

TEST_CASE("a checkpoint of any layout goes on in any other as if nothing had happened") {
  struct Layout {
    int ranks;
    std::string name, words;
  };
  const std::vector<Layout> layouts{{1, "one", ""},
                                    {2, "dp2", "dp=2"},
                                    {2, "dp2-zero", "dp=2 zero=1 bucket_bytes=5000"},
                                    {2, "dp2-uneven", "dp=2 shares=6:2 zero=1"},
                                    {2, "tp2", "tp=2 sp=1"},
                                    {2, "cp2", "cp=2"},
                                    {2, "pp2-interleaved", "pp=2 chunks=2"},
                                    {2, "pp2-both-ways", "pp=2 schedule=dualpipe"},
                                    {4, "dp2-tp2", "dp=2 tp=2"},
                                    {4, "dp2-pp2-zero", "dp=2 pp=2 zero=1"}};
  const RunFolder folder;
  std::string all;
  for (const Layout& layout : layouts) {
    const std::string root = folder.file(layout.name);
    check_parity(layout.ranks, "write=" + root + " " + layout.words);
    all += (all.empty() ? "" : ":") + root;
  }
  for (const Layout& layout : layouts)
    check_parity(layout.ranks, "read=" + all + " name=" + layout.name + " " + layout.words);
}

TEST_CASE("ranks wait for a disk that is slower than the deadline of transfers") {
  check_parity(2, "dp=2 deadline=10 slow=14");
}

TEST_CASE("stages whose messages are too long to leave before they are received train like one") {
  // 128 KiB a message; Open MPI sends up to 4 KiB (64 over a network) before anyone receives them.
  const std::string model = " hidden=128 seq=128 micro_batch=2 steps=4";
  check_parity(2, "pp=2 layers=2 schedule=gpipe" + model);
  check_parity(2, "pp=2 layers=2 schedule=1f1b overlap=0" + model);
  check_parity(2, "pp=2 chunks=2" + model);
  check_parity(2, "pp=2 chunks=2 overlap=0" + model);
}

TEST_CASE("stages that wait for every message to leave come to an end in any order of work") {
  check_parity(2, "pp=2 chunks=2 overlap=0 breadth=1 hidden=128 seq=128 micro_batch=2 steps=2");
}

TEST_CASE("a ring with long messages trains like one rank") {
  check_parity(2, "cp=2 layers=2 hidden=128 seq=128 micro_batch=2 steps=4");
  check_parity(2, "cp=2 layers=2 hidden=128 seq=128 micro_batch=2 steps=4 overlap=0");
}

TEST_CASE("two data ranks train like one") {
  check_parity(2, "dp=2");
  check_parity(2, "dp=2 zero=1 overlap=0");
}

TEST_CASE("two data ranks that share the optimizer's state train like one") {
  check_parity(2, "dp=2 zero=1");
  check_parity(2, "dp=2 zero=1 model=llama bucket_bytes=1000");
}

TEST_CASE("data ranks with unequal shares of the batch train like one") {
  check_parity(2, "dp=2 layers=2 shares=3:1 micro_batch=2");
  check_parity(4, "dp=2 pp=2 chunks=2 shares=6:2 zero=1 model=llama");
}

TEST_CASE("two tensor ranks train like one") {
  check_parity(2, "tp=2");
  check_parity(2, "tp=2 model=llama recompute=1");
}

TEST_CASE("two sequence-parallel ranks train like one") {
  check_parity(2, "tp=2 sp=1");
  check_parity(2, "tp=2 sp=1 model=llama recompute=1");
}

TEST_CASE("tensor ranks with the whole vocabulary train like one") {
  check_parity(2, "tp=2 vp=0");
  check_parity(2, "tp=2 vp=0 sp=1");
}

TEST_CASE("a ring of context ranks trains like one") {
  check_parity(2, "cp=2 layers=2 overlap=0");
  check_parity(4, "cp=4 micro_batch=2 layers=2 model=llama");
}

TEST_CASE("a ring whose ranks hold consecutive tokens trains like one") {
  check_parity(4, "cp=4 balanced=0 micro_batch=2 layers=2 model=llama");
}

TEST_CASE("context ranks that exchange heads train like one") {
  check_parity(2, "cp=2 layers=2 context=all-to-all micro_batch=2 model=llama");
  check_parity(4, "cp=2 tp=2 context=all-to-all layers=2");
}

TEST_CASE("a pipeline under GPipe and 1F1B trains like one rank") {
  check_parity(2, "pp=2 schedule=gpipe");
  check_parity(2, "pp=2 schedule=1f1b model=llama tied=1");
}

TEST_CASE("an interleaved pipeline trains like one rank") {
  check_parity(2, "pp=2 chunks=2");
  check_parity(2, "pp=2 chunks=2 recompute=1 overlap=0 model=llama");
}

TEST_CASE("one stage at a time trains like one rank") {
  check_parity(2, "pp=2 schedule=layer-wise");
}

TEST_CASE("pipelines that split the backward train like one rank") {
  check_parity(2, "pp=2 schedule=zb-h1");
  check_parity(2, "pp=2 schedule=zb-h2 model=llama");
}

TEST_CASE("a pipeline that turns at its end trains like one rank") {
  check_parity(2, "pp=2 schedule=zb-v chunks=2");
  check_parity(4, "pp=2 tp=2 sp=1 schedule=zb-v chunks=2 model=llama");
}

TEST_CASE("a pipeline filled from both ends trains like one rank") {
  check_parity(2, "pp=2 schedule=dualpipe");
}

TEST_CASE("data and pipeline ranks together train like one") {
  check_parity(4, "dp=2 pp=2");
  check_parity(4, "dp=2 pp=2 zero=1");
}

TEST_CASE("tensor and pipeline ranks together train like one") { check_parity(4, "tp=2 pp=2"); }

TEST_CASE("data, tensor and pipeline ranks together train like one") {
  check_parity(8, "dp=2 tp=2 pp=2");
}

TEST_CASE("context ranks with tensor and data ranks train like one") {
  check_parity(4, "cp=2 tp=2 sp=1 model=llama");
  check_parity(4, "cp=2 dp=2 zero=1");
  check_parity(4, "cp=2 pp=2 layers=2 recompute=1 schedule=zb-h1");
}

TEST_CASE("bf16 replicas and stages have one rank's gradients but for the order of fp32 sums") {
  check_parity(2, "dp=2 precision=bf16");
  check_parity(2, "pp=2 schedule=zb-h1 precision=bf16");
  check_parity(4, "dp=2 pp=2 zero=1 model=llama precision=bf16");
}

TEST_CASE("bf16 tensor and context ranks have one rank's gradients but for rounded shares") {
  check_parity(2, "tp=2 precision=bf16");
  check_parity(2, "cp=2 precision=bf16");
  check_parity(4, "tp=2 pp=2 zero=1 sp=1 model=llama precision=bf16");
  check_parity(4, "cp=4 layers=2 model=llama precision=bf16");
}
