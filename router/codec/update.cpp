#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bit>
#include <string>

#include "cluster/error.hpp"
#include "codec/wire.hpp"
#include "router/codec.hpp"

namespace yumoe {
namespace codec {

std::uint64_t checksum_of(const Layout& layout, ByteView bytes) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), load64(layout.digest().bytes.data()));
}

namespace {

[[noreturn]] void refuse(const std::string& what) {
  throw Error(ErrorCode::update_malformed, "parse update: " + what);
}

class Reader {
 public:
  Reader(ByteView bytes, std::uint64_t at) : bytes_(bytes), at_(at) {}

  std::uint64_t at() const { return at_; }
  std::uint8_t u8() { return *take(1); }
  const std::uint8_t* take(std::uint64_t size) {
    if (size > bytes_.size() - at_) refuse("ends too early");
    const std::uint8_t* start = bytes_.data() + at_;
    at_ += size;
    return start;
  }
  std::uint32_t varint(std::uint32_t most, const char* name) {
    std::uint64_t value = 0;
    for (std::uint32_t shift = 0; shift < 35; shift += 7) {
      const std::uint8_t byte = u8();
      value |= std::uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) {
        if (value > most || (byte == 0 && shift > 0)) break;
        return static_cast<std::uint32_t>(value);
      }
    }
    refuse(std::string(name) + " is out of range");
  }

 private:
  ByteView bytes_;
  std::uint64_t at_;
};

struct Group {
  std::uint32_t count = 0;
  std::uint32_t rice = 0;
  std::uint32_t high_bytes = 0;
  const std::uint8_t* levels = nullptr;
  const std::uint8_t* high = nullptr;
  const std::uint8_t* low = nullptr;

  float level(std::uint32_t code) const {
    return from_bfloat16(static_cast<std::uint16_t>(levels[2 * code] | levels[2 * code + 1] << 8));
  }
};

// Reads where a group's parts lie; every part is inside the bytes when it returns.
Group read_group(Reader& reader, std::uint64_t elements, std::uint32_t value_bits) {
  Group group;
  group.count = reader.varint(static_cast<std::uint32_t>(elements), "number of values");
  if (group.count == 0) return group;
  group.rice = reader.u8();
  if (group.rice > kRiceMax) refuse("Rice parameter is out of range");
  const std::uint64_t high_most = (group.count + (elements >> group.rice) + 7) / 8;
  group.high_bytes = reader.varint(static_cast<std::uint32_t>(high_most), "size of the high parts");
  group.levels = reader.take(std::uint64_t{2} << value_bits);
  group.high = reader.take(group.high_bytes);
  group.low = reader.take((std::uint64_t{group.count} * (group.rice + value_bits) + 7) / 8);
  return group;
}

// Calls visit(place in the group, code) for each value, ascending. The group's high part must hold
// exactly `count` ones; what lies behind either part may be read (the checksum at least) but not used.
template <typename Visit>
inline void decode_group(const Group& group, std::uint32_t value_bits, const Visit& visit) {
  const std::uint32_t width = group.rice + value_bits;
  const std::uint32_t code_mask = (1u << value_bits) - 1;
  const std::uint32_t rice_mask = (1u << group.rice) - 1;
  const std::uint8_t* high = group.high;
  std::uint64_t ones = load64(high);
  std::uint64_t word_start = 0;
  std::uint64_t low_bit = 0;
  std::uint64_t low_sum = 0;
  for (std::uint32_t i = 0; i < group.count; ++i) {
    while (ones == 0) {
      word_start += 64;
      ones = load64(high + word_start / 8);
    }
    const std::uint64_t zeros = word_start + static_cast<std::uint64_t>(std::countr_zero(ones)) - i;
    ones &= ones - 1;
    const auto field = static_cast<std::uint32_t>(load64(group.low + low_bit / 8) >> (low_bit % 8));
    low_bit += width;
    low_sum += (field >> value_bits) & rice_mask;
    visit((zeros << group.rice) + low_sum + i, field & code_mask);
  }
}

std::uint32_t ones_in(const std::uint8_t* bytes, std::uint32_t size) {
  int ones = 0;
  std::uint32_t i = 0;
  for (; i + 8 <= size; i += 8) ones += std::popcount(load64(bytes + i));
  for (; i < size; ++i) ones += std::popcount(bytes[i]);
  return static_cast<std::uint32_t>(ones);
}

struct LowParts {
  std::uint64_t sum = 0;                   // of the gaps' low parts
  std::array<std::uint32_t, 16> counts{};  // by code
};

void add_fields(const Group& group, std::uint32_t value_bits, std::uint32_t first,
                LowParts& parts) {
  const std::uint32_t width = group.rice + value_bits;
  std::uint64_t bit = std::uint64_t{first} * width;
  for (std::uint32_t i = first; i < group.count; ++i, bit += width) {
    const auto field = static_cast<std::uint32_t>(load64(group.low + bit / 8) >> (bit % 8));
    parts.counts[field & ((1u << value_bits) - 1)] += 1;
    parts.sum += (field >> value_bits) & ((1u << group.rice) - 1);
  }
}

