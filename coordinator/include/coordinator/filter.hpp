#pragma once
// Cheap checks on every contribution, before anything is measured or added. Pure: the verdict follows
// from the shard, the bytes, those before and the configuration alone, so a replay reaches the same one.

#include <string>

#include "coordinator/duplicates.hpp"
#include "coordinator/run.hpp"
#include "router/codec.hpp"

namespace yumoe {

// Examines what a worker revealed for `shard` and says what the core is to be told. The first filter
// that fails is named, with what it saw:
//   schema      the bytes are no contribution
//   shard       it answers another shard, round or uid
//   sync        it started from another base version than `base`
//   work        it claims other steps or tokens than it was given, or moments kept for too many rounds
//   size        more kept values than an honest encoder keeps
//   update      the update does not decode
//   experts     it speaks of experts that were not given to it
//   finite      a norm is not finite (values of a decodable update always are)
//   duplicate   it has too many elements in common with an earlier contribution of another shard; the
//               earlier one stays. What passes is remembered in `seen`.
// Cost: two passes over the update's bytes.
Revealed examine(const Layout& layout, const CodecOptions& codec, const InnerOptions& training,
                 const TrainingShard& shard, const Digest& base, ByteView contribution,
                 DuplicateIndex& seen);

}  // namespace yumoe
