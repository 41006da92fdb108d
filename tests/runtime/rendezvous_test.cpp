#include "runtime/rendezvous.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <stdexcept>
#include <thread>

#include "runtime/train/rank_place.h"
#include "tests/catch.h"

using namespace rehearse;

namespace {

/// A port that the kernel has just found free, held or let go.
class FreePort {
 public:
  FreePort() : socket_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in here{};
    here.sin_family = AF_INET;
    here.sin_addr.s_addr = htonl(INADDR_ANY);
    socklen_t length = sizeof here;
    bind(socket_, reinterpret_cast<sockaddr*>(&here), sizeof here);
    listen(socket_, 1);
    getsockname(socket_, reinterpret_cast<sockaddr*>(&here), &length);
    port_ = ntohs(here.sin_port);
  }
  ~FreePort() { let_go(); }
  FreePort(const FreePort&) = delete;
  FreePort& operator=(const FreePort&) = delete;
  int port() const { return port_; }
  void let_go() {
    if (socket_ >= 0) close(socket_);
    socket_ = -1;
  }

 private:
  int socket_;
  int port_ = 0;
};

/// Runs `body` as each rank on a thread of its own; returns what went wrong, by rank.
template <class Body>
std::vector<std::string> faults_of(int size, const Body& body) {
  std::vector<std::string> faults(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      try {
        body(rank);
      } catch (const std::runtime_error& error) {
        faults[static_cast<std::size_t>(rank)] = error.what();
      }
    });
  for (std::thread& thread : threads) thread.join();
  return faults;
}

}  // namespace

