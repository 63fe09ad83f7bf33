#include "store/structure_image.hpp"

#include <algorithm>
#include <cstring>
#include <new>

namespace yumoe {
namespace {

constexpr std::uint64_t kBlockBytes = std::uint64_t{64} << 10;
constexpr haddr_t kAddressMax = (haddr_t{1} << 62) - 1;

// HDF5's object for an open file, with ours behind it.
struct ImageFile {
  H5FD_t base;  // must come first: HDF5 knows no more
  StructureImage* image;
  haddr_t allocated;
  haddr_t written;
};

struct DriverInfo {
  StructureImage* image;
};

ImageFile& ours(H5FD_t* file) { return *reinterpret_cast<ImageFile*>(file); }
const ImageFile& ours(const H5FD_t* file) { return *reinterpret_cast<const ImageFile*>(file); }

H5FD_t* open_image(const char*, unsigned, hid_t access, haddr_t) {
  const auto* info = static_cast<const DriverInfo*>(H5Pget_driver_info(access));
  if (info == nullptr) return nullptr;
  auto* file = new (std::nothrow) ImageFile{};
  if (file == nullptr) return nullptr;
  file->image = info->image;
  return &file->base;
}

herr_t close_image(H5FD_t* file) {
  ours(file).image->set_size(ours(file).allocated);
  delete &ours(file);
  return 0;
}

herr_t query_image(const H5FD_t*, unsigned long* flags) {
  *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
           H5FD_FEAT_AGGREGATE_SMALLDATA;
  return 0;
}

haddr_t end_allocated(const H5FD_t* file, H5FD_mem_t) { return ours(file).allocated; }
herr_t set_end_allocated(H5FD_t* file, H5FD_mem_t, haddr_t end) {
  ours(file).allocated = end;
  return 0;
}
haddr_t end_of_file(const H5FD_t* file, H5FD_mem_t) { return ours(file).written; }

herr_t read_image(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t at, size_t size, void* buffer) {
  ours(file).image->get(at, {static_cast<std::uint8_t*>(buffer), size});
  return 0;
}

// Exceptions must not cross HDF5's frames.
herr_t write_image(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t at, size_t size, const void* buffer) {
  try {
    ours(file).image->put(at, {static_cast<const std::uint8_t*>(buffer), size});
  } catch (const std::bad_alloc&) {
    return -1;
  }
  ours(file).written = std::max<haddr_t>(ours(file).written, at + size);
  return 0;
}

herr_t truncate_image(H5FD_t* file, hid_t, hbool_t) {
  ours(file).written = ours(file).allocated;
  return 0;
}

H5FD_class_t driver_class() {
  H5FD_class_t driver{};
  driver.name = "yumoe_image";
  driver.maxaddr = kAddressMax;
  driver.fc_degree = H5F_CLOSE_WEAK;
  driver.fapl_size = sizeof(DriverInfo);
  driver.open = open_image;
  driver.close = close_image;
  driver.query = query_image;
  driver.get_eoa = end_allocated;
  driver.set_eoa = set_end_allocated;
  driver.get_eof = end_of_file;
  driver.read = read_image;
  driver.write = write_image;
  driver.truncate = truncate_image;
  constexpr H5FD_mem_t kMap[] = H5FD_FLMAP_DICHOTOMY;
  std::copy(std::begin(kMap), std::end(kMap), driver.fl_map);
  return driver;
}

hid_t driver_id() {
  static const H5FD_class_t driver = driver_class();
  static const hid_t id = H5FDregister(&driver);
  return id;
}

}  // namespace

hdf5::File StructureImage::create() {
  const char* doing = "make an HDF5 file in memory";
  const hdf5::PropertyList access(H5Pcreate(H5P_FILE_ACCESS), doing, ErrorCode::file_io);
  H5Pset_libver_bounds(access.get(), H5F_LIBVER_V110, H5F_LIBVER_V110);
  H5Pset_meta_block_size(access.get(), 64 << 10);
  H5Pset_alignment(access.get(), 64 << 10, 4096);
  const DriverInfo info{this};
  if (H5Pset_driver(access.get(), driver_id(), &info) < 0) hdf5::fail(doing, ErrorCode::file_io);
  return {H5Fcreate("yumoe", H5F_ACC_TRUNC, H5P_DEFAULT, access.get()), doing, ErrorCode::file_io};
}

void StructureImage::complete(File& file, std::vector<Section> sections) const {
  std::vector<Section> all = with_structure(std::move(sections), size_);
  Bytes block;
  for (Section& section : all) {
    if (section.name != kStructure) continue;
    SectionWriter writer(file, section);
    for (std::uint64_t done = 0; done < section.bytes; done += block.size()) {
      block.resize(std::min(kBlockBytes, section.bytes - done));
      get(section.offset + done, block);
      writer.append(block);
    }
    writer.finish();
  }
  seal(file, all);
}

void StructureImage::put(std::uint64_t offset, ByteView bytes) {
  while (!bytes.empty()) {
    const std::uint64_t inside = offset % kBlockBytes;
    const std::uint64_t take = std::min<std::uint64_t>(kBlockBytes - inside, bytes.size());
    Bytes& block = blocks_[offset - inside];
    block.resize(kBlockBytes);
    std::memcpy(block.data() + inside, bytes.data(), take);
    bytes = bytes.subspan(take);
    offset += take;
  }
}

void StructureImage::get(std::uint64_t offset, std::span<std::uint8_t> bytes) const {
  while (!bytes.empty()) {
    const std::uint64_t inside = offset % kBlockBytes;
    const std::uint64_t take = std::min<std::uint64_t>(kBlockBytes - inside, bytes.size());
    const auto block = blocks_.find(offset - inside);
    if (block == blocks_.end()) {
      std::memset(bytes.data(), 0, take);
    } else {
      std::memcpy(bytes.data(), block->second.data() + inside, take);
    }
    bytes = bytes.subspan(take);
    offset += take;
  }
}

}  // namespace yumoe
