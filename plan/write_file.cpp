#include "plan/write_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

namespace rehearse {
namespace {

[[noreturn]] void fail(const std::filesystem::path& path, const std::string& reason) {
  throw std::runtime_error("cannot write " + path.string() + ": " + reason);
}

std::string system_reason(int error) { return std::generic_category().message(error); }

/// The unfinished file beside the wanted one; removed unless it was renamed.
class Unfinished {
 public:
  explicit Unfinished(const std::filesystem::path& wanted) : wanted_(wanted) {
    name_ = (wanted.has_parent_path() ? wanted.parent_path() : std::filesystem::path(".")) / ".";
    name_.append(wanted.filename().string()).append(".XXXXXX");
    descriptor_ = ::mkstemp(name_.data());
    if (descriptor_ < 0) fail(wanted, system_reason(errno));
  }
  ~Unfinished() {
    if (descriptor_ >= 0) ::close(descriptor_);
    if (!done_) ::unlink(name_.c_str());
  }
  Unfinished(const Unfinished&) = delete;
  Unfinished& operator=(const Unfinished&) = delete;

  void write(std::string_view text) {
    while (!text.empty()) {
      const ssize_t written = ::write(descriptor_, text.data(), text.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail(wanted_, system_reason(errno));
      text.remove_prefix(static_cast<std::size_t>(written));
    }
  }

  /// mkstemp makes files private; a result has the rights any new file has.
  void finish(bool force) {
    const mode_t mask = ::umask(0);
    ::umask(mask);
    if (::fchmod(descriptor_, 0666 & ~mask) != 0 || ::fsync(descriptor_) != 0)
      fail(wanted_, system_reason(errno));
    if (::close(std::exchange(descriptor_, -1)) != 0) fail(wanted_, system_reason(errno));
    if (force) {
      if (::rename(name_.c_str(), wanted_.c_str()) != 0) fail(wanted_, system_reason(errno));
      done_ = true;
      return;
    }
    // A link, unlike a rename, fails if somebody made the file meanwhile.
    if (::link(name_.c_str(), wanted_.c_str()) == 0) return;
    if (errno == EEXIST) fail(wanted_, "it exists; --force replaces it");
    const bool no_links = errno == EPERM || errno == EOPNOTSUPP || errno == ENOSYS;
    if (!no_links || ::rename(name_.c_str(), wanted_.c_str()) != 0)
      fail(wanted_, system_reason(errno));
    done_ = true;
  }

 private:
  const std::filesystem::path& wanted_;
  std::string name_;
  int descriptor_ = -1;
  bool done_ = false;
};

}  // namespace

void write_file_whole(const std::filesystem::path& path, std::string_view text, bool force) {
  if (path.filename().empty()) fail(path, "that is no file name");
  struct stat there {};
  if (::stat(path.c_str(), &there) == 0) {
    if (S_ISDIR(there.st_mode)) fail(path, "it is a directory");
    if (!S_ISREG(there.st_mode)) fail(path, "it is no regular file");
    if (!force) fail(path, "it exists; --force replaces it");
  }
  Unfinished file(path);
  file.write(text);
  file.finish(force);
}

}  // namespace rehearse
