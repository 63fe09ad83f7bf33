#pragma once
// The ledger's bytes: each struct's visit() hands its fields to a Writer or a Reader. Integers are
// little-endian at their width, bool and enums one byte (0 or 1 for bool), options a byte and the
// value, lists a u32 count. The encoding of a value is unique, so equal states have equal digests.

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "cluster/bytes.hpp"
#include "cluster/error.hpp"
#include "coordinator/epoch.hpp"
#include "coordinator/fixed.hpp"
#include "coordinator/weights.hpp"

namespace yumoe::ledger {

template <typename T>
struct IsFixed : std::false_type {};
template <typename Raw, int kFraction>
struct IsFixed<Fixed<Raw, kFraction>> : std::true_type {};

// std's traits do not know 128-bit integers in strict mode.
template <typename T>
inline constexpr bool kIsInteger =
    std::is_integral_v<T> || std::is_same_v<T, Int128> || std::is_same_v<T, UInt128>;

class Writer {
 public:
  template <typename... Fields>
  void operator()(Fields&... fields) {
    (put(fields), ...);
  }
  Bytes take() { return std::move(bytes_); }

 private:
  template <typename T>
  void put(T& value) {
    if constexpr (kIsInteger<T>) {
      auto rest = static_cast<UInt128>(value);
      for (std::size_t i = 0; i < sizeof(T); ++i, rest >>= 8) {
        bytes_.push_back(static_cast<std::uint8_t>(rest));
      }
    } else if constexpr (std::is_enum_v<T>) {
      static_assert(sizeof(T) == 1);
      bytes_.push_back(static_cast<std::uint8_t>(value));
    } else if constexpr (IsFixed<T>::value) {
      auto bits = value.bits();
      put(bits);
    } else {
      value.visit(*this);
    }
  }
  void put(Entry& entry) { (*this)(entry.uid, entry.value); }
  void put(HashCommit& commit) { (*this)(commit.hash.bytes, commit.epoch, commit.block); }
  void put(TimelockedCommit& commit) {
    (*this)(commit.who, commit.block, commit.sealed, commit.plaintext, commit.round);
  }
  void put(WeightCommits& commits) { (*this)(commits.hashed, commits.sealed); }
  void put(std::string& text) {
    put_count(text.size());
    bytes_.insert(bytes_.end(), text.begin(), text.end());
  }
  template <std::size_t kSize>
  void put(std::array<std::uint8_t, kSize>& value) {
    bytes_.insert(bytes_.end(), value.begin(), value.end());
  }
  template <typename T>
  void put(std::optional<T>& value) {
    bool there = value.has_value();
    put(there);
    if (there) put(*value);
  }
  template <typename T>
  void put(std::vector<T>& values) {
    put_count(values.size());
    for (T& value : values) put(value);
  }
  template <typename T>
  void put(std::deque<T>& values) {
    put_count(values.size());
    for (T& value : values) put(value);
  }
  template <typename T>
  void put(std::set<T>& values) {
    put_count(values.size());
    for (T value : values) put(value);
  }
  template <typename Key, typename Value>
  void put(std::map<Key, Value>& values) {
    put_count(values.size());
    for (auto& [key, value] : values) {
      Key copy = key;
      put(copy);
      put(value);
    }
  }
  void put_count(std::size_t count) {
    auto narrow = static_cast<std::uint32_t>(count);
    YUMOE_ASSERT(narrow == count);
    put(narrow);
  }

  Bytes bytes_;
};

class Reader {
 public:
  explicit Reader(ByteView bytes) : bytes_(bytes) {}

  template <typename... Fields>
  void operator()(Fields&... fields) {
    (get(fields), ...);
  }
  // Throws if bytes are left over.
  void finish() const {
    if (at_ != bytes_.size()) fail("bytes are left over");
  }
  [[noreturn]] static void fail(const char* what) {
    throw Error(ErrorCode::message_malformed, std::string("read ledger bytes: ") + what);
  }

 private:
  ByteView take(std::size_t count) {
    if (bytes_.size() - at_ < count) fail("they end too early");
    const ByteView piece = bytes_.subspan(at_, count);
    at_ += count;
    return piece;
  }
  // No list can have more entries than bytes that are left, so a count never allocates more than
  // a constant times the input.
  std::size_t get_count() {
    std::uint32_t count = 0;
    get(count);
    if (count > bytes_.size() - at_) fail("a list is longer than what is left");
    return count;
  }
  template <typename T>
  void get(T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      const std::uint8_t byte = take(1)[0];
      if (byte > 1) fail("a switch is neither 0 nor 1");
      value = byte == 1;
    } else if constexpr (kIsInteger<T>) {
      const ByteView piece = take(sizeof(T));
      UInt128 number = 0;
      for (std::size_t i = sizeof(T); i-- > 0;) number = (number << 8) | piece[i];
      value = static_cast<T>(number);
    } else if constexpr (std::is_enum_v<T>) {
      value = static_cast<T>(take(1)[0]);
      if (!is_known(value)) fail("an unknown choice");
    } else if constexpr (IsFixed<T>::value) {
      typename T::Bits bits{};
      get(bits);
      value = T::from_bits(bits);
    } else {
      value.visit(*this);
    }
  }
  void get(Entry& entry) { (*this)(entry.uid, entry.value); }
  void get(HashCommit& commit) { (*this)(commit.hash.bytes, commit.epoch, commit.block); }
  void get(TimelockedCommit& commit) {
    (*this)(commit.who, commit.block, commit.sealed, commit.plaintext, commit.round);
  }
  void get(WeightCommits& commits) { (*this)(commits.hashed, commits.sealed); }
  void get(std::string& text) {
    const ByteView piece = take(get_count());
    text.assign(piece.begin(), piece.end());
  }
  template <std::size_t kSize>
  void get(std::array<std::uint8_t, kSize>& value) {
    const ByteView piece = take(kSize);
    std::copy(piece.begin(), piece.end(), value.begin());
  }
  template <typename T>
  void get(std::optional<T>& value) {
    bool there = false;
    get(there);
    value.reset();
    if (there) get(value.emplace());
  }
  template <typename T>
  void get(std::vector<T>& values) {
    values.clear();
    for (std::size_t left = get_count(); left > 0; --left) {
      T value{};
      get(value);
      values.push_back(std::move(value));
    }
  }
  template <typename T>
  void get(std::deque<T>& values) {
    values.clear();
    for (std::size_t left = get_count(); left > 0; --left) get(values.emplace_back());
  }
  template <typename T>
  void get(std::set<T>& values) {
    values.clear();
    for (std::size_t left = get_count(); left > 0; --left) {
      T value{};
      get(value);
      if (!values.empty() && !(*values.rbegin() < value)) fail("a set is out of order");
      values.insert(values.end(), value);
    }
  }
  template <typename Key, typename Value>
  void get(std::map<Key, Value>& values) {
    values.clear();
    for (std::size_t left = get_count(); left > 0; --left) {
      Key key{};
      get(key);
      if (!values.empty() && !(values.rbegin()->first < key)) fail("a map is out of order");
      get(values.emplace_hint(values.end(), key, Value{})->second);
    }
  }

  ByteView bytes_;
  std::size_t at_ = 0;
};

// Enums read from bytes are checked against their last enumerator, declared beside the reader's use.
template <typename Enum>
constexpr bool is_known(Enum value) {
  return static_cast<std::uint8_t>(value) <= static_cast<std::uint8_t>(last_of(Enum{}));
}

}  // namespace yumoe::ledger
