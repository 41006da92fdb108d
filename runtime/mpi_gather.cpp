#include "runtime/mpi_gather.h"

#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <thread>

namespace rehearse {
namespace {

void check(int error, const char* what) {
  if (error != MPI_SUCCESS) throw std::runtime_error(std::string(what) + " failed");
}

/// MPI counts are ints, so a text longer than that goes in pieces.
constexpr std::size_t kPieceBytes = std::size_t{1} << 30;

void send_text(const std::string& text, int to) {
  const std::uint64_t size = text.size();
  check(MPI_Send(&size, 1, MPI_UINT64_T, to, 0, MPI_COMM_WORLD), "MPI_Send");
  for (std::size_t at = 0; at < text.size(); at += kPieceBytes) {
    const int count = static_cast<int>(std::min(kPieceBytes, text.size() - at));
    check(MPI_Send(text.data() + at, count, MPI_CHAR, to, 0, MPI_COMM_WORLD), "MPI_Send");
  }
}

std::string receive_text(int from) {
  std::uint64_t size = 0;
  check(MPI_Recv(&size, 1, MPI_UINT64_T, from, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE), "MPI_Recv");
  std::string text(size, '\0');
  for (std::size_t at = 0; at < text.size(); at += kPieceBytes) {
    const int count = static_cast<int>(std::min(kPieceBytes, text.size() - at));
    check(MPI_Recv(text.data() + at, count, MPI_CHAR, from, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE),
          "MPI_Recv");
  }
  return text;
}

/// Blocking MPI calls spin; the shares of slower ranks may need this very core.
void wait_for_all_ranks() {
  MPI_Request everyone = MPI_REQUEST_NULL;
  check(MPI_Ibarrier(MPI_COMM_WORLD, &everyone), "MPI_Ibarrier");
  auto pause = std::chrono::microseconds(100);
  for (int done = 0; done == 0;) {
    check(MPI_Test(&everyone, &done, MPI_STATUS_IGNORE), "MPI_Test");
    if (done != 0) break;
    std::this_thread::sleep_for(pause);
    pause = std::min<std::chrono::microseconds>(2 * pause, std::chrono::milliseconds(20));
  }
}

}  // namespace

MpiSession::MpiSession() {
  check(MPI_Init(nullptr, nullptr), "MPI_Init");
  check(MPI_Comm_rank(MPI_COMM_WORLD, &rank_), "MPI_Comm_rank");
  check(MPI_Comm_size(MPI_COMM_WORLD, &size_), "MPI_Comm_size");
}

MpiSession::~MpiSession() { MPI_Finalize(); }

std::vector<ShardReport> MpiSession::gather(const ShardReport& mine) const {
  wait_for_all_ranks();
  if (rank_ != 0) {
    check(MPI_Send(&mine.exit_code, 1, MPI_INT, 0, 0, MPI_COMM_WORLD), "MPI_Send");
    send_text(mine.document, 0);
    send_text(mine.messages, 0);
    return {};
  }
  std::vector<ShardReport> reports(static_cast<std::size_t>(size_));
  reports[0] = mine;
  for (int from = 1; from < size_; ++from) {
    ShardReport& report = reports[static_cast<std::size_t>(from)];
    check(MPI_Recv(&report.exit_code, 1, MPI_INT, from, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE),
          "MPI_Recv");
    report.document = receive_text(from);
    report.messages = receive_text(from);
  }
  return reports;
}

int MpiSession::from_first(int value) const {
  check(MPI_Bcast(&value, 1, MPI_INT, 0, MPI_COMM_WORLD), "MPI_Bcast");
  return value;
}

}  // namespace rehearse
