#pragma once
// What participants and the coordinator say to each other, as plain values. schemas/protocol.capnp says
// what each field means; this is the checked form: whatever decode() returns is within bounds.
//
// Encoding is Cap'n Proto; decoding is total: any bytes give a value or Error{message_malformed}.

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "cluster/bytes.hpp"
#include "cluster/clock.hpp"
#include "cluster/identity.hpp"
#include "cluster/option.hpp"
#include "router/placement.hpp"
#include "router/shard.hpp"

namespace yumoe {

inline constexpr std::uint16_t kProtocolVersion = 1;
inline constexpr std::size_t kPieceBytesMax = 1 << 20;  // payload frame
inline constexpr std::size_t kNameBytesMax = 64;
inline constexpr std::size_t kTextBytesMax = 4'096;
inline constexpr std::size_t kContributionBytesMax = 1ull << 32;
inline constexpr std::size_t kExpertTokensMax = 1 << 22;  // layers * experts
inline constexpr std::size_t kCallBytesMax = 64 * 1024;   // operation of a ledger call

using Nonce = std::array<std::uint8_t, 32>;

// --- envelope ---------------------------------------------------------------------------------------

struct Envelope {
  PublicKey sender;  // of participants; unspecified from the coordinator
  Nonce challenge{};
  std::uint64_t sequence = 0;
  TimeMs time;
  Bytes body;
  Signature signature{};
};

// Signs with the participant's key.
Bytes seal(const Keypair& keys, const Nonce& challenge, std::uint64_t sequence, TimeMs time,
           Bytes body);
// From the coordinator: unsigned.
Bytes seal_unsigned(std::uint64_t sequence, TimeMs time, Bytes body);

// Throws Error{message_malformed} or Error{version_mismatch}. Does not check the signature.
Envelope open_envelope(ByteView bytes);
bool is_signed(const Envelope& envelope);

// --- participant to coordinator ------------------------------------------------------------------------

enum class Role : std::uint8_t { worker, validator };

struct Hello {};

struct Join {
  Role role = Role::worker;
  WorkerProfile profile;
  std::string name;
};

struct Heartbeat {
  std::uint64_t directive = 0;
  RoundId version;
  RoundId round;
  std::uint32_t steps_done = 0;
  std::uint64_t tokens_done = 0;
  double loss = 0;
  double tokens_per_s = 0;
};

struct Commit {
  RoundId round;
  Digest digest;
  std::uint64_t bytes = 0;
};

struct RevealPiece {
  RoundId round;
  std::uint64_t offset = 0;
};

struct Fetch {
  Digest digest;
  std::uint64_t offset = 0;
};

struct Measurement {
  double loss_before = 0;
  double reduction = 0;  // mean over windows of loss before - loss after
  double standard_error = 0;
  std::uint32_t windows = 0;  // 0: not measured
};

enum class Verdict : std::uint8_t { measured, not_finite, unavailable };

// Of what is lost when one expert's part of a contribution is left out.
struct ExpertMeasurement {
  std::uint32_t expert = 0;
  Measurement measurement = {};
};

struct ScoreEntry {
  Uid uid;
  Verdict verdict = Verdict::unavailable;
  Measurement assigned;
  Measurement private_draw;
  std::vector<ExpertMeasurement> experts = {};  // sampled, by expert ascending
  // Given the round's other contributions: what all of them together lose without this one.
  Measurement given = {};
};

// A shard that a validator trained again. unavailable: its own failure, or another kind of device.
enum class AuditVerdict : std::uint8_t { same, different, unavailable };

struct ShardAudit {
  Uid uid;
  RoundId round;
  AuditVerdict verdict = AuditVerdict::unavailable;
  std::uint32_t first_step = 0;  // first whose loss differs, counted from 1; 0: none does
  Digest delta = {};             // of the pseudo-gradient it got
};

struct Scores {
  RoundId round;
  double seconds_spent = 0;
  double heldout_loss = 0;  // nats a token of base version round - 1; NaN if not measured
  double heldout_bits_per_byte = 0;
  std::vector<ScoreEntry> entries;  // by uid ascending, each once
  std::vector<ShardAudit> audits = {};
};

struct Leave {
  std::string reason;
};

struct LedgerCall {
  std::string run;
  std::uint64_t nonce = 0;
  Bytes operation;  // empty: asks only where the account stands
};

// Measures the way; answered by a Piece of zero digest with `number` as its offset.
struct Probe {
  std::uint64_t number = 0;
  std::uint32_t wanted_bytes = 0;  // up to kPieceBytesMax
};

using ToCoordinator = std::variant<Hello, Join, Heartbeat, Commit, RevealPiece, Fetch, Scores,
                                   Leave, LedgerCall, Probe>;

Bytes encode(const ToCoordinator& message);
ToCoordinator decode_to_coordinator(ByteView bytes);

// --- what a worker reveals ---------------------------------------------------------------------------

struct Contribution {
  RoundId round;
  Uid uid;
  Digest shard;  // digest_of(encode_shard(shard))
  Digest base;   // of the base version it started from
  std::uint32_t steps = 0;
  std::uint64_t tokens = 0;
  double seconds = 0;  // spent in inner steps
  double loss_first = 0;
  double loss_last = 0;
  std::vector<std::uint32_t> expert_tokens;  // [layers * experts]
  Bytes update;                              // router/codec.hpp
  Digest delta;          // of base - local before error feedback: digest_of_delta()
  RoundId moments_from;  // of whose shard AdamW's moments started fresh: 1 to `round`
  std::vector<std::uint32_t> loss_bits = {};  // each step's loss as fp32 bits; may be empty
};

// BLAKE2b of the trunk's and the shard's experts' elements of `delta` [layout.parameters()].
Digest digest_of_delta(const Layout& layout, const ExpertSet& experts,
                       std::span<const float> delta);

Bytes encode(const Contribution& contribution);
Contribution decode_contribution(ByteView bytes);
Digest digest_of_shard(const TrainingShard& shard);

// What is committed to: BLAKE2b(hotkey || contribution bytes).
Digest commitment_of(const PublicKey& hotkey, ByteView contribution);

// --- coordinator to participant ------------------------------------------------------------------------

struct Challenge {
  Nonce nonce{};
  std::string run;
};

struct Welcome {
  Uid uid;
  Netuid netuid;
  std::string run;
  PublicKey coordinator;
  OptionTexts configuration;  // "section.key" -> value of the shared configuration
  Digest configuration_digest;
  Digest token_set;
  std::uint64_t private_seed = 0;
};

enum class Answer : std::uint8_t { missing, committed, revealed, refused };

struct VersionStep {
  RoundId round;
  Digest aggregate;  // digest of the aggregate's bytes
  Digest version;    // digest of the parameters after applying it
};

struct Evaluation {
  struct Item {
    TrainingShard shard;
    Digest digest;  // of the contribution's bytes
  };
  RoundId round;  // 0: nothing to evaluate
  Digest base;
  TimeMs deadline;
  std::vector<Item> contributions;
  std::vector<Item> audits = {};  // to train again
  std::uint32_t answered = 0;     // contributions of the round, measured or not
  bool closer = true;             // also the held-out loss, and a few contributions closer
};

struct Standing {
  double score = 0;
  double rating = 0;
  std::uint16_t weight = 0;
  std::uint32_t rank = 0;
  std::uint32_t of = 0;
};

struct Directive {
  std::uint64_t sequence = 0;
  RoundId round;
  std::uint64_t rounds_total = 0;
  RoundId version;
  Digest version_digest;
  RoundId checkpoint;
  Digest checkpoint_state;
  std::vector<VersionStep> aggregates;
  TrainingShard shard;  // inner_steps = 0: nothing to train now
  TimeMs commit_deadline;
  Answer answer = Answer::missing;
  bool reveal_wanted = false;
  Evaluation evaluate;
  bool finished = false;
  Standing standing;
  std::string reason;
};

enum class ReceiptKind : std::uint8_t { commit, reveal, scores };

struct Receipt {
  ReceiptKind kind = ReceiptKind::commit;
  RoundId round;
  Digest digest;
  TimeMs time;
  Signature signature{};
};

// What the coordinator's signature in a receipt covers.
Digest digest_of_receipt(std::string_view run, const PublicKey& hotkey, const Receipt& receipt);

struct Piece {
  Digest digest;
  std::uint64_t offset = 0;
  std::uint64_t total_bytes = 0;  // 0: not available
};

struct Refusal {
  std::string code;
  std::string message;
  bool final = false;
};

struct LedgerAnswer {
  std::uint64_t nonce = 0;  // of the account's next call
  std::string error;        // "" if the call was taken
  std::uint64_t block = 0;
  std::uint64_t free = 0;  // rao
};

using ToParticipant =
    std::variant<Challenge, Welcome, Directive, Receipt, Piece, Refusal, LedgerAnswer>;

Bytes encode(const ToParticipant& message);
ToParticipant decode_to_participant(ByteView bytes);

}  // namespace yumoe
