#include "runtime/rendezvous.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <thread>

#include "plan/ensure.h"
#include "runtime/patience.h"
#include "runtime/train/rank_states.h"

namespace rehearse {
namespace {

constexpr std::uint32_t kMostFrameBytes = 1 << 24;
constexpr auto kLook = std::chrono::milliseconds(100);

std::string at_text(const Rendezvous::Place& place) {
  return place.address + ":" + std::to_string(place.port);
}

std::string seconds_text(double deadline_s) {
  return std::to_string(static_cast<long>(deadline_s)) + " s";
}

/// Waits until bytes can be read (or written); false where there are none yet after a short while.
bool is_ready(int socket, short what) {
  pollfd wanted{socket, what, 0};
  return poll(&wanted, 1, static_cast<int>(kLook.count())) > 0;
}

enum class Moved { All, TooLate, Closed };

/// Moves all the bytes. `receive`: into `bytes`, else from it.
Moved move_bytes(int socket, char* bytes, std::size_t count, bool receives, double deadline_s) {
  Patience patience(deadline_s);
  while (count > 0) {
    if (patience.is_over()) return Moved::TooLate;
    if (!is_ready(socket, receives ? POLLIN : POLLOUT)) continue;
    const ssize_t moved = receives ? recv(socket, bytes, count, MSG_DONTWAIT)
                                   : send(socket, bytes, count, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (moved < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (moved <= 0) return Moved::Closed;
    bytes += moved;
    count -= static_cast<std::size_t>(moved);
  }
  return Moved::All;
}

class Addresses {
 public:
  explicit Addresses(const Rendezvous::Place& place) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    const int fault =
        getaddrinfo(place.address.c_str(), std::to_string(place.port).c_str(), &hints, &found_);
    if (fault != 0)
      throw std::runtime_error("the address " + place.address +
                               " is not known: " + gai_strerror(fault));
  }
  ~Addresses() { freeaddrinfo(found_); }
  Addresses(const Addresses&) = delete;
  Addresses& operator=(const Addresses&) = delete;
  const addrinfo* first() const { return found_; }

 private:
  addrinfo* found_ = nullptr;
};

int listening_socket(int port) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0)
    throw std::runtime_error(std::string("no socket can be opened: ") + std::strerror(errno));
  const int yes = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  sockaddr_in here{};
  here.sin_family = AF_INET;
  here.sin_addr.s_addr = htonl(INADDR_ANY);
  here.sin_port = htons(static_cast<std::uint16_t>(port));
  if (bind(listener, reinterpret_cast<const sockaddr*>(&here), sizeof here) != 0 ||
      listen(listener, SOMAXCONN) != 0) {
    const int error = errno;
    close(listener);
    if (error == EADDRINUSE)
      throw std::runtime_error("port " + std::to_string(port) +
                               " is in use, perhaps by another run: MASTER_PORT chooses another");
    throw std::runtime_error("rank 0 cannot listen on port " + std::to_string(port) + ": " +
                             std::strerror(error));
  }
  return listener;
}

void speed_up(int socket) {
  const int yes = 1;
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes);
}

}  // namespace

Rendezvous::Rendezvous(int rank, int size, const Place& place, double deadline_s)
    : rank_(rank), size_(size), deadline_s_(deadline_s) {
  ensure(rank >= 0 && rank < size, "a rank is one of its run");
  sockets_.assign(rank == 0 ? static_cast<std::size_t>(size) : 1, -1);
  if (size == 1) return;
  try {
    if (rank == 0)
      accept_others(place);
    else
      connect_to_first(place);
  } catch (...) {
    for (const int socket : sockets_)
      if (socket >= 0) close(socket);
    throw;
  }
}

Rendezvous::~Rendezvous() {
  for (const int socket : sockets_)
    if (socket >= 0) close(socket);
}

void Rendezvous::accept_others(const Place& place) {
  const int listener = place.listener >= 0 ? place.listener : listening_socket(place.port);
  Patience patience(deadline_s_);
  const auto missing = [this] {
    std::vector<int> ranks;
    for (int rank = 1; rank < size_; ++rank)
      if (sockets_[static_cast<std::size_t>(rank)] < 0) ranks.push_back(rank);
    return ranks;
  };
  while (!missing().empty()) {
    if (patience.is_over()) {
      close(listener);
      throw std::runtime_error(ranks_text(missing()) + " did not come to " + at_text(place) +
                               " in " + seconds_text(deadline_s_));
    }
    if (!is_ready(listener, POLLIN)) continue;
    const int socket = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket < 0) continue;
    // Whoever connects says the magic number and its rank; strangers are sent away.
    std::array<std::uint32_t, 3> hello{};
    const bool is_ours = move_bytes(socket, reinterpret_cast<char*>(hello.data()), sizeof hello,
                                    true, 2) == Moved::All &&
                         hello[0] == static_cast<std::uint32_t>(Frame::Data) &&
                         hello[1] == static_cast<std::uint32_t>(size_) && hello[2] > 0 &&
                         hello[2] < static_cast<std::uint32_t>(size_) && sockets_[hello[2]] < 0;
    if (!is_ours) {
      close(socket);
      continue;
    }
    speed_up(socket);
    sockets_[hello[2]] = socket;
  }
  close(listener);
}

