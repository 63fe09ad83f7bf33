#include "store/hdf5.hpp"

#include <cstring>
#include <numeric>

namespace yumoe::hdf5 {
namespace {

constexpr ErrorCode kWriting = ErrorCode::file_io;
constexpr std::size_t kTextBytesMax = std::size_t{64} << 20;

struct Stack {
  std::string text;
};

herr_t add_entry(unsigned, const H5E_error2_t* entry, void* stack) {
  std::string& text = static_cast<Stack*>(stack)->text;
  if (text.size() > 2'000) return 0;
  if (!text.empty()) text += " <- ";
  text += entry->desc != nullptr ? entry->desc : "?";
  return 0;
}

Dataspace space_of(const Shape& shape) {
  if (shape.empty()) return {H5Screate(H5S_SCALAR), "make a dataspace", kWriting};
  const std::vector<hsize_t> dimensions(shape.begin(), shape.end());
  return {H5Screate_simple(static_cast<int>(shape.size()), dimensions.data(), nullptr),
          "make a dataspace", kWriting};
}

void write_scalar_attribute(hid_t object, const char* name, hid_t file_type, hid_t memory_type,
                            const void* value) {
  const std::string doing = std::string("write attribute ") + name;
  const Dataspace space = space_of({});
  const Attribute attribute(
      H5Acreate2(object, name, file_type, space.get(), H5P_DEFAULT, H5P_DEFAULT), doing, kWriting);
  if (H5Awrite(attribute.get(), memory_type, value) < 0) fail(doing, kWriting);
}

Datatype variable_text() {
  Datatype type(H5Tcopy(H5T_C_S1), "make a text type", kWriting);
  H5Tset_size(type.get(), H5T_VARIABLE);
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  return type;
}

std::uint64_t elements_of(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::uint64_t{1}, std::multiplies<>());
}

}  // namespace

void fail(const std::string& doing, ErrorCode code) {
  Stack stack;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, add_entry, &stack);
  H5Eclear2(H5E_DEFAULT);
  const bool full = stack.text.find("errno = 28,") != std::string::npos;
  throw Error(full ? ErrorCode::disk_full : code,
              doing + ": " + (stack.text.empty() ? "HDF5 gives no reason" : stack.text) +
                  (full ? ": free some space there, then start again" : ""));
}

void print_no_errors() { H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr); }

