// The methods of a Substrate node: questions written, answers checked.

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "coordinator/chain_rpc.hpp"

namespace yumoe {
namespace {

using nlohmann::json;

constexpr unsigned kKeysPageSize = 1'000;  // the most a node gives at once

[[noreturn]] void malformed(std::string_view method, std::string_view what) {
  throw Error(ErrorCode::message_malformed,
              "answer to " + std::string(method) + ": " + std::string(what));
}

[[noreturn]] void pruned(std::string_view what) {
  throw Error(ErrorCode::chain_state_pruned,
              std::string(what) + ": ask an archive node (list one in chain endpoints)");
}

std::string hex(ByteView bytes) { return "0x" + to_hex(bytes); }
std::string hex(const Digest& digest) { return hex(ByteView(digest.bytes)); }

// A fork simulator answers with nothing where a node answers with an error.
[[noreturn]] void unknown_block(const std::optional<Digest>& at) {
  pruned("state of " + (at ? "block " + hex(*at) : std::string("the newest block")));
}

Bytes bytes_from(const json& value, std::string_view method) {
  if (!value.is_string()) malformed(method, "is not a hexadecimal string");
  const auto& text = value.get_ref<const std::string&>();
  if (!text.starts_with("0x")) malformed(method, "does not begin with 0x");
  return from_hex(text);
}

Digest digest_from(const json& value, std::string_view method) {
  const Bytes bytes = bytes_from(value, method);
  Digest digest;
  if (bytes.size() != digest.bytes.size()) malformed(method, "is not a hash of 32 bytes");
  std::copy(bytes.begin(), bytes.end(), digest.bytes.begin());
  return digest;
}

const json& field(const json& object, const char* name, std::string_view method) {
  if (!object.is_object()) malformed(method, "is not an object");
  const auto found = object.find(name);
  if (found == object.end()) malformed(method, std::string("has no field ") + name);
  return *found;
}

std::uint32_t number_from(const json& value, std::string_view method) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<std::uint64_t>();
    if (number > 0xffff'ffff) malformed(method, "number is out of range");
    return static_cast<std::uint32_t>(number);
  }
  if (!value.is_string()) malformed(method, "is not a number");
  const auto& text = value.get_ref<const std::string&>();
  if (!text.starts_with("0x") || text.size() < 3 || text.size() > 18) {
    malformed(method, "is not a hexadecimal number");
  }
  std::uint64_t number = 0;
  const auto end = std::from_chars(text.data() + 2, text.data() + text.size(), number, 16);
  if (end.ec != std::errc{} || end.ptr != text.data() + text.size() || number > 0xffff'ffff) {
    malformed(method, "number is out of range");
  }
  return static_cast<std::uint32_t>(number);
}

BlockHeader header_from(const json& value, std::string_view method) {
  BlockHeader header;
  header.number = number_from(field(value, "number", method), method);
  header.parent = digest_from(field(value, "parentHash", method), method);
  return header;
}

json ask(RpcClient& client, std::string_view method, const json& params) {
  const std::string answer = client.call(method, params.dump());
  return json::parse(answer);  // text that rpc_message_from() wrote
}

json at_or_none(json params, const std::optional<Digest>& at) {
  if (at) params.push_back(hex(*at));
  return params;
}

// SCALE Option<Vec<u8>> (Metadata_metadata_at_version) or Vec<u8>: what is inside.
std::optional<Bytes> unwrap_metadata(const Bytes& bytes) {
  constexpr std::uint8_t kMagic[] = {'m', 'e', 't', 'a'};
  const std::size_t search = std::min<std::size_t>(bytes.size(), 16);
  const auto found = std::search(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(search),
                                 std::begin(kMagic), std::end(kMagic));
  if (found == bytes.begin() + static_cast<std::ptrdiff_t>(search)) return std::nullopt;
  return Bytes(found, bytes.end());
}

TransactionStatus status_from(const json& value) {
  using Kind = TransactionStatus::Kind;
  static const std::map<std::string, Kind, std::less<>> kinds{
      {"future", Kind::future},       {"ready", Kind::ready},
      {"broadcast", Kind::broadcast}, {"inBlock", Kind::in_block},
      {"retracted", Kind::retracted}, {"finalityTimeout", Kind::finality_timeout},
      {"finalized", Kind::finalized}, {"usurped", Kind::usurped},
      {"dropped", Kind::dropped},     {"invalid", Kind::invalid},
      {"unknown", Kind::invalid}};  // chopsticks passes on the runtime's other class of refusal
  constexpr std::string_view kMethod = "author_extrinsicUpdate";
  std::string name;
  json detail;
  if (value.is_string()) {
    name = value.get<std::string>();
  } else if (value.is_object() && value.size() == 1) {
    name = value.begin().key();
    detail = value.begin().value();
  } else {
    malformed(kMethod, "is not one status");
  }
  const auto kind = kinds.find(name);
  if (kind == kinds.end()) malformed(kMethod, "names an unknown status");
  TransactionStatus status{kind->second, {}};
  if (status.kind == Kind::in_block || status.kind == Kind::retracted ||
      status.kind == Kind::finality_timeout || status.kind == Kind::finalized) {
    status.block = digest_from(detail, kMethod);
  }
  return status;
}

}  // namespace

