@0xc8f2417d5a9be063;
# What the journal records of a run: every event that changed the core's state, in order. Driving the
# core of coordinator/include/coordinator/run.hpp from these reaches the same state again.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("yumoe::wire");
using Protocol = import "protocol.capnp";

struct Event {
  union {
    joined @0 :Joined;
    left @1 :Left;
    committed @2 :Committed;
    revealed @3 :Revealed;
    scored @4 :Scored;
    aggregated @5 :Aggregated;
    checkpointed @6 :Checkpointed;
    tick @7 :Void;
    # Time passed and a deadline with it.
    started @8 :Started;
    resumed @9 :Void;
    # The coordinator came back: deadlines move by the time it was away.
    called @10 :Called;
    # An account asked something of the ledger. Concerns the ledger alone.
  }

  struct Started {
    # First event of a run.
    versionDigest @0 :Data;       # of base version 0
    privateSeed @1 :UInt64;       # of what validators draw; secret while the run lasts
  }
  struct Joined {
    keyType @0 :UInt8;
    hotkey @1 :Data;
    role @2 :Protocol.ToCoordinator.Role;
    name @3 :Text;
    profile @4 :Protocol.Profile;
    stake @5 :Float64;            # validators: by the run's configuration
  }
  struct Left {
    uid @0 :UInt16;
    reason @1 :Text;
  }
  struct Committed {
    uid @0 :UInt16;
    round @1 :UInt64;
    digest @2 :Data;
    bytes @3 :UInt64;
    evidence @4 :Data;            # the signed envelope
  }
  struct Revealed {
    uid @0 :UInt16;
    round @1 :UInt64;
    blob @2 :Data;                # BLAKE2b of the contribution, a blob of the journal
    filter @3 :Text;              # name of the first filter it fails, "" if it passes all
    evidence @4 :Text;            # what the filter saw
    steps @5 :UInt32;
    tokens @6 :UInt64;
    seconds @7 :Float64;
    expertTokens @8 :List(UInt32);
    lossLast @9 :Float64;
    repeatsUid @10 :UInt16;
    repeatsRound @11 :UInt64;     # filter "duplicate": the contribution it repeats; round 0: none
  }
  struct Scored {
    validator @0 :UInt16;
    scores @1 :Protocol.ToCoordinator.Scores;
    evidence @2 :Data;            # the signed envelope
  }
  struct Aggregated {
    round @0 :UInt64;
    blob @1 :Data;                # the aggregate's bytes
    versionDigest @2 :Data;
    upBytes @3 :UInt64;           # of the contributions in it
    downBytes @4 :UInt64;         # of the aggregate
  }
  struct Called {
    keyType @0 :UInt8;
    account @1 :Data;
    nonce @2 :UInt64;
    operation @3 :Data;           # coordinator/include/coordinator/operation.hpp
    evidence @4 :Data;            # the signed envelope around the call
  }
  struct Checkpointed {
    version @0 :UInt64;
    stateDigest @1 :Data;
  }
}
