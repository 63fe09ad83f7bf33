#include "data/durable_files.hpp"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kBufferBytes = 1u << 18;

[[noreturn]] void fail(const std::string& what, const fs::path& path, int reason) {
  throw Error(reason == ENOSPC || reason == EDQUOT ? ErrorCode::disk_full : ErrorCode::file_io,
              what + " " + path.string() + ": " + std::strerror(reason));
}

void sync_folder(const fs::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) fail("open", folder, errno);
  const bool synced = ::fsync(descriptor) == 0;
  const int reason = errno;
  ::close(descriptor);
  if (!synced) fail("sync", folder, reason);
}

fs::path parent_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

}  // namespace

FileWriter::FileWriter(fs::path path) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail("create", path_, errno);
}

FileWriter::~FileWriter() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void FileWriter::write(ByteView bytes) {
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  if (buffer_.size() >= kBufferBytes) flush();
}

void FileWriter::flush() {
  digester_.update(buffer_);
  ByteView rest = buffer_;
  while (!rest.empty()) {
    const ssize_t written = ::write(descriptor_, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("write", path_, errno);
    rest = rest.subspan(static_cast<std::size_t>(written));
  }
  buffer_.clear();
}

Digest FileWriter::finish() {
  YUMOE_ASSERT(descriptor_ >= 0);
  flush();
  const bool synced = ::fsync(descriptor_) == 0;
  const int sync_reason = errno;
  const bool closed = ::close(descriptor_) == 0;
  descriptor_ = -1;
  if (!synced) fail("sync", path_, sync_reason);
  if (!closed) fail("close", path_, errno);
  return digester_.finish();
}

FolderBuild::FolderBuild(fs::path target) : target_(std::move(target)) {
  if (!target_.has_filename()) target_ = target_.parent_path();  // "set/" is "set"
  folder_ = target_;
  folder_ += ".build-" + std::to_string(::getpid());
  std::error_code error;
  fs::create_directories(parent_of(folder_), error);
  if (!error) fs::remove_all(folder_, error);  // of a killed process that had this id
  if (!error) fs::create_directory(folder_, error);
  if (error) fail("create", folder_, error.value());
}

FolderBuild::~FolderBuild() {
  std::error_code ignored;  // a leftover is named and removed by the next build
  fs::remove_all(folder_, ignored);
}

bool FolderBuild::publish(bool replace) {
  sync_folder(folder_);
  if (::renameat2(AT_FDCWD, folder_.c_str(), AT_FDCWD, target_.c_str(), RENAME_NOREPLACE) != 0) {
    if (errno != EEXIST) fail("rename to", target_, errno);
    if (!replace) return false;
    if (::renameat2(AT_FDCWD, folder_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) != 0) {
      fail("exchange with", target_, errno);
    }
  }
  sync_folder(parent_of(target_));
  return true;
}

}  // namespace yumoe
