#pragma once
// Memory for secrets: never swapped where the system allows it, fenced by guard pages, wiped on
// release. Strings and vectors copy their contents about when they grow; these do not grow.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "cluster/bytes.hpp"

namespace yumoe {

// Prepares libsodium; every entry of this library that uses it calls this first. Cheap after once.
void require_sodium();

// A fixed number of bytes in locked memory. Throws Error{memory_exceeded} if none can be had.
class LockedBytes {
 public:
  LockedBytes() = default;
  explicit LockedBytes(std::size_t size);
  explicit LockedBytes(ByteView bytes);
  LockedBytes(LockedBytes&& other) noexcept;
  LockedBytes& operator=(LockedBytes&& other) noexcept;
  ~LockedBytes();

  std::uint8_t* data() noexcept { return data_; }
  const std::uint8_t* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  std::uint8_t& operator[](std::size_t i) { return data_[i]; }
  std::uint8_t operator[](std::size_t i) const { return data_[i]; }

  // Forgets the tail: what lies behind the new size is wiped at once.
  void shrink(std::size_t size);
  LockedBytes clone() const { return LockedBytes(view()); }

  ByteView view() const noexcept { return {data_, size_}; }
  std::span<std::uint8_t> span() noexcept { return {data_, size_}; }
  std::string_view text() const noexcept { return {reinterpret_cast<const char*>(data_), size_}; }
  operator ByteView() const noexcept { return view(); }

 private:
  std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

// Wipes a plain object at the end of its scope: for working values on the stack.
class WipeAtEnd {
 public:
  template <typename T>
  explicit WipeAtEnd(T& object) : data_(&object), size_(sizeof(T)) {}
  WipeAtEnd(const WipeAtEnd&) = delete;
  WipeAtEnd& operator=(const WipeAtEnd&) = delete;
  ~WipeAtEnd();

 private:
  void* data_;
  std::size_t size_;
};

}  // namespace yumoe
