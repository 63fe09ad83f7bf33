#include "coordinator/safetensors.hpp"

#include <fcntl.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "cluster/error.hpp"
#include "cluster/option.hpp"
#include "store/file.hpp"

namespace yumoe {
namespace {

using nlohmann::json;

constexpr std::uint64_t kHeaderBytesMax = 100'000'000;  // the format's own limit
constexpr std::size_t kRankMax = 16;
constexpr int kDepthMax = 3;
constexpr char kMetadataKey[] = "__metadata__";

struct ElementSize {
  const char* dtype;
  std::uint64_t bytes;
};
constexpr ElementSize kElementSizes[] = {{"BOOL", 1},    {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1},
                                         {"F8_E4M3", 1}, {"U16", 2}, {"I16", 2}, {"F16", 2},
                                         {"BF16", 2},    {"U32", 4}, {"I32", 4}, {"F32", 4},
                                         {"U64", 8},     {"I64", 8}, {"F64", 8}};

std::uint64_t element_bytes_of(const std::string& dtype) {
  for (const ElementSize& size : kElementSizes) {
    if (dtype == size.dtype) return size.bytes;
  }
  return 0;
}

float from_half(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000) << 16;
  const std::uint32_t exponent = (half >> 10) & 31, fraction = half & 1023;
  if (exponent == 0) {
    const float value = static_cast<float>(fraction) * 0x1p-24f;
    return sign != 0 ? -value : value;
  }
  const std::uint32_t wide = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | wide << 23 | fraction << 13);
}

// Throws from inside the parser: a repeated name, or nesting that no header has.
class Guard {
 public:
  explicit Guard(const std::filesystem::path& path) : path_(path) {}
  bool operator()(int depth, json::parse_event_t event, json& value) {
    if (depth > kDepthMax) refuse("its header is nested too deeply");
    if (event == json::parse_event_t::key && depth == 1 &&
        !names_.insert(value.get<std::string>()).second) {
      refuse("its header names " + value.get<std::string>() + " twice");
    }
    return true;
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(ErrorCode::data_invalid, path_.string() + ": " + what);
  }
  const std::filesystem::path& path_;
  std::set<std::string> names_;
};