TEST_CASE("ranks that meet gather what each gave, again and again") {
  FreePort free;
  free.let_go();
  std::vector<std::vector<std::string>> found(3);
  const auto faults = faults_of(3, [&](int rank) {
    Rendezvous meeting(rank, 3, {"127.0.0.1", free.port()}, 30);
    for (int round = 0; round < 3; ++round) {
      meeting.check_alive();
      found[static_cast<std::size_t>(rank)] = meeting.all_gather(
          std::string(static_cast<std::size_t>(100'000 * rank), static_cast<char>('a' + round)) +
          std::to_string(rank));
    }
    meeting.all_gather("");  // nobody leaves before the others have all
  });
  CHECK(faults == std::vector<std::string>(3));
  for (const auto& all : found) {
    REQUIRE(all.size() == 3);
    CHECK(all[0] == "0");
    CHECK(all[2].size() == 200'001);
    CHECK(all[2].ends_with("c2"));
    CHECK(all == found[0]);
  }
}

TEST_CASE("a port that a launcher holds goes over to its first rank, and to nobody else") {
  const HeldPort held;
  CHECK_THROWS_WITH(Rendezvous(0, 2, {"127.0.0.1", held.port()}, 5), Catch::Contains("is in use"));
  const auto faults = faults_of(2, [&](int rank) {
    const int listener = rank == 0 ? dup(held.socket()) : -1;
    Rendezvous meeting(rank, 2, {"127.0.0.1", held.port(), listener}, 30);
    CHECK(meeting.all_gather(std::to_string(rank))[1] == "1");
    meeting.all_gather("");
  });
  CHECK(faults == std::vector<std::string>(2));
}

TEST_CASE("a port in use is told with how to choose another") {
  const FreePort taken;
  CHECK_THROWS_WITH(Rendezvous(0, 2, {"127.0.0.1", taken.port()}, 5),
                    Catch::Contains("port " + std::to_string(taken.port()) + " is in use") &&
                        Catch::Contains("MASTER_PORT"));
}

TEST_CASE("ranks that do not come are named, and so is a first rank that is not there") {
  FreePort free;
  free.let_go();
  const auto faults = faults_of(2, [&](int rank) {
    Rendezvous meeting(rank, 4, {"127.0.0.1", free.port()}, 2);
    meeting.all_gather("");
  });
  CHECK(faults[0].find("ranks 2 and 3 did not come to 127.0.0.1") == 0);
  CHECK(faults[1].find("rank 0") != std::string::npos);
  CHECK_THROWS_WITH(Rendezvous(1, 2, {"127.0.0.1", free.port()}, 1),
                    Catch::Contains("rank 1 did not reach rank 0"));
}

TEST_CASE("when a rank leaves or gives up, all others learn which and why") {
  FreePort free;
  free.let_go();
  const auto left = faults_of(3, [&](int rank) {
    Rendezvous meeting(rank, 3, {"127.0.0.1", free.port()}, 30);
    meeting.all_gather("");
    if (rank == 2) return;
    meeting.all_gather("");
  });
  CHECK(left[0] == "rank 2 is gone");
  CHECK(left[1] == "rank 2 is gone");
  CHECK(left[2].empty());

  FreePort other;
  other.let_go();
  const auto gave_up = faults_of(3, [&](int rank) {
    Rendezvous meeting(rank, 3, {"127.0.0.1", other.port()}, 30);
    meeting.all_gather("");
    if (rank == 1) {
      meeting.give_up("rank 1 has no memory left");
      return;
    }
    for (int i = 0; i < 3000; ++i) {
      meeting.check_alive();
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  });
  CHECK(gave_up[0] == "rank 1 has no memory left");
  CHECK(gave_up[2] == "rank 1 has no memory left");
}

TEST_CASE("a rank knows its place from torchrun, mpirun and srun") {
  const auto from = [](std::map<std::string, std::string> variables) {
    return rank_place([variables](const char* name) {
      const auto found = variables.find(name);
      return found == variables.end() ? std::string() : found->second;
    });
  };
  CHECK_FALSE(from({{"MASTER_PORT", "1234"}}).has_value());
  const auto torch = from({{"RANK", "5"},
                           {"WORLD_SIZE", "8"},
                           {"LOCAL_RANK", "1"},
                           {"MASTER_ADDR", "node7"},
                           {"MASTER_PORT", "1234"}});
  REQUIRE(torch.has_value());
  CHECK(torch->rank == 5);
  CHECK(torch->size == 8);
  CHECK(torch->local_rank == 1);
  CHECK(torch->local_size == 0);  // nobody has said it
  CHECK(torch->meeting.address == "node7");
  CHECK(torch->meeting.port == 1234);
  const auto mpi = from({{"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "2"}});
  REQUIRE(mpi.has_value());
  CHECK(mpi->rank == 1);
  CHECK(mpi->meeting.address == "127.0.0.1");
  const auto slurm = from({{"SLURM_PROCID", "0"},
                           {"SLURM_NTASKS", "8"},
                           {"SLURM_STEP_ID", "0"},
                           {"SLURM_STEP_NUM_TASKS", "4"},
                           {"SLURM_LOCALID", "0"},
                           {"SLURM_LAUNCH_NODE_IPADDR", "10.0.0.1"}});
  REQUIRE(slurm.has_value());
  CHECK(slurm->meeting.address == "10.0.0.1");
  CHECK(slurm->size == 4);
  // A batch script is no rank, though Slurm says one.
  CHECK_FALSE(from({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}}).has_value());
  CHECK_THROWS_WITH(from({{"RANK", "8"}, {"WORLD_SIZE", "8"}}), Catch::Contains("RANK is '8'"));
  CHECK_THROWS_WITH(from({{"RANK", "x"}, {"WORLD_SIZE", "8"}}), Catch::Contains("RANK is 'x'"));
}

TEST_CASE("ranks know from each other which of them share a GPU") {
  const std::vector<GpuSeat> apart{{"a", "x", 8e10}, {"a", "y", 8e10}, {"b", "x", 7e10}};
  CHECK_FALSE(is_any_shared(apart));
  CHECK_FALSE(is_one_host(apart));
  std::vector<GpuSeat> shared = apart;
  shared[2] = parse_seat(seat_text({"a", "x", 7.5e10}));
  CHECK(shared[2].free_bytes == 7.5e10);
  CHECK(is_any_shared(shared));
  CHECK(is_one_host(shared));
  CHECK(ranks_on_gpu(shared, 0) == 2);
  CHECK(ranks_on_gpu(shared, 1) == 1);
}
