#include "plan/write_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace rehearse {
namespace {

[[noreturn]] void fail(const std::filesystem::path& path, const std::string& reason) {
  throw std::runtime_error("cannot write " + path.string() + ": " + reason);
}

std::string system_reason(int error) { return std::generic_category().message(error); }

std::filesystem::path folder_of(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

}  // namespace

UnfinishedFile::UnfinishedFile(std::filesystem::path path, bool force)
    : wanted_(std::move(path)), force_(force) {
  if (wanted_.filename().empty()) fail(wanted_, "that is no file name");
  struct stat there {};
  if (::stat(wanted_.c_str(), &there) == 0) {
    if (S_ISDIR(there.st_mode)) fail(wanted_, "it is a directory");
    if (!S_ISREG(there.st_mode)) fail(wanted_, "it is no regular file");
    if (!force) fail(wanted_, "it exists; --force replaces it");
  }
  name_ = folder_of(wanted_) / ".";
  name_.append(wanted_.filename().string()).append(".XXXXXX");
  descriptor_ = ::mkstemp(name_.data());
  if (descriptor_ < 0) fail(wanted_, system_reason(errno));
}

UnfinishedFile::~UnfinishedFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!done_) ::unlink(name_.c_str());
}

void UnfinishedFile::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail(wanted_, system_reason(errno));
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
}

void UnfinishedFile::finish() {
  // mkstemp makes files private; a result has the rights any new file has.
  const mode_t mask = ::umask(0);
  ::umask(mask);
  if (::fchmod(descriptor_, 0666 & ~mask) != 0 || ::fsync(descriptor_) != 0)
    fail(wanted_, system_reason(errno));
  if (::close(std::exchange(descriptor_, -1)) != 0) fail(wanted_, system_reason(errno));
  take_name();
  flush_folder(folder_of(wanted_));
}

void UnfinishedFile::take_name() {
  if (force_) {
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

void write_file_whole(const std::filesystem::path& path, std::string_view text, bool force) {
  UnfinishedFile file(path, force);
  file.write(text);
  file.finish();
}

void flush_folder(const std::filesystem::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);
  ::close(descriptor);
}

}  // namespace rehearse
