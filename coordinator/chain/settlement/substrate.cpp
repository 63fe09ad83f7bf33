// Carries the machine's actions to a node and its answers back. No decision is made here.

#include <deque>
#include <map>
#include <nlohmann/json.hpp>
#include <variant>

#include "cluster/error.hpp"
#include "cluster/log.hpp"
#include "coordinator/extrinsic.hpp"
#include "coordinator/settlement_target.hpp"

namespace yumoe::settlement {
namespace {

using nlohmann::json;

// A runtime before it had timelocked commits numbered its custom refusals in another way.
CustomCodes custom_codes_of(const Metadata& metadata) {
  try {
    metadata.call("SubtensorModule", "commit_timelocked_weights");
    return CustomCodes::newer;
  } catch (const Error&) {
    return CustomCodes::older;
  }
}

bool has_storage(const Metadata& metadata, std::string_view pallet, std::string_view item) {
  for (const StorageItem& storage : metadata.pallet(pallet).storage) {
    if (storage.name == item) return true;
  }
  return false;
}

json read_storage(ChainNode& node, const Metadata& metadata, const Digest& at,
                  std::string_view pallet, std::string_view item, const json& keys) {
  const StorageItem& storage = metadata.storage(pallet, item);
  return metadata.decode_storage(storage,
                                 node.storage(metadata.storage_key(pallet, item, keys), at));
}

std::uint64_t number(const json& value) {
  if (value.is_number_unsigned()) return value.get<std::uint64_t>();
  std::uint64_t parsed = 0;
  if (value.is_string() && option_detail::parse_number(value.get<std::string>(), parsed)) {
    return parsed;
  }
  throw Error(ErrorCode::message_malformed, "a storage value is not a number");
}

std::uint64_t constant_or_0(const Metadata& metadata, std::string_view pallet,
                            std::string_view name) {
  try {
    return number(metadata.constant_value(pallet, name));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::metadata_unsupported) throw;
    return 0;
  }
}

// What the runtime says; where it says nothing (its author need not be Aura, its least period may be 0),
// the mean of the last blocks by their own clock.
std::chrono::milliseconds block_time(ChainNode& node, const Metadata& metadata, const Digest& at) {
  using std::chrono::milliseconds;
  if (const auto slot = constant_or_0(metadata, "Aura", "SlotDuration")) return milliseconds(slot);
  if (const auto half = constant_or_0(metadata, "Timestamp", "MinimumPeriod")) {
    return milliseconds(2 * half);
  }
  constexpr std::uint32_t kBlocksMeasured = 16;
  const std::uint32_t newest = node.header(at).number;
  const std::uint32_t blocks =
      std::min(kBlocksMeasured, newest > 0 ? newest - 1 : 0);  // 0 has no time
  const auto older = blocks == 0 ? std::nullopt : node.block_hash(newest - blocks);
  if (older) {
    const auto now = [&](const Digest& block) {
      return number(read_storage(node, metadata, block, "Timestamp", "Now", json::array()));
    };
    const std::uint64_t from = now(*older), to = now(at);
    if (from != 0 && to > from) return milliseconds((to - from) / blocks);
  }
  throw Error(
      ErrorCode::metadata_unsupported,
      "the runtime does not say how long a block takes, and its last blocks do not show it");
}

// The dispatch error in ExtrinsicFailed's attributes: by name, or the first of unnamed ones.
const json& dispatch_error_of(const json& attributes) {
  if (attributes.is_object()) {
    if (const auto found = attributes.find("dispatch_error"); found != attributes.end()) {
      return *found;
    }
  }
  if (attributes.is_array() && !attributes.empty()) return attributes[0];
  return attributes;
}

}  // namespace

class SubstrateSettlement::Driver {
 public:
  Driver(RpcClient& client, SettlementJournal& journal, KeySource keys, SubstrateOptions options)
      : node_(client),
        journal_(journal),
        keys_(std::move(keys)),
        options_(std::move(options)),
        machine_(SettlementMachine::recover(options_.settlement, journal.load())) {
    if (options_.genesis) see_chain(*options_.genesis);
  }

