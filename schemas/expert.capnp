@0xd1a0c3b8f25e4977;
# What is said to a server of experts and back (router/dispatch, worker/serve).
#
# Transport: ZeroMQ, DEALER to ROUTER, CURVE. A message is a header frame, one of these, and a payload frame
# of fp32 rows, little-endian, row-major. Every call is answered once, in any order; a call whose answer
# does not come is said again under another id, to this server or another. A payload has at most 64 MiB;
# a frame that is larger closes the connection.
#
#   client                                        server
#   call forward (x [rows, width])            ->
#                                             <-  answer (y [rows, width])
#   call backward (dy, and x if not kept)     ->
#                                             <-  answer (dx [rows, width])

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("yumoe::wire");

struct ExpertCall {
  id @0 :UInt64;
  # Unique within the connection.
  kind @1 :Kind;
  version @2 :Data;
  # 32 bytes: digest of the base version the caller computes with. Another one is refused.
  layer @3 :UInt32;
  expert @4 :UInt32;
  rows @5 :UInt32;
  width @6 :UInt32;
  keep @7 :Bool;
  # (forward) The server should keep what backward needs, as long as it has room.
  forwardId @8 :UInt64;
  # (backward) The call whose kept state is wanted; 0: x follows dy in the payload.
  digest @9 :Data;
  # 16 bytes, XXH3-128 of the payload, big-endian. Finds damage; who is who is CURVE's business.

  enum Kind { forward @0; backward @1; }
}

struct ExpertAnswer {
  id @0 :UInt64;
  status @1 :Status;
  version @2 :Data;
  # 32 bytes: what the server computes with.
  credits @3 :UInt32;
  # How many calls of this client may be on their way to it or in it.
  rows @4 :UInt32;
  width @5 :UInt32;
  digest @6 :Data;
  # As in a call; of an empty payload unless the status is ok.

  enum Status {
    ok @0;
    otherVersion @1;
    unknownExpert @2;
    notKept @3;      # say the backward again with x
    malformed @4;
    busy @5;         # too much of this caller, or of all, waits already: say it again after a pause
  }
}
