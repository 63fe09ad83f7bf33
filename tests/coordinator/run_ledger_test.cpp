// What a run pays and what accounts ask of it: calls, their numbers and signatures, other subnets,
// snapshots, and the audit that reads it all again.
#include "coordinator/run_ledger.hpp"

#include <gmock/gmock.h>

#include <fstream>
#include <set>

#include "cluster/error.hpp"
#include "cluster/random.hpp"
#include "coordinator/holdings.hpp"
#include "coordinator/ledger_advice.hpp"
#include "coordinator/ledger_audit.hpp"
#include "coordinator/ledger_rules.hpp"
#include "coordinator/setup.hpp"

namespace yumoe {
namespace {

using ledger::AccountId;
using testing::HasSubstr;

constexpr std::uint64_t kTao = 1'000'000'000;
constexpr std::int64_t kBlockMs = 1'000;
constexpr std::uint16_t kRun = RunLedger::kNetuid;
const std::string kRunName = "run-7";

Keypair key(int number) {
  std::array<std::uint8_t, 32> seed{};
  seed[0] = static_cast<std::uint8_t>(number);
  return Keypair::from_seed(KeyType::sr25519, seed);
}
PublicKey who(int number) { return key(number).public_key(); }
AccountId account(int number) { return who(number).bytes; }

ledger::LedgerOptions rules() {
  ledger::LedgerOptions options;
  options.tempo = 20;
  options.weights_set_rate_limit = 0;
  options.proposal_delay = 30;
  options.network_lock = 1'000 * static_cast<std::int64_t>(kTao);
  return options;
}

EconomyOptions economy() {
  EconomyOptions options;
  options.block_ms = kBlockMs;
  options.owner = to_ss58(who(9));
  options.balances = {to_ss58(who(5)) + "=1000", to_ss58(who(6)) + "=0.5"};
  return options;
}

// A run as its ledger sees it: one validator and two workers, and whoever calls.
class World {
 public:
  explicit World(const ledger::LedgerOptions& rules = yumoe::rules(),
                 const EconomyOptions& economy = yumoe::economy())
      : layout(Layout::of(ModelOptions{})), core(layout, RunSettings{}), ledger(rules, economy) {
    happen(Started{digest_of(as_bytes("version 0")), 1});
    happen(Joined{who(1), Role::validator, "first", {}, 500});
    happen(Joined{who(2), Role::worker, "large", {}, 0});
    happen(Joined{who(3), Role::worker, "small", {}, 0});
  }

  void happen(const Event& event) {
    core.apply(event, now);
    ledger.apply(event, core, now);
    events.push_back({now, encode(event)});
  }
  // What the chain's newest block is, by `caller`; the refusal, or "" if it was taken.
  std::string tell(int caller, std::uint64_t number) {
    Called call = call_of(caller, ledger::StartCall{});
    call.operation = chain_block_call(number);
    if (const auto why = ledger.refusal_of(call, now)) return *why;
    happen(call);
    return "";
  }
  void wait(int blocks) { now = now + std::chrono::milliseconds(blocks * kBlockMs); }

  Called call_of(int caller, const ledger::Operation& operation,
                 const std::string& run = kRunName) const {
    const Keypair keys = key(caller);
    Called call{
        keys.public_key(), ledger.next_nonce(keys.public_key()), ledger::encode(operation), {}};
    call.evidence = seal(keys, Nonce{}, 1, now,
                         encode(ToCoordinator{LedgerCall{run, call.nonce, call.operation}}));
    return call;
  }
  // "" if it was taken.
  std::string call(int caller, const ledger::Operation& operation) {
    const Called event = call_of(caller, operation);
    if (const auto why = ledger.refusal_of(event, now)) return *why;
    happen(event);
    return "";
  }

  std::uint64_t stake(int hotkey, int coldkey, std::uint16_t netuid = kRun) const {
    const auto& stakes = ledger.ledger().state().subnets.at(netuid).stakes;
    const auto pool = stakes.find(account(hotkey));
    return pool == stakes.end() ? 0 : pool->second.value_of(account(coldkey));
  }
  std::uint64_t free(int number) const { return ledger.free_of(who(number)); }
  const ledger::Subnet& subnet(std::uint16_t netuid = kRun) const {
    return ledger.ledger().state().subnets.at(netuid);
  }