  void add(const Intent& intent) { feed(IntentAdded{intent}); }
  // Newer weights take the place of older ones that are no intent yet.
  void settle(const SubnetWeights& weights) {
    std::erase_if(planned_, [&](const SubnetWeights& older) {
      return older.netuid == weights.netuid && older.validator == weights.validator;
    });
    planned_.push_back(weights);
  }
  std::vector<Receipt> poll(std::chrono::milliseconds wait_max);
  std::vector<IntentStatus> status() const { return machine_.status(); }
  std::uint32_t head() const { return head_; }
  const std::string& trouble() const { return trouble_; }

 private:
  void feed(const SettlementEvent& event);
  std::optional<SettlementEvent> carry_out(const SettlementAction& action);
  std::optional<SettlementEvent> carry_out(const Record& record);
  std::optional<SettlementEvent> carry_out(const AskNonce& ask);
  std::optional<SettlementEvent> carry_out(const Sign& sign);
  std::optional<SettlementEvent> carry_out(const Send& send);
  std::optional<SettlementEvent> carry_out(const ReadBlock& read);
  std::optional<SettlementEvent> carry_out(const RefreshRuntime&);
  std::optional<SettlementEvent> carry_out(const Finished& finished);

  void follow(std::chrono::milliseconds wait_max);
  void see_chain(const Digest& genesis);
  void see_head(const Digest& hash, const BlockHeader& header, std::uint64_t connection);
  bool rewound(const Digest& hash, const BlockHeader& header, std::uint64_t connection);
  bool left_out(std::uint32_t number);
  void look_at_watches();
  void plan();
  std::shared_ptr<const Metadata> metadata_at(const Digest& block);
  Inclusion inclusion_of(const Digest& hash, const Digest& block, const Digest& parent,
                         std::uint32_t index);

  ChainNode node_;
  SettlementJournal& journal_;
  KeySource keys_;
  SubstrateOptions options_;
  SettlementMachine machine_;
  std::optional<FinalizedHeads> heads_;
  std::map<std::uint32_t, std::shared_ptr<const Metadata>> metadata_;  // by spec version
  std::map<std::pair<std::string, std::uint32_t>, TransactionWatch> watches_;
  std::optional<Digest> genesis_;
  Digest head_hash_;
  std::uint32_t head_ = 0;
  std::uint32_t head_spec_ = 0;
  std::uint64_t head_connection_ = 0;  // over which it was read
  std::uint32_t transaction_version_ = 0;
  std::vector<SubnetWeights> planned_;  // not yet intents: their rule could not be read
  std::vector<Receipt> fresh_;
  std::string trouble_;
};

std::vector<Receipt> SubstrateSettlement::Driver::poll(std::chrono::milliseconds wait_max) {
  trouble_.clear();
  try {
    follow(wait_max);
    look_at_watches();
    plan();
  } catch (const Error& error) {
    // The journal's own failures stop the run; a chain that is away does not.
    const ErrorCode code = error.code();
    if (code == ErrorCode::journal_io || code == ErrorCode::disk_full ||
        code == ErrorCode::journal_corrupt) {
      throw;
    }
    trouble_ = error.what();
    log_debug("chain: " + trouble_);
  }
  return std::exchange(fresh_, {});
}

// Waits for the next finalized head; takes all that are there and sees only the newest.
void SubstrateSettlement::Driver::follow(std::chrono::milliseconds wait_max) {
  if (!heads_) heads_ = node_.finalized_heads();
  bool news = head_ == 0;
  auto head = heads_->next(news ? std::chrono::milliseconds(0) : wait_max);
  for (; head; head = heads_->next(std::chrono::milliseconds(0))) {
    news = true;
    if (head->header) continue;
    // Renewed, fallen behind, or lost, which it would say for ever: begin anew.
    heads_.reset();
    break;
  }
  if (!news) return;
  const std::uint64_t connection = node_.client().connections_made();
  const Digest hash = node_.finalized_head();
  const BlockHeader header = node_.header(hash);
  // 0: not known to be of one node.
  see_head(hash, header, node_.client().connections_made() == connection ? connection : 0);
}

