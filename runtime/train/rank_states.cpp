#include "runtime/train/rank_states.h"

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace rehearse {
namespace {

// Of this process; a signal handler writes too, so that they are plain.
int states_file = -1;
int own_place = 0;

void write_state(char state) {
  if (states_file < 0) return;
  [[maybe_unused]] const auto written = pwrite(states_file, &state, 1, own_place);
}

void on_stop(int signal) {
  write_state(static_cast<char>(RankState::Stopped));
  _exit(128 + signal);
}

}  // namespace

void make_rank_states(const std::string& path, int ranks) {
  std::ofstream file(path, std::ios::binary);
  file << std::string(static_cast<std::size_t>(ranks), static_cast<char>(RankState::NotStarted));
  file.close();
  if (!file) throw std::runtime_error("cannot write " + path);
}

std::vector<RankState> read_rank_states(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<RankState> states;
  for (std::istreambuf_iterator<char> at(file), end; at != end; ++at)
    states.push_back(static_cast<RankState>(*at));
  return states;
}

void begin_rank_state(const std::string& path, int rank) {
  states_file = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  own_place = rank;
  write_state(static_cast<char>(RankState::Running));
  std::signal(SIGTERM, on_stop);
  std::signal(SIGINT, on_stop);
}

void set_rank_state(RankState state) { write_state(static_cast<char>(state)); }

}  // namespace rehearse
