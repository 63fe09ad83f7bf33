#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "cluster/error.hpp"
#include "cluster/wallet.hpp"
#include "identity/keyfile_parts.hpp"

namespace yumoe {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t kKeyfileBytesMax = 64u << 10;

class Descriptor {
 public:
  explicit Descriptor(int descriptor) : descriptor_(descriptor) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

[[noreturn]] void io_error(std::string_view doing, const fs::path& path) {
  const int reason = errno;
  throw Error(reason == ENOENT ? ErrorCode::file_missing : ErrorCode::file_io,
              std::string(doing) + " " + path.string() + ": " + std::strerror(reason) +
                  (reason == ENOENT ? ": check the wallet's name and path" : ""));
}

LockedBytes read_file(const fs::path& path) {
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) io_error("reading key file", path);
  LockedBytes contents(kKeyfileBytesMax + 1);
  std::size_t length = 0;
  while (length < contents.size()) {
    const ssize_t got = read(file.get(), contents.data() + length, contents.size() - length);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) io_error("reading key file", path);
    if (got == 0) break;
    length += static_cast<std::size_t>(got);
  }
  if (length > kKeyfileBytesMax) {
    throw Error(ErrorCode::key_invalid,
                "reading key file " + path.string() + ": it is over 64 KiB");
  }
  contents.shrink(length);
  return contents;
}

void sync_folder(const fs::path& folder) {
  const Descriptor descriptor(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (descriptor.get() < 0 || fsync(descriptor.get()) != 0) io_error("syncing folder", folder);
}

// Makes the missing folders of a wallet, each 0700 whatever the umask.
void make_folders(const fs::path& folder) {
  if (folder.empty() || fs::exists(folder)) return;
  make_folders(folder.parent_path());
  if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) io_error("making folder", folder);
  if (chmod(folder.c_str(), 0700) != 0) io_error("protecting folder", folder);
}

void write_file(const fs::path& path, ByteView contents) {
  fs::path beside = path;
  beside += ".tmp";
  unlink(beside.c_str());  // what an earlier crash left; O_EXCL then keeps links out
  {
    const Descriptor file(open(beside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (file.get() < 0) io_error("writing key file", beside);
    for (std::size_t done = 0; done < contents.size();) {
      const ssize_t wrote = write(file.get(), contents.data() + done, contents.size() - done);
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote < 0) io_error("writing key file", beside);
      done += static_cast<std::size_t>(wrote);
    }
    if (fchmod(file.get(), 0600) != 0) io_error("protecting key file", beside);
    if (fsync(file.get()) != 0) io_error("syncing key file", beside);
  }
  if (rename(beside.c_str(), path.c_str()) != 0) io_error("renaming key file to", path);
  sync_folder(path.parent_path());
}

}  // namespace

Key read_key(const fs::path& file, const PasswordSource& password) {
  const LockedBytes contents = read_file(file);
  return read_key(contents, file, password);
}

PublicKey read_public_key(const fs::path& file) { return public_key_of(read_file(file), file); }

void write_key(const fs::path& file, const fs::path& public_file, const Key& key,
               const std::optional<LockedBytes>& password, bool overwrite) {
  if (!overwrite && (fs::exists(file) || fs::exists(public_file))) {
    throw Error(
        ErrorCode::file_io,
        "writing key file " + file.string() +
            ": it exists already: choose another name, or remove it if nobody needs its key");
  }
  make_folders(fs::absolute(file).parent_path());
  make_folders(fs::absolute(public_file).parent_path());
  const LockedBytes plain = key.to_json();
  if (password) {
    write_file(fs::absolute(file), encrypt_keyfile(plain, *password));
  } else {
    write_file(fs::absolute(file), plain);
  }
  write_file(fs::absolute(public_file), as_bytes(public_json(key.public_key())));
}

void write_coldkey(const Wallet& wallet, const Key& key, const std::optional<LockedBytes>& password,
                   bool overwrite, bool insist_on_plain) {
  if (!password && !insist_on_plain) {
    throw Error(ErrorCode::key_invalid, "writing coldkey " + wallet.coldkey().string() +
                                            ": it owns the funds and must be encrypted: give a "
                                            "password");
  }
  write_key(wallet.coldkey(), wallet.coldkey_public(), key, password, overwrite);
}

void write_hotkey(const Wallet& wallet, const std::string& hotkey, const Key& key,
                  const std::optional<LockedBytes>& password, bool overwrite) {
  write_key(wallet.hotkey(hotkey), wallet.hotkey_public(hotkey), key, password, overwrite);
}

}  // namespace yumoe
