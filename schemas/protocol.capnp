@0xb5d3a9c0e17f4862;
# What participants (workers, validators) and the coordinator say to each other.
#
# Transport: ZeroMQ, DEALER to ROUTER, CURVE. A message is one frame `Envelope`, followed by at most one
# payload frame of up to 1 MiB (a piece of a contribution, an aggregate or a base version).
#
# The conversation is level-triggered: the coordinator tells each participant where the run stands
# (`Directive`, numbered), and the participant acts on the difference. A lost or repeated message
# changes nothing: the next heartbeat is answered with the directive that holds now.
#
#   participant                         coordinator
#   hello                          ->
#                                  <-   challenge (nonce, run, subnet)
#   join (signed over the nonce)   ->
#                                  <-   welcome (uid, shared configuration, token set) | refusal
#   heartbeat (progress)           ->
#                                  <-   directive (round, shard, what is wanted)
#   commit (digest)                ->
#                                  <-   receipt (signed)
#   reveal pieces                  ->
#                                  <-   receipt (signed)
#   fetch (digest, offset)         ->
#                                  <-   piece
#   scores (validators)            ->
#   call (an account)              ->
#                                  <-   called (once it is durable)
#
# Everything is bounded before it is read: frames by TransportOptions.message_bytes_max, lists by
# router/include/router/protocol.hpp. A message that breaks a bound costs its sender the connection.
# Evolution: fields are only ever added, with the next free ordinal; a retired field keeps its ordinal
# and is renamed `obsoleteX`.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("yumoe::wire");

struct Envelope {
  # (participant -> coordinator) Signed. (coordinator -> participant) `signature` is empty: CURVE
  # already authenticates the coordinator; what must last is in a signed `Receipt`.

  version @0 :UInt16;
  # Protocol version; another one is refused with `version_mismatch`.

  keyType @1 :UInt8;
  # 0 ed25519, 1 sr25519.

  sender @2 :Data;
  # The hotkey's public key, 32 bytes. Empty from the coordinator.

  challenge @3 :Data;
  # The nonce (32 bytes) the coordinator gave this connection; 32 zero bytes in `hello`. Makes a
  # message useless on any other connection.

  sequence @4 :UInt64;
  # Strictly increasing within a connection, so a repeated message is recognised.

  timeMs @5 :Int64;
  # Sender's clock, milliseconds since the Unix epoch. Informative: skew is measured, not trusted.

  body @6 :Data;
  # A `ToCoordinator` or `ToParticipant` message, itself a Cap'n Proto flat array.

  signature @7 :Data;
  # 64 bytes over BLAKE2b("yumoe envelope" || version || challenge || sequence || timeMs || body).
}

struct Shard {
  # A training shard (router/include/router/shard.hpp).
  round @0 :UInt64;
  netuid @1 :UInt16;
  uid @2 :UInt16;
  seed @3 :UInt64;
  dataFirst @4 :UInt64;
  dataCount @5 :UInt64;
  innerSteps @6 :UInt32;
  stepsBefore @7 :UInt64;
  experts @8 :List(UInt32);
}

struct Profile {
  # What a worker measured of its machine, at joining and again with each round.
  tokensPerS @0 :Float64;      # of inner steps, with all its experts
  memoryMib @1 :UInt64;        # it may use for weights, optimizer and activations
  upBytesPerS @2 :Float64;
  downBytesPerS @3 :Float64;
  roundTripMs @4 :Float64;
  expertsMax @5 :UInt32;       # 0: no limit of its own
  tier @6 :Text;               # "trusted", "known" or "open"
  region @7 :Text;
  device @8 :Text;             # "cpu", "cuda"; equal devices reproduce each other's bits
  innerStepsMax @9 :UInt32;    # 0: no limit of its own
  measuring @10 :Bool;
  # The machine is being measured: another `join` on the same connection tells the rest, and until then
  # no shard is planned for it.
  remark @11 :Text;
  # What it found wrong with what it said before ("holds 512 MiB, said 4096 MiB"), in words.
}

struct ToCoordinator {
  union {
    hello @0 :Void;
    join @1 :Join;
    heartbeat @2 :Heartbeat;
    commit @3 :Commit;
    reveal @4 :Reveal;
    fetch @5 :Fetch;
    scores @6 :Scores;
    leave @7 :Text;
    # Why, in words. The participant's work so far stays.
    call @8 :Call;
    probe @9 :Probe;
    # Measures the way: may carry a payload frame; answered by a piece of zero digest.
  }