void Rendezvous::connect_to_first(const Place& place) {
  const Addresses addresses(place);
  Patience patience(deadline_s_);
  while (true) {
    for (const addrinfo* at = addresses.first(); at != nullptr; at = at->ai_next) {
      const int socket = ::socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
      if (socket < 0) continue;
      const timeval at_most{2, 0};  // of connect too: socket(7)
      setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &at_most, sizeof at_most);
      if (connect(socket, at->ai_addr, at->ai_addrlen) == 0) {
        speed_up(socket);
        sockets_[0] = socket;
        std::array<std::uint32_t, 3> hello{static_cast<std::uint32_t>(Frame::Data),
                                           static_cast<std::uint32_t>(size_),
                                           static_cast<std::uint32_t>(rank_)};
        move_bytes(socket, reinterpret_cast<char*>(hello.data()), sizeof hello, false, deadline_s_);
        return;
      }
      close(socket);
    }
    if (patience.is_over())
      throw std::runtime_error("rank " + std::to_string(rank_) + " did not reach rank 0 at " +
                               at_text(place) + " in " + seconds_text(deadline_s_));
    std::this_thread::sleep_for(kLook);
  }
}

int Rendezvous::socket_of(int peer) const {
  return sockets_[rank_ == 0 ? static_cast<std::size_t>(peer) : 0];
}

void Rendezvous::lost(int peer, const std::string& what) {
  const std::string why = "rank " + std::to_string(peer) + " " + what;
  if (rank_ == 0) give_up(why);
  throw std::runtime_error(why);
}

void Rendezvous::send_frame(int peer, Frame frame, const std::string& bytes) {
  std::string message(2 * sizeof(std::uint32_t), '\0');
  const std::array<std::uint32_t, 2> head{static_cast<std::uint32_t>(frame),
                                          static_cast<std::uint32_t>(bytes.size())};
  std::memcpy(message.data(), head.data(), sizeof head);
  message += bytes;
  if (move_bytes(socket_of(peer), message.data(), message.size(), false, deadline_s_) != Moved::All)
    lost(peer, "is gone");
}

std::string Rendezvous::receive_frame(int peer) {
  std::array<std::uint32_t, 2> head{};
  const auto take = [&](char* to, std::size_t count) {
    const Moved moved = move_bytes(socket_of(peer), to, count, true, deadline_s_);
    if (moved == Moved::Closed) lost(peer, "is gone");
    if (moved == Moved::TooLate) lost(peer, "said nothing for " + seconds_text(deadline_s_));
  };
  take(reinterpret_cast<char*>(head.data()), sizeof head);
  if (head[1] > kMostFrameBytes) lost(peer, "sent what is no message of this program");
  std::string bytes(head[1], '\0');
  take(bytes.data(), bytes.size());
  if (head[0] == static_cast<std::uint32_t>(Frame::End)) {
    if (rank_ == 0) give_up(bytes);
    throw std::runtime_error(bytes);
  }
  if (head[0] != static_cast<std::uint32_t>(Frame::Data))
    lost(peer, "sent what is no message of this program");
  return bytes;
}

std::vector<std::string> Rendezvous::all_gather(const std::string& mine) {
  std::vector<std::string> all(static_cast<std::size_t>(size_));
  if (rank_ == 0) {
    all[0] = mine;
    for (int peer = 1; peer < size_; ++peer)
      all[static_cast<std::size_t>(peer)] = receive_frame(peer);
    for (int peer = 1; peer < size_; ++peer)
      for (const std::string& one : all) send_frame(peer, Frame::Data, one);
    return all;
  }
  send_frame(0, Frame::Data, mine);
  for (std::string& one : all) one = receive_frame(0);
  return all;
}

void Rendezvous::check_alive() {
  for (int peer = 0; peer < size_; ++peer) {
    if (peer == rank_ || (rank_ != 0 && peer > 0)) continue;
    pollfd wanted{socket_of(peer), POLLIN, 0};
    if (poll(&wanted, 1, 0) <= 0) continue;
    // Nobody sends data outside of a gather but who gives up, or whose connection has ended; a
    // gather's data may have come early.
    std::uint32_t frame = 0;
    const ssize_t seen = recv(socket_of(peer), &frame, sizeof frame, MSG_PEEK | MSG_DONTWAIT);
    if (seen == 0 || (seen < 0 && errno != EAGAIN && errno != EINTR)) lost(peer, "is gone");
    if (seen == sizeof frame && frame == static_cast<std::uint32_t>(Frame::End))
      receive_frame(peer);
  }
}

void Rendezvous::give_up(const std::string& why) noexcept {
  // Not send_frame: one that is gone must not keep the others from being told.
  std::array<std::uint32_t, 2> head{static_cast<std::uint32_t>(Frame::End),
                                    static_cast<std::uint32_t>(why.size())};
  for (const int socket : sockets_) {
    if (socket < 0) continue;
    if (send(socket, head.data(), sizeof head, MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof head)
      continue;
    [[maybe_unused]] const auto sent =
        send(socket, why.data(), why.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
}

HeldPort::HeldPort() : socket_(listening_socket(0)) {
  sockaddr_in here{};
  socklen_t length = sizeof here;
  if (getsockname(socket_, reinterpret_cast<sockaddr*>(&here), &length) != 0 ||
      fcntl(socket_, F_SETFD, 0) != 0) {  // children inherit it
    close(socket_);
    throw std::runtime_error("no port can be found for the ranks to meet at");
  }
  port_ = ntohs(here.sin_port);
}

HeldPort::~HeldPort() { close(socket_); }

}  // namespace rehearse
