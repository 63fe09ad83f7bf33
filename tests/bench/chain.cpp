// The chain codec's bars: metadata parse < 50 ms, set_weights of 256 uids < 50 us, sr25519
// verification
// >= 10,000 a second a core. `other` is the bar's own figure, so a ratio of 1 is the bar.

#include <algorithm>
#include <chrono>
#include <vector>

#include "bench/row.hpp"
#include "cluster/identity.hpp"
#include "coordinator/chain_data.hpp"
#include "coordinator/extrinsic.hpp"

namespace {

using namespace yumoe;
using Clock = std::chrono::steady_clock;

// Microseconds a call, the best of several batches: what the code costs when nobody interrupts it.
template <typename Act>
double best_us(int batches, int calls, const Act& act) {
  double best = 1e300;
  for (int batch = 0; batch < batches; ++batch) {
    const auto start = Clock::now();
    for (int i = 0; i < calls; ++i) act();
    const std::chrono::duration<double, std::micro> took = Clock::now() - start;
    best = std::min(best, took.count() / calls);
  }
  return best;
}

}  // namespace

int main() {
  bench::Report report;
  const Bytes& raw = golden_metadata_bytes();
  report.row("metadata parse (v15, 387 kB), us", best_us(10, 3, [&] { Metadata::parse(raw); }),
             50'000, bench::Bar::at_most, 1, "other: the bar, 50 ms");

  const Metadata& metadata = golden_metadata();
  Json uids = Json::array(), weights = Json::array();
  for (std::uint64_t i = 0; i < 256; ++i) {
    uids.push_back(i);
    weights.push_back(65535 - i * 7);
  }
  const Json arguments = {{"netuid", 1}, {"dests", uids}, {"weights", weights}, {"version_key", 0}};
  report.row(
      "encode set_weights with 256 uids, us",
      best_us(20, 500, [&] { metadata.encode_call("SubtensorModule", "set_weights", arguments); }),
      50, bench::Bar::at_most, 1, "other: the bar, 50 us");
  const Bytes call = metadata.encode_call("SubtensorModule", "set_weights", arguments);
  report.row("decode set_weights with 256 uids, us",
             best_us(20, 200, [&] { metadata.decode_call(call); }), 50, bench::Bar::none, 0);

  const Bytes message(200, 7);
  const Keypair sr = Keypair::generate(KeyType::sr25519), ed = Keypair::generate(KeyType::ed25519);
  const Signature sr_signature = sr.sign(message), ed_signature = ed.sign(message);
  bool valid = true;
  const double sr_us =
      best_us(20, 300, [&] { valid &= verify(sr.public_key(), message, sr_signature); });
  const double ed_us =
      best_us(20, 300, [&] { valid &= verify(ed.public_key(), message, ed_signature); });
  if (!valid) return 1;
  report.row("sr25519 verifications a second a core", 1e6 / sr_us, 10'000, bench::Bar::at_least, 1,
             "other: the bar");
  report.row("sr25519 verifications beside libsodium's ed25519", 1e6 / sr_us, 1e6 / ed_us,
             bench::Bar::none, 0);
  report.row("sr25519 signatures a second a core",
             1e6 / best_us(10, 200, [&] { sr.sign(message); }),
             1e6 / best_us(10, 200, [&] { ed.sign(message); }), bench::Bar::none, 0,
             "other: libsodium's ed25519");
  return report.finish();
}
