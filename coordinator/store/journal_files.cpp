#include "store/journal_files.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstring>

namespace yumoe {
namespace {

constexpr char kMagic[8] = {'Y', 'U', 'M', 'O', 'H', 'E', 'A', 'D'};
constexpr std::size_t kCheckedBytes = 8 + 32 + 8 + 32;
constexpr std::size_t kHeadBytes = kCheckedBytes + 8;  // then 8 bytes of their digest
using HeadBytes = std::array<std::uint8_t, kHeadBytes>;

std::filesystem::path with_suffix(std::filesystem::path path, const char* suffix) {
  return path += suffix;
}

HeadBytes bytes_of(const Head& head) {
  HeadBytes bytes{};
  std::memcpy(bytes.data(), kMagic, 8);
  std::memcpy(bytes.data() + 8, head.first.bytes.data(), 32);
  std::memcpy(bytes.data() + 40, &head.sequence, 8);
  std::memcpy(bytes.data() + 48, head.chain.bytes.data(), 32);
  const Digest digest = digest_of(ByteView(bytes).first(kCheckedBytes));
  std::memcpy(bytes.data() + kCheckedBytes, digest.bytes.data(), 8);
  return bytes;
}

}  // namespace

JournalFiles::JournalFiles(const std::filesystem::path& folder)
    : folder(folder),
      database(folder / "journal.sqlite"),
      log(with_suffix(database, "-wal")),
      shared(with_suffix(database, "-shm")),
      head(folder / "journal.head"),
      lock(folder / "journal.lock"),
      created(folder / "journal.sqlite.new"),
      salvaging(folder / "journal.recovered.tmp"),
      recovered(folder / "journal.recovered.sqlite") {}

File lock_journal(const JournalFiles& files) {
  File file(files.lock, O_RDWR | O_CREAT, ErrorCode::journal_io);
  if (!file.try_lock()) {
    std::string holder(std::min<std::uint64_t>(file.size(), 20), '\0');
    file.read_at(0, {reinterpret_cast<std::uint8_t*>(holder.data()), holder.size()});
    throw Error(ErrorCode::run_locked, files.folder.string() + " is being written by process " +
                                           holder + ": end that one first, or start another run");
  }
  const std::string self = std::to_string(::getpid());
  if (::ftruncate(file.descriptor(), 0) != 0) {
    throw_errno(errno, "write to " + files.lock.string(), ErrorCode::journal_io);
  }
  file.write_at(0, as_bytes(self));
  return file;
}

HeadReading read_head(const JournalFiles& files) {
  if (!std::filesystem::exists(files.head)) return {};
  const File file(files.head, O_RDONLY, ErrorCode::journal_io);
  HeadReading reading{.state = HeadState::damaged, .head = {}};
  if (file.size() != kHeadBytes) return reading;
  HeadBytes bytes;
  file.read_at(0, bytes);
  Head head;
  std::memcpy(head.first.bytes.data(), bytes.data() + 8, 32);
  std::memcpy(&head.sequence, bytes.data() + 40, 8);
  std::memcpy(head.chain.bytes.data(), bytes.data() + 48, 32);
  if (bytes == bytes_of(head)) reading = {.state = HeadState::good, .head = head};
  return reading;
}

File open_head(const JournalFiles& files) {
  return File(files.head, O_RDWR | O_CREAT, ErrorCode::journal_io);
}

void write_head(File& file, const Head& head) {
  file.write_at(0, bytes_of(head));
  if (file.size() != kHeadBytes && ::ftruncate(file.descriptor(), kHeadBytes) != 0) {
    throw_errno(errno, "write to " + file.path().string(), ErrorCode::journal_io);
  }
}

}  // namespace yumoe
