#pragma once
// How a launched rank ends once its group has failed (cluster/collective.hpp).

namespace yumoe {

// Exit status of a rank whose island lost another one.
inline constexpr int kIslandBroken = 75;

// Whether the others formed again without this process, being alive but late. They go on, so nothing is
// broken: it ends with 0 and does not call end_launched_ranks.
bool given_up_by_others();

}  // namespace yumoe
