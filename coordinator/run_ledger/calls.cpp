// Calls of accounts on a run's ledger, and the ledger's bytes in a checkpoint.
#include <algorithm>

#include "cluster/error.hpp"
#include "coordinator/ledger_advice.hpp"
#include "coordinator/run_ledger.hpp"
#include "ledger/archive.hpp"
#include "router/protocol.hpp"
#include "run_ledger/accounts.hpp"

namespace yumoe {
namespace {

using ledger::AccountId;

constexpr std::uint64_t kCallsPerBlockMax = 16;  // of one account
constexpr std::uint64_t kTransferRaoMin = 500;   // the chain's existential deposit
constexpr std::uint32_t kSnapshotVersion = 4;
constexpr std::uint8_t kChainBlockTag = 255;          // no operation has it
constexpr std::uint64_t kChainBlocksMax = 1'000'000;  // told at once

// The weights of the run's own subnet are its validators' scores, nothing beside them; money and beacon
// are nobody's to make.
std::optional<std::string> why_not_callable(const ledger::Operation& operation) {
  using namespace ledger;
  return std::visit(
      [&](const auto& one) -> std::optional<std::string> {
        using One = std::decay_t<decltype(one)>;
        const std::string name(name_of(operation));
        if constexpr (std::is_same_v<One, Fund> || std::is_same_v<One, Pulse>) {
          return name + " is not for accounts to call";
        } else if constexpr (std::is_same_v<One, BatchSet> || std::is_same_v<One, BatchCommit>) {
          return name + " is not called here: one subnet at a time";
        } else if constexpr (requires {
                               one.mechanism;
                               one.netuid;
                             }) {
          if (one.netuid == RunLedger::kNetuid) {
            return "a run's weights come from its validators' scores: " + name + " is not called";
          }
        }
        return std::nullopt;
      },
      operation);
}

std::optional<std::uint64_t> chain_block_of(ByteView operation) {
  if (operation.size() != 9 || operation[0] != kChainBlockTag) return std::nullopt;
  std::uint64_t number = 0;
  for (std::size_t i = 8; i > 0; --i) number = number << 8 | operation[i];
  return number;
}

}  // namespace

Bytes chain_block_call(std::uint64_t number) {
  Bytes bytes{kChainBlockTag};
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<std::uint8_t>(number >> (8 * i)));
  return bytes;
}

std::optional<std::string> RunLedger::why_not_told(const AccountId& account,
                                                   std::uint64_t number) const {
  if (!teller_) return "the blocks of this run pass with its own time: economy.time";
  if (account != *teller_) {
    return "only economy." + std::string(economy_.time == "followed" ? "owner" : "teller") +
           " tells the chain's blocks";
  }
  if (!chain_first_) return std::nullopt;
  if (number <= chain_newest_)
    return "block " + std::to_string(number) + " is not above the newest told";
  if (economy_.time == "followed" && number - chain_newest_ > kChainBlocksMax) {
    return "more than a million blocks at once";
  }
  return std::nullopt;
}

bool RunLedger::may_tell(const PublicKey& account, std::uint64_t number) const {
  return !why_not_told(account_of(account), number);
}

std::optional<AccountId> caller_of(const ledger::Operation& operation) {
  return std::visit(
      [](const auto& one) -> std::optional<AccountId> {
        if constexpr (requires { one.coldkey; }) {
          return one.coldkey;
        } else if constexpr (requires { one.from; }) {
          return one.from;
        } else if constexpr (requires { one.hotkey; }) {
          return one.hotkey;
        } else {
          return std::nullopt;
        }
      },
      operation);
}

