#include <arpa/inet.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "cluster/error.hpp"
#include "cluster/identity.hpp"
#include "coordinator/chain_reader.hpp"

namespace yumoe {
namespace {

constexpr std::string_view kPallet = "SubtensorModule";
constexpr std::size_t kNeuronsMax = 65'536;

[[noreturn]] void refuse(std::string_view item, std::string_view why) {
  throw Error(ErrorCode::message_malformed,
              "storage " + std::string(item) + ": " + std::string(why));
}

std::uint64_t number_from(const Json& value, std::string_view item) {
  if (value.is_number_unsigned()) return value.get<std::uint64_t>();
  if (value.is_boolean()) return value.get<bool>() ? 1 : 0;
  refuse(item, "is not a number of 64 bits");
}

std::uint16_t short_from(const Json& value, std::string_view item) {
  const std::uint64_t number = number_from(value, item);
  if (number > 0xffff) refuse(item, "is not a number of 16 bits");
  return static_cast<std::uint16_t>(number);
}

const std::string& text_from(const Json& value, std::string_view item) {
  if (!value.is_string()) refuse(item, "is not text");
  return value.get_ref<const std::string&>();
}

const Json& field_of(const Json& value, const char* name, std::string_view item) {
  const auto found = value.is_object() ? value.find(name) : value.end();
  if (found == value.end()) refuse(item, std::string("has no field ") + name);
  return *found;
}

WeightRow row_from(const Json& value, std::string_view item) {
  if (!value.is_array()) refuse(item, "is not a list");
  WeightRow row;
  for (const Json& pair : value) {
    if (!pair.is_array() || pair.size() != 2) refuse(item, "is not a list of pairs");
    row.emplace_back(short_from(pair[0], item), short_from(pair[1], item));
  }
  return row;
}

// A u128 as the codec shows it: a JSON integer, or decimal text beyond 64 bits; big-endian bytes
// out.
std::array<std::uint8_t, 16> u128_from(const Json& value, std::string_view item) {
  std::array<std::uint8_t, 16> bytes{};
  const std::string text =
      value.is_string() ? value.get<std::string>() : std::to_string(number_from(value, item));
  for (const char c : text) {
    if (c < '0' || c > '9') refuse(item, "is not a decimal number");
    unsigned carry = static_cast<unsigned>(c - '0');
    for (std::size_t i = 16; i-- > 0;) {
      carry += bytes[i] * 10u;
      bytes[i] = static_cast<std::uint8_t>(carry);
      carry >>= 8;
    }
    if (carry != 0) refuse(item, "is wider than 128 bits");
  }
  return bytes;
}

std::string address_text(const Json& ip, bool is_v6, std::string_view item) {
  const auto bytes = u128_from(ip, item);
  if (std::ranges::all_of(bytes, [](std::uint8_t b) { return b == 0; })) return "";
  char text[INET6_ADDRSTRLEN];
  const void* from = is_v6 ? bytes.data() : bytes.data() + 12;
  inet_ntop(is_v6 ? AF_INET6 : AF_INET, from, text, sizeof text);
  return text;
}

// A number beyond 64 bits as the codec, or a node, writes it; no wider than 256.
bool is_decimal(const Json& value) {
  if (!value.is_string()) return false;
  const auto& text = value.get_ref<const std::string&>();
  return !text.empty() && text.size() <= 78 &&
         std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

// A chain writes addresses with its own prefix; Yumoe's are compared as text and have 42 everywhere.
std::string own_address(const Json& account, std::string_view item) {
  return to_ss58(from_ss58(text_from(account, item)));
}

// Fixed-point {"bits": n} with `fraction` bits.
std::optional<double> fixed_point(const Json& value, int fraction) {
  if (!value.is_object() || !value.contains("bits")) return std::nullopt;
  const Json& bits = value.at("bits");
  if (bits.is_number()) return std::ldexp(bits.get<double>(), -fraction);
  if (!is_decimal(bits)) return std::nullopt;
  return std::ldexp(std::stod(bits.get<std::string>()), -fraction);
}

}  // namespace

std::shared_ptr<const Metadata> MetadataCache::at(ChainNode& node, const Digest& block,
                                                  std::uint32_t spec_version) {
  if (!metadata_ || spec_version_ != spec_version) {
    metadata_ = std::make_shared<const Metadata>(Metadata::parse(node.metadata(block)));
    spec_version_ = spec_version;
  }
  return metadata_;
}

ChainReader::ChainReader(ChainNode& node, const std::optional<Digest>& block, MetadataCache* cache)
    : node_(node), block_(block ? *block : node.finalized_head()) {
  number_ = node_.header(block_).number;
  version_ = node_.runtime_version(block_);
  MetadataCache once;
  metadata_ = (cache != nullptr ? *cache : once).at(node_, block_, version_.spec_version);
}

ChainReader ChainReader::at(ChainNode& node, std::uint32_t number) {
  const auto hash = node.block_hash(number);
  if (!hash) {
    const std::uint32_t newest = node.header(node.finalized_head()).number;
    if (number > newest) {
      throw Error(ErrorCode::usage, "block " + std::to_string(number) +
                                        " is not there yet: the newest final block is " +
                                        std::to_string(newest));
    }
    throw Error(ErrorCode::chain_state_pruned,
                "block " + std::to_string(number) + " is not known to the node");
  }
  return ChainReader(node, *hash);
}

bool ChainReader::has(std::string_view pallet, std::string_view item) const {
  return std::ranges::any_of(metadata_->pallets(), [&](const Pallet& known) {
    return known.name == pallet &&
           std::ranges::any_of(known.storage,
                               [&](const StorageItem& storage) { return storage.name == item; });
  });
}

Json ChainReader::value(std::string_view pallet, std::string_view item, const Json& keys) {
  return metadata_->decode_storage(
      metadata_->storage(pallet, item),
      node_.storage(metadata_->storage_key(pallet, item, keys), block_));
}

// Many values of one map in one question.
std::vector<Json> ChainReader::values(std::string_view item, const std::vector<Json>& keys) {
  std::vector<Bytes> storage_keys;
  for (const Json& key : keys) storage_keys.push_back(metadata_->storage_key(kPallet, item, key));
  const auto answers = node_.storage(storage_keys, block_);
  std::vector<Json> out;
  const StorageItem& storage = metadata_->storage(kPallet, item);
  for (const auto& answer : answers) out.push_back(metadata_->decode_storage(storage, answer));
  return out;
}

std::optional<std::uint64_t> ChainReader::number_of(std::string_view item, const Json& keys) {
  if (!has(item)) return std::nullopt;
  return number_from(value(kPallet, item, keys), item);
}

std::vector<Netuid> ChainReader::subnets() {
  std::vector<Netuid> out;
  const StorageItem& item = metadata_->storage(kPallet, "NetworksAdded");
  for (const Bytes& key :
       node_.keys(metadata_->storage_key(kPallet, "NetworksAdded", Json::array()), block_)) {
    const Json keys = metadata_->decode_storage_key(item, key);
    const auto answer = metadata_->decode_storage(item, node_.storage(key, block_));
    if (answer == true) out.push_back(Netuid{short_from(keys.at(0), "NetworksAdded")});
  }
  std::ranges::sort(out);
  return out;
}

Metagraph ChainReader::metagraph(Netuid netuid) {
  Metagraph graph;
  graph.netuid = netuid;
  graph.block = number_;
  graph.block_hash = block_;
  graph.spec_version = version_.spec_version;
  const auto count = number_of("SubnetworkN", Json::array({netuid.value}));
  if (!count || *count > kNeuronsMax) refuse("SubnetworkN", "is absent or out of range");
  graph.neurons.resize(*count);

  std::vector<Json> by_uid;
  for (std::size_t uid = 0; uid < *count; ++uid) by_uid.push_back(Json::array({netuid.value, uid}));
  const auto hotkeys = values("Keys", by_uid);
  std::vector<Json> by_hotkey, by_axon, by_stake;
  for (std::size_t uid = 0; uid < *count; ++uid) {
    ChainNeuron& neuron = graph.neurons[uid];
    neuron.uid = Uid{static_cast<std::uint16_t>(uid)};
    neuron.hotkey = own_address(hotkeys[uid], "Keys");
    by_hotkey.push_back(Json::array({neuron.hotkey}));
    by_axon.push_back(Json::array({netuid.value, neuron.hotkey}));
    by_stake.push_back(Json::array({neuron.hotkey, netuid.value}));
  }
  const auto coldkeys = values("Owner", by_hotkey);
  const auto axons = values("Axons", by_axon);
  const auto registered = values("BlockAtRegistration", by_uid);
  std::vector<Json> stakes;
  if (has("TotalHotkeyAlpha")) {
    stakes = values("TotalHotkeyAlpha", by_stake);
  } else if (has("TotalHotkeyStake")) {
    stakes = values("TotalHotkeyStake", by_hotkey);
  }
  for (std::size_t uid = 0; uid < *count; ++uid) {
    ChainNeuron& neuron = graph.neurons[uid];
    neuron.coldkey = own_address(coldkeys[uid], "Owner");
    neuron.registered_at = number_from(registered[uid], "BlockAtRegistration");
    if (!stakes.empty()) neuron.stake = number_from(stakes[uid], "TotalHotkeyAlpha");
    if (axons[uid].is_object()) {
      const bool is_v6 = field_of(axons[uid], "ip_type", "Axons") == 6;
      neuron.axon.ip = address_text(field_of(axons[uid], "ip", "Axons"), is_v6, "Axons");
      neuron.axon.port = short_from(field_of(axons[uid], "port", "Axons"), "Axons");
    }
  }
  read_columns(graph);
  graph.weights = rows("Weights", netuid, *count);
  graph.bonds = rows("Bonds", netuid, *count);
  return graph;
}

// The vectors that an epoch writes, one value a uid.
void ChainReader::read_columns(Metagraph& graph) {
  const auto column = [&](std::string_view item, auto set) {
    if (!has(item)) return;
    const Json list = value(kPallet, item, Json::array({graph.netuid.value}));
    if (!list.is_array()) refuse(item, "is not a list");
    // A vector may be shorter where the runtime has not yet filled it, never longer.
    if (list.size() > graph.neurons.size()) refuse(item, "has more values than neurons");
    for (std::size_t uid = 0; uid < list.size(); ++uid) {
      set(graph.neurons[uid], number_from(list[uid], item));
    }
  };
  const auto share = [](auto member) {
    return [member](ChainNeuron& neuron, std::uint64_t n) {
      if (n > 0xffff) refuse("of a neuron", "is not a share of 65535");
      neuron.*member = static_cast<std::uint16_t>(n);
    };
  };
  column("Incentive", share(&ChainNeuron::incentive));
  column("Dividends", share(&ChainNeuron::dividends));
  column("Consensus", share(&ChainNeuron::consensus));
  column("ValidatorTrust", share(&ChainNeuron::validator_trust));
  column("Trust", share(&ChainNeuron::trust));
  column("Rank", share(&ChainNeuron::rank));
  column("Emission", [](ChainNeuron& neuron, std::uint64_t n) { neuron.emission = n; });
  column("LastUpdate", [](ChainNeuron& neuron, std::uint64_t n) { neuron.last_update = n; });
  column("Active", [](ChainNeuron& neuron, std::uint64_t n) { neuron.active = n != 0; });
  column("ValidatorPermit",
         [](ChainNeuron& neuron, std::uint64_t n) { neuron.validator_permit = n != 0; });
}

WeightRow ChainReader::weights_of(Netuid netuid, Uid validator) {
  if (!has("Weights")) return {};
  return row_from(value(kPallet, "Weights", Json::array({netuid.value, validator.value})),
                  "Weights");
}

std::vector<WeightRow> ChainReader::rows(std::string_view item, Netuid netuid, std::size_t count) {
  std::vector<WeightRow> out(count);
  if (!has(item)) return out;
  std::vector<Json> keys;
  for (std::size_t uid = 0; uid < count; ++uid) keys.push_back(Json::array({netuid.value, uid}));
  const auto lists = values(item, keys);
  for (std::size_t uid = 0; uid < count; ++uid) out[uid] = row_from(lists[uid], item);
  return out;
}

namespace {

// Bytes that are no text are shown as far as they are.
std::string text_of(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

std::vector<std::pair<std::string, std::string>> ChainReader::hyperparameters(Netuid netuid) {
  std::vector<const StorageItem*> items;
  std::vector<Bytes> keys;
  for (const StorageItem& item : metadata_->pallet(kPallet).storage) {
    if (item.keys.size() != 1 || item.name == "Uids") continue;
    const Type& key = metadata_->types().at(item.keys[0]);
    const bool by_netuid =
        (key.kind == TypeKind::primitive && key.primitive == Primitive::u16) ||
        (key.kind == TypeKind::composite && !key.path.empty() && key.path.back() == "NetUid");
    const TypeKind kind = metadata_->types().at(item.value).kind;
    const bool plain = kind == TypeKind::primitive || kind == TypeKind::composite ||
                       kind == TypeKind::tuple || kind == TypeKind::compact;
    if (!by_netuid || !plain) continue;
    items.push_back(&item);
    keys.push_back(metadata_->storage_key(kPallet, item.name, Json::array({netuid.value})));
  }
  const auto answers = node_.storage(keys, block_);
  std::vector<std::pair<std::string, std::string>> out;
  for (std::size_t i = 0; i < items.size(); ++i) {
    out.emplace_back(items[i]->name, text_of(metadata_->decode_storage(*items[i], answers[i])));
  }
  return out;
}

SubnetPool ChainReader::pool(Netuid netuid) {
  const Json keys = Json::array({netuid.value});
  SubnetPool pool;
  pool.tao = number_of("SubnetTAO", keys);
  pool.alpha_in = number_of("SubnetAlphaIn", keys);
  pool.alpha_out = number_of("SubnetAlphaOut", keys);
  if (has("SubnetMovingPrice")) {
    pool.moving_price = fixed_point(value(kPallet, "SubnetMovingPrice", keys), 32);
  }
  read_price(pool, keys);
  return pool;
}

// By the newest formula of which this runtime keeps the parts.
void ChainReader::read_price(SubnetPool& pool, const Json& keys) {
  if (number_of("SubnetMechanism", keys) == 0) {
    pool.formula = "fixed";
    pool.price = 1;
    return;
  }
  if (has("Swap", "AlphaSqrtPrice")) {
    const bool in_use =
        !has("Swap", "SwapV3Initialized") || value("Swap", "SwapV3Initialized", keys) == true;
    const auto root = fixed_point(value("Swap", "AlphaSqrtPrice", keys), 64);
    if (in_use && root) {
      pool.formula = "concentrated";
      pool.price = *root * *root;
      return;
    }
  }
  double weights = 1;  // alpha's over TAO's
  pool.formula = "constant product";
  if (has("Swap", "SwapBalancer")) {
    Json quote = value("Swap", "SwapBalancer", keys);
    if (quote.is_object() && quote.contains("quote")) quote = Json(quote.at("quote"));
    const double parts = static_cast<double>(number_from(quote, "SwapBalancer"));
    constexpr double kWhole = 1e18;
    if (!(parts > 0 && parts < kWhole)) refuse("SwapBalancer", "is no weight between 0 and 1");
    pool.formula = "balancer";
    pool.quote_weight = parts / kWhole;
    weights = (kWhole - parts) / parts;
  }
  if (pool.tao && pool.alpha_in && *pool.alpha_in > 0) {
    pool.price = weights * static_cast<double>(*pool.tao) / static_cast<double>(*pool.alpha_in);
  }
}

std::optional<Uid> ChainReader::uid_of(Netuid netuid, const std::string& hotkey) {
  const auto stored = node_.storage(
      metadata_->storage_key(kPallet, "Uids", Json::array({netuid.value, hotkey})), block_);
  if (!stored) return std::nullopt;
  const Json uid = metadata_->decode_storage(metadata_->storage(kPallet, "Uids"), stored);
  const std::uint64_t number = number_from(uid, "Uids");
  if (number >= kNeuronsMax) refuse("Uids", "is out of range");
  return Uid{static_cast<std::uint16_t>(number)};
}

namespace {

// The runtime's RuntimeDispatchInfo: weight, class, partial fee of u64 or u128. Metadata before version
// 15 does not describe it, but its weight is the one of the DispatchInfo in events: a number in older
// runtimes, a pair in newer ones.
void skip_weight(const TypeRegistry& types, ScaleReader& reader) {
  for (const char* name : {"DispatchInfo", "DispatchEventInfo"}) {
    const auto info = types.find(name);
    if (!info) continue;
    for (const TypeField& field : types.at(*info).fields) {
      if (field.name == "weight") return skip_value(types, field.type, reader);
    }
  }
  throw Error(ErrorCode::metadata_unsupported, "reading a fee: the runtime names no DispatchInfo");
}

std::string fee_from(const Metadata& metadata, ByteView bytes) {
  ScaleReader reader(bytes);
  skip_weight(metadata.types(), reader);
  reader.u8();
  if (reader.left() != 8 && reader.left() != 16) reader.refuse("fee is of an unknown width");
  const std::uint64_t fee = reader.u64();
  if (reader.left() == 8 && reader.u64() != 0) reader.refuse("fee is beyond 64 bits");
  return std::to_string(fee);
}

}  // namespace

std::string ChainReader::fee(ByteView extrinsic) {
  // What the runtime asks for is not a Vec: the extrinsic as it is (length included), then its length.
  Bytes arguments(extrinsic.begin(), extrinsic.end());
  for (int i = 0; i < 4; ++i) {
    arguments.push_back(static_cast<std::uint8_t>(extrinsic.size() >> (8 * i)));
  }
  try {
    return fee_from(*metadata_,
                    node_.state_call("TransactionPaymentApi_query_info", arguments, block_));
  } catch (const RpcError& error) {
    if (error.code() != ErrorCode::rpc_failed) throw;
  }
  const Json answer = Json::parse(node_.client().call(
      "payment_queryInfo", Json::array({"0x" + to_hex(extrinsic), "0x" + block_.hex()}).dump()));
  if (answer.is_string() && answer.get_ref<const std::string&>().starts_with("0x")) {
    return fee_from(*metadata_, from_hex(answer.get_ref<const std::string&>()));
  }
  if (answer.is_object() && answer.contains("partialFee") && is_decimal(answer.at("partialFee"))) {
    return answer.at("partialFee").get<std::string>();
  }
  throw Error(ErrorCode::message_malformed, "answer to payment_queryInfo: has no fee");
}

ChainBalance ChainReader::balance(const std::string& ss58) {
  const Json account = value("System", "Account", Json::array({ss58}));
  const auto amount = [&](const char* name) {
    const Json& number = field_of(field_of(account, "data", "Account"), name, "Account");
    if (is_decimal(number)) return number.get<std::string>();
    return std::to_string(number_from(number, "Account"));
  };
  return {number_from(field_of(account, "nonce", "Account"), "Account"), amount("free"),
          amount("reserved")};
}

}  // namespace yumoe