void SubstrateSettlement::Driver::see_chain(const Digest& genesis) {
  if (const auto& own = machine_.chain(); own && *own != genesis) {
    throw Error(ErrorCode::peer_refused, "this queue is of the chain with genesis 0x" + own->hex() +
                                             ", the node is of 0x" + genesis.hex() +
                                             ": nothing of it is sent there");
  }
  genesis_ = genesis;
  feed(ChainSeen{genesis});
}

// A chain's finalized blocks only grow; those of a fork simulator are what its user sets them to.
bool SubstrateSettlement::Driver::rewound(const Digest& hash, const BlockHeader& header,
                                          std::uint64_t connection) {
  if (head_ == 0) return false;
  if (header.number == head_) return hash != head_hash_;
  if (header.number == head_ + 1) return header.parent != head_hash_;
  if (header.number > head_) {
    const auto now = node_.block_hash(head_);
    return now && *now != head_hash_;
  }
  // Another node may just be behind; the one that knew more is not.
  return connection != 0 && connection == head_connection_;
}

void SubstrateSettlement::Driver::see_head(const Digest& hash, const BlockHeader& header,
                                           std::uint64_t connection) {
  const bool back = rewound(hash, header, connection);
  if (header.number <= head_ && !back) return;
  if (!genesis_) see_chain(node_.genesis_hash());
  const RuntimeVersion version = node_.runtime_version(hash);
  if (back) {
    log_warning(
        "chain: block " + std::to_string(head_) + " was final and is so no longer; at block " +
        std::to_string(header.number) +
        " what is open is looked for anew, what was concluded from blocks that are gone stays "
        "concluded");
  }
  head_ = header.number;
  head_hash_ = hash;
  head_spec_ = version.spec_version;
  head_connection_ = connection;
  transaction_version_ = version.transaction_version;
  feed(HeadSeen{head_, hash, version.spec_version, back});
}

// Tells whether the chain has no block of this number: a fork simulator can be told to go on from a
// higher one. Proved by a block above whose parent is below.
bool SubstrateSettlement::Driver::left_out(std::uint32_t number) {
  constexpr int kHeadersMax = 64;
  BlockHeader above = node_.header(head_hash_);
  for (int i = 0; i < kHeadersMax && above.number > number; ++i) {
    const BlockHeader parent = node_.header(above.parent);
    if (parent.number >= above.number) return false;
    above = parent;
    if (above.number < number) return true;
  }
  return false;
}

void SubstrateSettlement::Driver::look_at_watches() {
  using Kind = TransactionStatus::Kind;
  std::vector<std::pair<std::string, std::uint32_t>> doubtful;
  for (auto it = watches_.begin(); it != watches_.end();) {
    bool over = false;
    while (const auto status = it->second.next(std::chrono::milliseconds(0))) {
      over = status->final();
      // Where it is, the finalized blocks tell; a pool that let it go is only a hint to send again.
      if (over && status->kind != Kind::finalized) doubtful.push_back(it->first);
      if (over) break;
    }
    it = over ? watches_.erase(it) : std::next(it);
  }
  for (const auto& [intent, attempt] : doubtful) feed(SendUnknown{intent, attempt});
}