  Layout layout;
  Run core;
  RunLedger ledger;
  TimeMs now{1'000'000};
  std::vector<std::pair<TimeMs, Bytes>> events;
};

TEST(RunLedger, RegistersAllWhoJoinAtOnceAsThePriceFalls_AndPaysNobodyTwice) {
  World world;
  const auto free_of = [&](int n) {
    return world.ledger.ledger().state().coldkeys.at(account(n)).free;
  };
  for (int n = 20; n < 40; ++n) world.happen(Joined{who(n), Role::worker, "w", {}, 0});
  EXPECT_FALSE(world.ledger.neuron_of(who(39)));
  const std::uint64_t issuance = world.ledger.ledger().state().issuance, before = free_of(39);
  // Joining again, before and after, brings no more money.
  world.happen(Joined{who(39), Role::worker, "w", {}, 0});
  EXPECT_EQ(free_of(39), before);
  for (int i = 0; i < 4'000 && !world.ledger.neuron_of(who(39)); ++i) {
    world.wait(1);
    world.happen(Joined{who(2), Role::worker, "large", {}, 0});
  }
  EXPECT_TRUE(world.ledger.neuron_of(who(39)));
  for (int n = 20; n < 40; ++n) EXPECT_LE(free_of(n), before) << n;
  EXPECT_GE(world.ledger.ledger().state().issuance, issuance);
}

TEST(RunLedgerCalls, AnAccountStakesMovesSwapsAndUnstakes) {
  EconomyOptions two = economy();
  two.subnets = {"vision lock=2000 stake=100"};
  World world(rules(), two);
  EXPECT_EQ(world.free(5), 1'000 * kTao);
  world.wait(3);
  ASSERT_EQ(world.call(5, ledger::AddStake{account(5), account(1), kRun, 100 * kTao, {}}), "");
  EXPECT_EQ(world.free(5), 900 * kTao);
  const std::uint64_t bought = world.stake(1, 5);
  EXPECT_GT(bought, 50 * kTao);
  ASSERT_EQ(
      world.call(5, ledger::MoveStake{account(5), account(1), account(2), kRun, kRun, bought / 2}),
      "");
  EXPECT_NEAR(static_cast<double>(world.stake(2, 5)), static_cast<double>(bought / 2), 2);
  ASSERT_EQ(world.call(5, ledger::SwapStake{account(5), account(1), kRun, 2, bought / 4, {}}), "");
  EXPECT_GT(world.stake(1, 5, 2), 0U);
  ASSERT_EQ(world.call(5, ledger::AddStake{account(5), account(1), 0, 50 * kTao, {}}), "");
  EXPECT_EQ(world.stake(1, 5, 0), 50 * kTao);
  const std::uint64_t before = world.free(5);
  ASSERT_EQ(world.call(5, ledger::RemoveStake{account(5), account(2), kRun, bought / 2, {}}), "");
  EXPECT_GT(world.free(5), before + 40 * kTao);
  // A price that the pool does not have: refused whole, or filled as far as it goes.
  const ledger::Limit impossible{1'000'000'000'000, false};
  EXPECT_THAT(world.call(5, ledger::RemoveStake{account(5), account(1), kRun, kTao, impossible}),
              HasSubstr("RemoveStake: PriceLimitExceeded"));
  ASSERT_EQ(world.call(5, ledger::TransferBalance{account(5), account(7), kTao}), "");
  EXPECT_EQ(world.free(7), kTao);
  world.ledger.ledger().audit();
  EXPECT_TRUE(world.ledger.refusals().empty());
}

TEST(RunLedgerCalls, ACallIsTakenOnceAndOnlyInItsOrder) {
  World world;
  const Called call = world.call_of(5, ledger::AddStake{account(5), account(1), kRun, kTao, {}});
  EXPECT_FALSE(world.ledger.has_taken(call));
  EXPECT_EQ(world.ledger.refusal_of(call, world.now), std::nullopt);
  world.happen(call);
  EXPECT_TRUE(world.ledger.has_taken(call)) << "its sender may ask again when the answer was lost";
  EXPECT_THAT(*world.ledger.refusal_of(call, world.now), HasSubstr("was taken before"));
  const Bytes before = world.ledger.snapshot();
  EXPECT_THROW(world.ledger.apply(call, world.core, world.now), Error);
  EXPECT_EQ(world.ledger.snapshot(), before) << "no payment twice";
  Called early = world.call_of(5, ledger::AddStake{account(5), account(1), kRun, kTao, {}});
  ++early.nonce;
  EXPECT_THAT(*world.ledger.refusal_of(early, world.now), HasSubstr("comes too early"));
  const Called other = world.call_of(5, ledger::AddStake{account(5), account(2), kRun, kTao, {}});
  EXPECT_FALSE(world.ledger.has_taken(other));
}

TEST(RunLedgerCalls, NobodyCallsForAnotherAndNobodyMintsOrWeighs) {
  World world;
  EXPECT_THAT(world.call(6, ledger::TransferBalance{account(5), account(6), kTao}),
              HasSubstr("for another account to call"));
  EXPECT_THAT(world.call(6, ledger::Fund{account(6), kTao}), HasSubstr("not for accounts"));
  EXPECT_THAT(world.call(6, ledger::Pulse{7}), HasSubstr("not for accounts"));
  EXPECT_THAT(world.call(1, ledger::SetWeights{account(1), kRun, 0, {1}, {1}, 0}),
              HasSubstr("come from its validators' scores"));
  EXPECT_THAT(world.call(6, ledger::TransferBalance{account(6), account(7), 0}),
              HasSubstr("500 rao"));
  EXPECT_THAT(world.call(6, ledger::AddStake{account(6), account(1), kRun, 900 * kTao, {}}),
              HasSubstr("AddStake: NotEnoughBalanceToStake: the account's free TAO is less"));
  Called broken = world.call_of(6, ledger::StartCall{account(6), kRun});
  broken.operation = {255, 1, 2};
  EXPECT_THAT(*world.ledger.refusal_of(broken, world.now), HasSubstr("operation"));
  EXPECT_EQ(world.ledger.next_nonce(who(6)), 0U) << "what is refused does not count";
  for (int i = 0; i < 16; ++i) {
    ASSERT_EQ(world.call(5, ledger::TransferBalance{account(5), account(6), kTao}), "");
  }
  EXPECT_THAT(world.call(5, ledger::TransferBalance{account(5), account(6), kTao}),
              HasSubstr("16 times a block"));
  world.wait(1);
  EXPECT_EQ(world.call(5, ledger::TransferBalance{account(5), account(6), kTao}), "");
}

TEST(RunLedgerCalls, WhoHasNothingCallsNothingSoThatStateDoesNotGrowForFree) {
  World world;
  const ledger::SetClaimKind free_call{account(8), ledger::ClaimKind::keep, {}};
  EXPECT_THAT(world.call(8, free_call), HasSubstr("neither 500 rao nor stake"));
  EXPECT_FALSE(world.ledger.ledger().state().coldkeys.contains(account(8)));
  ASSERT_EQ(world.call(5, ledger::TransferBalance{account(5), account(8), 500}), "");
  EXPECT_EQ(world.call(8, free_call), "");
  EXPECT_THAT(
      world.call(8, ledger::SetClaimKind{account(8), ledger::ClaimKind::keep_subnets, {kRun, 77}}),
      HasSubstr("no subnet 77"));
  EXPECT_EQ(world.call(1, ledger::SetClaimKind{account(1), ledger::ClaimKind::keep, {}}), "")
      << "a participant has a place";
  // The same 500 rao do not make one account after the other.
  EXPECT_THAT(world.call(8, ledger::TransferBalance{account(8), account(7), 500}),
              HasSubstr("keep 500 rao"));
  // Who owns a hotkey has a place, whatever it has left.
  ASSERT_EQ(world.call(5, ledger::TransferBalance{account(5), account(6), 100 * kTao}), "");
  ASSERT_EQ(world.call(6, ledger::Register{account(6), account(16), kRun, std::nullopt}), "");
  const std::uint64_t rest = world.free(6);
  ASSERT_EQ(world.call(6, ledger::TransferBalance{account(6), account(8), rest}), "");
  EXPECT_EQ(world.call(6, ledger::SetClaimKind{account(6), ledger::ClaimKind::keep, {}}), "");
}

TEST(RunLedgerCalls, OnlyTheOwnerSetsASubnetsParametersAndOnlyWithinTheirBounds) {
  World world;
  const ledger::SetHyperparameter change{account(9), kRun, "kappa", 39'321};
  EXPECT_THAT(world.call(5, ledger::SetHyperparameter{account(5), kRun, "kappa", 39'321}),
              HasSubstr("NotSubnetOwner"));
  EXPECT_EQ(world.call(9, change), "");
  EXPECT_EQ(world.subnet().parameters.kappa, 39'321);
  EXPECT_THAT(world.call(9, change), HasSubstr("TxRateLimitExceeded"));
  EXPECT_THAT(world.call(9, ledger::SetHyperparameter{account(9), kRun, "fee_rate", 1}),
              HasSubstr("InvalidValue"))
      << "the network's, not the owner's";
  EXPECT_THAT(world.call(9, ledger::SetHyperparameter{account(9), kRun, "tempo", 60'000}),
              HasSubstr("InvalidValue"));
  EXPECT_THAT(world.call(9, ledger::SetTake{account(9), account(9), 1, true}),
              HasSubstr("SetTake: HotKeyAccountNotExists: no such hotkey"));
  EXPECT_EQ(world.call(1, ledger::SetTake{account(1), account(1), 6'000, false}), "");
  EXPECT_EQ(
      world.call(1, ledger::SetChildren{account(1), account(1), kRun, {{~0ULL / 2, account(2)}}}),
      "");
  EXPECT_TRUE(world.subnet().families.at(account(1)).pending.has_value());
}

TEST(RunLedgerCalls, NetworkParametersChangeByRootStakeAfterADelay) {
  World world;
  EXPECT_THAT(world.call(5, ledger::Propose{account(5), "tao_weight", 5}),
              HasSubstr("StakeTooLowForRoot"));
  ASSERT_EQ(world.call(1, ledger::Propose{account(1), "owner_cut", 100}), "");
  ASSERT_EQ(world.call(5, ledger::AddStake{account(5), account(1), 0, 800 * kTao, {}}), "");
  ASSERT_EQ(world.call(1, ledger::Propose{account(1), "default_take", 7}), "");
  ASSERT_EQ(world.call(5, ledger::Vote{account(5), 1, false}), "");
  world.wait(25);
  world.happen(Tick{});
  EXPECT_NE(world.ledger.ledger().state().parameters.default_take, 7) << "not before the delay";
  world.wait(10);
  world.happen(Tick{});
  EXPECT_EQ(world.ledger.ledger().state().parameters.default_take, 7);
  EXPECT_NE(world.ledger.ledger().state().parameters.owner_cut, 100)
      << "more root stake against it";
}

TEST(RunLedger, OtherSubnetsShareTheEmissionByTheirPrice) {
  EconomyOptions three = economy();
  three.subnets = {"deep lock=4000 stake=50 tempo=15 kappa=0.6",
                   "busy lock=1000 stake=900 root=300 miners=2"};
  World alone, together(rules(), three);
  for (World* world : {&alone, &together}) {
    world->wait(400);
    world->happen(Tick{});
  }
  const auto emission = [](const World& world, std::uint16_t netuid) {
    return world.subnet(netuid).alpha_in_emission + world.subnet(netuid).tao_in_emission;
  };
  EXPECT_EQ(together.subnet(2).parameters.tempo, 15);
  EXPECT_EQ(together.subnet(2).parameters.kappa, 39'321);
  EXPECT_EQ(together.subnet(3).neurons.size(), 4U);  // owner, validator, two miners
  EXPECT_EQ(together.ledger.subnet_name(3), "busy");
  EXPECT_GT(emission(together, 3), 0U);
  EXPECT_LT(together.subnet(1).reserves.tao, alone.subnet(1).reserves.tao)
      << "the emission is shared";
  std::uint64_t paid = 0;
  for (const ledger::Neuron& neuron : together.subnet(3).neurons) paid += neuron.emission;
  EXPECT_GT(paid, 0U) << "its validator weighs its miners";
  together.ledger.ledger().audit();
}

TEST(RunLedger, BlocksMayFollowAChainAsTheOwnerTells) {
  EconomyOptions followed = economy();
  followed.time = "followed";
  World world(rules(), followed);
  const auto block = [&] { return world.ledger.ledger().state().block; };
  world.wait(500);
  world.happen(Tick{});
  EXPECT_EQ(block(), 1U) << "the run's own time does not count";
  EXPECT_EQ(world.tell(9, 7'000'000), "");
  EXPECT_EQ(block(), 1U) << "the first one told is where counting begins";
  EXPECT_EQ(world.tell(9, 7'000'001), "");
  EXPECT_EQ(world.tell(9, 7'000'050), "");
  EXPECT_EQ(block(), 51U);
  EXPECT_FALSE(world.ledger.epochs().empty());
  EXPECT_THAT(world.tell(9, 7'000'050), HasSubstr("not above the newest"));
  EXPECT_THAT(world.tell(9, 9'000'000), HasSubstr("more than a million"));
  EXPECT_THAT(world.tell(5, 7'000'051), HasSubstr("only economy.owner"));
  RunLedger restored(rules(), followed);
  restored.restore(world.ledger.snapshot());
  EXPECT_EQ(restored.snapshot(), world.ledger.snapshot());
  World simulated;
  Called call = simulated.call_of(9, ledger::StartCall{});
  call.operation = chain_block_call(1);
  EXPECT_THAT(*simulated.ledger.refusal_of(call, simulated.now), HasSubstr("its own time"));
}

TEST(RunLedger, BlocksAreTheChainsWhileItIsThereAndTheRunsOwnWhileItIsAway) {
  EconomyOptions options = economy();
  options.time = "chain";
  options.teller = to_ss58(who(9));
  World world(rules(), options);
  const auto block = [&] { return world.ledger.ledger().state().block; };
  const auto pass = [&](int blocks) {
    world.wait(blocks);
    world.happen(Tick{});
  };
  using Source = RunLedger::BlockSource;
  pass(10);
  const std::uint64_t alone = block();
  EXPECT_GE(alone, 10U) << "before a chain is seen, the run's own time counts";
  EXPECT_EQ(world.ledger.block_source(world.now), Source::own_time);
  EXPECT_THAT(world.tell(5, 700), HasSubstr("only economy.teller"));
  EXPECT_EQ(world.tell(9, 700), "");
  EXPECT_EQ(block(), alone) << "the first one told is where the ledger stands";
  EXPECT_EQ(world.ledger.block_source(world.now), Source::chain);
  pass(3);
  EXPECT_EQ(block(), alone) << "while the chain is there, time alone makes no block";
  EXPECT_EQ(world.tell(9, 702), "");
  EXPECT_EQ(block(), alone + 2);
  EXPECT_THAT(world.tell(9, 702), HasSubstr("not above the newest"));
  pass(15);  // away
  EXPECT_EQ(world.ledger.block_source(world.now), Source::own_time);
  EXPECT_EQ(block(), alone + 2 + 10) << "it goes on, less the patience";
  RunLedger restored(rules(), options);
  restored.restore(world.ledger.snapshot());
  EXPECT_EQ(restored.snapshot(), world.ledger.snapshot());
  // Back, and further than the run went alone: what is missing passes at once.
  EXPECT_EQ(world.tell(9, 720), "");
  EXPECT_EQ(block(), alone + 20);
  // Back after it stood still: the run is ahead, and goes on from where it stands.
  pass(30);
  const std::uint64_t ahead = block();
  EXPECT_EQ(ahead, alone + 20 + 25);
  EXPECT_EQ(world.tell(9, 721), "");
  EXPECT_EQ(block(), ahead);
  EXPECT_EQ(world.tell(9, 722), "");
  EXPECT_EQ(block(), ahead + 1);
  EXPECT_EQ(world.ledger.chain_block(), 722U);
  // A chain that is counted quite differently cannot hold the run for a million blocks.
  EXPECT_EQ(world.tell(9, 900'000'000), "");
  EXPECT_EQ(block(), ahead + 1);
}

TEST(RunLedger, AnEconomyThatCannotBeIsNamed) {
  const auto refusal = [](auto change) -> std::string {
    EconomyOptions options = economy();
    change(options);
    try {
      RunLedger ledger(rules(), options);
      return "";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::config_invalid);
      return error.what();
    }
  };
  EXPECT_THAT(refusal([](EconomyOptions& e) { e.owner = "5Fx"; }), HasSubstr("economy.owner"));
  EXPECT_THAT(refusal([](EconomyOptions& e) { e.time = "followed", e.owner = ""; }),
              HasSubstr("must come with economy.owner"));
  EXPECT_THAT(refusal([](EconomyOptions& e) { e.time = "chain", e.teller = "5Fx"; }),
              HasSubstr("economy.teller"));
  EXPECT_THAT(refusal([](EconomyOptions& e) { e.balances = {"x"}; }), HasSubstr("ADDRESS=TAO"));
  EXPECT_THAT(refusal([](EconomyOptions& e) { e.balances[0] += "x"; }),
              HasSubstr("must be between 0"));
  EXPECT_THAT(refusal([](EconomyOptions& e) { e.balances[0] += "0000000"; }),
              HasSubstr("must be between 0"));
  EXPECT_THAT(refusal([](EconomyOptions& e) { e.subnets = {"run"}; }),
              HasSubstr("begins with a name"));
  EXPECT_THAT(refusal([](EconomyOptions& e) { e.subnets = {"a", "a"}; }), HasSubstr("'a' twice"));
  EXPECT_THAT(refusal([](EconomyOptions& e) { e.subnets = {"a miners=64"}; }),
              HasSubstr("0 and 63"));
  EXPECT_THAT(refusal([](EconomyOptions& e) { e.subnets = {"a stake"}; }), HasSubstr("NAME=VALUE"));
  EXPECT_THAT(refusal([](EconomyOptions& e) { e.subnets = {"a kapa=0.5"}; }),
              HasSubstr("no rule of the ledger is called 'kapa'"));
  EXPECT_THAT(refusal([](EconomyOptions& e) { e.subnets = {"a tao_weight=0.1"}; }),
              HasSubstr("the whole network's"));
  EXPECT_THAT(refusal([](EconomyOptions& e) { e.subnets = {"a alpha_low=0.95"}; }),
              HasSubstr("does not go with"));
  EXPECT_THAT(refusal([](EconomyOptions& e) { e.subnets = {"a kappa=x"}; }), HasSubstr("kappa=x"));
}

std::string refusal_of_rule(const std::string& text) {
  try {
    const auto [name, value] = rule_from(text);
    return "taken as " + rule_text(name, value);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::usage);
    return error.what();
  }
}

TEST(LedgerRules, SharesAreReadInWhatTheChainCountsThemIn) {
  EXPECT_EQ(rule_from("kappa=0.6").second, 39'321U);
  EXPECT_EQ(rule_from("bonds_moving_average=0.9").second, 900'000U);
  EXPECT_EQ(rule_from("tao_weight=0.18").second, 3'320'413'933'267'719'168U);
  EXPECT_EQ(rule_from("tao_weight=1.0").second, ~0ULL);
  EXPECT_EQ(rule_from("tempo=50").second, 50U);
  EXPECT_EQ(rule_from("kappa=1.0").second, 65'535U);
  EXPECT_EQ(rule_from("kappa=39321/65535").second, 39'321U);
  EXPECT_EQ(rule_from("kappa=0").second, 0U);
  EXPECT_EQ(rule_from("liquid_alpha_on=true").second, 1U);
}

TEST(LedgerRules, AWholeNumberForAShareIsRefusedBecauseItCouldMeanTwoThings) {
  EXPECT_THAT(refusal_of_rule("kappa=1"), HasSubstr("write 1.0 or 1/65535"));
  EXPECT_THAT(refusal_of_rule("kappa=39321"), HasSubstr("write 0.6 or 39321/65535"));
  EXPECT_THAT(refusal_of_rule("tao_weight=1"), HasSubstr("write 1.0 or 1/18446744073709551615"));
  EXPECT_THAT(refusal_of_rule("kappa=2"), HasSubstr("could mean two things"));
  EXPECT_THAT(refusal_of_rule("kappa=1.5"), HasSubstr("must be a share, 0.0 to 1.0"));
  EXPECT_THAT(refusal_of_rule("kappa=65536/65535"), HasSubstr("N/65535"));
  EXPECT_THAT(refusal_of_rule("kappa=1/2"), HasSubstr("N/65535"));
  EXPECT_THAT(refusal_of_rule("kappa=-1"), HasSubstr("must be a share"));
  EXPECT_THAT(refusal_of_rule("kappa=nan"), HasSubstr("must be a share"));
  EXPECT_THAT(refusal_of_rule("bonds_moving_average=0.99"), HasSubstr("a share, 0.0 to 0.975"));
  EXPECT_THAT(refusal_of_rule("kappa="), HasSubstr("expected NAME=VALUE"));
  EXPECT_THAT(refusal_of_rule("kappa"), HasSubstr("expected NAME=VALUE"));
}

TEST(LedgerRules, UnknownAndOutOfBoundsAreTwoThings) {
  EXPECT_THAT(refusal_of_rule("kapa=0.6"), HasSubstr("no rule of the ledger is called 'kapa'"));
  EXPECT_THAT(refusal_of_rule("tempo=60000"), HasSubstr("must be a whole number, 0 to 50400"));
  EXPECT_THAT(refusal_of_rule("tempo=0.5"), HasSubstr("must be a whole number"));
  EXPECT_THAT(refusal_of_rule("recycle=2"), HasSubstr("must be true or false"));
}

TEST(LedgerRules, EveryOptionOfTheConfigurationIsARuleUnderTheSameName) {
  ledger::LedgerOptions options;
  const auto each = [&](std::string_view name, auto& value, const OptionInfo&) {
    if constexpr (std::is_same_v<std::remove_reference_t<decltype(value)>, std::string>) {
      EXPECT_TRUE(choose_rule(options, std::string(name) + "=" + std::string(value))) << name;
    } else {
      EXPECT_NE(ledger_rule(name), nullptr) << name;
    }
  };
  ledger::LedgerOptions visited;
  visited.visit(each);
  EXPECT_EQ(rule_from("liquid_alpha=true").first, "liquid_alpha_on");
  EXPECT_EQ(rule_from("commit_reveal=false").first, "commit_reveal_weights_enabled");
  EXPECT_EQ(rule_from("take=0.1").first, "default_take");
  EXPECT_TRUE(choose_rule(options, "pool=constant_product"));
  EXPECT_EQ(options.pool, "constant_product");
  EXPECT_FALSE(choose_rule(options, "kappa=0.5"));
  EXPECT_THROW(choose_rule(options, "pool=round"), Error);
}

TEST(LedgerRules, TheDocumentListsEachWithItsBounds) {
  std::ifstream in(YUMOE_SOURCE_DIR "/docs/ledger.md");
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  std::string table;
  for (const LedgerRule& rule : ledger_rules()) {
    const std::string row = "| `" + rule.name + "`" +
                            (rule.option.empty() ? "" : ", `" + rule.option + "`") + " | " +
                            (rule.network ? "proposal"
                             : rule.owner ? "owner"
                                          : "nobody") +
                            " | " + bounds_text(rule) + " |\n";
    table += row;
    EXPECT_NE(text.find(row), std::string::npos) << "docs/ledger.md lacks: " << row;
  }
  if (HasFailure()) std::printf("%s", table.c_str());
}

TEST(LedgerRules, EveryErrorNameHasItsSentence) {
  for (const ledger::LedgerError error : {
#define YUMOE_LEDGER_ERROR(name) ledger::LedgerError::name,
           YUMOE_LEDGER_ERRORS(YUMOE_LEDGER_ERROR)
#undef YUMOE_LEDGER_ERROR
       }) {
    EXPECT_GT(advice_on(error).size(), 10U) << ledger::name_of(error);
    EXPECT_FALSE(advice_on(error).ends_with('.'));
  }
}

TEST(RunLedger, HoldingsShowWhoseStakeLiesBehindWhoseHotkeyAndAllMoneyAddsUp) {
  EconomyOptions two = economy();
  two.subnets = {"vision lock=2000 stake=100 root=50 miners=1"};
  World world(rules(), two);
  ASSERT_EQ(world.call(5, ledger::AddStake{account(5), account(1), kRun, 100 * kTao, {}}), "");
  ASSERT_EQ(world.call(5, ledger::AddStake{account(5), account(1), 0, 50 * kTao, {}}), "");
  world.wait(60);
  world.happen(Tick{});
  const ledger::LedgerState& state = world.ledger.ledger().state();
  const auto holdings = ledger::holdings_of(state);
  const ledger::Money money = ledger::money_of(state);
  EXPECT_EQ(money.free + money.root + money.pools + money.burned, money.issuance);
  std::uint64_t free = 0;
  std::map<std::uint16_t, std::uint64_t> staked, dust;
  std::set<std::string> names;
  for (const ledger::Holding& holding : holdings) {
    free += holding.free;
    for (const ledger::Stake& stake : holding.stakes) {
      staked[stake.netuid] += stake.amount;
      ++dust[stake.netuid];
    }
    names.insert(world.ledger.account_name(holding.account));
    if (holding.account != account(5)) continue;
    EXPECT_EQ(holding.free, 850 * kTao);
    ASSERT_EQ(holding.stakes.size(), 2U);
    EXPECT_EQ(holding.stakes[0].netuid, 0);
    EXPECT_GE(holding.stakes[0].amount, 50 * kTao);
    EXPECT_EQ(holding.stakes[1].hotkey, account(1));
    EXPECT_EQ(holding.stakes[1].amount, world.stake(1, 5));
  }
  EXPECT_EQ(free, money.free);
  for (const auto& [netuid, amount] : staked) {
    std::uint64_t all = 0;
    for (const auto& [hotkey, pool] : world.subnet(netuid).stakes) all += pool.total();
    EXPECT_LE(amount, all);
    EXPECT_LE(all - amount, dust[netuid]) << "each part is floored";
  }
  EXPECT_TRUE(names.contains("treasury") && names.contains("vision validator") &&
              names.contains("vision owner"))
      << testing::PrintToString(names);
  EXPECT_TRUE(names.contains("")) << "people's accounts have no name of the ledger's";
}

TEST(RunLedger, APreviewSaysWhoseWeightsWouldBeRefused) {
  ledger::LedgerOptions options = rules();
  World fresh(options);
  const std::uint16_t large = *fresh.ledger.neuron_of(who(2));
  const auto early = fresh.ledger.preview({{{large, 65'535}}});
  EXPECT_EQ(early.taken, 0U);
  ASSERT_FALSE(early.refused.empty());
  EXPECT_EQ(early.refused[0].second, ledger::LedgerError::NeuronNoValidatorPermit);
  fresh.wait(50);
  fresh.happen(Tick{});
  EXPECT_GE(fresh.ledger.preview({{{large, 65'535}}}).taken, 1U);
  const auto unknown = fresh.ledger.preview({{{99, 1}}});
  EXPECT_EQ(unknown.taken, 0U);
  EXPECT_THAT(unknown.refused,
              testing::Contains(testing::Pair(*fresh.ledger.neuron_of(who(1)),
                                              ledger::LedgerError::UidVecContainInvalidOne)));
}

// What docs/ledger.md shows under "Several subnets in one run".
TEST(RunLedger, AnotherSubnetsValidatorSetsItsWeightsByCalls) {
  EconomyOptions two = economy();
  two.subnets = {"vision lock=2000 stake=10 miners=2 tempo=20"};
  World world(rules(), two);
  world.wait(2);
  const std::uint16_t vision = 2;
  ASSERT_EQ(world.call(5, ledger::Register{account(5), account(5), vision, std::nullopt}), "");
  ASSERT_EQ(world.call(5, ledger::AddStake{account(5), account(5), vision, 500 * kTao, {}}), "");
  EXPECT_THAT(world.call(5, ledger::SetWeights{account(5), vision, 0, {2}, {65'535}, 0}),
              HasSubstr("NeuronNoValidatorPermit"));
  world.wait(25);
  world.happen(Tick{});
  ASSERT_EQ(world.call(5, ledger::SetWeights{account(5), vision, 0, {2}, {65'535}, 0}), "");
  world.wait(60);
  world.happen(Tick{});
  const ledger::Subnet& subnet = world.subnet(vision);
  EXPECT_GT(subnet.mechanisms[0].incentive[2], 65'535 / 2) << "the larger stake decides";
  EXPECT_LT(subnet.mechanisms[0].incentive[3], subnet.mechanisms[0].incentive[2]);
  EXPECT_GT(subnet.neurons[2].emission, 0U);
  EXPECT_THAT(world.call(5, ledger::SetWeights{account(5), kRun, 0, {1}, {1}, 0}),
              HasSubstr("come from its validators' scores"));
  EXPECT_THAT(world.call(5, ledger::BatchSet{account(5), {}}), HasSubstr("one subnet at a time"));
}

TEST(RunLedger, APreviewShowsTheWeightsAskedAboutWhateverTheyWouldWaitFor) {
  ledger::LedgerOptions slow = rules();
  slow.weights_set_rate_limit = 1'000'000;
  slow.commit_reveal = true;
  World world(slow);
  world.wait(50);
  world.happen(Tick{});
  const auto large = *world.ledger.neuron_of(who(2)), small = *world.ledger.neuron_of(who(3));
  const auto incentive = [&](std::uint16_t of, std::uint16_t to) -> std::uint64_t {
    const auto report = world.ledger.preview({{{to, 65'535}}}).report;
    for (const ledger::Payout& payout : report.payouts) {
      if (payout.uid == of) return payout.incentive;
    }
    return 0;
  };
  EXPECT_GT(incentive(large, large), 0U);
  EXPECT_EQ(incentive(large, small), 0U);
  EXPECT_GT(incentive(small, small), 0U);
}

// Whatever happens between: what is restored from a snapshot goes the same way as what was not.
TEST(RunLedger, ASnapshotAtAnyPointGoesOnAsIfNothingHadBeen) {
  EconomyOptions two = economy();
  two.subnets = {"vision lock=1500 stake=200 root=100"};
  World world(rules(), two);
  RunLedger restored(rules(), two);
  Random random(11);
  std::size_t next = 0;
  const Layout layout = Layout::of(ModelOptions{});
  yumoe::Run core(layout, RunSettings{});
  for (int step = 0; step < 150; ++step) {
    world.wait(static_cast<int>(random.below(4)));
    const int caller = random.below(2) == 0 ? 5 : 1;
    switch (random.below(5)) {
      case 0:
        world.call(caller, ledger::AddStake{
                               account(caller), account(1), kRun, kTao + random.below(kTao), {}});
        break;
      case 1:
        world.call(caller,
                   ledger::RemoveStake{account(caller), account(1), kRun, random.below(kTao), {}});
        break;
      case 2:
        world.call(caller,
                   ledger::SwapStake{account(caller), account(1), kRun, 2, random.below(kTao), {}});
        break;
      case 3:
        world.call(9, ledger::SetHyperparameter{account(9), kRun, "kappa", random.below(65'536)});
        break;
      default: world.happen(Tick{});
    }
    // The copy is taken down and brought back before each event it hears.
    for (; next < world.events.size(); ++next) {
      const Bytes snapshot = restored.snapshot();
      restored = RunLedger(rules(), two);
      restored.restore(snapshot);
      const Event event = decode_event(world.events[next].second);
      core.apply(event, world.events[next].first);
      restored.apply(event, core, world.events[next].first);
    }
    ASSERT_EQ(restored.snapshot(), world.ledger.snapshot()) << "step " << step;
  }
  EXPECT_GT(world.ledger.next_nonce(who(5)), 20U);
}

TEST(RunLedger, ABrokenSnapshotIsRefused) {
  World world;
  const Bytes good = world.ledger.snapshot();
  Random random(5);
  for (int i = 0; i < 200; ++i) {
    Bytes bytes = good;
    bytes.resize(random.below(bytes.size()));
    RunLedger ledger(rules(), economy());
    EXPECT_THROW(ledger.restore(bytes), Error);
  }
}

// --- the audit ----------------------------------------------------------------------------------------

// A record in memory.
class FakeRecord final : public RunRecord {
 public:
  explicit FakeRecord(const World& world) : name_(kRunName) {
    OptionTexts texts;
    const auto add = [&](const std::string& section, const auto& options) {
      for (const auto& [key, value] : texts_of(options))
        texts.emplace_back(section + "." + key, value);
    };
    add("model", ModelOptions{}), add("training", InnerOptions{}), add("outer", OuterOptions{});
    add("codec", CodecOptions{}), add("aggregate", AggregateOptions{}), add("ledger", rules());
    add("economy", economy()), add("run", RunOptions{}), add("placement", PlacementOptions{});
    add("scoring", ScoringOptions{});
    metadata_ = RunSetup::from(name_, texts, Digest{}, {}).journal_metadata();
    for (const auto& [time, event] : world.events) {
      records.push_back(
          {records.size() + 1, time, std::string(kind_of(decode_event(event))), event, {}});
    }
    kept = world.ledger.snapshot();
  }

  const std::string& run() const override { return name_; }
  const JournalMetadata& metadata() const override { return metadata_; }
  std::uint64_t size() const override { return records.size(); }
  void for_each(std::uint64_t from,
                const std::function<bool(const Record&)>& visit) const override {
    for (std::size_t i = from - 1; i < records.size() && visit(records[i]); ++i) {
    }
  }
  std::optional<Bytes> blob(const Digest&) const override { return std::nullopt; }
  std::vector<BlobInfo> blobs() const override { return {}; }
  std::vector<RoundId> checkpoints() const override { return {RoundId{1}}; }
  Checkpoint checkpoint(RoundId round) const override {
    Checkpoint checkpoint{
        round, name_, Layout::of(ModelOptions{}), {}, {}, {}, {}, {}, kept, {}, records.size()};
    return checkpoint;
  }

  std::vector<Record> records;
  Bytes kept;

 private:
  std::string name_;
  JournalMetadata metadata_;
};

std::string complaint_of(const FakeRecord& record) {
  try {
    audit_ledger(record);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(LedgerAudit, ComputesEverythingAgainAndNamesTheFirstDifference) {
  World world;
  world.wait(30);
  ASSERT_EQ(world.call(5, ledger::AddStake{account(5), account(1), kRun, 100 * kTao, {}}), "");
  world.wait(30);
  world.happen(Tick{});
  FakeRecord record(world);
  const LedgerAudit audit = audit_ledger(record);
  EXPECT_EQ(audit.calls, 1U);
  EXPECT_EQ(audit.snapshots, 1U);
  EXPECT_GE(audit.epochs, 2U);
  EXPECT_EQ(audit.digest, world.ledger.ledger().digest());

  // The same run, but its coordinator kept another stake.
  World richer;
  richer.wait(30);
  ASSERT_EQ(richer.call(5, ledger::AddStake{account(5), account(1), kRun, 101 * kTao, {}}), "");
  richer.wait(30);
  richer.happen(Tick{});
  record.kept = richer.ledger.snapshot();
  EXPECT_THAT(complaint_of(record),
              HasSubstr("checkpoint of round 1: free balance of account " + to_hex(account(5)) +
                        " is 900000000000, recorded is 899000000000"));
}

TEST(LedgerAudit, FindsACallThatItsAccountDidNotSign) {
  World world;
  const ledger::Operation operation = ledger::AddStake{account(5), account(1), kRun, kTao, {}};
  const auto with = [&](const std::function<void(Called&)>& forge) {
    World forged;
    Called call = forged.call_of(5, operation);
    forge(call);
    forged.happen(call);
    return complaint_of(FakeRecord(forged));
  };
  EXPECT_EQ(with([](Called&) {}), "");
  EXPECT_THAT(
      with([&](Called& call) {
        call.operation = ledger::encode(ledger::AddStake{account(5), account(2), kRun, kTao, {}});
      }),
      HasSubstr("signed something else"));
  EXPECT_THAT(with([&](Called& call) { call.evidence = world.call_of(6, operation).evidence; }),
              HasSubstr("not signed by its account"));
  EXPECT_THAT(
      with([&](Called& call) { call.evidence = world.call_of(5, operation, "run-8").evidence; }),
      HasSubstr("signed something else"))
      << "a call holds for one run alone";
}

}  // namespace
}  // namespace yumoe
