// Whole blocks of the ledger: many subnets of 256 uids over one tempo, so that every epoch runs once,
// with the books added up after each block. Part of `tests/bench/run epoch`.

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "bench/row.hpp"
#include "cluster/random.hpp"
#include "coordinator/ledger.hpp"

namespace {

using namespace yumoe::ledger;

constexpr std::uint64_t kTao = 1'000'000'000;
constexpr std::uint16_t kUids = 256;
constexpr std::uint16_t kValidators = 64;
constexpr int kTempo = 360;

AccountId account(char kind, std::uint64_t number) {
  AccountId id{};
  id[0] = static_cast<std::uint8_t>(kind);
  for (std::size_t i = 0; i < 8; ++i) id[31 - i] = static_cast<std::uint8_t>(number >> (8 * i));
  return id;
}

void must(Ledger& ledger, const Operation& operation) {
  const auto outcome = ledger.apply(operation);
  if (outcome) return;
  std::fprintf(stderr, "%s: %s\n", std::string(name_of(operation)).c_str(),
               std::string(name_of(outcome.error())).c_str());
  std::exit(2);
}

// `targets` weights a validator, of kUids.
Ledger world(std::uint16_t subnets, std::uint16_t targets) {
  LedgerOptions options;
  options.tempo = kTempo;
  options.network_lock = 1000 * static_cast<std::int64_t>(kTao);
  options.network_rate_limit = 0;
  Ledger ledger(options);
  ledger.override_parameter(std::nullopt, "max_burn", 1'000'000);  // a steady price of registration
  const AccountId bank = account('b', 1);
  must(ledger, Fund{bank, 10'000'000 * kTao});
  yumoe::Random random(7);
  for (std::uint16_t netuid = 1; netuid <= subnets; ++netuid) {
    const auto key = [&](std::uint64_t uid) { return account('h', netuid * 1000 + uid); };
    // The doubling of the lock is not what is measured.
    must(ledger, RegisterNetwork{bank, key(0), 1});
    LedgerState state = ledger.state();
    state.last_lock = 1000 * kTao;
    ledger = Ledger::from_state(std::move(state), ledger.new_subnet_parameters());
    must(ledger, StartCall{bank, netuid});
    for (std::uint16_t uid = 1; uid < kUids; ++uid)
      must(ledger, Register{bank, key(uid), netuid, {}});
    for (std::uint16_t uid = 0; uid < kValidators; ++uid) {
      must(ledger, AddStake{bank, key(uid), netuid, kTao + random.below(kTao), {}});
    }
  }
  // One epoch gives the permits (two a block, so the last subnets wait); then weights are set.
  for (int block = 0; block < kTempo + 80; ++block) ledger.step_block();
  for (std::uint16_t netuid = 1; netuid <= subnets; ++netuid) {
    for (std::uint16_t uid = 0; uid < kValidators; ++uid) {
      SetWeights call{account('h', netuid * 1000 + uid), netuid, 0, {}, {}, 0};
      for (std::uint16_t i = 0; i < targets; ++i) {
        call.uids.push_back(static_cast<std::uint16_t>((uid + i * (kUids / targets)) % kUids));
        call.values.push_back(static_cast<std::uint16_t>(1 + random.below(65535)));
      }
      must(ledger, call);
    }
  }
  return ledger;
}

// Seconds for one tempo of blocks: the least of three runs.
double seconds_for(std::uint16_t subnets, std::uint16_t targets) {
  const Ledger start = world(subnets, targets);
  double least = 1e9;
  for (int run = 0; run < 3; ++run) {
    Ledger ledger = start;
    std::size_t epochs = 0;
    const auto begin = std::chrono::steady_clock::now();
    for (int block = 0; block < kTempo; ++block) epochs += ledger.step_block().epochs.size();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    if (epochs < subnets) std::exit(2);
    least = std::min(least, taken.count());
  }
  return least;
}

}  // namespace

int main() {
  using yumoe::bench::Bar;
  yumoe::bench::Report report;
  const double all = seconds_for(128, 256);
  report.row("360 blocks of 128 subnets x 256 uids, all epochs, dense weights: s", all, 360 * 12.0,
             Bar::none, 0, "other: the chain's own 12 s blocks");
  // Neither number of subnets fits the caches, so that only the growth of the work is seen.
  const double half = seconds_for(64, 256);
  report.row("growth from 64 to 128 subnets over the growth of their number", all / half, 2,
             Bar::at_most, 1.3);
  const double sparse = seconds_for(64, 64);
  report.row("growth from 64 to 256 weights a row over the growth of their number", half / sparse,
             4, Bar::at_most, 1.1);
  return report.finish();
}