// Turns weights into intents as soon as the subnet's rule can be read; then commits into reveals.
void SubstrateSettlement::Driver::plan() {
  if (head_ == 0) return;
  while (!planned_.empty()) {
    const SubnetWeights& weights = planned_.front();
    const SubnetRule rule =
        read_subnet_rule(node_, *metadata_at(head_hash_), head_hash_, weights.netuid);
    feed(IntentAdded{plan_weights(rule, weights, head_, options_.now(), options_.salt_seed)});
    planned_.erase(planned_.begin());
  }
  const std::vector<IntentStatus> all = machine_.status();
  for (const IntentStatus& status : all) {
    if (status.intent.call != "commit_weights" || status.phase != "effected") continue;
    const bool planned = std::ranges::any_of(
        all, [&](const IntentStatus& other) { return other.intent.after == status.intent.id; });
    if (planned) continue;
    const std::uint16_t netuid = json::parse(status.intent.arguments).at("netuid");
    const SubnetRule rule =
        read_subnet_rule(node_, *metadata_at(head_hash_), head_hash_, Netuid{netuid});
    feed(IntentAdded{plan_reveal(rule, status.intent, status.outcome->block)});
  }
}

void SubstrateSettlement::Driver::feed(const SettlementEvent& event) {
  std::deque<SettlementAction> actions;
  const auto step = [&](const SettlementEvent& next) {
    for (SettlementAction& action : machine_.step(next)) actions.push_back(std::move(action));
  };
  step(event);
  while (!actions.empty()) {
    const SettlementAction action = std::move(actions.front());
    actions.pop_front();
    if (const auto answer = carry_out(action)) step(*answer);
  }
}

std::optional<SettlementEvent> SubstrateSettlement::Driver::carry_out(
    const SettlementAction& action) {
  return std::visit([this](const auto& a) { return carry_out(a); }, action);
}

std::optional<SettlementEvent> SubstrateSettlement::Driver::carry_out(const Record& record) {
  journal_.append(record.entry);
  return std::nullopt;
}

std::optional<SettlementEvent> SubstrateSettlement::Driver::carry_out(const AskNonce& ask) {
  try {
    return NonceSeen{ask.signer, node_.next_nonce(to_ss58(ask.signer))};
  } catch (const Error& error) {
    trouble_ = error.what();
    return NonceUnknown{ask.signer};
  }
}

std::optional<SettlementEvent> SubstrateSettlement::Driver::carry_out(const Sign& sign) {
  const Attempt& attempt = sign.attempt;
  const auto failed = [&](const std::string& why, bool for_good) {
    return SigningFailed{sign.intent.id, attempt.number, why, for_good};
  };
  const Keypair* key = keys_(sign.intent.signer);
  if (!key) return failed("KeyMissing: " + to_ss58(sign.intent.signer), true);
  try {
    const auto metadata = metadata_at(attempt.checkpoint);
    ExtrinsicParameters parameters;
    parameters.nonce = attempt.nonce;
    parameters.era = Era::mortal(attempt.period, attempt.birth);
    YUMOE_ASSERT(parameters.era.birth(attempt.birth) == attempt.birth);
    parameters.genesis_hash = *genesis_;
    parameters.checkpoint_hash = attempt.checkpoint;
    parameters.spec_version = attempt.spec_version;
    parameters.transaction_version = transaction_version_;
    const Bytes call = metadata->encode_call(sign.intent.pallet, sign.intent.call,
                                             parse_json_exact(sign.intent.arguments));
    const Bytes extrinsic = sign_extrinsic(*metadata, call, parameters, *key);
    return Signed{sign.intent.id, attempt.number, extrinsic, extrinsic_hash(extrinsic)};
  } catch (const Error& error) {
    trouble_ = error.what();
    const bool for_good = error.code() == ErrorCode::scale_malformed ||
                          error.code() == ErrorCode::metadata_unsupported ||
                          error.code() == ErrorCode::message_malformed;
    return failed((for_good ? "CallNotEncodable: " : "EndpointDown: ") + trouble_, for_good);
  }
}

