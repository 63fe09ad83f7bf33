#include <algorithm>
#include <bit>
#include <string>

#include "cluster/error.hpp"
#include "codec/select.hpp"
#include "codec/wire.hpp"
#include "router/codec.hpp"

namespace yumoe {
namespace {

using namespace codec;

std::uint64_t kept_of(std::uint64_t elements, const CodecOptions& options) {
  const auto block = static_cast<std::uint64_t>(options.block_elements);
  const auto kept = std::min(block, static_cast<std::uint64_t>(options.kept_per_block));
  return elements == block ? kept : std::max<std::uint64_t>(1, elements * kept / block);
}

std::uint32_t group_elements_of(const CodecOptions& options) {
  constexpr std::uint32_t kTarget =
      1u << 17;  // half a megabyte of residual: stays in the second cache
  const auto block = static_cast<std::uint32_t>(options.block_elements);
  return std::max(1u, kTarget / block) * block;
}

void check(const CodecOptions& options) {
  CodecOptions copy = options;
  auto check_one = [](std::string_view name, auto& value, const OptionInfo& info) {
    const std::string rule = broken_rule(value, info);
    if (!rule.empty()) throw Error(ErrorCode::config_invalid, std::string(name) + " " + rule);
  };
  copy.visit(check_one);
}

void append_varint(Bytes& bytes, std::uint32_t value) {
  for (; value >= 0x80; value >>= 7) bytes.push_back(static_cast<std::uint8_t>(value | 0x80));
  bytes.push_back(static_cast<std::uint8_t>(value));
}

// What a group needs while it is encoded; allocated once an update.
class GroupEncoder {
 public:
  explicit GroupEncoder(const CodecOptions& options)
      : options_(options),
        value_bits_(static_cast<std::uint32_t>(options.value_bits)),
        select_(fastest_select_block()) {
    const auto block = static_cast<std::size_t>(options.block_elements);
    const std::size_t blocks = group_elements_of(options) / block;
    const std::size_t kept = blocks * kept_of(block, options);
    bitmap_.resize(block / 64 + 1);
    candidates_.resize(block + 64);
    magnitudes_.resize(block + 64);
    places_.resize(kept + 64);
    values_.resize(kept);
    gaps_.resize(kept);
    codes_.resize(kept);
    scratch_ = {bitmap_.data(), candidates_.data(), magnitudes_.data(), 0};
  }

  void start_tensor() { scratch_.guess = 0; }

  // Chooses the group's values. Returns how many, or kNotFinite.
  std::uint32_t select(std::span<const float> group) {
    const auto block = static_cast<std::size_t>(options_.block_elements);
    std::uint32_t count = 0;
    for (std::size_t start = 0; start < group.size(); start += block) {
      const auto elements = static_cast<std::uint32_t>(std::min(block, group.size() - start));
      const auto kept = static_cast<std::uint32_t>(kept_of(elements, options_));
      std::uint32_t* places = places_.data() + count;
      const std::uint32_t found = select_(group.data() + start, elements, kept, &scratch_, places);
      if (found == kNotFinite) return kNotFinite;
      for (std::uint32_t i = 0; i < found; ++i) places[i] += static_cast<std::uint32_t>(start);
      count += found;
    }
    count_ = count;
    return count;
  }

  // Appends the chosen values and takes them from the residual.
  void emit(std::span<float> group, Bytes& bytes) {
    append_varint(bytes, count_);
    if (count_ == 0) return;
    for (std::uint32_t i = 0; i < count_; ++i) values_[i] = group[places_[i]];
    const Levels levels = fit_levels({values_.data(), count_}, value_bits_, codes_.data());
    subtract(levels, group);
    gaps_[0] = places_[0];
    for (std::uint32_t i = 1; i < count_; ++i) gaps_[i] = places_[i] - places_[i - 1] - 1;
    const std::uint32_t rice = best_rice();
    bytes.push_back(static_cast<std::uint8_t>(rice));
    const std::uint32_t high_bits = high_bits_of(rice);
    append_varint(bytes, (high_bits + 7) / 8);
    for (std::uint32_t code = 0; code < 1u << value_bits_; ++code) {
      bytes.push_back(static_cast<std::uint8_t>(levels.table[code]));
      bytes.push_back(static_cast<std::uint8_t>(levels.table[code] >> 8));
    }
    append_high(rice, (high_bits + 7) / 8, bytes);
    append_low(rice, bytes);
  }

