#pragma once
// How a participant misbehaves, for tests of a run's defences: what each attack of the library
// (launch/include/launch/attacks.hpp) is in a real process, as small differences from honest work. Attackers
// that work together share a folder (--pool). Nothing here is used without --behaviour.

#include <chrono>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "router/codec.hpp"
#include "router/outer_step.hpp"
#include "router/protocol.hpp"
#include "router/shard.hpp"
#include "worker/link.hpp"
#include "worker/windows.hpp"

namespace yumoe {

// What attackers of one behaviour tell each other, as files that appear whole.
class Pool {
 public:
  // `folder` empty: nobody to talk to.
  explicit Pool(std::filesystem::path folder) : folder_(std::move(folder)) {}

  void join(const std::string& group, Uid uid) const;
  std::set<Uid> members(const std::string& group) const;
  void put(const std::string& group, RoundId round, ByteView bytes) const;
  std::optional<Bytes> get(const std::string& group, RoundId round) const;
  // The same once an accomplice has put it there; nothing if none does for 4 s.
  std::optional<Bytes> wait_for(const std::string& group, RoundId round) const;
  // Weights as the chain shows them, "UID WEIGHT" a line; whoever watches it writes them here.
  std::map<Uid, double> weights() const;

 private:
  std::filesystem::path folder_;
};

class Misbehaviour {
 public:
  // Throws Error{config_invalid} for a name that is none of names(role), and if one needs a pool.
  Misbehaviour(Role role, std::string name, std::filesystem::path pool);
  static std::span<const std::string_view> names(Role role);

  bool none() const { return name_.empty(); }
  bool is(std::string_view name) const { return name_ == name; }
  const Pool& pool() const { return pool_; }
  void enrol(Uid uid, const PublicKey& hotkey);  // it has joined as `uid`

  // Inner steps it really does for a shard. 0: what it sends is made up.
  std::uint32_t steps_of(const TrainingShard& shard) const;
  // What it reads where an honest worker reads `honest`.
  WindowReader windows(WindowReader honest, std::int64_t vocabulary) const;
  // By what it multiplies what it trained.
  float factor() const;
  // Changes the residual [layout.parameters()] before it is encoded.
  void spoil(const TrainingShard& shard, std::span<float> residual) const;
  // Waits for an accomplice's update of this round, or takes one of its own: what is sent instead of the
  // encoded one, altered so that the digests differ. Nothing: the encoded one.
  std::optional<Bytes> borrowed(const Layout& layout, const CodecOptions& codec,
                                const TrainingShard& shard, const std::optional<Aggregate>& newest);
  // Notes what it sends, for itself and its accomplices.
  void sent(const TrainingShard& shard, const Contribution& contribution);
  struct Offer {
    Bytes bytes;  // that are revealed
    Link::Manner manner = {};
    bool late = false;  // after its round
  };
  Offer offer(const TrainingShard& shard, const Contribution& contribution);

  // A lying validator's scores: of nobody's measuring.
  Scores lie(const Evaluation& job) const;

 private:
  bool leads(const TrainingShard& shard) const;
  std::string group() const { return name_; }

  Role role_;
  std::string name_;
  Pool pool_;
  Uid uid_;
  PublicKey hotkey_;
  Bytes own_;  // an update it sent before
};

// `update` with its values and a tenth of its elements altered: no two digests are equal.
Bytes jittered(const Layout& layout, const CodecOptions& codec, const ExpertSet& experts,
               const Bytes& update, std::uint64_t seed);

}  // namespace yumoe
