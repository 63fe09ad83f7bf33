#pragma once
// Owns one file descriptor. Private to coordinator/store.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <utility>

#include "cluster/bytes.hpp"
#include "cluster/error.hpp"

namespace yumoe {

class File {
 public:
  // Flags as of open(2); close-on-exec is added.
  // Throws Error{file_missing} or Error{`otherwise`}.
  File(const std::filesystem::path& path, int flags, ErrorCode otherwise = ErrorCode::file_io);
  File(File&& other) noexcept
      : path_(std::move(other.path_)), code_(other.code_), fd_(std::exchange(other.fd_, -1)) {}
  File& operator=(File&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(code_, other.code_);
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~File();

  // Each throws Error{disk_full} or the code given at opening. read_at fills all of `bytes` or
  // throws.
  void write_at(std::uint64_t offset, ByteView bytes);
  void read_at(std::uint64_t offset, std::span<std::uint8_t> bytes) const;
  std::uint64_t size() const;
  void sync();

  // Asks the kernel to begin writing a range to the disk; only a hint.
  void begin_writing(std::uint64_t offset, std::uint64_t bytes);

  // Takes the advisory lock of the whole file; false if another process or object holds it. It is
  // let go when this object, or the process, ends.
  bool try_lock();

  int descriptor() const noexcept { return fd_; }
  const std::filesystem::path& path() const noexcept { return path_; }

 private:
  [[noreturn]] void fail(const char* doing) const;

  std::filesystem::path path_;
  ErrorCode code_;
  int fd_ = -1;
};

// Throws Error{disk_full}, Error{file_missing} (ENOENT) or Error{`otherwise`} for an errno value.
[[noreturn]] void throw_errno(int error, const std::string& doing, ErrorCode otherwise);

// Makes what was created or renamed in `folder` survive a power loss.
void sync_folder(const std::filesystem::path& folder, ErrorCode otherwise);

// Makes `folder` and what leads to it.
void make_folder(const std::filesystem::path& folder, ErrorCode otherwise);

// Puts `from` in the place of `to` at once, for good.
void replace_file(const std::filesystem::path& from, const std::filesystem::path& to,
                  ErrorCode otherwise);

}  // namespace yumoe