std::string_view name_of(TransactionStatus::Kind kind) {
  switch (kind) {
    using Kind = TransactionStatus::Kind;
    case Kind::future: return "future";
    case Kind::ready: return "ready";
    case Kind::broadcast: return "broadcast";
    case Kind::in_block: return "in_block";
    case Kind::retracted: return "retracted";
    case Kind::finality_timeout: return "finality_timeout";
    case Kind::finalized: return "finalized";
    case Kind::usurped: return "usurped";
    case Kind::dropped: return "dropped";
    case Kind::invalid: return "invalid";
    case Kind::lost: return "lost";
  }
  return "?";
}

TransactionWatch::TransactionWatch(std::unique_ptr<RpcSubscription> subscription)
    : subscription_(std::move(subscription)) {}

std::optional<TransactionStatus> TransactionWatch::next(std::chrono::milliseconds wait_max) {
  const auto notice = subscription_->next(wait_max);
  if (!notice) return std::nullopt;
  if (notice->kind != RpcNotice::Kind::value) {
    return TransactionStatus{TransactionStatus::Kind::lost, {}};
  }
  return status_from(json::parse(notice->json));
}

FinalizedHeads::FinalizedHeads(std::unique_ptr<RpcSubscription> subscription)
    : subscription_(std::move(subscription)) {}

std::optional<FinalizedHead> FinalizedHeads::next(std::chrono::milliseconds wait_max) {
  const auto notice = subscription_->next(wait_max);
  if (!notice) return std::nullopt;
  if (notice->kind != RpcNotice::Kind::value) return FinalizedHead{};
  return FinalizedHead{header_from(json::parse(notice->json), "chain_finalizedHead")};
}

Digest ChainNode::finalized_head() {
  return digest_from(ask(client_, "chain_getFinalizedHead", json::array()),
                     "chain_getFinalizedHead");
}

BlockHeader ChainNode::header(const Digest& block) {
  const json answer = ask(client_, "chain_getHeader", json::array({hex(block)}));
  if (answer.is_null()) pruned("header of block " + hex(block));
  return header_from(answer, "chain_getHeader");
}

std::optional<Digest> ChainNode::block_hash(std::uint32_t number) {
  const json answer = ask(client_, "chain_getBlockHash", json::array({number}));
  if (answer.is_null()) return std::nullopt;
  return digest_from(answer, "chain_getBlockHash");
}

Digest ChainNode::genesis_hash() {
  const auto hash = block_hash(0);
  if (!hash) malformed("chain_getBlockHash", "has no block 0");
  return *hash;
}

ChainBlock ChainNode::block(const Digest& block) {
  constexpr std::string_view kMethod = "chain_getBlock";
  const json answer = ask(client_, kMethod, json::array({hex(block)}));
  if (answer.is_null()) pruned("block " + hex(block));
  const json& body = field(answer, "block", kMethod);
  ChainBlock out;
  out.header = header_from(field(body, "header", kMethod), kMethod);
  const json& extrinsics = field(body, "extrinsics", kMethod);
  if (!extrinsics.is_array()) malformed(kMethod, "extrinsics are not a list");
  for (const json& extrinsic : extrinsics) out.extrinsics.push_back(bytes_from(extrinsic, kMethod));
  return out;
}