 private:
  void subtract(const Levels& levels, std::span<float> group) const {
    std::array<float, 16> decoded;
    for (std::size_t code = 0; code < 16; ++code) decoded[code] = from_bfloat16(levels.table[code]);
    for (std::uint32_t i = 0; i < count_; ++i) group[places_[i]] = values_[i] - decoded[codes_[i]];
  }

  std::uint32_t high_bits_of(std::uint32_t rice) const {
    std::uint32_t bits = count_;
    for (std::uint32_t i = 0; i < count_; ++i) bits += gaps_[i] >> rice;
    return bits;
  }

  // The parameter with the shortest code: at most log2(mean gap) + 1, lower if gaps vary.
  std::uint32_t best_rice() const {
    const std::uint32_t mean = (places_[count_ - 1] + 1) / count_;
    const auto middle = static_cast<std::uint32_t>(std::bit_width(mean));
    std::uint32_t best = 0;
    std::uint32_t best_bits = ~0u;
    for (std::uint32_t rice = middle > 4 ? middle - 4 : 0; rice <= std::min(middle, kRiceMax);
         ++rice) {
      const std::uint32_t bits = high_bits_of(rice) + count_ * rice;
      if (bits < best_bits) {
        best = rice;
        best_bits = bits;
      }
    }
    return best;
  }

  void append_high(std::uint32_t rice, std::uint32_t size, Bytes& bytes) const {
    const std::size_t start = bytes.size();
    bytes.resize(start + size);
    std::uint8_t* high = bytes.data() + start;
    std::uint32_t place = 0;
    for (std::uint32_t i = 0; i < count_; ++i, ++place) {
      place += gaps_[i] >> rice;
      high[place >> 3] = static_cast<std::uint8_t>(high[place >> 3] | 1u << (place & 7));
    }
  }

  void append_low(std::uint32_t rice, Bytes& bytes) const {
    const std::uint32_t width = rice + value_bits_;
    const std::size_t start = bytes.size();
    const std::size_t size = (std::size_t{count_} * width + 7) / 8;
    bytes.resize(start + size + 8);  // whole words are stored
    std::uint8_t* at = bytes.data() + start;
    const std::uint32_t gap_mask = (1u << rice) - 1;
    std::uint64_t pending = 0;
    std::uint32_t filled = 0;  // below 8 after each store
    for (std::uint32_t i = 0; i < count_; ++i) {
      const std::uint64_t field = std::uint64_t{gaps_[i] & gap_mask} << value_bits_ | codes_[i];
      pending |= field << filled;
      filled += width;
      std::memcpy(at, &pending, sizeof pending);
      at += filled >> 3;
      pending >>= filled & ~7u;
      filled &= 7;
    }
    bytes.resize(start + size);
  }

