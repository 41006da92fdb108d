#pragma once
#include <filesystem>
#include <string>
#include <string_view>

namespace rehearse {

/// A file that comes into being whole or not at all: what is written lies in a new file beside the
/// wanted one until `finish` flushes it to the disk and gives it its name. Destroyed before that,
/// it leaves nothing behind. All functions throw std::runtime_error with the path and the reason.
class UnfinishedFile {
 public:
  /// Directories and special files are never replaced; an existing file only with `force`.
  UnfinishedFile(std::filesystem::path path, bool force);
  ~UnfinishedFile();
  UnfinishedFile(const UnfinishedFile&) = delete;
  UnfinishedFile& operator=(const UnfinishedFile&) = delete;

  void write(std::string_view bytes);
  void finish();

 private:
  void take_name();

  std::filesystem::path wanted_;
  std::string name_;  ///< of the new file
  bool force_ = false;
  int descriptor_ = -1;
  bool done_ = false;
};

/// Writes a file whole or not at all, as `UnfinishedFile` does.
void write_file_whole(const std::filesystem::path& path, std::string_view text, bool force);

/// A name lasts through a loss of power only once its folder has been flushed too: call this for
/// the folder in which something was made, renamed or removed. File systems that cannot flush
/// folders say so with an error that means no harm.
void flush_folder(const std::filesystem::path& folder);

}  // namespace rehearse