std::optional<std::string> RunLedger::refusal_of(const Called& call, TimeMs now) const {
  const AccountId account = account_of(call.account);
  const auto caller = callers_.find(account);
  const std::uint64_t nonce = caller == callers_.end() ? 0 : caller->second.nonce;
  if (call.nonce != nonce) {
    return "call number " + std::to_string(call.nonce) + " of " + to_ss58(call.account) +
           (call.nonce < nonce ? " was taken before" : " comes too early") +
           "; its next is number " + std::to_string(nonce);
  }
  if (const auto number = chain_block_of(call.operation)) return why_not_told(account, *number);
  ledger::Operation operation;
  try {
    operation = ledger::decode_operation(call.operation);
  } catch (const Error& error) {
    return std::string(error.what());
  }
  if (const auto why = why_not_callable(operation)) return why;
  if (caller_of(operation) != account) {
    return std::string(ledger::name_of(operation)) + " is for another account to call than " +
           to_ss58(call.account);
  }
  if (const auto* transfer = std::get_if<ledger::TransferBalance>(&operation);
      transfer != nullptr && transfer->amount < kTransferRaoMin) {
    return "a transfer moves at least 500 rao";
  }
  if (const auto* choice = std::get_if<ledger::SetClaimKind>(&operation)) {
    for (const std::uint16_t netuid : choice->keep) {
      if (!ledger_.state().subnets.contains(netuid)) {
        return "there is no subnet " + std::to_string(netuid) + " to keep the claims of";
      }
    }
  }
  if (!has_means(account)) {
    return to_ss58(call.account) +
           " has neither 500 rao nor stake nor a place on this run's ledger: let somebody transfer "
           "to it first (`yumoe ledger transfer`)";
  }
  const std::uint64_t due = block_due(now);
  if (caller != callers_.end() && caller->second.block >= due &&
      caller->second.calls_in_block >= kCallsPerBlockMax) {
    return "an account calls at most 16 times a block: try again in the next";
  }
  // Blocks that pass until now may change the answer.
  RunLedger trial = *this;
  trial.epoch_watch_ = nullptr;
  trial.pass_time(now);
  const auto outcome = trial.ledger_.apply(operation);
  if (!outcome) return refusal_text(ledger::name_of(operation), outcome.error());
  if (!trial.has_means(account)) {
    return to_ss58(call.account) +
           " would be left with neither stake nor a place and less than 500 rao: keep 500 rao";
  }
  const auto& subnets = trial.ledger_.state().subnets;
  const auto own = subnets.find(kNetuid);
  if (own == subnets.end() ||
      own->second.registered_at != ledger_.state().subnets.at(kNetuid).registered_at) {
    return std::string(
        "the run's own subnet would have to make room: it stays as long as the run does");
  }
  return std::nullopt;
}

// A call on the chain costs a fee. Here it is free, so that only those call who have something there, and
// keep something: accounts out of nothing, or the same 500 rao handed on and on, would make record and state
// grow for ever.
bool RunLedger::has_means(const AccountId& account) const {
  const ledger::LedgerState& state = ledger_.state();
  if (account == owner_ || state.hotkeys.contains(account)) return true;
  const auto found = state.coldkeys.find(account);
  if (found != state.coldkeys.end() &&
      (found->second.free >= kTransferRaoMin || !found->second.staking_hotkeys.empty())) {
    return true;
  }
  const auto owns = [&](const auto& one) { return one.second.coldkey == account; };
  const auto owns_subnet = [&](const auto& one) { return one.second.owner_coldkey == account; };
  return std::ranges::any_of(state.hotkeys, owns) ||
         std::ranges::any_of(state.subnets, owns_subnet);
}

bool RunLedger::has_taken(const Called& call) const {
  const auto caller = callers_.find(account_of(call.account));
  return caller != callers_.end() && caller->second.nonce == call.nonce + 1 &&
         caller->second.newest == digest_of(call.operation).bytes;
}

std::uint64_t RunLedger::next_nonce(const PublicKey& account) const {
  const auto caller = callers_.find(account_of(account));
  return caller == callers_.end() ? 0 : caller->second.nonce;
}

