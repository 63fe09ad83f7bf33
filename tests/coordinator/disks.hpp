#pragma once
// Folders that tests of the store write to: a temporary one, a full one, one that cannot be
// written.

#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

#include <filesystem>
#include <stdexcept>
#include <string>

namespace yumoe::test {

class TemporaryFolder {
 public:
  // In memory where there is such a place, for tests that sync often and need no disk to do it.
  enum class On { disk, memory };

  explicit TemporaryFolder(On on = On::disk) {
    const bool in_memory = on == On::memory && ::access("/dev/shm", W_OK) == 0;
    const std::filesystem::path base =
        in_memory ? "/dev/shm" : std::filesystem::temp_directory_path();
    std::string name = (base / "yumoe-store-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = name;
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;  // what is left in /tmp harms nobody
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// A small file system in memory, seen by this process alone (its own mount namespace).
class SmallDisk {
 public:
  // is_there() is false where mounting is not permitted.
  explicit SmallDisk(const std::string& size) {
    if (::unshare(CLONE_NEWNS) != 0) return;
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return;
    const std::string options = "size=" + size;
    there_ = ::mount("tmpfs", folder_.path().c_str(), "tmpfs", 0, options.c_str()) == 0;
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  ~SmallDisk() {
    if (there_) ::umount2(folder_.path().c_str(), MNT_DETACH);
  }

  bool is_there() const { return there_; }
  const std::filesystem::path& path() const { return folder_.path(); }

  // From now on nothing can be written; false if the kernel refuses.
  bool make_read_only() {
    return ::mount(nullptr, folder_.path().c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr) == 0;
  }

 private:
  TemporaryFolder folder_;
  bool there_ = false;
};

}  // namespace yumoe::test