  struct Probe {
    number @0 :UInt64;          # comes back as the piece's offset
    wantedBytes @1 :UInt32;     # size of the answer's payload, at most 1 MiB
  }

  struct Join {
    role @0 :Role;
    profile @1 :Profile;
    name @2 :Text;
    # What the owner calls this machine; up to 64 bytes.
  }
  enum Role { worker @0; validator @1; }

  struct Call {
    # Asks something of the run's ledger for the account that signs; who calls need not have joined. An
    # empty operation only asks where the account stands.
    run @0 :Text;                 # a signed call holds for this run alone
    nonce @1 :UInt64;             # calls of this account that were taken before: each is taken once
    operation @2 :Data;           # coordinator/include/coordinator/operation.hpp, up to 64 KiB
  }

  struct Heartbeat {
    directive @0 :UInt64;       # sequence of the newest directive received
    version @1 :UInt64;         # base version held
    round @2 :UInt64;           # shard in work, 0 if none
    stepsDone @3 :UInt32;
    tokensDone @4 :UInt64;
    loss @5 :Float64;           # of the newest inner step
    tokensPerS @6 :Float64;
  }

  struct Commit {
    round @0 :UInt64;
    digest @1 :Data;
    # BLAKE2b(hotkey || contribution), 32 bytes: cannot be copied for another hotkey.
    bytes @2 :UInt64;
    # Length of the contribution to be revealed.
  }

  struct Reveal {
    # One piece of the committed contribution; the bytes are the payload frame.
    round @0 :UInt64;
    offset @1 :UInt64;
  }

  struct Fetch {
    # Asks for a piece of what the coordinator holds, by digest.
    digest @0 :Data;
    offset @1 :UInt64;
  }

  struct Scores {
    # A validator's measurements of one round.
    round @0 :UInt64;
    secondsSpent @1 :Float64;
    heldoutLoss @2 :Float64;      # of base version `round` - 1; NaN if not measured
    heldoutBitsPerByte @3 :Float64;
    entries @4 :List(Entry);
    audits @5 :List(Audit);

    struct Audit {
      # A shard that this validator trained again from the record.
      uid @0 :UInt16;
      round @1 :UInt64;
      verdict @2 :AuditVerdict;
      firstStep @3 :UInt32;         # first inner step whose loss differs, counted from 1; 0: none does
      deltaDigest @4 :Data;         # of the pseudo-gradient it got; empty if unavailable
    }
    enum AuditVerdict { same @0; different @1; unavailable @2; }
    # unavailable: the validator's own failure, or another kind of device.

    struct ExpertMeasurement {
      # Loss reduction that is lost when this expert's part of the contribution is left out.
      expert @0 :UInt32;
      measurement @1 :Measurement;
    }

    struct Entry {
      uid @0 :UInt16;
      verdict @1 :Verdict;
      assigned @2 :Measurement;     # on the data the worker was given
      private @3 :Measurement;      # on data drawn with the validator's private seed
      experts @4 :List(ExpertMeasurement);  # of sampled experts, ascending
      given @5 :Measurement;
      # On the private draw, given the round's other contributions: what they all reduce together less
      # what they reduce without this one. windows 0: not measured.
    }
    struct Measurement {
      lossBefore @0 :Float64;
      reduction @1 :Float64;        # mean of (loss before - loss after) over windows
      standardError @2 :Float64;
      windows @3 :UInt32;
    }
    enum Verdict { measured @0; notFinite @1; unavailable @2; }
    # unavailable: the validator's own failure; never lowers the worker's score.
  }
}

struct Contribution {
  # What a worker reveals, as one flat array; its digest is what was committed.
  round @0 :UInt64;
  uid @1 :UInt16;
  shardDigest @2 :Data;        # BLAKE2b of the shard's encoding
  baseDigest @3 :Data;         # of the base version it started from
  steps @4 :UInt32;
  tokens @5 :UInt64;
  seconds @6 :Float64;         # spent in inner steps
  lossFirst @7 :Float64;
  lossLast @8 :Float64;
  expertTokens @9 :List(UInt32);   # [layer * experts + expert] tokens it processed
  update @10 :Data;            # router/include/router/codec.hpp
  deltaDigest @11 :Data;
  # BLAKE2b of base - local for the trunk and the shard's experts, fp32 in layout order, before error
  # feedback: what anybody who trains the shard again can compare.
  lossBits @12 :List(UInt32);
  # Loss of each inner step, as the bits of an fp32: where a shard trained again differs first. May be empty.
  momentsFrom @13 :UInt64;     # round of whose shard AdamW's moments started fresh
}

