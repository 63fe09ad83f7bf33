// Exactly once, under everything that can go wrong at the same time: 2,000 seeded histories of
// crashes, broken lines, forks, forgotten pools, foreign transactions, upgrades and expired eras.
// Run one alone: coordinator_settlement_scenarios_test --gtest_filter='*' with YUMOE_SEED=n.

#include <gtest/gtest.h>

#include <cstdlib>
#include <deque>

#include "coordinator/simulated_chain.hpp"

namespace yumoe {
using namespace settlement;
namespace {

using test::SimulatedBlock;
using test::SimulatedChain;
using test::SimulatedTransaction;

struct Turmoil {
  double crash, line_broken, reorganise, forget_pool, foreign, upgrade, unreadable, inclusion;
};

struct Tally {
  int effected = 0, refused = 0, crashes = 0, sends = 0, resigned = 0, histories = 0;
  std::map<std::string, int> reasons;
};

PublicKey key(std::uint8_t n) {
  PublicKey out;
  out.bytes.fill(n);
  return out;
}

// One history: chain, machine and journal, driven by one seed.
class History {
 public:
  History(std::uint64_t seed, Tally& tally)
      : random_(derive_seed("settlement", {seed})),
        chain_(derive_seed("chain", {seed})),
        tally_(tally) {
    const auto rate = [&](double max) { return random_.below(2) ? random_.uniform() * max : 0.0; };
    turmoil_ = {rate(0.05), rate(0.4),  rate(0.15), rate(0.1),
                rate(0.05), rate(0.02), rate(0.3),  0.05 + 0.9 * random_.uniform()};
    options_.era_blocks = std::int64_t{8} << random_.below(4);
    options_.tries_max = 40;
    machine_.emplace(options_);
  }

