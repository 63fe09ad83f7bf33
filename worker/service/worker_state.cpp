#include "service/worker_state.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "cluster/error.hpp"
#include "cluster/log.hpp"

namespace yumoe {
namespace {

// One file: header, residual, contribution, and a digest over all of it at the end.
struct Header {
  char magic[8] = {'y', 'm', 'w', 's', 't', 'a', 't', '1'};
  Digest run;
  std::uint64_t round = 0;
  Digest shard;
  std::uint64_t residual_elements = 0;
  std::uint64_t contribution_bytes = 0;
};

void write_durably(const std::filesystem::path& file, const std::vector<ByteView>& pieces) {
  const std::filesystem::path beside = file.string() + ".new";
  const auto fail = [&](const char* what) {
    const int reason = errno;
    throw Error(reason == ENOSPC ? ErrorCode::disk_full : ErrorCode::file_io,
                std::string(what) + " " + beside.string() + ": " + std::strerror(reason));
  };
  const int descriptor = open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (descriptor < 0) fail("open");
  for (ByteView piece : pieces) {
    while (!piece.empty()) {
      const ssize_t written = write(descriptor, piece.data(), piece.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) {
        const int reason = errno;
        close(descriptor);
        errno = reason;
        fail("write");
      }
      piece = piece.subspan(static_cast<std::size_t>(written));
    }
  }
  if (fsync(descriptor) != 0) {
    close(descriptor);
    fail("sync");
  }
  close(descriptor);
  if (rename(beside.c_str(), file.c_str()) != 0) fail("rename");
}

}  // namespace

WorkerState::WorkerState(std::filesystem::path folder, std::string run, std::size_t elements)
    : run_(digest_of(as_bytes(run))), residual_(elements, 0.0f) {
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) throw Error(ErrorCode::file_io, "make " + folder.string() + ": " + failed.message());
  file_ = folder / "worker.state";
  if (std::filesystem::exists(file_)) load();
}

void WorkerState::load() {
  std::ifstream in(file_, std::ios::binary);
  const Bytes bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  Header header;
  Digest digest;
  const auto unusable = [&](const char* why) {
    log_warning(file_.string() + " is not used: " + why +
                "; unsent parts of updates start at zero");
  };
  if (bytes.size() < sizeof header + sizeof digest) return unusable("it is truncated");
  std::memcpy(&header, bytes.data(), sizeof header);
  std::memcpy(&digest, bytes.data() + bytes.size() - sizeof digest, sizeof digest);
  if (std::memcmp(header.magic, Header().magic, sizeof header.magic) != 0)
    return unusable("it is no worker state");
  if (header.run != run_ || header.residual_elements != residual_.size()) {
    return unusable("it is of another run");
  }
  const std::size_t residual_bytes = 4 * residual_.size();
  if (bytes.size() != sizeof header + residual_bytes + header.contribution_bytes + sizeof digest ||
      digest_of(ByteView(bytes).first(bytes.size() - sizeof digest)) != digest) {
    return unusable("its digest does not match");
  }
  std::memcpy(residual_.data(), bytes.data() + sizeof header, residual_bytes);
  const auto first = bytes.begin() + static_cast<std::ptrdiff_t>(sizeof header + residual_bytes);
  saved_ = Saved{{header.round},
                 header.shard,
                 Bytes(first, first + static_cast<std::ptrdiff_t>(header.contribution_bytes))};
}

void WorkerState::save(Saved saved) {
  Header header;
  header.run = run_;
  header.round = saved.round.value;
  header.shard = saved.shard;
  header.residual_elements = residual_.size();
  header.contribution_bytes = saved.contribution.size();
  const ByteView parts[] = {as_bytes(std::span<const Header>(&header, 1)),
                            as_bytes(std::span<const float>(residual_)), saved.contribution};
  Digester digester;
  for (const ByteView part : parts) digester.update(part);
  const Digest digest = digester.finish();
  write_durably(file_, {parts[0], parts[1], parts[2], digest.bytes});
  saved_ = std::move(saved);
}

}  // namespace yumoe
