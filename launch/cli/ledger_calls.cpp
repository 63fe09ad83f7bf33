// yumoe ledger stake, unstake, ...: what an account asks of a run's ledger, signed by its key.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.hpp"
#include "cli/ledger_reading.hpp"
#include "cluster/error.hpp"
#include "coordinator/history.hpp"
#include "coordinator/ledger_rules.hpp"
#include "coordinator/run_ledger.hpp"
#include "launch/ledger_call.hpp"
#include "launch/local.hpp"

namespace yumoe {
namespace {

namespace fs = std::filesystem;
using ledger::AccountId;

struct Choice {
  std::string run, key;
  bool json = false;
  std::string hotkey, to, from, tao, alpha, limit, value, text;
  std::uint16_t netuid = RunLedger::kNetuid, to_netuid = RunLedger::kNetuid;
  bool other_netuid = false;  // --to-netuid was given
  std::uint64_t number = 0;
  bool all = false, full = false, to_root = false, partial = false, raise = false, lower = false,
       yes = false, no = false;
  std::vector<std::string> list;
  std::vector<std::uint16_t> netuids;
};

// "12.5" TAO or alpha in units of 10^-9, exactly.
std::uint64_t units_from(const std::string& text, const char* what) {
  const std::size_t point = text.find('.');
  std::string whole = text.substr(0, point);
  std::string rest = point == std::string::npos ? "" : text.substr(point + 1);
  std::uint64_t units = 0;
  const std::string digits = whole + rest + std::string(rest.size() < 9 ? 9 - rest.size() : 0, '0');
  if (whole.empty() || rest.size() > 9 || (point != std::string::npos && rest.empty()) ||
      !option_detail::parse_number(digits, units)) {
    throw Error(ErrorCode::usage, std::string(what) + " '" + text +
                                      "': must be a decimal of at most nine places, such as 12.5");
  }
  return units;
}

// An address, or the name of a participant of the run in this folder.
AccountId account_from(const Choice& choice, const std::string& text, const char* what) {
  try {
    return from_ss58(text).bytes;
  } catch (const Error& error) {
    if (choice.run.starts_with("tcp://") || text.size() > kNameBytesMax) {
      throw Error(ErrorCode::usage, std::string(what) + " '" + text + "': " + error.what());
    }
  }
  const auto record = open_run_record(choice.run);
  const RunSetup setup = RunSetup::from_journal(record->run(), record->metadata());
  const Layout layout = Layout::of(setup.model);
  Run core(layout, setup.settings);
  drive(*record, core, [](const Record&, const Event&) {});
  for (const auto& [uid, participant] : core.participants()) {
    if (participant.name == text) return participant.hotkey.bytes;
  }
  throw Error(ErrorCode::usage, std::string(what) + " '" + text +
                                    "': neither an address nor a participant of the run");
}

// A key file, a secret URI, or the name of a key that lies in the run's folder.
Keypair key_from(const Choice& choice) {
  const fs::path named = fs::path(choice.run) / "keys" / choice.key;
  const bool is_named = !choice.run.starts_with("tcp://") && !choice.key.starts_with("//") &&
                        choice.key.find('/') == std::string::npos && fs::exists(named);
  return open_hotkey(is_named ? named.string() : choice.key, fs::path(choice.run), "");
}

std::optional<ledger::Limit> limit_from(const Choice& choice) {
  if (choice.limit.empty()) {
    if (choice.partial) throw Error(ErrorCode::usage, "--partial needs --limit PRICE");
    return std::nullopt;
  }
  return ledger::Limit{units_from(choice.limit, "--limit"), choice.partial};
}

// --- operations, each from what was chosen ---------------------------------------------------------------

using Build = ledger::Operation (*)(const Choice&, const AccountId& self);

AccountId hotkey_or(const Choice& c, const AccountId& self) {
  return c.hotkey.empty() ? self : account_from(c, c.hotkey, "--hotkey");
}

ledger::Operation stake(const Choice& c, const AccountId& self) {
  return ledger::AddStake{self, hotkey_or(c, self), c.netuid, units_from(c.tao, "--tao"),
                          limit_from(c)};
}

ledger::Operation unstake(const Choice& c, const AccountId& self) {
  if (int{c.all} + int{c.full} + int{!c.alpha.empty()} != 1) {
    throw Error(ErrorCode::usage, "give either --alpha AMOUNT or --all or --full");
  }
  if (c.all && (!c.limit.empty() || c.partial)) {
    throw Error(ErrorCode::usage, "--all sells on every subnet, without a limit: --full has one");
  }
  if (c.all) return ledger::UnstakeAll{self, hotkey_or(c, self), c.to_root};
  if (c.full && c.partial)
    throw Error(ErrorCode::usage, "--full is whole or not at all: no --partial");
  if (c.full) {
    std::optional<std::uint64_t> limit;
    if (!c.limit.empty()) limit = units_from(c.limit, "--limit");
    return ledger::RemoveStakeFull{self, hotkey_or(c, self), c.netuid, limit};
  }
  if (c.to_root) throw Error(ErrorCode::usage, "--to-root belongs to --all");
  return ledger::RemoveStake{self, hotkey_or(c, self), c.netuid, units_from(c.alpha, "--alpha"),
                             limit_from(c)};
}

std::uint16_t destination(const Choice& c) { return c.other_netuid ? c.to_netuid : c.netuid; }

ledger::Operation move(const Choice& c, const AccountId& self) {
  const AccountId from = c.from.empty() ? self : account_from(c, c.from, "--from");
  return ledger::MoveStake{self,     from,           account_from(c, c.to, "--to"),
                           c.netuid, destination(c), units_from(c.alpha, "--alpha")};
}

ledger::Operation swap(const Choice& c, const AccountId& self) {
  return ledger::SwapStake{
      self,         hotkey_or(c, self), c.netuid, c.to_netuid, units_from(c.alpha, "--alpha"),
      limit_from(c)};
}

ledger::Operation transfer(const Choice& c, const AccountId& self) {
  if (c.tao.empty() == c.alpha.empty())
    throw Error(ErrorCode::usage, "give either --tao or --alpha");
  const AccountId to = account_from(c, c.to, "--to");
  if (!c.tao.empty()) return ledger::TransferBalance{self, to, units_from(c.tao, "--tao")};
  return ledger::TransferStake{
      self, to, hotkey_or(c, self), c.netuid, destination(c), units_from(c.alpha, "--alpha")};
}

ledger::Operation enrol(const Choice& c, const AccountId& self) {
  std::optional<std::uint64_t> limit;
  if (!c.limit.empty()) limit = units_from(c.limit, "--limit");
  return ledger::Register{self, hotkey_or(c, self), c.netuid, limit};
}

ledger::Operation take(const Choice& c, const AccountId& self) {
  if (c.raise == c.lower) throw Error(ErrorCode::usage, "give either --raise or --lower");
  const std::uint64_t take = share_units(c.value, 65'535, "take " + c.value);
  return ledger::SetTake{self, hotkey_or(c, self), static_cast<std::uint16_t>(take), c.raise};
}

ledger::Operation child_take(const Choice& c, const AccountId& self) {
  const std::uint64_t take = share_units(c.value, 65'535, "take " + c.value);
  return ledger::SetChildkeyTake{self, hotkey_or(c, self), c.netuid,
                                 static_cast<std::uint16_t>(take)};
}

ledger::Operation children(const Choice& c, const AccountId& self) {
  ledger::SetChildren call{self, hotkey_or(c, self), c.netuid, {}};
  for (const std::string& child : c.list) {
    const std::size_t equals = child.find('=');
    if (equals == std::string::npos)
      throw Error(ErrorCode::usage, "--child " + child + ": expected HOTKEY=SHARE");
    call.children.push_back(
        {share_units(child.substr(equals + 1), ~std::uint64_t{0}, "--child " + child),
         account_from(c, child.substr(0, equals), "--child")});
  }
  return call;
}

ledger::Operation set(const Choice& c, const AccountId& self) {
  const auto [name, value] = rule_named(c.text);
  const LedgerRule* rule = ledger_rule(name);
  if (rule == nullptr || rule->network) {
    throw Error(ErrorCode::usage, name +
                                      " is a rule of the whole network: root stake proposes it, " +
                                      "yumoe ledger propose RUN " + c.text);
  }
  if (!rule->owner) {
    throw Error(ErrorCode::usage, name + " is not for a subnet's owner to set: see docs/ledger.md");
  }
  return ledger::SetHyperparameter{self, c.netuid, name, value};
}

ledger::Operation split(const Choice& c, const AccountId& self) {
  return ledger::SetEmissionSplit{self, c.netuid, c.netuids};
}

ledger::Operation trigger(const Choice& c, const AccountId& self) {
  return ledger::TriggerEpoch{self, c.netuid};
}

ledger::Operation autostake(const Choice& c, const AccountId& self) {
  return ledger::SetAutostake{self, c.netuid, hotkey_or(c, self)};
}

ledger::Operation weigh(const Choice& c, const AccountId& self) {
  ledger::SetWeights call;
  call.hotkey = self;
  call.netuid = c.netuid;
  for (const auto& [uid, weight] : read_weights(c.text, std::nullopt)) {
    call.uids.push_back(uid);
    call.values.push_back(weight);
  }
  return call;
}

ledger::Operation claim(const Choice& c, const AccountId& self) {
  return ledger::ClaimRoot{self, c.netuids};
}

ledger::Operation claim_kind(const Choice& c, const AccountId& self) {
  const ledger::ClaimKind kind = c.text == "swap"   ? ledger::ClaimKind::swap
                                 : c.text == "keep" ? ledger::ClaimKind::keep
                                                    : ledger::ClaimKind::keep_subnets;
  return ledger::SetClaimKind{self, kind, {c.netuids.begin(), c.netuids.end()}};
}

ledger::Operation network(const Choice& c, const AccountId& self) {
  return ledger::RegisterNetwork{self, hotkey_or(c, self), 1};
}

ledger::Operation start(const Choice& c, const AccountId& self) {
  return ledger::StartCall{self, c.netuid};
}

ledger::Operation propose(const Choice& c, const AccountId& self) {
  const auto [name, value] = rule_named(c.text);
  const LedgerRule* rule = ledger_rule(name);
  if (rule != nullptr && !rule->network) {
    std::string names;
    for (const LedgerRule& one : ledger_rules()) {
      if (one.network) names += one.name + ", ";
    }
    throw Error(
        ErrorCode::usage,
        name + " is a rule of each subnet, " +
            (rule->owner ? "which its owner sets (yumoe ledger set)" : "fixed when it is made") +
            "; what can be proposed: " + names + "emission_enabled/NETUID");
  }
  return ledger::Propose{self, name, value};
}

ledger::Operation vote(const Choice& c, const AccountId& self) {
  if (c.yes == c.no) throw Error(ErrorCode::usage, "give either --yes or --no");
  return ledger::Vote{self, c.number, c.yes};
}

// --- the commands ---------------------------------------------------------------------------------------

// The value as it was understood, of calls that change a rule.
std::optional<std::string> rule_of(const ledger::Operation& operation) {
  if (const auto* set = std::get_if<ledger::SetHyperparameter>(&operation)) {
    return rule_text(set->name, set->value);
  }
  if (const auto* propose = std::get_if<ledger::Propose>(&operation)) {
    return rule_text(propose->name, propose->value);
  }
  return std::nullopt;
}

void call(const Choice& choice, Build build) {
  const Keypair key = key_from(choice);
  const ledger::Operation operation = build(choice, key.public_key().bytes);
  const CallReport report = call_run(choice.run, key, encode(operation));
  const LedgerAnswer& answer = report.answer;
  if (!answer.error.empty()) {
    std::cerr << "yumoe: " << (report.live ? "the coordinator" : "the stopped run's ledger")
              << " refused: " << answer.error << std::endl;
    throw CLI::RuntimeError(1);
  }
  if (choice.json) {
    nlohmann::ordered_json row{{"operation", ledger::name_of(operation)},
                               {"account", to_ss58(key.public_key())},
                               {"call", answer.nonce - 1},
                               {"block", answer.block},
                               {"free_rao", answer.free},
                               {"live", report.live},
                               {"blocks_passed", report.blocks_passed},
                               {"epochs_passed", report.epochs_passed}};
    if (const auto rule = rule_of(operation)) row["rule"] = *rule;
    std::cout << row.dump() << std::endl;
    return;
  }
  if (const auto rule = rule_of(operation)) std::printf("%s\n", rule->c_str());
  std::printf("%s taken at block %llu as call %llu of %s, %s; free now: %llu.%09llu TAO\n",
              std::string(ledger::name_of(operation)).c_str(),
              static_cast<unsigned long long>(answer.block),
              static_cast<unsigned long long>(answer.nonce - 1), to_ss58(key.public_key()).c_str(),
              report.live ? "by the coordinator" : "into the journal of the stopped run",
              static_cast<unsigned long long>(answer.free / 1'000'000'000),
              static_cast<unsigned long long>(answer.free % 1'000'000'000));
  if (report.blocks_passed > 0) {
    std::printf(
        "%llu blocks have passed since the run's last record, with %llu epochs of its subnet, "
        "which "
        "paid by the weights it had\n",
        static_cast<unsigned long long>(report.blocks_passed),
        static_cast<unsigned long long>(report.epochs_passed));
  }
}

// Adds one command; the caller adds what is its own.
CLI::App& add(CLI::App& group, const char* name, const char* help, const char* example, Build build,
              const std::shared_ptr<Choice>& choice) {
  CLI::App* command = group.add_subcommand(name, help);
  command->add_option("run", choice->run, "A run's folder, or the address of its coordinator")
      ->required();
  command
      ->add_option("--key", choice->key,
                   "Who asks: a key file, a secret URI such as //Alice, or a name in RUN/keys")
      ->required();
  command->add_flag("--json", choice->json, "One JSON object; amounts in rao");
  command->footer(example);
  command->callback([choice, build] { call(*choice, build); });
  return *command;
}

void hotkey_of(CLI::App& command, Choice& c) {
  command.add_option("--hotkey", c.hotkey, "Address or participant's name; default: the key's own");
}
void netuid_of(CLI::App& command, Choice& c) {
  command.add_option("--netuid", c.netuid, "Subnet; 0 is root")->capture_default_str();
}
void to_netuid_of(CLI::App& command, const std::shared_ptr<Choice>& c) {
  command.add_option_function<std::uint16_t>(
      "--to-netuid",
      [c](const std::uint16_t& netuid) {
        c->to_netuid = netuid;
        c->other_netuid = true;
      },
      "Subnet it goes to, through both pools; default: the same");
}
void alpha_of(CLI::App& command, Choice& c, bool required = true) {
  command.add_option("--alpha", c.alpha, "How much, in the subnet's alpha")->required(required);
}
void limit_of(CLI::App& command, Choice& c) {
  command.add_option("--limit", c.limit,
                     "Worst price, TAO per alpha; between subnets: a ratio of prices");
  command.add_flag("--partial", c.partial, "Take what the limit allows instead of refusing");
}

void add_staking(CLI::App& group) {
  auto c = std::make_shared<Choice>();
  CLI::App* command =
      &add(group, "stake", "Put free TAO behind a hotkey: on a subnet, or on root",
           "yumoe ledger stake runs/mine --key first --tao 5\n"
           "yumoe ledger stake tcp://... --key my-key --hotkey 5F... --netuid 0 --tao 5",
           stake, c);
  hotkey_of(*command, *c), netuid_of(*command, *c), limit_of(*command, *c);
  command->add_option("--tao", c->tao, "How much")->required();

  c = std::make_shared<Choice>();
  command = &add(group, "unstake", "Turn stake back into free TAO",
                 "yumoe ledger unstake runs/mine --key first --alpha 2.5 --limit 0.9\n"
                 "yumoe ledger unstake runs/mine --key first --all",
                 unstake, c);
  hotkey_of(*command, *c), netuid_of(*command, *c), limit_of(*command, *c),
      alpha_of(*command, *c, false);
  command->add_flag("--full", c->full, "All of this hotkey's stake on the subnet, or nothing");
  command->add_flag("--all", c->all, "All of this hotkey's stake on every subnet");
  command->add_flag("--to-root", c->to_root, "With --all: stake the TAO on root");

  c = std::make_shared<Choice>();
  command = &add(group, "move", "Move stake behind another hotkey",
                 "yumoe ledger move runs/mine --key first --to second --alpha 1", move, c);
  command->add_option("--from", c->from, "Hotkey it is behind now; default: the key's own");
  command->add_option("--to", c->to, "Hotkey it goes behind")->required();
  netuid_of(*command, *c), alpha_of(*command, *c), to_netuid_of(*command, c);

  c = std::make_shared<Choice>();
  command =
      &add(group, "swap", "Move stake to another subnet, through both pools",
           "yumoe ledger swap runs/mine --key first --netuid 1 --to-netuid 2 --alpha 1", swap, c);
  hotkey_of(*command, *c), netuid_of(*command, *c), limit_of(*command, *c), alpha_of(*command, *c);
  command->add_option("--to-netuid", c->to_netuid, "Where it goes")->required();

  c = std::make_shared<Choice>();
  command = &add(group, "transfer", "Give free TAO, or stake, to another account",
                 "yumoe ledger transfer runs/mine --key first --to 5F... --tao 1", transfer, c);
  command->add_option("--to", c->to, "Who gets it")->required();
  command->add_option("--tao", c->tao, "How much free TAO");
  hotkey_of(*command, *c), netuid_of(*command, *c), alpha_of(*command, *c, false);
  to_netuid_of(*command, c);
}

void add_hotkeys(CLI::App& group) {
  auto c = std::make_shared<Choice>();
  CLI::App* command =
      &add(group, "register", "Register a hotkey as a neuron; on root: for root's rights",
           "yumoe ledger register runs/mine --key my-key --netuid 2", enrol, c);
  hotkey_of(*command, *c), netuid_of(*command, *c);
  command->add_option("--limit", c->limit, "Most TAO it may cost");

  c = std::make_shared<Choice>();
  command = &add(group, "take", "A hotkey's take of its stakers' dividends",
                 "yumoe ledger take runs/mine --key first 0.1 --lower", take, c);
  hotkey_of(*command, *c);
  command->add_option("take", c->value, "Share of the dividends, such as 0.1")->required();
  command->add_flag("--raise", c->raise, "To more than now");
  command->add_flag("--lower", c->lower, "To less than now");

  c = std::make_shared<Choice>();
  command = &add(group, "child-take", "A hotkey's take of its parents' dividends",
                 "yumoe ledger child-take runs/mine --key first 0.05", child_take, c);
  hotkey_of(*command, *c), netuid_of(*command, *c);
  command->add_option("take", c->value, "Share of the dividends, such as 0.05")->required();

  c = std::make_shared<Choice>();
  command = &add(group, "children", "Lend a hotkey's stake to others; none given: take it back",
                 "yumoe ledger children runs/mine --key first --child second=0.5", children, c);
  hotkey_of(*command, *c), netuid_of(*command, *c);
  command->add_option("--child", c->list, "HOTKEY=SHARE, up to five");

  c = std::make_shared<Choice>();
  command = &add(group, "autostake", "Where this account's incentives are staked",
                 "yumoe ledger autostake runs/mine --key large --hotkey first", autostake, c);
  hotkey_of(*command, *c), netuid_of(*command, *c);

  c = std::make_shared<Choice>();
  command =
      &add(group, "weigh", "A validator of another subnet than the run's sets its weights",
           "yumoe ledger weigh runs/mine --key my-key --netuid 2 --weights weights.txt", weigh, c);
  command->add_option("--netuid", c->netuid, "Subnet; the run's own takes its validators' scores")
      ->required();
  command->add_option("--weights", c->text, "File of UID WEIGHT lines")->required();

  c = std::make_shared<Choice>();
  command = &add(group, "claim", "Claim root dividends of subnets",
                 "yumoe ledger claim runs/mine --key first --netuids 1 2", claim, c);
  command->add_option("--netuids", c->netuids, "One to five")->required();

  c = std::make_shared<Choice>();
  command = &add(group, "claim-kind", "What becomes of this account's root dividends",
                 "yumoe ledger claim-kind runs/mine --key first keep", claim_kind, c);
  command->add_option("kind", c->text, "swap: to TAO on root; keep: as alpha; or only some")
      ->required()
      ->check(CLI::IsMember({"swap", "keep", "keep_subnets"}));
  command->add_option("--netuids", c->netuids, "With keep_subnets: which");
}

void add_owners(CLI::App& group) {
  auto c = std::make_shared<Choice>();
  CLI::App* command = &add(group, "set", "A subnet's owner sets one of its parameters",
                           "yumoe ledger set runs/mine kappa=0.6 --key owner-key", set, c);
  command
      ->add_option("rule", c->text,
                   "NAME=VALUE, such as kappa=0.6 or yuma=3; docs/ledger.md lists them")
      ->required();
  netuid_of(*command, *c);

  c = std::make_shared<Choice>();
  command = &add(group, "split", "A subnet's owner splits emission over its mechanisms",
                 "yumoe ledger split runs/mine --key owner-key --parts 40000 25535", split, c);
  command->add_option("--parts", c->netuids, "One a mechanism, 65535 in all; none: even");
  netuid_of(*command, *c);

  c = std::make_shared<Choice>();
  command = &add(group, "trigger", "A subnet's owner asks for an epoch soon",
                 "yumoe ledger trigger runs/mine --key owner-key", trigger, c);
  netuid_of(*command, *c);

  c = std::make_shared<Choice>();
  command = &add(group, "network", "Register a new subnet and become its owner",
                 "yumoe ledger network runs/mine --key my-key --hotkey 5F...", network, c);
  hotkey_of(*command, *c);

  c = std::make_shared<Choice>();
  command = &add(group, "start", "A new subnet's owner lets its emission begin",
                 "yumoe ledger start runs/mine --key my-key --netuid 2", start, c);
  netuid_of(*command, *c);

  c = std::make_shared<Choice>();
  command = &add(group, "propose", "Root stake proposes a parameter of the whole network",
                 "yumoe ledger propose runs/mine tao_weight=0.2 --key first", propose, c);
  command->add_option("rule", c->text, "NAME=VALUE, or emission_enabled/NETUID=0")->required();

  c = std::make_shared<Choice>();
  command = &add(group, "vote", "Root stake votes on a proposal; `ledger show` lists them",
                 "yumoe ledger vote runs/mine 1 --yes --key second", vote, c);
  command->add_option("proposal", c->number, "Its number")->required();
  command->add_flag("--yes", c->yes, "For it");
  command->add_flag("--no", c->no, "Against it");
}

void follow(const Choice& choice) {
  ChainRpcOptions options;
  options.endpoints = {choice.text};
  RpcClient client(options);
  ChainNode node(client);
  std::uint64_t left = choice.number;
  follow_chain(node, choice.run, key_from(choice),
               [&](std::uint64_t number, const CallReport& report) {
                 if (choice.json) {
                   std::cout << nlohmann::ordered_json{{"chain_block", number},
                                                       {"block", report.answer.block},
                                                       {"live", report.live}}
                                    .dump()
                             << std::endl;
                 } else {
                   std::printf("chain block %llu is block %llu of the ledger\n",
                               static_cast<unsigned long long>(number),
                               static_cast<unsigned long long>(report.answer.block));
                   std::fflush(stdout);
                 }
                 return choice.number == 0 || --left > 0;
               });
}

void add_follow(CLI::App& group) {
  auto c = std::make_shared<Choice>();
  CLI::App* command =
      group.add_subcommand("follow", "Let a run's blocks pass as a chain finalises its own");
  command->add_option("run", c->run, "A run's folder, or the address of its coordinator")
      ->required();
  command->add_option("--key", c->key, "The key of economy.owner, as for the other calls")
      ->required();
  command->add_option("--node", c->text, "ws:// or wss:// address of a node of the chain")
      ->required();
  command->add_option("--blocks", c->number, "Stop after so many; 0: never")->capture_default_str();
  command->add_flag("--json", c->json, "One JSON object a block");
  command->footer("yumoe ledger follow runs/mine --key owner-key --node ws://127.0.0.1:9944");
  command->callback([c] { follow(*c); });
}

}  // namespace

void add_ledger_calls(CLI::App& ledger_group) {
  add_follow(ledger_group);
  add_staking(ledger_group);
  add_hotkeys(ledger_group);
  add_owners(ledger_group);
}

}  // namespace yumoe
