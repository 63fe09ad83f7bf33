#pragma once
// Files that are either there as a whole or not at all.

#include <filesystem>
#include <string_view>

#include "cluster/bytes.hpp"

namespace yumoe {

// Writes one new file from front to back and keeps its digest.
class FileWriter {
 public:
  // Throws Error{file_io} if the file exists or cannot be made.
  explicit FileWriter(std::filesystem::path path);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  // Throws Error{disk_full} or Error{file_io}.
  void write(ByteView bytes);
  // Flushes to the disk and gives the digest of all bytes. Once, after the last write.
  Digest finish();

 private:
  void flush();

  std::filesystem::path path_;
  int descriptor_ = -1;
  Bytes buffer_;
  Digester digester_;
};

// A folder built beside `target` and put in its place by one rename.
class FolderBuild {
 public:
  // Makes the folder `target`.build-<pid>, and the folders above it.
  explicit FolderBuild(std::filesystem::path target);
  ~FolderBuild();  // removes what was not published
  FolderBuild(const FolderBuild&) = delete;
  FolderBuild& operator=(const FolderBuild&) = delete;

  const std::filesystem::path& folder() const { return folder_; }

  // Puts the folder at `target`; false if something is there already and `replace` is not set.
  // With `replace` what was there is exchanged in one step and then removed.
  bool publish(bool replace);

 private:
  std::filesystem::path target_;
  std::filesystem::path folder_;
};

}  // namespace yumoe