  const CodecOptions& options_;
  std::uint32_t value_bits_;
  SelectBlock select_;
  std::vector<std::uint64_t> bitmap_;
  std::vector<std::uint32_t> candidates_, magnitudes_, places_, gaps_;
  std::vector<float> values_;
  std::vector<std::uint8_t> codes_;
  SelectScratch scratch_{};
  std::uint32_t count_ = 0;
};

// Appends a tensor's section; false, and nothing appended, if there is nothing to send.
bool encode_tensor(const TensorSpec& tensor, std::span<float> residual,
                   std::uint32_t group_elements, GroupEncoder& encoder, Bytes& bytes) {
  const std::size_t start = bytes.size();
  bool any = false;
  encoder.start_tensor();
  for (std::size_t at = 0; at < residual.size(); at += group_elements) {
    const std::span<float> group =
        residual.subspan(at, std::min<std::size_t>(group_elements, residual.size() - at));
    const std::uint32_t count = encoder.select(group);
    if (count == kNotFinite) {
      throw Error(ErrorCode::not_finite, "encode update: residual of " + tensor.name +
                                             ": discard the round's work and start from the base");
    }
    any = any || count > 0;
    encoder.emit(group, bytes);
  }
  if (!any) bytes.resize(start);
  return any;
}

void append_experts(const ExpertSet& experts, Bytes& bytes) {
  append_varint(bytes, static_cast<std::uint32_t>(experts.size()));
  for (std::size_t i = 0; i < experts.size(); ++i) {
    append_varint(bytes, i == 0 ? experts[0] : experts[i] - experts[i - 1] - 1);
  }
}

}  // namespace

Bytes encode_update(const Layout& layout, const ExpertSet& experts, std::span<float> residual,
                    const CodecOptions& options) {
  check(options);
  YUMOE_ASSERT(residual.size() == layout.parameters());
  YUMOE_ASSERT(std::is_sorted(experts.begin(), experts.end(), std::less_equal<>()));
  YUMOE_ASSERT(experts.empty() || experts.back() < layout.model().experts);
  const std::uint32_t group_elements = group_elements_of(options);
  const std::vector<const TensorSpec*> tensors = layout.tensors_of(experts);

  Bytes bytes;
  bytes.reserve(kept_max(layout, experts, options) * 10 / 8 + 16 * tensors.size() + 1'024);
  bytes.push_back(
      static_cast<std::uint8_t>(kVersion << 4 | static_cast<std::uint32_t>(options.value_bits)));
  append_varint(bytes, group_elements);
  append_experts(experts, bytes);
  const std::size_t bitmap = bytes.size();
  bytes.resize(bitmap + (tensors.size() + 7) / 8);

  GroupEncoder encoder(options);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const TensorSpec& tensor = *tensors[i];
    if (encode_tensor(tensor, residual.subspan(tensor.offset, tensor.elements), group_elements,
                      encoder, bytes)) {
      bytes[bitmap + i / 8] = static_cast<std::uint8_t>(bytes[bitmap + i / 8] | 1u << (i % 8));
    }
  }
  const std::uint64_t checksum = checksum_of(layout, bytes);
  const auto* tail = reinterpret_cast<const std::uint8_t*>(&checksum);
  bytes.insert(bytes.end(), tail, tail + sizeof checksum);
  return bytes;
}

std::uint64_t kept_max(const Layout& layout, const ExpertSet& experts,
                       const CodecOptions& options) {
  const auto block = static_cast<std::uint64_t>(options.block_elements);
  std::uint64_t kept = 0;
  for (const TensorSpec* tensor : layout.tensors_of(experts)) {
    kept += tensor->elements / block * kept_of(block, options);
    if (const std::uint64_t rest = tensor->elements % block; rest > 0) {
      kept += kept_of(rest, options);
    }
  }
  return kept;
}

std::uint64_t update_bytes_max(const Layout& layout, const ExpertSet& experts,
                               const CodecOptions& options) {
  // A group's code for k = log2(its mean gap) takes at most k + 2 bits a gap beside the value's.
  const auto block = static_cast<std::uint64_t>(options.block_elements);
  const std::uint64_t gap_bits =
      static_cast<std::uint64_t>(std::bit_width(block / kept_of(block, options))) + 2;
  const std::uint64_t bits = gap_bits + static_cast<std::uint64_t>(options.value_bits);
  const std::uint64_t kept = kept_max(layout, experts, options);
  const std::vector<const TensorSpec*> tensors = layout.tensors_of(experts);
  std::uint64_t groups = 0;
  for (const TensorSpec* tensor : tensors)
    groups += tensor->elements / group_elements_of(options) + 1;
  const std::uint64_t group_bytes = 16 + (std::uint64_t{2} << options.value_bits);
  return 64 + 5 * experts.size() + tensors.size() + groups * group_bytes + kept * bits / 8;
}

}  // namespace yumoe
