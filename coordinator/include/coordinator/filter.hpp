#pragma once
// Cheap checks on every contribution, before anything is measured or added. Pure: the verdict follows
// from the shard, the bytes, those before and the configuration alone, so a replay reaches the same one.

#include <string>

#include "coordinator/duplicates.hpp"
#include "coordinator/norms.hpp"
#include "coordinator/run.hpp"
#include "router/codec.hpp"

namespace yumoe {

// What is remembered of the contributions that passed.
struct Seen {
  DuplicateIndex duplicates;
  NormIndex norms;
  Seen(const Layout& layout, const ScoringOptions& options);
  void add(const Layout& layout, const Contribution& contribution, const Update& update);
};

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
//   norm        a group of its tensors is many times as large as the others' (coordinator/norms.hpp)
//   duplicate   it has too many elements in common with an earlier contribution of another shard; the
//               earlier one stays
// What passes is remembered in `seen`, and of every decodable update how large it is.
// Cost: two passes over the update's bytes.
// `owners`: how many workers have a shard of this round.
Revealed examine(const Layout& layout, const CodecOptions& codec, const InnerOptions& training,
                 const TrainingShard& shard, const Digest& base, ByteView contribution,
                 std::size_t owners, Seen& seen);

// The verdict on a worker that revealed something else than it committed to, `times` times: filter
// "commitment".
Revealed broken_commitment(const TrainingShard& shard, const Digest& committed,
                           const Digest& revealed, ByteView contribution, std::size_t times);

}  // namespace yumoe