// The fields of a group of two-bit codes, eight at a time: each is spread to a byte of one word, where
// sums and counts are taken for all eight at once. Fields are 2 to 8 bits. Returns how many it took.
std::uint32_t add_fields_by_eight(const Group& group, LowParts& parts) {
  constexpr std::uint64_t kEach = 0x0101010101010101;
  constexpr std::uint64_t kQuarters = 0x0001000100010001;
  const std::uint32_t width = group.rice + 2;
  const std::uint64_t four = (std::uint64_t{1} << 4 * width) - 1;
  const std::uint64_t two = ((std::uint64_t{1} << 2 * width) - 1) * 0x0000000100000001;
  const std::uint64_t one = ((std::uint64_t{1} << width) - 1) * kQuarters;
  const auto sum_of_bytes = [](std::uint64_t bytes) {
    constexpr std::uint64_t kEven = 0x00ff00ff00ff00ff;
    return ((bytes & kEven) + (bytes >> 8 & kEven)) * kQuarters >> 48;
  };
  const std::uint32_t rounds = group.count / 8;
  for (std::uint32_t done = 0; done < rounds;) {
    std::uint64_t odd = 0, upper = 0, three = 0;  // by byte: how often codes 1 or 3, 2 or 3, 3
    const std::uint32_t end = std::min(rounds, done + 255);
    for (; done < end; ++done) {
      std::uint64_t word = load64(group.low + std::uint64_t{done} * width);
      word = (word & four) | (word >> 4 * width & four) << 32;
      word = (word & two) | (word >> 2 * width & two) << 16;
      word = (word & one) | (word >> width & one) << 8;
      odd += word & kEach;
      upper += word >> 1 & kEach;
      three += word & word >> 1 & kEach;
      parts.sum += sum_of_bytes(word >> 2 & kEach * 0x3f);
    }
    parts.counts[1] += static_cast<std::uint32_t>(sum_of_bytes(odd) - sum_of_bytes(three));
    parts.counts[2] += static_cast<std::uint32_t>(sum_of_bytes(upper) - sum_of_bytes(three));
    parts.counts[3] += static_cast<std::uint32_t>(sum_of_bytes(three));
  }
  const std::uint32_t taken = rounds * 8;
  parts.counts[0] = taken - parts.counts[1] - parts.counts[2] - parts.counts[3];
  return taken;
}

// Checks what read_group left open and returns the group's squared norm.
double check_group(const Group& group, std::uint64_t elements, std::uint32_t value_bits) {
  if (group.count == 0) return 0;
  if (group.high_bytes == 0 || group.high[group.high_bytes - 1] == 0 ||
      ones_in(group.high, group.high_bytes) != group.count) {
    refuse("high parts do not hold one mark a value");
  }
  const std::uint64_t low_bits = std::uint64_t{group.count} * (group.rice + value_bits);
  if (low_bits % 8 != 0 && group.low[low_bits / 8] >> (low_bits % 8) != 0) {
    refuse("padding is not zero");
  }
  LowParts parts;
  const bool by_eight = value_bits == 2 && group.rice <= 6;
  add_fields(group, value_bits, by_eight ? add_fields_by_eight(group, parts) : 0, parts);
  const std::uint64_t last_one =
      std::uint64_t{group.high_bytes} * 8 - 1 -
      static_cast<std::uint64_t>(std::countl_zero(group.high[group.high_bytes - 1]));
  // Places only ever grow, so the last one speaks for all.
  const std::uint64_t last =
      ((last_one - (group.count - 1)) << group.rice) + parts.sum + group.count - 1;
  if (last >= elements) refuse("place lies outside its tensor");
  double norm = 0;
  for (std::uint32_t code = 0; code < 1u << value_bits; ++code) {
    const float level = group.level(code);
    if (!((std::bit_cast<std::uint32_t>(level) & 0x7fffffff) < 0x7f800000)) {
      refuse("value is not finite");
    }
    norm += parts.counts[code] * (static_cast<double>(level) * static_cast<double>(level));
  }
  return norm;
}

ExpertSet read_experts(Reader& reader, const Layout& layout) {
  const auto most = static_cast<std::uint32_t>(layout.model().experts);
  ExpertSet experts(reader.varint(most, "number of experts"));
  std::uint32_t next = 0;
  for (std::uint32_t& expert : experts) {
    if (next >= most) refuse("expert is out of range");
    expert = next + reader.varint(most - 1 - next, "expert");
    next = expert + 1;
  }
  return experts;
}

}  // namespace
}  // namespace codec

// Fills an Update from its bytes, which nothing has checked yet.
struct UpdateParser {
  Update& update;
  const Layout& layout;

