#pragma once
// Says what must happen on the chain and makes it happen exactly once, or ends with a named reason.
//
// A pure machine: (state, event) -> (state, actions). It owns no socket, clock, key or file, so the
// same code runs live, against a simulated chain, and after a crash from the journal alone.
//
// Why exactly once holds:
//   - an account's nonce is used by one transaction at most, so all attempts of an intent that may
//     still be included share one nonce;
//   - an attempt is journalled (call, nonce, era, hash, bytes) before it is sent;
//   - a nonce is let go only when every finalized block in which an attempt could stand has been
//   read
//     and holds none, and either the era of every attempt is over or the account's nonce has
//     passed;
//   - an effect is read from the events of a finalized block, never from a node's promise.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "cluster/bytes.hpp"
#include "cluster/identity.hpp"
#include "cluster/option.hpp"

namespace yumoe::settlement {

struct SettlementOptions {
  std::int64_t era_blocks = 64;
  std::int64_t tries_max = 12;
  std::int64_t pause_blocks = 25;

  template <typename Visitor>
  void visit(Visitor& option) {
    option(
        "era_blocks", era_blocks,
        {.unit = "blocks", .min = 8, .max = 2'048, .help = "how long a transaction stays valid"});
    option("tries_max", tries_max,
           {.unit = "tries", .min = 1, .max = 1'000, .help = "nonces one intent may use"});
    option("pause_blocks", pause_blocks,
           {.unit = "blocks", .min = 1, .max = 100'000, .help = "wait after a rate limit"});
  }
};

// One thing that must happen on the chain.
struct Intent {
  std::string id;  // the caller's, unique for ever: adding the same id again changes nothing
  PublicKey signer;
  std::string pallet;
  std::string call;
  std::string arguments;               // JSON object by argument name
  std::string effect_event;            // "SubtensorModule.WeightsSet"; empty: success is the effect
  std::uint32_t earliest = 0;          // first block at which it may be sent
  std::uint32_t latest = 0xffff'ffff;  // no new attempt is made after this block
  std::uint32_t pause_blocks = 0;      // after a rate limit; 0: the option's
  std::string after;                   // id of an intent that must have taken effect; or empty
  std::string note;                    // the caller's own, kept with it
  friend bool operator==(const Intent&, const Intent&) = default;
};

// One signed transaction. It can stand in the blocks birth + 1 to death() - 1.
struct Attempt {
  std::uint32_t number = 0;  // from 1 within its intent
  std::uint64_t nonce = 0;
  std::uint32_t birth = 0;
  std::uint32_t period = 0;  // a power of two
  Digest checkpoint;         // hash of the block `birth`
  std::uint32_t spec_version = 0;
  Digest hash;
  Bytes extrinsic;
  std::uint32_t death() const { return birth + period; }
};

struct Outcome {
  bool effected = false;
  std::string reason;       // "effected", or the error's name: "SubtensorModule.NotRegistered"
  std::string advice;       // what the operator can do about it; empty if effected
  std::uint32_t block = 0;  // where it stands; 0: nowhere
  Digest block_hash;
  std::uint32_t extrinsic_index = 0;
  std::string events;  // JSON of its events, if it stands somewhere
};

// ---- why a node or a runtime refuses, and what follows ----------------------------------------

// A transaction pool's verdict. The texts of both nodes and chopsticks are known.
struct PoolVerdict {
  enum class Kind {
    stale,
    future,
    bad_proof,
    payment,
    custom,
    ancient_birth,
    exhausts_resources,
    call_forbidden,
    already_imported,
    banned,
    priority_low,
    dropped,
    other,
  };
  Kind kind = Kind::other;
  std::uint8_t custom = 0;
  std::string name;  // "Stale", "BadProof", "StakeAmountTooLow", ...
};

// Runtimes before and after the codes of custom refusals were reassigned.
enum class CustomCodes { older, newer };

PoolVerdict pool_verdict(std::int64_t rpc_code, std::string_view message, std::string_view data,
                         CustomCodes codes);

struct Reaction {
  enum class Kind { retry, wait, stop };
  Kind kind = Kind::stop;
  std::string_view advice;
};

// By the error's own name, with or without its pallet. An unknown error stops: nothing is repeated
// that we do not understand.
Reaction reaction_to(std::string_view error_name);

// ---- events -----------------------------------------------------------------------------------

// The chain that the other events are of. The queue belongs to the first one for good.
struct ChainSeen {
  Digest genesis;
};
struct IntentAdded {
  Intent intent;
};
// A newly finalized block; numbers that do not grow are ignored.
struct HeadSeen {
  std::uint32_t number = 0;
  Digest hash;
  std::uint32_t spec_version = 0;
  // Blocks seen before are final no longer: a fork simulator was set back. What flies is looked for
  // anew in its whole era.
  bool rewound = false;
};
struct NonceSeen {
  PublicKey signer;
  std::uint64_t nonce = 0;
};  // what waits in the pool counted
struct NonceUnknown {
  PublicKey signer;
};
struct Signed {
  std::string intent;
  std::uint32_t attempt = 0;
  Bytes extrinsic;
  Digest hash;
};
struct SigningFailed {
  std::string intent;
  std::uint32_t attempt = 0;
  std::string why;
  bool for_good = false;  // trying again cannot help: no such call, no such key
};
struct Accepted {
  std::string intent;
  std::uint32_t attempt = 0;
};
struct Refused {
  std::string intent;
  std::uint32_t attempt = 0;
  PoolVerdict verdict;
};
// It may have arrived or not: line broken, deadline passed, or a pool that let it go again.
struct SendUnknown {
  std::string intent;
  std::uint32_t attempt = 0;
};
struct Inclusion {
  Digest hash;
  std::uint32_t extrinsic_index = 0;
  bool success = false;
  std::string error_name;                // if not
  std::vector<std::string> event_names;  // "SubtensorModule.WeightsSet"
  std::string events;                    // JSON
};
struct BlockRead {
  std::string intent;
  std::uint32_t block = 0;
  Digest block_hash;
  std::optional<Inclusion> found;
  std::uint64_t nonce = 0;  // the signer's, in the state after this block; 0 if that state is gone
};
struct BlockUnreadable {
  std::string intent;
  std::uint32_t block = 0;
  std::string why;
};

using SettlementEvent =
    std::variant<ChainSeen, IntentAdded, HeadSeen, NonceSeen, NonceUnknown, Signed, SigningFailed,
                 Accepted, Refused, SendUnknown, BlockRead, BlockUnreadable>;

// ---- actions, to be carried out in order; each but Record, Finished and RefreshRuntime is
// answered by exactly one event, unless the process dies
// -------------------------------------------------

struct Record {
  Bytes entry;
};  // durable before the next action
struct AskNonce {
  PublicKey signer;
};
struct Sign {
  Intent intent;
  Attempt attempt;  // without hash and bytes
};
struct Send {
  std::string intent;
  Attempt attempt;
};
struct ReadBlock {
  std::string intent;
  PublicKey signer;
  std::uint32_t block = 0;  // finalized
  std::vector<Digest> hashes;
};
struct RefreshRuntime {};  // forget the metadata: the runtime may have changed
struct Finished {
  std::string intent;
  Outcome outcome;
};

using SettlementAction =
    std::variant<Record, AskNonce, Sign, Send, ReadBlock, RefreshRuntime, Finished>;

// ---- the machine ------------------------------------------------------------------------------

struct IntentStatus {
  Intent intent;
  std::string phase;              // "waiting", "in flight", "effected", "refused"
  std::string problem;            // the last thing that went wrong, by name
  std::vector<Attempt> attempts;  // that may still be included
  std::uint32_t not_before = 0;
  std::optional<Outcome> outcome;
};

class SettlementMachine {
 public:
  explicit SettlementMachine(SettlementOptions options);

  // The state in which a crash left it. Whatever was recorded but not concluded may have been sent.
  // Throws Error{journal_corrupt} on an entry that this machine cannot have written.
  static SettlementMachine recover(SettlementOptions options, std::span<const Bytes> entries);

  std::vector<SettlementAction> step(const SettlementEvent& event);

  std::vector<IntentStatus> status() const;  // in the order of adding
  std::optional<IntentStatus> status(const std::string& intent) const;
  bool idle() const;  // nothing is waiting or in flight
  // Genesis hash of the chain this queue is of; nullopt: none was seen yet.
  const std::optional<Digest>& chain() const { return chain_; }

 private:
  enum class Phase { waiting, asking, signing, sending, flying, done };

  struct Item {
    Intent intent;
    Phase phase = Phase::waiting;
    std::vector<Attempt> live;  // one nonce
    std::uint32_t attempts_made = 0;
    std::uint32_t tries = 0;  // nonces let go
    std::uint32_t not_before = 0;
    bool maybe_in_pool = false;
    bool wants_send = false;
    std::uint32_t sent_at = 0;  // head at the last sending
    std::uint32_t next_to_read = 0;
    bool reading = false;
    std::optional<std::uint64_t> nonce_read;
    std::uint32_t bad_proofs = 0;
    std::string problem;
    std::optional<Outcome> outcome;
  };

  void on(const ChainSeen& event);
  void on(const IntentAdded& event);
  void on(const HeadSeen& event);
  void on(const NonceSeen& event);
  void on(const NonceUnknown& event);
  void on(const Signed& event);
  void on(const SigningFailed& event);
  void on(const Accepted& event);
  void on(const Refused& event);
  void on(const SendUnknown& event);
  void on(const BlockRead& event);
  void on(const BlockUnreadable& event);

  void unread(std::uint32_t number);
  void advance_all();
  void advance(Item& item);
  void start(Item& item);
  void fly(Item& item);
  void sign(Item& item, std::uint64_t nonce);
  void take_inclusion(Item& item, const BlockRead& event);
  void refuse_clean(Item& item, const PoolVerdict& verdict);
  void react(Item& item, const std::string& error, std::uint32_t block, Outcome outcome);
  void let_go(Item& item, const std::string& why, std::uint32_t not_before);
  void finish(Item& item, Outcome outcome);
  bool signer_free(const Item& item) const;
  bool ready(Item& item);
  void apply(ByteView entry);
  Item* find(const std::string& intent);
  Item* find(const std::string& intent, std::uint32_t attempt, Phase phase);

  SettlementOptions options_;
  std::optional<Digest> chain_;
  std::optional<HeadSeen> head_;
  std::vector<Item> items_;
  std::map<std::string, std::size_t> places_;
  std::vector<SettlementAction> out_;
};

}  // namespace yumoe::settlement
