#include "worker/windows.hpp"

namespace yumoe {

WindowReader windows_in_order(const TokenSet& set, std::uint64_t order_seed, Split split,
                              std::uint32_t context) {
  return
      [&set, order_seed, split, context](std::uint64_t position, std::span<std::uint16_t> tokens) {
        set.copy(set.at(position, order_seed, split, context), split, context, tokens);
      };
}

std::vector<std::uint16_t> read_windows(const WindowReader& reader, std::uint64_t first,
                                        std::uint64_t count, std::uint32_t context) {
  const std::size_t length = context + std::size_t{1};
  std::vector<std::uint16_t> tokens(count * length);
  for (std::uint64_t i = 0; i < count; ++i) {
    reader(first + i, std::span(tokens).subspan(i * length, length));
  }
  return tokens;
}

}  // namespace yumoe