  void run() {
    add_intents();
    for (int tick = 0; tick < 250; ++tick) turn(turmoil_);
    const Turmoil calm{0, 0, 0, 0, 0, 0, 0, 1};
    for (int tick = 0; tick < 1'500 && !machine_->idle(); ++tick) turn(calm);
    check();
  }

 private:
  void add_intents() {
    static const char* kPassing[] = {"SubtensorModule.SettingWeightsTooFast", "RateLimitExceeded"};
    static const char* kLasting[] = {"SubtensorModule.NeuronNoValidatorPermit",
                                     "Balances.InsufficientBalance", "Unheard.Of"};
    const std::uint64_t count = 2 + random_.below(6);
    for (std::uint64_t i = 0; i < count; ++i) {
      Intent intent;
      intent.id = "intent " + std::to_string(i);
      intent.signer = key(static_cast<std::uint8_t>(1 + random_.below(2)));
      intent.pallet = "SubtensorModule";
      intent.call = "set_weights";
      intent.arguments = "{}";
      intent.effect_event = "SubtensorModule.WeightsSet";
      if (random_.below(4) == 0)
        intent.earliest = 100 + static_cast<std::uint32_t>(random_.below(80));
      if (random_.below(4) == 0)
        intent.latest = 120 + static_cast<std::uint32_t>(random_.below(200));
      if (random_.below(5) == 0 && i > 0) intent.after = "intent " + std::to_string(i - 1);
      auto& errors = chain_.errors[intent.id];
      if (random_.below(3) == 0) errors.push_back(kPassing[random_.below(2)]);
      if (random_.below(6) == 0) errors.push_back("!" + std::string(kLasting[random_.below(3)]));
      intents_.push_back(intent);
    }
  }

  void turn(const Turmoil& now) {
    while (added_ < intents_.size() && (random_.below(8) == 0 || &now != &turmoil_)) {
      queue_.clear();  // nothing is outstanding between turns
      feed(IntentAdded{intents_[added_++]}, now);
    }
    if (random_.uniform() < now.reorganise) chain_.reorganise(random_.uniform());
    if (random_.uniform() < now.forget_pool) chain_.forget_pool();
    if (random_.uniform() < now.foreign) chain_.foreign(key(1));
    if (random_.uniform() < now.upgrade) chain_.upgrade();
    chain_.produce(now.inclusion);
    chain_.finalize(2);
    const SimulatedBlock& head = chain_.finalized();
    feed(HeadSeen{head.number, head.hash, head.spec_version}, now);
  }

  // Carries out actions until none is left, or the process dies.
  void feed(const SettlementEvent& event, const Turmoil& now) {
    for (auto& action : machine_->step(event)) queue_.push_back(std::move(action));
    while (!queue_.empty()) {
      if (random_.uniform() < now.crash) {
        crash();
        return;
      }
      const SettlementAction action = queue_.front();
      queue_.pop_front();
      const std::optional<SettlementEvent> answer = carry_out(action, now);
      if (std::holds_alternative<Send>(action) && random_.uniform() < now.crash * 3) {
        crash();  // sent, and the answer was never seen
        return;
      }
      if (!answer) continue;
      for (auto& next : machine_->step(*answer)) queue_.push_back(std::move(next));
    }
  }

  void crash() {
    ++tally_.crashes;
    queue_.clear();
    machine_.emplace(SettlementMachine::recover(options_, journal_));
    // The caller adds what it wanted again: it cannot know what was journalled.
    for (std::size_t i = 0; i < added_; ++i) {
      for (auto& action : machine_->step(IntentAdded{intents_[i]})) {
        if (auto* record = std::get_if<Record>(&action)) journal_.push_back(record->entry);
      }
    }
  }

  std::optional<SettlementEvent> carry_out(const SettlementAction& action, const Turmoil& now) {
    const bool broken = random_.uniform() < now.line_broken;
    if (const auto* record = std::get_if<Record>(&action)) {
      journal_.push_back(record->entry);
    } else if (const auto* ask = std::get_if<AskNonce>(&action)) {
      if (broken) return NonceUnknown{ask->signer};
      const std::uint64_t lag = random_.below(10) == 0 && now.line_broken > 0 ? 1 : 0;
      const std::uint64_t nonce = chain_.pool_nonce(ask->signer);
      return NonceSeen{ask->signer, nonce - std::min(lag, nonce)};
    } else if (const auto* sign = std::get_if<Sign>(&action)) {
      if (broken)
        return SigningFailed{sign->intent.id, sign->attempt.number, "EndpointDown", false};
      return signed_by_us(*sign);
    } else if (const auto* send = std::get_if<Send>(&action)) {
      return sent(*send, broken);
    } else if (const auto* read = std::get_if<ReadBlock>(&action)) {
      if (random_.uniform() < now.unreadable) {
        return BlockUnreadable{read->intent, read->block, "EndpointDown"};
      }
      return block_read(*read);
    } else if (const auto* finished = std::get_if<Finished>(&action)) {
      EXPECT_TRUE(ended_.insert(finished->intent).second || tally_.crashes > 0);
    }
    return std::nullopt;
  }

  SettlementEvent signed_by_us(const Sign& sign) {
    const std::string text = sign.intent.id + "/" + std::to_string(sign.attempt.nonce) + "/" +
                             sign.attempt.checkpoint.hex() + "/" + std::to_string(random_());
    const Bytes bytes(text.begin(), text.end());
    if (sign.attempt.number > 1) ++tally_.resigned;
    return Signed{sign.intent.id, sign.attempt.number, bytes, digest_of(bytes)};
  }

  SettlementEvent sent(const Send& send, bool broken) {
    ++tally_.sends;
    const auto intent = std::ranges::find(intents_, send.intent, &Intent::id);
    const bool arrives = !broken || random_.below(2) == 0;
    std::optional<PoolVerdict> verdict;
    if (arrives) verdict = chain_.submit({send.intent, intent->signer, send.attempt});
    if (broken) return SendUnknown{send.intent, send.attempt.number};
    if (verdict) return Refused{send.intent, send.attempt.number, *verdict};
    return Accepted{send.intent, send.attempt.number};
  }

  SettlementEvent block_read(const ReadBlock& read) {
    EXPECT_LE(read.block, chain_.finalized().number);
    const SimulatedBlock& block = chain_.at(read.block);
    BlockRead answer{
        read.intent, read.block, block.hash, {}, SimulatedChain::nonce_after(block, read.signer)};
    for (const auto& included : block.included) {
      if (std::ranges::find(read.hashes, included.transaction.attempt.hash) == read.hashes.end()) {
        continue;
      }
      Inclusion found;
      found.hash = included.transaction.attempt.hash;
      found.success = included.success;
      found.error_name = included.error;
      if (included.success) found.event_names = {"SubtensorModule.WeightsSet"};
      answer.found = found;
    }
    return answer;
  }

  std::string open_intents() const {
    std::string text = "head " + std::to_string(chain_.finalized().number) + "\n";
    for (const IntentStatus& status : machine_->status()) {
      if (status.outcome) continue;
      text += status.intent.id + " " + status.phase + " " + status.problem + ", nonce " +
              (status.attempts.empty() ? "none" : std::to_string(status.attempts[0].nonce)) +
              " of " + std::to_string(chain_.pool_nonce(status.intent.signer)) + "\n";
    }
    return text;
  }

  void check() {
    ASSERT_TRUE(machine_->idle()) << open_intents();
    for (const IntentStatus& status : machine_->status()) {
      SCOPED_TRACE(status.intent.id);
      const int effects = chain_.effects(status.intent.id);
      ASSERT_TRUE(status.outcome);
      EXPECT_FALSE(status.outcome->reason.empty());
      EXPECT_EQ(effects, status.outcome->effected ? 1 : 0) << status.outcome->reason;
      ++(status.outcome->effected ? tally_.effected : tally_.refused);
      ++tally_.reasons[status.outcome->reason.substr(0, status.outcome->reason.find(' '))];
    }
    EXPECT_EQ(machine_->status().size(), intents_.size());
    // What the journal alone says is the same.
    const auto again = SettlementMachine::recover(options_, journal_).status();
    ASSERT_EQ(again.size(), intents_.size());
    for (const IntentStatus& status : again) {
      EXPECT_EQ(status.outcome->reason, machine_->status(status.intent.id)->outcome->reason);
    }
    ++tally_.histories;
  }

  Random random_;
  SimulatedChain chain_;
  Tally& tally_;
  Turmoil turmoil_{};
  SettlementOptions options_;
  std::optional<SettlementMachine> machine_;
  std::vector<Bytes> journal_;
  std::deque<SettlementAction> queue_;
  std::vector<Intent> intents_;
  std::size_t added_ = 0;
  std::set<std::string> ended_;
};

TEST(SettlementScenarios, EveryIntentTakesEffectExactlyOnceOrEndsInANamedRefusal) {
  Tally tally;
  std::uint64_t first = 1, last = 2'000;
  if (const char* seed = std::getenv("YUMOE_SEED")) first = last = std::strtoull(seed, nullptr, 10);
  for (std::uint64_t seed = first; seed <= last; ++seed) {
    SCOPED_TRACE("YUMOE_SEED=" + std::to_string(seed));
    History(seed, tally).run();
    if (::testing::Test::HasFailure()) break;
  }
  std::string reasons;
  for (const auto& [reason, count] : tally.reasons) {
    reasons += " " + reason + "=" + std::to_string(count);
  }
  std::printf("%d histories, %d effected, %d refused, %d crashes, %d sends, %d signed anew\n%s\n",
              tally.histories, tally.effected, tally.refused, tally.crashes, tally.sends,
              tally.resigned, reasons.c_str());
  if (first != last) {
    // The histories were turbulent enough to mean something.
    EXPECT_GT(tally.effected, 3'000);
    EXPECT_GT(tally.refused, 300);
    EXPECT_GT(tally.crashes, 2'000);
    EXPECT_GT(tally.resigned, 1'000);
  }
}

}  // namespace
}  // namespace yumoe