  void parse() {
    const ByteView bytes = update.bytes_;
    if (bytes.size() < codec::kChecksumBytes + 2) codec::refuse("ends too early");
    const ByteView body = bytes.first(bytes.size() - codec::kChecksumBytes);
    if (codec::checksum_of(layout, body) != codec::load64(body.data() + body.size())) {
      codec::refuse("checksum differs: damaged, or made for another model");
    }
    codec::Reader reader(body, 0);
    const std::uint8_t first = reader.u8();
    if (first >> 4 != codec::kVersion) codec::refuse("written by another version");
    update.value_bits_ = first & 15;
    if (update.value_bits_ < 1 || update.value_bits_ > codec::kValueBitsMax) {
      codec::refuse("number of value bits is out of range");
    }
    update.group_elements_ = reader.varint(codec::kGroupElementsMax, "size of a group");
    if (update.group_elements_ < 64) codec::refuse("size of a group is out of range");
    update.experts_ = codec::read_experts(reader, layout);
    read_tensors(reader);
    if (reader.at() != body.size()) codec::refuse("has bytes behind its end");
  }

  void read_tensors(codec::Reader& reader) {
    const std::vector<const TensorSpec*> tensors = layout.tensors_of(update.experts_);
    const std::size_t bitmap_bytes = (tensors.size() + 7) / 8;
    const std::uint8_t* bitmap = reader.take(bitmap_bytes);
    if (tensors.size() % 8 != 0 && bitmap[bitmap_bytes - 1] >> (tensors.size() % 8) != 0) {
      codec::refuse("padding is not zero");
    }
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      if ((bitmap[i / 8] >> (i % 8) & 1) == 0) continue;
      update.tensors_.push_back(static_cast<std::uint32_t>(tensors[i] - layout.tensors().data()));
      update.payload_offsets_.push_back(reader.at());
      check_tensor(reader, tensors[i]->elements);
    }
  }

  void check_tensor(codec::Reader& reader, std::uint64_t elements) {
    double norm = 0;
    std::uint64_t kept = 0;
    for (std::uint64_t start = 0; start < elements; start += update.group_elements_) {
      const std::uint64_t size = std::min<std::uint64_t>(update.group_elements_, elements - start);
      const codec::Group group = codec::read_group(reader, size, update.value_bits_);
      norm += codec::check_group(group, size, update.value_bits_);
      kept += group.count;
    }
    if (kept == 0) codec::refuse("has an empty section");
    update.squared_norms_.push_back(norm);
    update.kept_ += kept;
  }
};

Update::Update(const Layout& layout, Bytes bytes) : layout_(&layout), bytes_(std::move(bytes)) {
  UpdateParser{*this, layout}.parse();
}

double Update::squared_norm(std::size_t position) const { return squared_norms_.at(position); }

// Calls visit(group, first element of it) for each group of a tensor that holds values.
template <typename Visit>
void Update::for_each_group(std::size_t position, const Visit& visit) const {
  const std::uint64_t elements = layout_->tensors()[tensors_.at(position)].elements;
  codec::Reader reader(bytes_, payload_offsets_[position]);
  for (std::uint64_t start = 0; start < elements; start += group_elements_) {
    const std::uint64_t size = std::min<std::uint64_t>(group_elements_, elements - start);
    const codec::Group group = codec::read_group(reader, size, value_bits_);
    if (group.count > 0) visit(group, start);
  }
}

void Update::add_to(std::size_t position, float scale, std::span<float> dense) const {
  YUMOE_ASSERT(dense.size() == layout_->tensors()[tensors_.at(position)].elements);
  for_each_group(position, [&](const codec::Group& group, std::uint64_t start) {
    std::array<float, 16> scaled;
    for (std::uint32_t code = 0; code < 1u << value_bits_; ++code) {
      scaled[code] = scale * group.level(code);
    }
    float* const at = dense.data() + start;
    // Each place is another cache line, so it is asked for `kAhead` values before it is needed.
    constexpr std::uint32_t kAhead = 256;
    std::array<float*, kAhead> target;
    std::array<float, kAhead> term;
    std::uint32_t i = 0;
    codec::decode_group(group, value_bits_, [&](std::uint64_t place, std::uint32_t code) {
      const std::uint32_t slot = i % kAhead;
      if (i >= kAhead) *target[slot] += term[slot];
      target[slot] = at + place;
      term[slot] = scaled[code];
      __builtin_prefetch(at + place, 1, 1);
      ++i;
    });
    for (std::uint32_t left = i < kAhead ? 0 : i - kAhead; left < i; ++left) {
      *target[left % kAhead] += term[left % kAhead];
    }
  });
}

void Update::for_each(std::size_t position,
                      const std::function<void(std::uint64_t, float)>& visit) const {
  for_each_group(position, [&](const codec::Group& group, std::uint64_t start) {
    codec::decode_group(group, value_bits_, [&](std::uint64_t place, std::uint32_t code) {
      visit(start + place, group.level(code));
    });
  });
}

}  // namespace yumoe
