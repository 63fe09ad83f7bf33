#include "cluster/locked.hpp"

#include <sodium.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "cluster/error.hpp"

namespace yumoe {

void require_sodium() {
  static const bool ready = sodium_init() >= 0;
  if (!ready) {
    throw Error(ErrorCode::key_invalid, "starting libsodium: the system has no random source");
  }
}

LockedBytes::LockedBytes(std::size_t size) : size_(size), capacity_(size) {
  require_sodium();
  data_ = static_cast<std::uint8_t*>(sodium_malloc(std::max<std::size_t>(size, 1)));
  if (data_ == nullptr) {
    throw Error(ErrorCode::memory_exceeded,
                "locking " + std::to_string(size) + " bytes for a secret: raise `ulimit -l`");
  }
  sodium_memzero(data_, size);
}

LockedBytes::LockedBytes(ByteView bytes) : LockedBytes(bytes.size()) {
  if (!bytes.empty()) std::memcpy(data_, bytes.data(), bytes.size());
}

LockedBytes::LockedBytes(LockedBytes&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      capacity_(std::exchange(other.capacity_, 0)) {}

LockedBytes& LockedBytes::operator=(LockedBytes&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(capacity_, other.capacity_);
  return *this;
}

LockedBytes::~LockedBytes() {
  if (data_ != nullptr) sodium_free(data_);  // wipes
}

void LockedBytes::shrink(std::size_t size) {
  YUMOE_ASSERT(size <= size_);
  if (size < size_) sodium_memzero(data_ + size, size_ - size);
  size_ = size;
}

WipeAtEnd::~WipeAtEnd() { sodium_memzero(data_, size_); }

}  // namespace yumoe
