#include "store/file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace yumoe {
namespace {

const char* advice_for(int error) {
  switch (error) {
    case EACCES:
    case EPERM:
    case EROFS: return ": choose a folder you may write to, or change its permissions";
    case ENOSPC:
    case EDQUOT:
    case EFBIG: return ": free some space there, then start again; what was recorded is kept";
    case EMFILE:
    case ENFILE: return ": raise the limit of open files (ulimit -n)";
    default: return "";
  }
}

}  // namespace

void throw_errno(int error, const std::string& doing, ErrorCode otherwise) {
  const bool full = error == ENOSPC || error == EDQUOT;
  const ErrorCode code = full              ? ErrorCode::disk_full
                         : error == ENOENT ? ErrorCode::file_missing
                                           : otherwise;
  throw Error(code, doing + ": " + std::strerror(error) + advice_for(error));
}

File::File(const std::filesystem::path& path, int flags, ErrorCode otherwise)
    : path_(path), code_(otherwise), fd_(::open(path.c_str(), flags | O_CLOEXEC, 0644)) {
  if (fd_ < 0) fail("open");
}

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}

void File::fail(const char* doing) const {
  throw_errno(errno, std::string(doing) + " " + path_.string(), code_);
}

void File::write_at(std::uint64_t offset, ByteView bytes) {
  while (!bytes.empty()) {
    const ssize_t wrote = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) fail("write to");
    bytes = bytes.subspan(static_cast<std::size_t>(wrote));
    offset += static_cast<std::uint64_t>(wrote);
  }
}

void File::read_at(std::uint64_t offset, std::span<std::uint8_t> bytes) const {
  while (!bytes.empty()) {
    const ssize_t got = ::pread(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("read");
    if (got == 0) throw Error(code_, "read " + path_.string() + ": it ends early");
    bytes = bytes.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
}

std::uint64_t File::size() const {
  struct stat status;
  if (::fstat(fd_, &status) != 0) fail("look at");
  return static_cast<std::uint64_t>(status.st_size);
}

void File::sync() {
  if (::fsync(fd_) != 0) fail("sync");
}

void File::begin_writing(std::uint64_t offset, std::uint64_t bytes) {
  ::sync_file_range(fd_, static_cast<off_t>(offset), static_cast<off_t>(bytes),
                    SYNC_FILE_RANGE_WRITE);
}

bool File::try_lock() {
  if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) return true;
  if (errno != EWOULDBLOCK) fail("lock");
  return false;
}

void sync_folder(const std::filesystem::path& folder, ErrorCode otherwise) {
  File(folder, O_RDONLY | O_DIRECTORY, otherwise).sync();
}

void make_folder(const std::filesystem::path& folder, ErrorCode otherwise) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw_errno(error.value(), "make folder " + folder.string(), otherwise);
}

void replace_file(const std::filesystem::path& from, const std::filesystem::path& to,
                  ErrorCode otherwise) {
  if (::rename(from.c_str(), to.c_str()) != 0) {
    throw_errno(errno, "rename " + from.string() + " to " + to.string(), otherwise);
  }
  sync_folder(to.parent_path().empty() ? "." : to.parent_path(), otherwise);
}

}  // namespace yumoe