Group create_group(hid_t at, const std::string& name) {
  return {H5Gcreate2(at, name.c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
          "create group " + name, kWriting};
}

void write_attribute(hid_t object, const char* name, std::int64_t value) {
  write_scalar_attribute(object, name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value);
}

void write_attribute(hid_t object, const char* name, std::uint64_t value) {
  write_scalar_attribute(object, name, H5T_STD_U64LE, H5T_NATIVE_UINT64, &value);
}

void write_attribute(hid_t object, const char* name, double value) {
  write_scalar_attribute(object, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &value);
}

void write_attribute(hid_t object, const char* name, bool value) {
  write_attribute(object, name, std::int64_t{value});
}

void write_attribute(hid_t object, const char* name, const std::string& value) {
  const Datatype type = variable_text();
  const char* text = value.c_str();
  write_scalar_attribute(object, name, type.get(), type.get(), &text);
}

Dataset reserve_dataset(hid_t at, const std::string& name, hid_t type, const Shape& shape) {
  const std::string doing = "create dataset " + name;
  const Dataspace space = space_of(shape);
  const PropertyList creation(H5Pcreate(H5P_DATASET_CREATE), doing, kWriting);
  H5Pset_layout(creation.get(), H5D_CONTIGUOUS);
  H5Pset_alloc_time(creation.get(), H5D_ALLOC_TIME_EARLY);
  H5Pset_fill_time(creation.get(), H5D_FILL_TIME_NEVER);
  return {H5Dcreate2(at, name.c_str(), type, space.get(), H5P_DEFAULT, creation.get(), H5P_DEFAULT),
          doing, kWriting};
}

std::uint64_t offset_of(const Dataset& dataset) {
  const haddr_t offset = H5Dget_offset(dataset.get());
  if (offset == HADDR_UNDEF) fail("find where a dataset lies", kWriting);
  return offset;
}

Dataset create_view(hid_t at, const std::string& name, const Shape& shape,
                    const std::string& source, std::uint64_t source_elements, std::uint64_t first) {
  const std::string doing = "create view " + name;
  const Dataspace space = space_of(shape);
  const Dataspace source_space = space_of({source_elements});
  const hsize_t start = first, count = elements_of(shape);
  const PropertyList creation(H5Pcreate(H5P_DATASET_CREATE), doing, kWriting);
  if (H5Sselect_hyperslab(source_space.get(), H5S_SELECT_SET, &start, nullptr, &count, nullptr) <
          0 ||
      H5Pset_virtual(creation.get(), space.get(), ".", source.c_str(), source_space.get()) < 0) {
    fail(doing, kWriting);
  }
  return {H5Dcreate2(at, name.c_str(), H5T_IEEE_F32LE, space.get(), H5P_DEFAULT, creation.get(),
                     H5P_DEFAULT),
          doing, kWriting};
}

void write_numbers(const Dataset& dataset, hid_t memory_type, const void* values) {
  if (H5Dwrite(dataset.get(), memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0) {
    fail("write a dataset", kWriting);
  }
}

Dataset write_text(hid_t at, const std::string& name, const std::string& text) {
  const Datatype type = variable_text();
  const Dataspace space = space_of({});
  Dataset dataset(
      H5Dcreate2(at, name.c_str(), type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
      "create dataset " + name, kWriting);
  const char* pointer = text.c_str();
  write_numbers(dataset, type.get(), &pointer);
  return dataset;
}

Dataset write_texts(hid_t at, const std::string& name, const std::vector<std::string>& texts) {
  const Datatype type = variable_text();
  const Dataspace space = space_of({texts.size()});
  Dataset dataset(
      H5Dcreate2(at, name.c_str(), type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
      "create dataset " + name, kWriting);
  std::vector<const char*> pointers;
  for (const std::string& text : texts) pointers.push_back(text.c_str());
  if (!texts.empty()) write_numbers(dataset, type.get(), pointers.data());
  return dataset;
}

Datatype fixed_text(std::size_t bytes) {
  Datatype type(H5Tcopy(H5T_C_S1), "make a text type", kWriting);
  H5Tset_size(type.get(), bytes);
  H5Tset_strpad(type.get(), H5T_STR_NULLPAD);
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  return type;
}

Reader::Reader(const std::filesystem::path& path, ErrorCode code)
    : path_(path), code_(code), file_([&] {
        const std::string doing = "open " + path.string();
        const PropertyList access(H5Pcreate(H5P_FILE_ACCESS), doing, code);
        H5Pset_file_locking(access.get(), false, true);
        return File(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), doing, code);
      }()) {}

void Reader::refuse(const std::string& what) const {
  throw Error(code_, path_.string() + ": " + what);
}

bool Reader::has(const std::string& name) const {
  return H5Lexists(file_.get(), name.c_str(), H5P_DEFAULT) > 0;
}

Group Reader::group(const std::string& name) const {
  return {H5Gopen2(file_.get(), name.c_str(), H5P_DEFAULT), path_.string() + ": group " + name,
          code_};
}

Dataset Reader::dataset(const std::string& name) const {
  return {H5Dopen2(file_.get(), name.c_str(), H5P_DEFAULT), path_.string() + ": dataset " + name,
          code_};
}

namespace {

// An attribute that is one value of a type class.
Attribute scalar_attribute(hid_t object, const char* name, H5T_class_t kind,
                           const std::string& doing, ErrorCode code) {
  Attribute attribute(H5Aopen(object, name, H5P_DEFAULT), doing, code);
  const Dataspace space(H5Aget_space(attribute.get()), doing, code);
  const Datatype type(H5Aget_type(attribute.get()), doing, code);
  if (H5Sget_simple_extent_npoints(space.get()) != 1 || H5Tget_class(type.get()) != kind) {
    throw Error(code, doing + " is of another type");
  }
  return attribute;
}

// Takes over a string that HDF5 allocated.
std::string taken(char* text) {
  std::string copy = text != nullptr ? std::string(text, strnlen(text, kTextBytesMax)) : "";
  H5free_memory(text);
  return copy;
}

}  // namespace

std::int64_t Reader::integer(hid_t object, const char* name) const {
  const std::string doing = path_.string() + ": attribute " + name;
  const Attribute attribute = scalar_attribute(object, name, H5T_INTEGER, doing, code_);
  std::int64_t value = 0;
  if (H5Aread(attribute.get(), H5T_NATIVE_INT64, &value) < 0) fail(doing, code_);
  return value;
}

std::uint64_t Reader::count(hid_t object, const char* name) const {
  const std::string doing = path_.string() + ": attribute " + name;
  const Attribute attribute = scalar_attribute(object, name, H5T_INTEGER, doing, code_);
  std::uint64_t value = 0;
  if (H5Aread(attribute.get(), H5T_NATIVE_UINT64, &value) < 0) fail(doing, code_);
  return value;
}

double Reader::number(hid_t object, const char* name) const {
  const std::string doing = path_.string() + ": attribute " + name;
  const Attribute attribute = scalar_attribute(object, name, H5T_FLOAT, doing, code_);
  double value = 0;
  if (H5Aread(attribute.get(), H5T_NATIVE_DOUBLE, &value) < 0) fail(doing, code_);
  return value;
}

std::string Reader::text(hid_t object, const char* name) const {
  const std::string doing = path_.string() + ": attribute " + name;
  const Attribute attribute = scalar_attribute(object, name, H5T_STRING, doing, code_);
  const Datatype type(H5Aget_type(attribute.get()), doing, code_);
  if (H5Tis_variable_str(type.get()) <= 0) throw Error(code_, doing + " is of another type");
  char* text = nullptr;
  if (H5Aread(attribute.get(), type.get(), &text) < 0) fail(doing, code_);
  return taken(text);
}

std::string Reader::text_dataset(const std::string& name) const {
  const std::string doing = path_.string() + ": dataset " + name;
  const Dataset dataset = this->dataset(name);
  const Datatype type(H5Dget_type(dataset.get()), doing, code_);
  const Dataspace space(H5Dget_space(dataset.get()), doing, code_);
  if (H5Tget_class(type.get()) != H5T_STRING || H5Tis_variable_str(type.get()) <= 0 ||
      H5Sget_simple_extent_npoints(space.get()) != 1) {
    throw Error(code_, doing + " is of another type");
  }
  char* text = nullptr;
  read(dataset, type.get(), &text);
  return taken(text);
}

std::vector<std::string> Reader::names(const std::string& group) const {
  const Group opened = this->group(group);
  std::vector<std::string> names;
  const auto add = [](hid_t, const char* name, const H5L_info_t*, void* into) -> herr_t {
    static_cast<std::vector<std::string>*>(into)->emplace_back(name);
    return 0;
  };
  if (H5Literate(opened.get(), H5_INDEX_NAME, H5_ITER_INC, nullptr, add, &names) < 0) {
    fail(path_.string() + ": list group " + group, code_);
  }
  return names;
}

Shape Reader::shape_of(const Dataset& dataset, const std::string& name, hid_t type,
                       std::size_t rank) const {
  const std::string doing = path_.string() + ": dataset " + name;
  const Datatype stored(H5Dget_type(dataset.get()), doing, code_);
  const Dataspace space(H5Dget_space(dataset.get()), doing, code_);
  const bool as_expected = H5Tget_class(stored.get()) == H5Tget_class(type) &&
                           H5Tget_size(stored.get()) == H5Tget_size(type) &&
                           H5Sget_simple_extent_ndims(space.get()) == static_cast<int>(rank);
  if (!as_expected) throw Error(code_, doing + " is of another type or shape");
  std::vector<hsize_t> dimensions(rank);
  if (H5Sget_simple_extent_dims(space.get(), dimensions.data(), nullptr) < 0) fail(doing, code_);
  return {dimensions.begin(), dimensions.end()};
}

void Reader::read(const Dataset& dataset, hid_t memory_type, void* values) const {
  if (H5Dread(dataset.get(), memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0) {
    fail("read from " + path_.string(), code_);
  }
}

}  // namespace yumoe::hdf5