std::optional<SettlementEvent> SubstrateSettlement::Driver::carry_out(const Send& send) {
  const std::uint32_t number = send.attempt.number;
  try {
    watches_.insert_or_assign({send.intent, number}, node_.submit(send.attempt.extrinsic));
    return Accepted{send.intent, number};
  } catch (const RpcError& error) {
    const auto known = metadata_.find(send.attempt.spec_version);
    const CustomCodes codes =
        known == metadata_.end() ? CustomCodes::newer : custom_codes_of(*known->second);
    return Refused{send.intent, number,
                   pool_verdict(error.rpc_code(), error.message(), error.data(), codes)};
  } catch (const Error& error) {
    trouble_ = error.what();
    return SendUnknown{send.intent, number};
  }
}

std::optional<SettlementEvent> SubstrateSettlement::Driver::carry_out(const ReadBlock& read) {
  try {
    const auto hash = node_.block_hash(read.block);
    if (!hash && left_out(read.block)) return BlockRead{read.intent, read.block, {}, {}, 0};
    if (!hash) return BlockUnreadable{read.intent, read.block, "EndpointBehind"};
    const ChainBlock block = node_.block(*hash);
    if (block.header.number != read.block) {
      if (left_out(read.block)) return BlockRead{read.intent, read.block, {}, {}, 0};
      return BlockUnreadable{read.intent, read.block, "EndpointConfused: another block's number"};
    }
    BlockRead answer{read.intent, read.block, *hash, {}, 0};
    for (std::uint32_t i = 0; i < block.extrinsics.size(); ++i) {
      const Digest found = extrinsic_hash(block.extrinsics[i]);
      if (std::ranges::find(read.hashes, found) == read.hashes.end()) continue;
      answer.found = inclusion_of(found, *hash, block.header.parent, i);
      return answer;
    }
    try {
      const json account = read_storage(node_, *metadata_at(*hash), *hash, "System", "Account",
                                        json::array({to_ss58(read.signer)}));
      answer.nonce = number(account.at("nonce"));
    } catch (const Error& error) {
      if (error.code() != ErrorCode::chain_state_pruned) throw;
      // The body is enough to know that it is not there; only the short cut by nonce is lost.
    }
    return answer;
  } catch (const Error& error) {
    trouble_ = error.what();
    return BlockUnreadable{read.intent, read.block, error.what()};
  } catch (const json::exception& error) {
    trouble_ = error.what();
    return BlockUnreadable{read.intent, read.block, error.what()};
  }
}

std::optional<SettlementEvent> SubstrateSettlement::Driver::carry_out(const RefreshRuntime&) {
  metadata_.erase(head_spec_);
  return std::nullopt;
}

std::optional<SettlementEvent> SubstrateSettlement::Driver::carry_out(const Finished& finished) {
  std::erase_if(watches_, [&](const auto& watch) { return watch.first.first == finished.intent; });
  fresh_.push_back({finished.intent, finished.outcome});
  return std::nullopt;
}

// By the runtime that is in force after `block`.
std::shared_ptr<const Metadata> SubstrateSettlement::Driver::metadata_at(const Digest& block) {
  const std::uint32_t spec =
      block == head_hash_ ? head_spec_ : node_.runtime_version(block).spec_version;
  auto& known = metadata_[spec];
  if (!known) known = std::make_shared<const Metadata>(Metadata::parse(node_.metadata(block)));
  return known;
}

