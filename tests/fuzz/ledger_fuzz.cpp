// Any bytes as an operation, as a snapshot, as damage to a good one, as a seed for random operations,
// and as a script of operations against a live ledger.

#include <cstdint>
#include <cstdlib>

#include "coordinator/random_world.hpp"

namespace {

using namespace yumoe::ledger;

void read_as_operation(yumoe::ByteView bytes) {
  try {
    const Operation operation = decode_operation(bytes);
    const yumoe::Bytes again = encode(operation);
    if (!std::equal(again.begin(), again.end(), bytes.begin(), bytes.end())) std::abort();
  } catch (const yumoe::Error&) {
  }
}

void read_as_snapshot(yumoe::ByteView bytes) {
  yumoe::Bytes whole(bytes.begin(), bytes.end());
  const yumoe::Digest digest = yumoe::digest_of(whole);
  whole.insert(whole.end(), digest.bytes.begin(), digest.bytes.end());
  try {
    if (Ledger::restore(whole).snapshot() != whole) std::abort();
  } catch (const yumoe::Error&) {
  }
}

// Records of a length byte and an operation; 0 is a block.
void run_as_script(yumoe::ByteView bytes) {
  static const RandomWorld start(1);
  Ledger ledger = start.ledger;
  while (!bytes.empty()) {
    const std::size_t length = std::min<std::size_t>(bytes[0], bytes.size() - 1);
    const yumoe::ByteView record = bytes.subspan(1, length);
    bytes = bytes.subspan(1 + length);
    if (record.empty()) {
      ledger.step_block();  // an invariant that breaks is a finding
      continue;
    }
    try {
      static_cast<void>(ledger.apply(decode_operation(record)));
    } catch (const yumoe::Error& error) {
      if (error.code() != yumoe::ErrorCode::message_malformed) throw;
    }
  }
  ledger.audit();
}

// A good snapshot with bytes of it changed: three input bytes a change.
void patch_snapshot(yumoe::ByteView bytes) {
  static const yumoe::Bytes good = [] {
    RandomWorld world(2);
    for (int i = 0; i < 200; ++i) {
      world.act();
      world.ledger.step_block();
    }
    yumoe::Bytes whole = world.ledger.snapshot();
    whole.resize(whole.size() - 32);
    return whole;
  }();
  yumoe::Bytes patched = good;
  for (; bytes.size() >= 3; bytes = bytes.subspan(3)) {
    patched[(bytes[0] * 256U + bytes[1]) % patched.size()] = bytes[2];
  }
  read_as_snapshot(patched);
}

// Every operation at random from a seed, a block after some of them.
void run_as_seed(yumoe::ByteView bytes) {
  std::uint64_t seed = 0;
  for (const std::uint8_t byte : bytes.first(std::min<std::size_t>(bytes.size(), 8)))
    seed = seed * 256 + byte;
  RandomWorld world(seed);
  for (int i = 0; i < 400; ++i) {
    world.act();
    if (i % 2 == 0) world.ledger.step_block();
  }
  world.ledger.audit();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const yumoe::ByteView rest(data + 1, size - 1);
  switch (data[0] % 5) {
    case 0: read_as_operation(rest); break;
    case 1: read_as_snapshot(rest); break;
    case 2: patch_snapshot(rest); break;
    case 3: run_as_seed(rest); break;
    default: run_as_script(rest);
  }
  return 0;
}
