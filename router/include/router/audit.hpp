#pragma once
// Whether a shard that was trained again was trained as its worker says.

#include <cstdint>
#include <span>

namespace yumoe {

// First step, counted from 1, whose loss differs from the one the worker listed (fp32 bits) by more than
// `tolerance` of it allows; 0: none, and both have as many. Roundings grow from step to step: the first is
// allowed a twentieth of the tolerance, the 20th and later all of it. A loss that was made up is off at once.
std::uint32_t first_difference(std::span<const std::uint32_t> claimed,
                               std::span<const float> losses, double tolerance);

}  // namespace yumoe
