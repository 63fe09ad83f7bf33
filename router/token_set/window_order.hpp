#pragma once
// Permutations of [0, n) that need no memory: what makes a pass over the data random and repeatable.

#include <cstdint>

namespace yumoe {

// Where `index` < `count` lands under the permutation of this key. A Feistel network over the
// smallest power of two that holds `count`, walked until it lands inside: at most two steps on average.
std::uint64_t permuted(std::uint64_t index, std::uint64_t count, std::uint64_t key);

}  // namespace yumoe
