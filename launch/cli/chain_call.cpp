// yumoe chain call, register, serve: what a key asks of the chain. Shown whole before anything is sent;
// sent through a settlement queue, so that it happens once whatever breaks.
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/chain_choice.hpp"
#include "cluster/clock.hpp"
#include "cluster/error.hpp"
#include "coordinator/extrinsic.hpp"
#include "coordinator/settlement_target.hpp"

namespace yumoe {
namespace {

namespace fs = std::filesystem;
using settlement::Intent;
using settlement::IntentStatus;
using std::chrono::milliseconds;

struct CallChoice : ChainChoice {
  std::string call, args = "{}", sign_with = "hotkey", tip = "0", ip;
  std::string journal = "~/.yumoe/chain-GENESIS.journal";
  std::int64_t port = 0, wait_s = 900;
  bool dry_run = false, yes = false;
};

// --- what would be sent ----------------------------------------------------------------------------------

struct Preview {
  nlohmann::json call;  // decoded from the bytes, not what was typed
  Bytes call_bytes;
  SigningPayload payload;
  ExtrinsicParameters parameters;
  std::uint32_t block = 0;
  std::string fee;  // rao; "" if the node cannot tell
  std::string fee_trouble;
  ChainToken token;
  Bytes extrinsic;  // empty: no key was given
  std::string signer;
};

Preview preview(ChainLine& line, ChainReader& reader, const ChainOptions& options,
                const Intent& intent, const Keypair* key) {
  const Metadata& metadata = reader.metadata();
  Preview out;
  out.call_bytes =
      metadata.encode_call(intent.pallet, intent.call, parse_json_exact(intent.arguments));
  out.call = metadata.decode_call(out.call_bytes);
  out.block = reader.block();
  ExtrinsicParameters& p = out.parameters;
  if (key != nullptr) {
    out.signer = to_ss58(key->public_key());
    p.nonce = line.node().next_nonce(out.signer);
  }
  p.era = Era::mortal(static_cast<std::uint64_t>(options.settlement.era_blocks), reader.block());
  p.genesis_hash = line.genesis();
  const auto birth =
      line.node().block_hash(static_cast<std::uint32_t>(p.era.birth(reader.block())));
  // A chain younger than its node's memory of it, or a pruned one: the head is a birth as well.
  if (birth) {
    p.checkpoint_hash = *birth;
  } else {
    p.era.phase = reader.block() % p.era.period;
    p.checkpoint_hash = reader.block_hash();
  }
  p.spec_version = reader.runtime().spec_version;
  p.transaction_version = reader.runtime().transaction_version;
  out.payload = signing_payload(metadata, out.call_bytes, p);
  // The fee goes by length and call alone, so that any signature will do for asking.
  const PublicKey signer = key != nullptr ? key->public_key() : PublicKey{};
  const Signature signature = key != nullptr ? key->sign(out.payload.message) : Signature{};
  const Bytes extrinsic =
      assemble_extrinsic(metadata, out.call_bytes, out.payload, signer, signature);
  if (key != nullptr) out.extrinsic = extrinsic;
  try {
    out.token = line.node().token();
    out.fee = reader.fee(extrinsic);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::peer_unreachable) throw;
    out.fee_trouble = error.what();
  }
  return out;
}

nlohmann::json json_of(const Preview& p) {
  nlohmann::json out{
      {"call", p.call},
      {"call_hex", "0x" + to_hex(p.call_bytes)},
      {"signer", p.signer.empty() ? nlohmann::json() : nlohmann::json(p.signer)},
      {"nonce", p.parameters.nonce},
      {"era", {{"period", p.parameters.era.period}, {"phase", p.parameters.era.phase}}},
      {"spec_version", p.parameters.spec_version},
      {"genesis", "0x" + p.parameters.genesis_hash.hex()},
      {"block", p.block},
      {"fee", p.fee.empty() ? nlohmann::json() : nlohmann::json(p.fee)},
      {"payload", "0x" + to_hex(p.payload.payload)},
      {"signed_message", "0x" + to_hex(p.payload.message)},
      {"extrinsic", nullptr},
      {"extrinsic_hash", nullptr}};
  if (!p.extrinsic.empty()) {
    out["extrinsic"] = "0x" + to_hex(p.extrinsic);
    out["extrinsic_hash"] = "0x" + extrinsic_hash(p.extrinsic).hex();
  }
  return out;
}

std::string fee_text(const Preview& p) { return p.token.text(p.fee) + " " + p.token.symbol; }

void print_preview(const Preview& p) {
  std::printf("call       %s.%s\n", p.call.at("call_module").get<std::string>().c_str(),
              p.call.at("call_function").get<std::string>().c_str());
  for (const auto& argument : p.call.at("call_args")) {
    std::printf("  %-20s %s\n", argument.at("name").get<std::string>().c_str(),
                argument.at("value").dump().c_str());
  }
  std::printf("bytes      0x%s\n", to_hex(p.call_bytes).c_str());
  std::printf("runtime    %u, genesis 0x%s\n", p.parameters.spec_version,
              p.parameters.genesis_hash.hex().c_str());
  std::printf("signer     %s, nonce %llu\n", p.signer.empty() ? "(no key given)" : p.signer.c_str(),
              static_cast<unsigned long long>(p.parameters.nonce));
  std::printf("valid      %llu blocks from block %u\n",
              static_cast<unsigned long long>(p.parameters.era.period), p.block);
  std::printf("fee        %s\n",
              p.fee.empty() ? ("unknown (" + p.fee_trouble + ")").c_str() : fee_text(p).c_str());
  std::printf("payload    0x%s\n", to_hex(p.payload.payload).c_str());
  if (p.extrinsic.empty()) {
    std::printf("extrinsic  (give --wallet, --hotkey or --coldkey to have it signed)\n");
  } else {
    std::printf("extrinsic  0x%s\nhash       0x%s\n", to_hex(p.extrinsic).c_str(),
                extrinsic_hash(p.extrinsic).hex().c_str());
  }
  std::fflush(stdout);
}

// --- sending ---------------------------------------------------------------------------------------------

bool confirmed(const CallChoice& choice) {
  if (choice.yes) return true;
  if (isatty(STDIN_FILENO) == 0) {
    throw Error(ErrorCode::usage,
                "nothing was sent: without a terminal --yes sends it, --dry-run only looks");
  }
  std::cerr << "Send it? [y/N] " << std::flush;
  std::string answer;
  std::getline(std::cin, answer);
  return answer == "y" || answer == "yes";
}

bool same_call(const Intent& a, const Intent& b) {
  return a.signer == b.signer && a.pallet == b.pallet && a.call == b.call &&
         a.arguments == b.arguments;
}

// Waits until the intent is concluded. One that an earlier command left open is taken up, not added again.
settlement::Receipt send(ChainLine& line, const ChainOptions& options, const CallChoice& choice,
                         Intent intent, const Keypair& key) {
  // A queue is of one chain, so each chain has its own.
  constexpr std::string_view kGenesis = "GENESIS";
  std::string name = choice.journal;
  if (const std::size_t at = name.find(kGenesis); at != std::string::npos) {
    name.replace(at, kGenesis.size(), line.genesis().hex().substr(0, 16));
  }
  const fs::path file = below_home(name);
  if (file.has_parent_path()) fs::create_directories(file.parent_path());
  settlement::FileJournal journal(file);
  SystemClock clock;
  settlement::SubstrateOptions how;
  how.settlement = options.settlement;
  how.now = [&clock] { return clock.now(); };
  how.genesis = line.genesis();
  settlement::SubstrateSettlement target(
      line.client(), journal,
      [&key](const PublicKey& signer) { return signer == key.public_key() ? &key : nullptr; },
      std::move(how));
  bool is_new = true;
  for (const IntentStatus& status : target.status()) {
    if (status.outcome || !same_call(status.intent, intent)) continue;
    chain_progress("the same call is open since an earlier command: going on with it");
    intent.id = status.intent.id;
    is_new = false;
  }
  if (is_new) target.add(intent);
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(choice.wait_s);
  std::string told;
  while (std::chrono::steady_clock::now() < until) {
    for (settlement::Receipt& receipt : target.poll(milliseconds(500))) {
      if (receipt.id == intent.id) return receipt;
    }
    for (const IntentStatus& status : target.status()) {
      if (status.intent.id != intent.id) continue;
      std::string now = status.phase + (status.problem.empty() ? "" : " (" + status.problem + ")");
      if (!target.trouble().empty()) now += "; " + target.trouble();
      if (now == told) continue;
      chain_progress("block " + std::to_string(target.head()) + ": " + now);
      told = now;
    }
  }
  throw Error(ErrorCode::peer_unreachable, "not concluded within " + std::to_string(choice.wait_s) +
                                               " s (" + told + "): it stays in " + file.string() +
                                               "; give the same command again to go on with it");
}

void report(const settlement::Receipt& receipt, nlohmann::json shown, bool as_json) {
  const settlement::Outcome& outcome = receipt.outcome;
  if (as_json) {
    shown["outcome"] = {{"effected", outcome.effected},
                        {"reason", outcome.reason},
                        {"advice", outcome.advice},
                        {"block", outcome.block},
                        {"block_hash", "0x" + outcome.block_hash.hex()},
                        {"events", outcome.events.empty() ? nlohmann::json::array()
                                                          : nlohmann::json::parse(outcome.events)}};
    std::cout << shown.dump() << std::endl;
  } else if (outcome.effected) {
    std::printf("done       block %u, extrinsic %u\n", outcome.block, outcome.extrinsic_index);
  }
  if (!outcome.effected) {
    throw Error(ErrorCode::chain_refused,
                outcome.reason + (outcome.advice.empty() ? "" : ": " + outcome.advice));
  }
}

void show_and_send(ChainLine& line, ChainReader& reader, const ChainOptions& options,
                   const CallChoice& choice, Intent intent, const std::optional<Keypair>& key) {
  const Preview shown = preview(line, reader, options, intent, key ? &*key : nullptr);
  if (!choice.json) print_preview(shown);
  if (choice.dry_run || !key) {
    if (choice.json) std::cout << json_of(shown).dump() << std::endl;
    if (!choice.dry_run) {
      throw Error(ErrorCode::usage,
                  "nothing was sent: no key signs it; give --wallet, --hotkey or --coldkey");
    }
    return;
  }
  if (!confirmed(choice)) {
    std::printf("nothing was sent\n");
    return;
  }
  report(send(line, options, choice, std::move(intent), *key), json_of(shown), choice.json);
}

// --- call ------------------------------------------------------------------------------------------------

std::string text_argument(const std::string& given) {
  if (!given.starts_with('@')) return given;
  std::ifstream in(given.substr(1));
  if (!in) throw Error(ErrorCode::file_missing, given.substr(1));
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

std::string signature_text(const TypeVariant& call) {
  std::string text;
  for (const TypeField& field : call.fields) {
    text += (text.empty() ? "" : ", ") + field.name + ": " + field.type_name;
  }
  return "{" + text + "}";
}

bool names_a_key(const ChainOptions& options, const std::string& which) {
  if (!options.wallet.empty()) return true;
  const std::string& key = which == "coldkey" ? options.coldkey : options.hotkey;
  return key.find('/') != std::string::npos;
}

void call(const CallChoice& choice) {
  const std::size_t dot = choice.call.find('.');
  if (dot == std::string::npos || dot == 0 || dot + 1 == choice.call.size()) {
    throw Error(ErrorCode::usage, "'" + choice.call +
                                      "': a call is named PALLET.CALL, such as "
                                      "SubtensorModule.set_weights");
  }
  try {  // what is wrong whatever the node says
    static_cast<void>(parse_json_exact(text_argument(choice.args)));
  } catch (const Error& error) {
    if (error.code() == ErrorCode::file_missing) throw;
    throw Error(ErrorCode::usage, "--args: " + std::string(error.what()));
  }
  const ChainOptions options = choice.options();
  ChainLine line(options, chain_progress);
  ChainReader reader(line.node());
  const Pallet& pallet =
      find_pallet(reader.metadata(), reader.runtime().spec_version, choice.call.substr(0, dot));
  const TypeVariant& variant = find_call(reader.metadata(), pallet, choice.call.substr(dot + 1));
  Intent intent;
  intent.pallet = pallet.name;
  intent.call = variant.name;
  try {
    intent.arguments = parse_json_exact(text_argument(choice.args)).dump();
    reader.metadata().encode_call(intent.pallet, intent.call, parse_json_exact(intent.arguments));
  } catch (const Error& error) {
    if (error.code() == ErrorCode::file_missing) throw;
    throw Error(ErrorCode::usage, "--args: " + std::string(error.what()) + "; " + choice.call +
                                      " takes " + signature_text(variant));
  }
  std::optional<Keypair> key;
  if (names_a_key(options, choice.sign_with)) {
    key = choice.sign_with == "coldkey" ? open_chain_coldkey(options) : open_chain_hotkey(options);
    intent.signer = key->public_key();
  }
  intent.id = "call/" + choice.call + "/" + std::to_string(SystemClock().now().value);
  show_and_send(line, reader, options, choice, std::move(intent), key);
}

// --- register, serve -------------------------------------------------------------------------------------

void register_hotkey(const CallChoice& choice) {
  require_netuid(choice);
  const ChainOptions options = choice.options();
  const PublicKey hotkey = chain_hotkey(options);
  const Netuid netuid{static_cast<std::uint16_t>(options.netuid)};
  ChainLine line(options, chain_progress);
  ChainReader reader(line.node());
  if (const auto uid = reader.uid_of(netuid, to_ss58(hotkey))) {
    throw Error(ErrorCode::usage, "hotkey " + to_ss58(hotkey) + " is registered on subnet " +
                                      std::to_string(netuid.value) + " already, as uid " +
                                      std::to_string(uid->value));
  }
  const PublicKey payer = chain_coldkey(options);
  const ChainBalance balance = reader.balance(to_ss58(payer));
  if (!choice.json) {
    std::string burn = "unknown";
    try {
      const Json value = reader.value("SubtensorModule", "Burn", Json::array({netuid.value}));
      burn = tao_text(value.is_string() ? value.get<std::string>() : value.dump()) + " TAO";
    } catch (const Error& error) {
      if (error.code() != ErrorCode::metadata_unsupported) throw;
    }
    std::printf("registers  %s on subnet %u\nburns      %s; %s has %s TAO\n",
                to_ss58(hotkey).c_str(), netuid.value, burn.c_str(), to_ss58(payer).c_str(),
                tao_text(balance.free).c_str());
  }
  const std::optional<Keypair> coldkey = open_chain_coldkey(options);
  show_and_send(line, reader, options, choice,
                settlement::register_intent("register/" + std::to_string(SystemClock().now().value),
                                            coldkey->public_key(), netuid, hotkey),
                coldkey);
}

void serve(const CallChoice& choice) {
  require_netuid(choice);
  const ChainOptions options = choice.options();
  if (choice.port < 1 || choice.port > 65'535) {
    throw Error(ErrorCode::usage,
                "--port " + std::to_string(choice.port) + ": must be between 1 and 65535");
  }
  const Netuid netuid{static_cast<std::uint16_t>(options.netuid)};
  Intent intent = settlement::serve_intent("serve/" + std::to_string(SystemClock().now().value),
                                           chain_hotkey(options), netuid, choice.ip,
                                           static_cast<std::uint16_t>(choice.port));
  ChainLine line(options, chain_progress);
  ChainReader reader(line.node());
  if (!reader.uid_of(netuid, to_ss58(intent.signer))) {
    throw Error(ErrorCode::chain_refused, "NotRegistered: hotkey " + to_ss58(intent.signer) +
                                              " is not registered on subnet " +
                                              std::to_string(netuid.value) +
                                              ": yumoe chain register");
  }
  const std::optional<Keypair> hotkey = open_chain_hotkey(options);
  show_and_send(line, reader, options, choice, std::move(intent), hotkey);
}

CLI::App* add(CLI::App& group, const char* name, const char* help, const char* example,
              ChainKey key, void (*run)(const CallChoice&),
              const std::shared_ptr<CallChoice>& choice) {
  CLI::App* command = group.add_subcommand(name, help);
  command->add_flag("--dry-run", choice->dry_run, "Show everything, send nothing");
  command->add_flag("--yes", choice->yes, "Send without asking");
  command->add_option("--wait-s", choice->wait_s, "Longest wait for the outcome, seconds")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  command
      ->add_option("--journal", choice->journal,
                   "Where what is sent is recorded before it is sent; GENESIS: the chain's")
      ->capture_default_str();
  add_chain_flags(*command, *choice, key);
  command->footer(example);
  command->callback([choice, run] { run(*choice); });
  return command;
}

}  // namespace

void add_chain_call_commands(CLI::App& group) {
  auto choice = std::make_shared<CallChoice>();
  CLI::App* command = add(
      group, "call", "Any call of the runtime: decoded, priced and shown, then sent once",
      "yumoe chain call SubtensorModule.set_weights --dry-run --endpoints ws://127.0.0.1:9944 \\\n"
      "  --args '{\"netuid\":2,\"dests\":[1],\"weights\":[65535],\"version_key\":0}' --hotkey "
      "//Alice",
      ChainKey::coldkey, call, choice);
  command->add_option("call", choice->call, "PALLET.CALL")->required();
  command->add_option("--args", choice->args, "JSON object by argument name, or @FILE")
      ->capture_default_str();
  command->add_option("--sign-with", choice->sign_with, "Which key signs")
      ->check(CLI::IsMember({"hotkey", "coldkey"}))
      ->capture_default_str();

  choice = std::make_shared<CallChoice>();
  add(group, "register", "Register a hotkey on a subnet; the coldkey pays",
      "yumoe chain register --endpoints ws://127.0.0.1:9944 --netuid 2 --wallet mine --hotkey "
      "miner",
      ChainKey::coldkey, register_hotkey, choice);

  choice = std::make_shared<CallChoice>();
  command = add(
      group, "serve", "Tell the chain where a hotkey serves",
      "yumoe chain serve --endpoints ws://127.0.0.1:9944 --netuid 2 --wallet mine --hotkey miner "
      "--ip 203.0.113.7 --port 8091",
      ChainKey::hotkey, serve, choice);
  command->add_option("--ip", choice->ip, "IPv4 or IPv6 address")->required();
  command->add_option("--port", choice->port, "Port")->required();
}

}  // namespace yumoe