RuntimeVersion ChainNode::runtime_version(const std::optional<Digest>& at) {
  constexpr std::string_view kMethod = "state_getRuntimeVersion";
  const json answer = ask(client_, kMethod, at_or_none(json::array(), at));
  if (answer.is_null()) unknown_block(at);
  RuntimeVersion version;
  const json& name = field(answer, "specName", kMethod);
  if (!name.is_string()) malformed(kMethod, "specName is not a string");
  version.spec_name = name.get<std::string>();
  version.spec_version = number_from(field(answer, "specVersion", kMethod), kMethod);
  version.transaction_version = number_from(field(answer, "transactionVersion", kMethod), kMethod);
  return version;
}

std::string ChainToken::text(const std::string& amount) const {
  std::string digits = amount;
  if (digits.size() <= decimals) digits.insert(0, decimals + 1 - digits.size(), '0');
  if (decimals > 0) digits.insert(digits.size() - decimals, ".");
  return digits;
}

// A chain with several tokens lists them, the one that pays fees first.
ChainToken ChainNode::token() {
  constexpr std::string_view kMethod = "system_properties";
  const json answer = ask(client_, kMethod, json::array());
  ChainToken token;
  if (answer.is_null()) return token;
  if (!answer.is_object()) malformed(kMethod, "is not an object");
  const auto first = [&](const char* name) {
    const auto found = answer.find(name);
    if (found == answer.end()) return json();
    return found->is_array() && !found->empty() ? found->front() : *found;
  };
  if (const json symbol = first("tokenSymbol"); symbol.is_string()) {
    token.symbol = symbol.get<std::string>();
    const bool shown =
        !token.symbol.empty() && token.symbol.size() <= 16 &&
        std::ranges::all_of(token.symbol, [](unsigned char c) { return c > ' ' && c < 0x7f; });
    if (!shown) malformed(kMethod, "tokenSymbol is no symbol");
  }
  if (const json decimals = first("tokenDecimals"); !decimals.is_null()) {
    constexpr std::uint32_t kDecimalsMax = 38;  // of a u128
    token.decimals = number_from(decimals, kMethod);
    if (token.decimals > kDecimalsMax) malformed(kMethod, "tokenDecimals is out of range");
  }
  return token;
}

Bytes ChainNode::metadata(const std::optional<Digest>& at) {
  // Version 15 is only reached by a runtime call, which an older runtime does not have.
  try {
    const json answer =
        ask(client_, "state_call",
            at_or_none(json::array({"Metadata_metadata_at_version", "0x0f000000"}), at));
    if (auto bytes = unwrap_metadata(bytes_from(answer, "state_call"))) return *std::move(bytes);
  } catch (const RpcError& error) {
    if (error.code() != ErrorCode::rpc_failed) throw;
  }
  const json answer = ask(client_, "state_getMetadata", at_or_none(json::array(), at));
  if (answer.is_null()) unknown_block(at);
  auto bytes = unwrap_metadata(bytes_from(answer, "state_getMetadata"));
  if (!bytes) malformed("state_getMetadata", "is not metadata");
  return *std::move(bytes);
}

Bytes ChainNode::state_call(std::string_view function, ByteView arguments, const Digest& at) {
  return bytes_from(
      ask(client_, "state_call", json::array({std::string(function), hex(arguments), hex(at)})),
      "state_call");
}

std::optional<Bytes> ChainNode::storage(ByteView key, const Digest& at) {
  const json answer = ask(client_, "state_getStorage", json::array({hex(key), hex(at)}));
  if (answer.is_null()) return std::nullopt;
  return bytes_from(answer, "state_getStorage");
}

