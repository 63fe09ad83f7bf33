#pragma once
// Owns HDF5's identifiers and turns its error stack into Errors. Private to coordinator/store: no
// other folder includes hdf5.h.

#include <hdf5.h>

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cluster/bytes.hpp"
#include "cluster/error.hpp"

namespace yumoe::hdf5 {

// Throws what HDF5's error stack says about the call that just failed: Error{disk_full} if the disk
// was, else Error{code}.
[[noreturn]] void fail(const std::string& doing, ErrorCode code);

// Keeps HDF5 from printing its errors on this thread: they travel in our messages. Called wherever
// a public function begins to use HDF5, since HDF5 remembers it by thread.
void print_no_errors();

// hid_t is one integer type for files, groups, datasets and dataspaces, each with its own close
// function. Naming the closer in the type makes a File that is closed as a Dataset a compile error.
template <herr_t (*Close)(hid_t)>
class Handle {
 public:
  // Takes ownership. A negative `id` is how HDF5 says "failed": then throws as fail does.
  Handle(hid_t id, const std::string& doing, ErrorCode code) : id_(id) {
    if (id < 0) fail(doing, code);
  }
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, H5I_INVALID_HID)) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    return *this;
  }
  ~Handle() {
    if (id_ >= 0) Close(id_);
  }

  hid_t get() const noexcept { return id_; }

  // Closes now and reports failure, which the destructor cannot: of files, where writes come last.
  void close(const std::string& doing, ErrorCode code) {
    if (Close(std::exchange(id_, H5I_INVALID_HID)) < 0) fail(doing, code);
  }

 private:
  hid_t id_;
};

using File = Handle<H5Fclose>;
using Group = Handle<H5Gclose>;
using Dataset = Handle<H5Dclose>;
using Dataspace = Handle<H5Sclose>;
using Datatype = Handle<H5Tclose>;
using Attribute = Handle<H5Aclose>;
using PropertyList = Handle<H5Pclose>;

// --- Writing. `at` is a file or group; every failure is Error{file_io} or Error{disk_full}.

Group create_group(hid_t at, const std::string& name);

void write_attribute(hid_t object, const char* name, std::int64_t value);
void write_attribute(hid_t object, const char* name, std::uint64_t value);
void write_attribute(hid_t object, const char* name, double value);
void write_attribute(hid_t object, const char* name, bool value);
void write_attribute(hid_t object, const char* name, const std::string& value);

using Shape = std::vector<std::uint64_t>;

// A contiguous dataset whose bytes are in the file, though not yet written; nothing is filled in.
Dataset reserve_dataset(hid_t at, const std::string& name, hid_t type, const Shape& shape);

// Where a reserved dataset's bytes lie; must not be empty.
std::uint64_t offset_of(const Dataset& dataset);

// A dataset that shows elements [first, first + product of shape) of `source` (an absolute path in
// the same file, f32 [source_elements]) in another shape.
Dataset create_view(hid_t at, const std::string& name, const Shape& shape,
                    const std::string& source, std::uint64_t source_elements, std::uint64_t first);

void write_numbers(const Dataset& dataset, hid_t memory_type, const void* values);
Dataset write_text(hid_t at, const std::string& name, const std::string& text);
Dataset write_texts(hid_t at, const std::string& name, const std::vector<std::string>& texts);

// UTF-8 of `bytes` bytes, padded with zeros.
Datatype fixed_text(std::size_t bytes);

// --- Reading. Every failure is Error{code of the reader}, checkpoint_corrupt or journal_corrupt.

class Reader {
 public:
  // `file` must have been checked against its seal: HDF5 itself believes what it reads.
  Reader(const std::filesystem::path& path, ErrorCode code);

  hid_t root() const noexcept { return file_.get(); }
  bool has(const std::string& name) const;
  Group group(const std::string& name) const;
  Dataset dataset(const std::string& name) const;

  std::int64_t integer(hid_t object, const char* name) const;
  std::uint64_t count(hid_t object, const char* name) const;
  double number(hid_t object, const char* name) const;
  std::string text(hid_t object, const char* name) const;
  std::string text_dataset(const std::string& name) const;
  std::vector<std::string> names(const std::string& group) const;

  // Checks type class, size and rank; gives the dimensions.
  Shape shape_of(const Dataset& dataset, const std::string& name, hid_t type,
                 std::size_t rank) const;
  void read(const Dataset& dataset, hid_t memory_type, void* values) const;

  [[noreturn]] void refuse(const std::string& what) const;

 private:
  std::filesystem::path path_;
  ErrorCode code_;
  File file_;
};

}  // namespace yumoe::hdf5
