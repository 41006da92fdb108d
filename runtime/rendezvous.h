#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace rehearse {

/// Where the ranks of a run find each other without MPI: rank 0 listens on a TCP port, the others
/// connect to it and stay connected. What they exchange is little (ids of NCCL communicators); the
/// connections are also how a rank learns that another is gone.
///
/// No wait lasts longer than the deadline. Errors are std::runtime_error with a sentence that names
/// the ranks that did not come, or the one that is gone.
class Rendezvous {
 public:
  struct Place {
    std::string address = "127.0.0.1";  ///< of rank 0
    int port = 29500;                   ///< torchrun's default
    int listener = -1;                  ///< a socket that listens there already, for rank 0
  };
  /// All ranks construct theirs together.
  Rendezvous(int rank, int size, const Place& place, double deadline_s);
  ~Rendezvous();
  Rendezvous(const Rendezvous&) = delete;
  Rendezvous& operator=(const Rendezvous&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }

  /// What each rank gave, by rank. All ranks call it in the same order.
  std::vector<std::string> all_gather(const std::string& mine);

  /// Throws where a rank is known to be gone; costs a system call. Rank 0 then tells the others.
  void check_alive();
  /// Tells the others, through rank 0, that this rank cannot go on, and why.
  void give_up(const std::string& why) noexcept;

 private:
  enum class Frame : std::uint32_t { Data = 0x52454831, End = 0x52454832 };

  void accept_others(const Place& place);
  void connect_to_first(const Place& place);
  void send_frame(int peer, Frame frame, const std::string& bytes);
  std::string receive_frame(int peer);
  [[noreturn]] void lost(int peer, const std::string& what);
  int socket_of(int peer) const;

  int rank_, size_;
  double deadline_s_;
  std::vector<int> sockets_;  ///< rank 0: by rank; else one, to rank 0
};

/// A TCP port that was free, and that this process listens on: a child that inherits the socket
/// takes over (Rendezvous::Place), so that nobody else gets the port in between.
class HeldPort {
 public:
  HeldPort();
  ~HeldPort();
  HeldPort(const HeldPort&) = delete;
  HeldPort& operator=(const HeldPort&) = delete;
  int port() const { return port_; }
  int socket() const { return socket_; }

 private:
  int socket_, port_ = 0;
};

}  // namespace rehearse
