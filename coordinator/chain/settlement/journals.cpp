#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "cluster/error.hpp"
#include "coordinator/settlement_target.hpp"

namespace yumoe::settlement {
namespace {

constexpr std::size_t kEntryBytesMax = 1 << 20;
constexpr std::size_t kHeadBytes = 4 + 32;  // length, digest of the content

[[noreturn]] void io_failed(const std::string& what, const std::string& file) {
  throw Error(errno == ENOSPC ? ErrorCode::disk_full : ErrorCode::journal_io,
              what + " " + file + ": " + std::strerror(errno));
}

Bytes read_all(int file, const std::string& name) {
  Bytes bytes;
  std::array<std::uint8_t, 1 << 16> buffer;
  while (true) {
    const ssize_t size = read(file, buffer.data(), buffer.size());
    if (size < 0) io_failed("read", name);
    if (size == 0) return bytes;
    bytes.insert(bytes.end(), buffer.begin(), buffer.begin() + size);
  }
}

// A new file is there after a crash only if its folder is synced too.
void sync_folder_of(const std::filesystem::path& file) {
  const std::string folder = file.has_parent_path() ? file.parent_path().string() : ".";
  const int descriptor = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool synced = descriptor >= 0 && fsync(descriptor) == 0;
  const int reason = errno;
  if (descriptor >= 0) close(descriptor);
  errno = reason;
  if (!synced) io_failed("sync", folder);
}

// All whole entries; gives where they end.
std::size_t take_entries(ByteView bytes, const std::string& name, std::vector<Bytes>& entries) {
  std::size_t at = 0;
  while (at + kHeadBytes <= bytes.size()) {
    const std::size_t size = bytes[at] | std::size_t{bytes[at + 1]} << 8 |
                             std::size_t{bytes[at + 2]} << 16 | std::size_t{bytes[at + 3]} << 24;
    if (size > kEntryBytesMax) throw Error(ErrorCode::journal_corrupt, name + " entry length");
    if (at + kHeadBytes + size > bytes.size()) break;  // torn
    const ByteView content = bytes.subspan(at + kHeadBytes, size);
    if (!std::ranges::equal(digest_of(content).bytes, bytes.subspan(at + 4, 32))) {
      throw Error(ErrorCode::journal_corrupt, name + " entry " + std::to_string(entries.size()));
    }
    entries.emplace_back(content.begin(), content.end());
    at += kHeadBytes + size;
  }
  return at;
}

}  // namespace

std::vector<Bytes> settlement_entries(ByteView file, const std::string& name) {
  std::vector<Bytes> entries;
  take_entries(file, name, entries);
  return entries;
}

FileJournal::FileJournal(const std::filesystem::path& file) : name_(file.string()) {
  file_ = open(name_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_APPEND, 0600);
  if (file_ < 0) io_failed("open", name_);
  if (flock(file_, LOCK_EX | LOCK_NB) != 0) {
    close(file_);
    throw Error(ErrorCode::journal_io,
                name_ + " is in use by another yumoe process: stop it first");
  }
  try {
    const Bytes bytes = read_all(file_, name_);
    const std::size_t at = take_entries(bytes, name_, entries_);
    if (at != bytes.size() && ftruncate(file_, static_cast<off_t>(at)) != 0) {
      io_failed("cut the torn end of", name_);
    }
    if (bytes.empty()) sync_folder_of(file);
  } catch (...) {
    close(file_);
    throw;
  }
}

FileJournal::~FileJournal() { close(file_); }

void FileJournal::append(ByteView entry) {
  YUMOE_ASSERT(entry.size() <= kEntryBytesMax);
  Bytes bytes;
  for (int i = 0; i < 4; ++i) bytes.push_back(static_cast<std::uint8_t>(entry.size() >> (8 * i)));
  const Digest digest = digest_of(entry);
  bytes.insert(bytes.end(), digest.bytes.begin(), digest.bytes.end());
  bytes.insert(bytes.end(), entry.begin(), entry.end());
  for (std::size_t written = 0; written < bytes.size();) {
    const ssize_t size = write(file_, bytes.data() + written, bytes.size() - written);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) io_failed("append to", name_);
    written += static_cast<std::size_t>(size);
  }
  if (fdatasync(file_) != 0) io_failed("sync", name_);
  entries_.emplace_back(entry.begin(), entry.end());
}

void LocalSettlement::settle(const SubnetWeights& weights) {
  const std::string id = "weights/" + std::to_string(weights.netuid.value) + "/" +
                         to_ss58(weights.validator) + "/epoch " +
                         std::to_string(weights.ledger_epoch) + "/local";
  if (!settled_.insert(id).second) return;
  Receipt receipt{id, {}};
  receipt.outcome.effected = true;
  receipt.outcome.reason = "effected";
  fresh_.push_back(std::move(receipt));
}

std::vector<Receipt> LocalSettlement::poll(std::chrono::milliseconds) {
  return std::exchange(fresh_, {});
}

}  // namespace yumoe::settlement
