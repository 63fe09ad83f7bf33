#pragma once
// Where trainer and evaluator get their tokens from: a token set, or anything that can fill a window.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "router/token_set.hpp"

namespace yumoe {

// Copies the context + 1 tokens of the window at a place of some order. May throw what the source
// throws.
using WindowReader = std::function<void(std::uint64_t position, std::span<std::uint16_t> tokens)>;

// Windows of a split in the run's endless seeded order. `set` must outlive the reader.
WindowReader windows_in_order(const TokenSet& set, std::uint64_t order_seed, Split split,
                              std::uint32_t context);

// `count` windows from `first` on, one after the other: what Evaluator measures.
std::vector<std::uint16_t> read_windows(const WindowReader& reader, std::uint64_t first,
                                        std::uint64_t count, std::uint32_t context);

}  // namespace yumoe
