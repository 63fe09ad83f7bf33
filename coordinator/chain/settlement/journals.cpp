#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "cluster/error.hpp"
#include "coordinator/settlement_target.hpp"

namespace yumoe::settlement {
namespace {

constexpr std::size_t kEntryBytesMax = 1 << 20;
constexpr std::size_t kHeadBytes = 4 + 32;  // length, digest of the content

[[noreturn]] void io_failed(const std::string& what, const std::string& file) {
  const bool full = errno == ENOSPC || errno == EDQUOT;
  throw Error(full ? ErrorCode::disk_full : ErrorCode::journal_io,
              what + " " + file + ": " + std::strerror(errno) +
                  (full ? ": free some space there; nothing is sent that is not recorded" : ""));
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

void sync_folder(const std::filesystem::path& folder) {
  const std::string name = folder.empty() ? "." : folder.string();
  const int descriptor = open(name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool synced = descriptor >= 0 && fsync(descriptor) == 0;
  const int reason = errno;
  if (descriptor >= 0) close(descriptor);
  errno = reason;
  if (!synced) io_failed("sync", name);
}

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
    bytes_ = at;
    // A new file is there after a crash only if its folder is synced too.
    if (bytes.empty()) sync_folder(file.parent_path());
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
  if (broken_) {
    throw Error(ErrorCode::journal_io,
                name_ + " ends in a torn entry: open it again, which cuts it");
  }
  const auto failed = [&](const char* what) {
    const int reason = errno;
    // A later entry behind a torn one would be lost with it.
    broken_ = ftruncate(file_, static_cast<off_t>(bytes_)) != 0;
    errno = reason;
    io_failed(what, name_);
  };
  for (std::size_t written = 0; written < bytes.size();) {
    const ssize_t size = write(file_, bytes.data() + written, bytes.size() - written);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) failed("append to");
    written += static_cast<std::size_t>(size);
  }
  if (fdatasync(file_) != 0) failed("sync");
  bytes_ += bytes.size();
  entries_.emplace_back(entry.begin(), entry.end());
}

void LocalSettlement::settle(const SubnetWeights& weights) {
  const std::string id = "weights/" + std::to_string(weights.netuid.value) + "/" +
                         to_ss58(weights.validator) + "/epoch " +
                         std::to_string(weights.ledger_epoch) + "/local";
  if (!known_.insert(id).second) return;
  IntentStatus status;
  status.intent.id = id;
  status.intent.signer = weights.validator;
  status.intent.pallet = "Ledger";
  status.intent.call = "set_weights";
  status.intent.arguments = nlohmann::json{
      {"netuid", weights.netuid.value},
      {"dests", weights.uids},
      {"weights",
       weights.values}}.dump();
  status.phase = "effected";
  status.outcome = Outcome{};
  status.outcome->effected = true;
  status.outcome->reason = "effected";
  status.outcome->block = block_;
  fresh_.push_back({id, *status.outcome});
  settled_.push_back(std::move(status));
}

std::vector<Receipt> LocalSettlement::poll(std::chrono::milliseconds) {
  return std::exchange(fresh_, {});
}

}  // namespace yumoe::settlement
