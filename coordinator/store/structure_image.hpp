#pragma once
// An HDF5 file while it is being made: what HDF5 writes, kept in memory; what it only reserved
// takes no room. Private to coordinator/store.
//
// HDF5 never touches the disk this way, so a full disk meets our own code. (An HDF5 file that
// cannot be flushed can also not be closed, and brings the process down when it ends.)

#include <hdf5.h>

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "cluster/bytes.hpp"
#include "store/file.hpp"
#include "store/hdf5.hpp"
#include "store/seal.hpp"

namespace yumoe {

class StructureImage {
 public:
  // A new, empty HDF5 file whose content goes here; close it before `complete`.
  hdf5::File create();

  // Completes `file`, whose reserved places are `sections`, already written and checksummed: writes
  // everything between them, and the seal. Not yet synced.
  void complete(File& file, std::vector<Section> sections) const;

  // For the driver that HDF5 calls.
  void put(std::uint64_t offset, ByteView bytes);
  void get(std::uint64_t offset, std::span<std::uint8_t> bytes) const;  // zero where never written
  void set_size(std::uint64_t size) noexcept { size_ = size; }

 private:
  std::map<std::uint64_t, Bytes> blocks_;  // by offset, a multiple of the block size
  std::uint64_t size_ = 0;
};

}  // namespace yumoe