std::string header_of(const Layout& layout, std::map<std::string, std::string> metadata) {
  for (const auto& [name, text] : texts_of(layout.model())) metadata["model." + name] = text;
  metadata["format"] = "pt";
  json header;
  header[kMetadataKey] = metadata;
  for (const TensorSpec& tensor : layout.tensors()) {
    const std::uint64_t begin = tensor.offset * sizeof(float);
    header[tensor.name] = {{"dtype", "F32"},
                           {"shape", tensor.shape},
                           {"data_offsets", {begin, begin + tensor.elements * sizeof(float)}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, const Layout& layout,
                       std::span<const float> parameters,
                       const std::map<std::string, std::string>& metadata) {
  YUMOE_ASSERT(parameters.size() == layout.parameters());
  if (path.has_parent_path()) make_folder(path.parent_path(), ErrorCode::file_io);
  std::filesystem::path partial = path;
  partial += ".partial";
  try {
    File file(partial, O_RDWR | O_CREAT | O_TRUNC);
    const std::string header = header_of(layout, metadata);
    const std::uint64_t header_bytes = header.size();
    file.write_at(0, as_bytes(std::span<const std::uint64_t>(&header_bytes, 1)));
    file.write_at(8, as_bytes(header));
    file.write_at(8 + header_bytes, as_bytes(parameters));
    file.sync();
    replace_file(partial, path, ErrorCode::file_io);
  } catch (const Error&) {
    std::error_code ignored;  // the next writer truncates it
    std::filesystem::remove(partial, ignored);
    throw;
  }
}

struct SafetensorsReader::Impl {
  explicit Impl(const std::filesystem::path& path) : file(path, O_RDONLY) {
    const std::uint64_t size = file.size();
    std::uint64_t header_bytes = 0;
    if (size < 8) refuse("it is cut short");
    std::array<std::uint8_t, 8> length;
    file.read_at(0, length);
    std::memcpy(&header_bytes, length.data(), 8);
    if (header_bytes > kHeaderBytesMax || header_bytes > size - 8) {
      refuse("its header is longer than allowed");
    }
    std::string text(header_bytes, '\0');
    file.read_at(8, {reinterpret_cast<std::uint8_t*>(text.data()), text.size()});
    parse(text, 8 + header_bytes);
    check_places(8 + header_bytes, size);
  }

  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(ErrorCode::data_invalid, file.path().string() + ": " + what);
  }

  void parse(const std::string& text, std::uint64_t data_begin) {
    try {
      const json header = json::parse(text, Guard(file.path()));
      if (!header.is_object()) refuse("its header is not an object");
      for (const auto& [name, value] : header.items()) {
        if (name == kMetadataKey) {
          metadata = value.get<std::map<std::string, std::string>>();
        } else {
          tensors[name] = tensor_of(name, value, data_begin);
        }
      }
    } catch (const json::exception& error) {
      refuse(std::string("its header is not understood: ") + error.what());
    }
  }

  Tensor tensor_of(const std::string& name, const json& value, std::uint64_t data_begin) const {
    Tensor tensor{.dtype = value.at("dtype").get<std::string>(),
                  .shape = unsigned_numbers(value.at("shape")),
                  .begin = 0,
                  .bytes = 0};
    const std::vector<std::uint64_t> offsets = unsigned_numbers(value.at("data_offsets"));
    const std::uint64_t element = element_bytes_of(tensor.dtype);
    if (element == 0) refuse("tensor " + name + " has the unknown type " + tensor.dtype);
    std::uint64_t bytes = element;
    bool overflow = tensor.shape.size() > kRankMax || offsets.size() != 2;
    for (const std::uint64_t size : tensor.shape) {
      overflow = overflow || __builtin_mul_overflow(bytes, size, &bytes);
    }
    if (overflow || offsets[1] < offsets[0] || offsets[1] - offsets[0] != bytes ||
        __builtin_add_overflow(data_begin, offsets[0], &tensor.begin)) {
      refuse("tensor " + name + " does not have the size of its shape");
    }
    tensor.bytes = bytes;
    return tensor;
  }

  // json would convert negative numbers and fractions without a word.
  std::vector<std::uint64_t> unsigned_numbers(const json& list) const {
    std::vector<std::uint64_t> numbers;
    for (const json& item : list) {
      if (!item.is_number_unsigned()) refuse("a size or offset is not a whole number");
      numbers.push_back(item.get<std::uint64_t>());
    }
    return numbers;
  }

  // Tensors fill what follows the header, in some order, without gap or overlap.
  void check_places(std::uint64_t begin, std::uint64_t end) const {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> places;
    for (const auto& [name, tensor] : tensors) places.emplace_back(tensor.begin, tensor.bytes);
    std::sort(places.begin(), places.end());
    for (const auto& [offset, bytes] : places) {
      if (offset != begin || bytes > end - begin) refuse("its tensors overlap or leave gaps");
      begin += bytes;
    }
    if (begin != end) refuse("it does not end where its tensors do");
  }

  File file;
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata;
};

SafetensorsReader::SafetensorsReader(const std::filesystem::path& path)
    : impl_(std::make_unique<Impl>(path)) {}
SafetensorsReader::SafetensorsReader(SafetensorsReader&&) noexcept = default;
SafetensorsReader::~SafetensorsReader() = default;

const std::map<std::string, SafetensorsReader::Tensor>& SafetensorsReader::tensors() const {
  return impl_->tensors;
}

const std::map<std::string, std::string>& SafetensorsReader::metadata() const {
  return impl_->metadata;
}

std::vector<float> SafetensorsReader::read(const std::string& name) const {
  const auto found = impl_->tensors.find(name);
  if (found == impl_->tensors.end()) impl_->refuse("it has no tensor " + name);
  const Tensor& tensor = found->second;
  if (tensor.dtype == "F32") {
    std::vector<float> values(tensor.bytes / 4);
    impl_->file.read_at(tensor.begin,
                        {reinterpret_cast<std::uint8_t*>(values.data()), tensor.bytes});
    return values;
  }
  if (tensor.dtype != "F16" && tensor.dtype != "BF16") {
    impl_->refuse("tensor " + name + " is " + tensor.dtype + "; F32, F16 and BF16 can be read");
  }
  std::vector<std::uint16_t> halves(tensor.bytes / 2);
  impl_->file.read_at(tensor.begin, {reinterpret_cast<std::uint8_t*>(halves.data()), tensor.bytes});
  std::vector<float> values(halves.size());
  const bool brain = tensor.dtype == "BF16";
  std::transform(halves.begin(), halves.end(), values.begin(), [brain](std::uint16_t half) {
    return brain ? std::bit_cast<float>(std::uint32_t{half} << 16) : from_half(half);
  });
  return values;
}

}  // namespace yumoe