std::vector<std::optional<Bytes>> ChainNode::storage(const std::vector<Bytes>& keys,
                                                     const Digest& at) {
  constexpr std::string_view kMethod = "state_queryStorageAt";
  std::vector<std::optional<Bytes>> values(keys.size());
  for (std::size_t begin = 0; begin < keys.size(); begin += kKeysPageSize) {
    const std::size_t end = std::min<std::size_t>(keys.size(), begin + kKeysPageSize);
    json wanted = json::array();
    std::multimap<std::string, std::size_t> places;
    for (std::size_t i = begin; i < end; ++i) {
      const std::string key = hex(keys[i]);
      if (!places.contains(key)) wanted.push_back(key);  // once, however often it is asked for
      places.emplace(key, i);
    }
    const json answer = ask(client_, kMethod, json::array({wanted, hex(at)}));
    if (answer == json::array()) unknown_block(at);
    if (!answer.is_array() || answer.size() != 1) malformed(kMethod, "is not one change set");
    if (digest_from(field(answer[0], "block", kMethod), kMethod) != at) {
      malformed(kMethod, "is about another block");
    }
    const json& changes = field(answer[0], "changes", kMethod);
    if (!changes.is_array()) malformed(kMethod, "changes are not a list");
    std::size_t answered = 0;
    for (const json& change : changes) {
      if (!change.is_array() || change.size() != 2 || !change[0].is_string()) {
        malformed(kMethod, "a change is not a pair");
      }
      const auto [first, last] = places.equal_range(change[0].get<std::string>());
      if (first == last) malformed(kMethod, "answers a key that was not asked, or one twice");
      for (auto place = first; place != last; ++place, ++answered) {
        if (!change[1].is_null()) values[place->second] = bytes_from(change[1], kMethod);
      }
      places.erase(first, last);
    }
    if (answered != end - begin) malformed(kMethod, "leaves a key out");
  }
  return values;
}

std::vector<Bytes> ChainNode::keys(ByteView prefix, const Digest& at, std::size_t count_max) {
  constexpr std::string_view kMethod = "state_getKeysPaged";
  std::vector<Bytes> keys;
  while (true) {
    const json start = keys.empty() ? json(nullptr) : json(hex(keys.back()));
    const json page =
        ask(client_, kMethod, json::array({hex(prefix), kKeysPageSize, start, hex(at)}));
    if (page.is_null()) unknown_block(at);
    if (!page.is_array() || page.size() > kKeysPageSize)
      malformed(kMethod, "is not a page of keys");
    for (const json& item : page) {
      Bytes key = bytes_from(item, kMethod);
      if (key.size() < prefix.size() || !std::equal(prefix.begin(), prefix.end(), key.begin())) {
        malformed(kMethod, "has a key with another prefix");
      }
      if (!keys.empty() && key <= keys.back()) malformed(kMethod, "keys do not ascend");
      if (keys.size() == count_max) {
        throw Error(ErrorCode::memory_exceeded, "storage map has more than " +
                                                    std::to_string(count_max) + " keys under " +
                                                    hex(prefix));
      }
      keys.push_back(std::move(key));
    }
    if (page.size() < kKeysPageSize) return keys;
  }
}

std::uint64_t ChainNode::next_nonce(std::string_view ss58) {
  return number_from(ask(client_, "system_accountNextIndex", json::array({std::string(ss58)})),
                     "system_accountNextIndex");
}

std::vector<Bytes> ChainNode::pending_extrinsics() {
  constexpr std::string_view kMethod = "author_pendingExtrinsics";
  const json answer = ask(client_, kMethod, json::array());
  if (!answer.is_array()) malformed(kMethod, "is not a list");
  std::vector<Bytes> out;
  for (const json& item : answer) out.push_back(bytes_from(item, kMethod));
  return out;
}

TransactionWatch ChainNode::submit(ByteView extrinsic) {
  return TransactionWatch(client_.subscribe("author_submitAndWatchExtrinsic",
                                            json::array({hex(extrinsic)}).dump(),
                                            "author_unwatchExtrinsic", Repeat::no));
}

FinalizedHeads ChainNode::finalized_heads() {
  return FinalizedHeads(client_.subscribe("chain_subscribeFinalizedHeads", "[]",
                                          "chain_unsubscribeFinalizedHeads", Repeat::yes));
}

}  // namespace yumoe