// What is recorded was not refused when it was; under another rule (a what-if) it may be.
void RunLedger::take(const Called& call, TimeMs now) {
  Caller& caller = callers_[account_of(call.account)];
  if (call.nonce != caller.nonce) {
    throw Error(ErrorCode::journal_corrupt, "call number " + std::to_string(call.nonce) + " of " +
                                                to_ss58(call.account) + ", expected number " +
                                                std::to_string(caller.nonce));
  }
  const std::uint64_t block = ledger_.state().block;
  caller.calls_in_block = caller.block == block ? caller.calls_in_block + 1 : 1;
  caller.block = block;
  ++caller.nonce;
  caller.newest = digest_of(call.operation).bytes;
  if (const auto number = chain_block_of(call.operation)) {
    take_chain_block(*number, now);
    return;
  }
  attempt(ledger::decode_operation(call.operation), call.account);
}

// Differences are taken modulo 2^64: a chain may be younger than the run's ledger.
void RunLedger::take_chain_block(std::uint64_t number, TimeMs now) {
  if (economy_.time == "followed") {
    if (!chain_first_) chain_first_ = number;
  } else {
    // The first one told, or the first after the run went on alone and is ahead, is the block in which
    // the ledger stands. So is one that is absurdly far.
    const std::uint64_t block = ledger_.state().block;
    const auto ahead = chain_first_ ? static_cast<std::int64_t>(number - *chain_first_ + 1 - block)
                                    : std::int64_t{0};
    if (!chain_first_ || ahead <= 0 || ahead > static_cast<std::int64_t>(kChainBlocksMax)) {
      chain_first_ = number - (block - 1);
    }
  }
  chain_newest_ = std::max(chain_newest_, number);
  chain_told_ = now;
  pass_time(now);
}

void check_evidence(const Called& call, std::string_view run) {
  const auto fail = [&](const std::string& why) {
    throw Error(ErrorCode::signature_invalid, "call number " + std::to_string(call.nonce) + " of " +
                                                  to_ss58(call.account) + ": " + why);
  };
  const Envelope envelope = open_envelope(call.evidence);
  if (envelope.sender != call.account || !is_signed(envelope)) fail("not signed by its account");
  const ToCoordinator content = decode_to_coordinator(envelope.body);
  const auto* said = std::get_if<LedgerCall>(&content);
  if (said == nullptr || said->run != run || said->nonce != call.nonce ||
      said->operation != call.operation) {
    fail("the account signed something else");
  }
}

// --- bytes ------------------------------------------------------------------------------------------

template <typename Archive>
void RunLedger::visit(Archive& archive, Bytes& ledger_bytes) {
  bool started = start_.has_value();
  std::int64_t start = started ? start_->value : 0;
  archive(started, start, chain_first_, chain_newest_, chain_told_.value, first_round_.value,
          last_round_.value, callers_, enrolments_, ledger_bytes);
  start_.reset();
  if (started) start_ = TimeMs{start};
}

Bytes RunLedger::snapshot() const {
  ledger::Writer writer;
  std::uint32_t version = kSnapshotVersion;
  writer(version);
  Bytes ledger_bytes = ledger_.snapshot();
  // Writing leaves it as it is; visit() is not const because a Reader shares it.
  const_cast<RunLedger&>(*this).visit(writer, ledger_bytes);
  return writer.take();
}

void RunLedger::restore(ByteView snapshot) {
  try {
    ledger::Reader reader(snapshot);
    std::uint32_t version = 0;
    reader(version);
    if (version != kSnapshotVersion) {
      throw Error(ErrorCode::version_mismatch, "ledger snapshot " + std::to_string(version));
    }
    Bytes ledger_bytes;
    visit(reader, ledger_bytes);
    reader.finish();
    ledger_ = ledger::Ledger::restore(ledger_bytes);
  } catch (const Error& error) {
    throw Error(ErrorCode::checkpoint_corrupt,
                std::string("the ledger's snapshot: ") + error.what());
  }
  epochs_.clear();
  refusals_.clear();
}

ledger::Ledger RunLedger::ledger_in(ByteView snapshot) {
  RunLedger reading{ledger::LedgerOptions{}, EconomyOptions{}};
  reading.restore(snapshot);
  return std::move(reading.ledger_);
}

}  // namespace yumoe
