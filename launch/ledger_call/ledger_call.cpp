#include "launch/ledger_call.hpp"

#include <algorithm>
#include <fstream>
#include <optional>

#include "cluster/clock.hpp"
#include "cluster/error.hpp"
#include "coordinator/journal.hpp"
#include "coordinator/run_ledger.hpp"
#include "coordinator/setup.hpp"

namespace yumoe {
namespace {

using Monotonic = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kSayAgain{1'000};
constexpr milliseconds kWaitMax{30'000};

[[noreturn]] void refused(const std::string& why) { throw Error(ErrorCode::peer_refused, why); }

// One account's conversation with a coordinator.
class Conversation {
 public:
  Conversation(const CoordinatorAddress& address, const Keypair& account, milliseconds wait_max)
      : address_(address),
        account_(account),
        until_(Monotonic::now() + wait_max),
        transport_(connect_zeromq(address, CurveKeypair::generate(), TransportOptions{})) {}

  LedgerAnswer call(const Bytes& operation) {
    // Its number is asked for first; then only exactly this call is said again.
    LedgerCall call;
    call.nonce = answer_to(LedgerCall{}).nonce;
    call.operation = operation;
    return answer_to(call);
  }

 private:
  LedgerAnswer answer_to(LedgerCall call) {
    auto said = Monotonic::time_point{};
    while (true) {
      const auto now = Monotonic::now();
      if (now > until_) {
        throw Error(ErrorCode::peer_unreachable, "the coordinator at " + address_.text() +
                                                     " did not answer: ask again; " +
                                                     "a call that was taken is not taken twice");
      }
      if (now - said >= kSayAgain) {
        say(call);
        said = now;
      }
      const auto frames = transport_->receive(milliseconds(50));
      if (!frames) continue;
      const ToParticipant content = decode_to_participant(open_envelope(frames->at(0)).body);
      if (const auto* challenge = std::get_if<Challenge>(&content)) {
        if (run_ && *run_ != challenge->run)
          refused("another run is at this address now: " + challenge->run);
        if (!run_ || nonce_ != challenge->nonce) said = {};
        run_ = challenge->run;
        if (nonce_ != challenge->nonce) sequence_ = 0;
        nonce_ = challenge->nonce;
      } else if (const auto* refusal = std::get_if<Refusal>(&content)) {
        refused(refusal->code + ": " + refusal->message);
      } else if (const auto* answer = std::get_if<LedgerAnswer>(&content)) {
        // One answer a question: a late one to an earlier question says the same of the account.
        if (call.operation.empty() || answer->nonce == call.nonce + 1 || !answer->error.empty()) {
          return *answer;
        }
      }
    }
  }

  void say(LedgerCall& call) {
    SystemClock clock;
    if (!run_) {
      transport_->send({seal_unsigned(0, clock.now(), encode(ToCoordinator{Hello{}}))});
      return;
    }
    call.run = *run_;
    transport_->send(
        {seal(account_, nonce_, ++sequence_, clock.now(), encode(ToCoordinator{call}))});
  }

  const CoordinatorAddress& address_;
  const Keypair& account_;
  Monotonic::time_point until_;
  std::unique_ptr<ClientTransport> transport_;
  std::optional<std::string> run_;
  Nonce nonce_{};
  std::uint64_t sequence_ = 0;
};

}  // namespace

CoordinatorAddress address_in(const std::filesystem::path& run_folder) {
  std::ifstream in(run_folder / "address");
  std::string text;
  if (!std::getline(in, text)) {
    throw Error(
        ErrorCode::peer_unreachable,
        "the run in " + run_folder.string() +
            " is live, but its address is not in it: give the address that it printed instead");
  }
  return CoordinatorAddress::parse(text);
}

LedgerAnswer call_coordinator(const CoordinatorAddress& address, const Keypair& account,
                              const Bytes& operation, milliseconds wait_max) {
  return Conversation(address, account, wait_max).call(operation);
}

CallReport call_stopped_run(const std::filesystem::path& run_folder, const Keypair& account,
                            const Bytes& operation) {
  Journal journal = Journal::open(run_folder);
  const RunSetup setup = RunSetup::from_journal(journal.run(), journal.metadata());
  const Layout layout = Layout::of(setup.model);
  Run core(layout, setup.settings);
  RunLedger ledger(setup.ledger, setup.economy);
  TimeMs last;
  journal.for_each(1, [&](const Record& record) {
    const Event event = decode_event(record.payload);
    if (const auto broken = core.refusal_of(event, record.time)) {
      throw Error(ErrorCode::journal_corrupt,
                  "record " + std::to_string(record.sequence) + " can not be: " + broken->message);
    }
    core.apply(event, record.time);
    ledger.apply(event, core, record.time);
    last = record.time;
    return true;
  });
  if (journal.size() == 0) {
    throw Error(ErrorCode::usage, "the run in " + run_folder.string() +
                                      " has not started yet: there is no ledger to call");
  }
  const TimeMs now = std::max(last, SystemClock{}.now());
  Called call;
  call.account = account.public_key();
  call.nonce = ledger.next_nonce(call.account);
  call.operation = operation;
  call.evidence =
      seal(account, Nonce{}, 1, now,
           encode(ToCoordinator{LedgerCall{journal.run(), call.nonce, call.operation}}));
  const std::uint64_t block = ledger.ledger().state().block;
  const std::size_t epochs = ledger.epochs().size();
  if (const auto why = ledger.refusal_of(call, now)) {
    return {{call.nonce, *why, block, ledger.free_of(call.account)}, false};
  }
  const Bytes payload = encode(Event{call});
  const Entry entry{now, std::string(kind_of(Event{call})), payload};
  journal.append({&entry, 1});
  ledger.apply(call, core, now);
  return {{ledger.next_nonce(call.account), "", ledger.ledger().state().block,
           ledger.free_of(call.account)},
          false,
          ledger.ledger().state().block - block,
          ledger.epochs().size() - epochs};
}

CallReport call_run(const std::string& run, const Keypair& account, const Bytes& operation) {
  if (run.starts_with("tcp://")) {
    return {call_coordinator(CoordinatorAddress::parse(run), account, operation, kWaitMax), true};
  }
  try {
    return call_stopped_run(run, account, operation);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::run_locked) throw;
  }
  return {call_coordinator(address_in(run), account, operation, kWaitMax), true};
}

}  // namespace yumoe