struct ToParticipant {
  union {
    challenge @0 :Challenge;
    welcome @1 :Welcome;
    directive @2 :Directive;
    receipt @3 :Receipt;
    piece @4 :Piece;
    refusal @5 :Refusal;
    called @6 :Called;
  }

  struct Challenge {
    nonce @0 :Data;              # 32 bytes
    run @1 :Text;                # the run's id
    protocol @2 :UInt16;
  }

  struct Welcome {
    uid @0 :UInt16;
    netuid @1 :UInt16;
    run @2 :Text;
    coordinator @3 :Data;        # its hotkey (32 bytes) that signs receipts
    coordinatorKeyType @4 :UInt8;
    configuration @5 :List(Setting);
    configurationDigest @6 :Data;
    tokenSetDigest @7 :Data;
    privateSeed @8 :UInt64;
    # Validators: seed of the private draw. 0 for workers.

    struct Setting { key @0 :Text; value @1 :Text; }
  }

  struct Directive {
    sequence @0 :UInt64;         # increases whenever something below changed for this participant
    round @1 :UInt64;            # now running; 0 before the first
    roundsTotal @2 :UInt64;
    version @3 :UInt64;          # newest base version
    versionDigest @4 :Data;
    checkpoint @5 :UInt64;       # version that can be fetched whole, by `checkpointState`
    checkpointState @6 :Data;    # digest of that state's bytes; empty for version 0, which derives from the seed
    aggregates @7 :List(Step);   # how to get from `checkpoint` to `version`, and recent ones before it
    shard @8 :Shard;             # what to train; innerSteps = 0: nothing now
    commitDeadlineMs @9 :Int64;
    answer @10 :Answer;          # where this worker's contribution to `shard` stands
    revealWanted @11 :Bool;
    evaluate @12 :Evaluation;    # validators: round 0 means nothing to do
    finished @13 :Bool;
    standing @14 :Standing;
    reason @15 :Text;            # why nothing is wanted, or what is wrong, in words

    enum Answer { missing @0; committed @1; revealed @2; refused @3; }
    struct Step { round @0 :UInt64; digest @1 :Data; versionDigest @2 :Data; }
  }

  struct Evaluation {
    round @0 :UInt64;
    baseDigest @1 :Data;
    deadlineMs @2 :Int64;
    contributions @3 :List(Item);
    struct Item { shard @0 :Shard; digest @1 :Data; }
    audits @4 :List(Item);         # shards to train again and compare
    answered @5 :UInt32;           # contributions of the round, those that are not to be measured included
    closer @6 :Bool;               # also measure the base's held-out loss, and a few contributions closer
    # digest: BLAKE2b of the contribution's bytes, for `fetch`.
  }

  struct Standing {
    # Am I earning, and if not, why: `reason` of the directive.
    score @0 :Float64;
    rating @1 :Float64;
    weight @2 :UInt16;
    rank @3 :UInt32;             # 1 is best
    of @4 :UInt32;
  }

  struct Receipt {
    # Signed by the coordinator: proof that it has what was sent.
    kind @0 :Kind;
    round @1 :UInt64;
    digest @2 :Data;
    timeMs @3 :Int64;
    signature @4 :Data;
    # Over BLAKE2b("yumoe receipt" || run || kind || round || hotkey || digest || timeMs).
    enum Kind { commit @0; reveal @1; scores @2; }
  }

  struct Piece {
    # The bytes are the payload frame; an empty payload with totalBytes 0: not available.
    digest @0 :Data;
    offset @1 :UInt64;
    totalBytes @2 :UInt64;
  }

  struct Called {
    # Where the account stands after its call.
    nonce @0 :UInt64;            # of its next call
    error @1 :Text;              # why the call was not taken; "" if it was, or if nothing was asked for
    block @2 :UInt64;            # of the ledger
    free @3 :UInt64;             # rao
  }

  struct Refusal {
    code @0 :Text;               # name of an ErrorCode
    message @1 :Text;            # what to do
    final @2 :Bool;              # trying again will not help
  }
}
