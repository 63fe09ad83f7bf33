#pragma once
// What a decoder keeps of the tokens it has seen: each layer's keys and values, turned by their positions.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

namespace yumoe {

class KeyValueCache {
 public:
  // Room for `context` tokens of each sequence.
  KeyValueCache(std::size_t sequences, std::int64_t layers, std::int64_t key_value_heads,
                std::int64_t context, std::int64_t head_width);

  std::int64_t length(std::size_t sequence) const { return lengths_[sequence]; }
  void clear(std::size_t sequence) { lengths_[sequence] = 0; }
  void grow(std::size_t sequence, std::int64_t tokens) { lengths_[sequence] += tokens; }

  // [kv_heads, context, head_width], of which the first length() places are filled.
  at::Tensor keys(std::size_t sequence, std::int64_t layer) const;
  at::Tensor values(std::size_t sequence, std::int64_t layer) const;

 private:
  at::Tensor all_;  // [sequences, layers, 2, kv_heads, context, head_width]
  std::vector<std::int64_t> lengths_;
};

// The next tokens of one sequence. At least one; they fit behind those that are cached.
struct NewTokens {
  std::size_t sequence = 0;
  std::vector<std::int32_t> tokens;
};

}  // namespace yumoe