// What the events of the block say of the extrinsic at `index`; written by the parent's runtime.
Inclusion SubstrateSettlement::Driver::inclusion_of(const Digest& hash, const Digest& block,
                                                    const Digest& parent, std::uint32_t index) {
  const auto metadata = metadata_at(parent);
  const auto bytes = node_.storage(metadata->storage_key("System", "Events", json::array()), block);
  if (!bytes) throw Error(ErrorCode::chain_state_pruned, "events of the block are gone");
  Inclusion inclusion;
  inclusion.hash = hash;
  inclusion.extrinsic_index = index;
  json mine = json::array();
  bool told = false;
  for (const json& event : metadata->decode_events(*bytes)) {
    const auto place = event.find("extrinsic_idx");
    if (place == event.end() || !place->is_number_unsigned() || *place != index) continue;
    const std::string name =
        event.at("module_id").get<std::string>() + "." + event.at("event_id").get<std::string>();
    inclusion.event_names.push_back(name);
    mine.push_back({{"event", name}, {"attributes", event.at("attributes")}});
    if (name == "System.ExtrinsicSuccess") {
      inclusion.success = told = true;
    } else if (name == "System.ExtrinsicFailed") {
      told = true;
      inclusion.error_name =
          metadata->dispatch_error_name(dispatch_error_of(event.at("attributes")));
    }
  }
  if (!told)
    throw Error(ErrorCode::message_malformed, "the block's events leave the extrinsic out");
  inclusion.events = mine.dump();
  return inclusion;
}

SubstrateSettlement::SubstrateSettlement(RpcClient& client, SettlementJournal& journal,
                                         KeySource keys, SubstrateOptions options)
    : driver_(std::make_unique<Driver>(client, journal, std::move(keys), std::move(options))) {}
SubstrateSettlement::~SubstrateSettlement() = default;

void SubstrateSettlement::settle(const SubnetWeights& weights) { driver_->settle(weights); }
std::vector<Receipt> SubstrateSettlement::poll(std::chrono::milliseconds wait_max) {
  return driver_->poll(wait_max);
}
std::vector<IntentStatus> SubstrateSettlement::status() const { return driver_->status(); }
void SubstrateSettlement::add(const Intent& intent) { driver_->add(intent); }
std::uint32_t SubstrateSettlement::head() const { return driver_->head(); }
std::string SubstrateSettlement::trouble() const { return driver_->trouble(); }

SubnetRule read_subnet_rule(ChainNode& node, const Metadata& metadata, const Digest& at,
                            Netuid netuid) {
  constexpr std::string_view kPallet = "SubtensorModule";
  const json keys = json::array({netuid.value});
  const auto value = [&](std::string_view item) {
    return read_storage(node, metadata, at, kPallet, item, keys);
  };
  const auto number_or = [&](std::string_view item, std::uint64_t absent) {
    return has_storage(metadata, kPallet, item) ? number(value(item)) : absent;
  };
  SubnetRule rule;
  rule.epochs.netuid = netuid;
  rule.epochs.tempo = static_cast<std::uint32_t>(number(value("Tempo")));
  if (has_storage(metadata, kPallet, "SubnetEpochIndex") &&
      has_storage(metadata, kPallet, "LastEpochBlock")) {
    rule.epochs.kind = EpochClock::Kind::counted;
    rule.epochs.epoch_index = number(value("SubnetEpochIndex"));
    rule.epochs.last_epoch_block = static_cast<std::uint32_t>(number(value("LastEpochBlock")));
  }
  rule.reveal_period = number_or("RevealPeriodEpochs", 1);
  rule.immunity_period = static_cast<std::uint32_t>(number_or("ImmunityPeriod", 0));
  rule.rate_limit = static_cast<std::uint32_t>(number_or("WeightsSetRateLimit", 0));
  rule.version_key = number_or("WeightsVersionKey", 0);
  const bool commits = has_storage(metadata, kPallet, "CommitRevealWeightsEnabled") &&
                       value("CommitRevealWeightsEnabled") == true;
  if (commits) {
    rule.rule = custom_codes_of(metadata) == CustomCodes::newer ? WeightsRule::timelocked_commit
                                                                : WeightsRule::hash_commit;
  }
  if (has_storage(metadata, kPallet, "CommitRevealWeightsVersion")) {
    rule.commit_version = static_cast<std::uint16_t>(number(
        read_storage(node, metadata, at, kPallet, "CommitRevealWeightsVersion", json::array())));
  }
  rule.block_time = block_time(node, metadata, at);
  return rule;
}

}  // namespace yumoe::settlement
