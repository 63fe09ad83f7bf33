// What a real client recorded from a node: golden values, and samples of every type of a runtime.

#include <algorithm>
#include <cctype>
#include <sstream>

#include "conformance/chain_checks.hpp"
#include "coordinator/extrinsic.hpp"

namespace yumoe::conformance {
namespace {

// The recording writes calls inside calls as a phrase: "transfer 1 to bob".
Json with_phrases_resolved(const Json& value) {
  if (value.is_string()) {
    std::istringstream words(value.get<std::string>());
    std::string transfer, to, name;
    std::uint64_t amount = 0;
    if (words >> transfer >> amount >> to >> name && transfer == "transfer" && to == "to") {
      name[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(name[0])));
      const Keypair pair = Keypair::from_uri(KeyType::sr25519, "//" + name);
      return {{"module", "Balances"},
              {"function", "transfer_keep_alive"},
              {"params", {{"dest", to_ss58(pair.public_key())}, {"value", amount}}}};
    }
    return value;
  }
  Json out = value;
  if (out.is_structured()) {
    for (auto& item : out) item = with_phrases_resolved(item);
  }
  return out;
}

ExtrinsicParameters parameters_of(const Json& one, const Json& network) {
  const auto digest = [](const Json& hex) {
    Digest out;
    const Bytes bytes = bytes_of(hex);
    std::copy_n(bytes.begin(), 32, out.bytes.begin());
    return out;
  };
  ExtrinsicParameters p;
  p.nonce = one["nonce"].get<std::uint64_t>();
  p.tip = text_of(one["tip"]);
  if (one["era"].is_object()) {
    p.era = Era::mortal(one["era"]["period"].get<std::uint64_t>(),
                        one["era"]["current"].get<std::uint64_t>());
  }
  p.genesis_hash = digest(network["genesis_hash"]);
  p.checkpoint_hash =
      one.contains("era_birth_block_hash") && one["era_birth_block_hash"].is_string()
          ? digest(one["era_birth_block_hash"])
          : p.genesis_hash;
  p.spec_version = network["spec_version"].get<std::uint32_t>();
  p.transaction_version = network["transaction_version"].get<std::uint32_t>();
  return p;
}

void check_storage(const ChainFile& file, const Metadata& metadata) {
  for (const Json& one : file.document["storage_keys"]) {
    const std::string name = one["storage_function"].get<std::string>();
    attempt(file.tally, "key of " + name, [&] {
      return expect_equal(
          "key",
          hex_of(metadata.storage_key(one["pallet"].get<std::string>(), name, one["params"])),
          one["key_hex"]);
    });
  }
  for (const Json& one : file.document["storage_values"]) {
    const std::string name = one["storage_function"].get<std::string>();
    attempt(file.tally, "value of " + name, [&] {
      const StorageItem& item = metadata.storage(one["pallet"].get<std::string>(), name);
      const auto raw =
          one["raw_hex"].is_null() ? std::nullopt : std::optional(bytes_of(one["raw_hex"]));
      const Json value = metadata.decode_storage(item, raw);
      if (raw && encode_value(metadata.types(), item.value, value) != *raw) {
        return std::string("encodes to other bytes");
      }
      return expect_same("value", value, one["decoded"]);
    });
  }
  for (const Json& one : file.document["query_maps"]) {
    const StorageItem& item = metadata.storage(one["pallet"].get<std::string>(),
                                               one["storage_function"].get<std::string>());
    attempt(file.tally, "prefix of " + item.name, [&] {
      return expect_equal("prefix",
                          hex_of(metadata.storage_key(item.pallet, item.name, one["params"])),
                          one["prefix_hex"]);
    });
    for (std::size_t i = 0; i < one["raw_changes"].size(); ++i) {
      attempt(file.tally, "entry of " + item.name, [&] {
        const Json& change = one["raw_changes"][i];
        Json keys = metadata.decode_storage_key(item, bytes_of(change[0]));
        keys.erase(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(one["params"].size()));
        const Json value = metadata.decode_storage(item, bytes_of(change[1]));
        return expect_same("pair", Json::array({keys.size() == 1 ? keys[0] : keys, value}),
                           one["pairs"][i]);
      });
    }
  }
}

void check_calls(const ChainFile& file, const Metadata& metadata) {
  for (const Json& one : file.document["calls"]) {
    attempt(file.tally, "call " + one["function"].get<std::string>(), [&] {
      const Bytes call =
          metadata.encode_call(one["module"].get<std::string>(), one["function"].get<std::string>(),
                               with_phrases_resolved(one["params"]));
      if (auto difference = expect_equal("call", hex_of(call), one["data_hex"]);
          !difference.empty()) {
        return difference;
      }
      const Json decoded = metadata.decode_call(call);
      return encode_value(metadata.types(), metadata.extrinsic().call, decoded) == call
                 ? std::string()
                 : std::string("decoded call encodes to other bytes");
    });
  }
  const Json& network = file.document["network"];
  for (const Json& one : file.document["signature_payloads"]) {
    attempt(file.tally, "payload", [&] {
      const auto payload =
          signing_payload(metadata, bytes_of(one["call_data_hex"]), parameters_of(one, network));
      return expect_equal("payload", hex_of(payload.message), one["payload_hex"]);
    });
  }
  for (const Json& one : file.document["extrinsics"]) {
    attempt(file.tally, "extrinsic", [&] {
      const Bytes call = bytes_of(one["call_data_hex"]);
      const auto payload = signing_payload(metadata, call, parameters_of(one, network));
      const Bytes key = bytes_of(one["public_key_hex"]), given = bytes_of(one["signature_hex"]);
      PublicKey signer;
      signer.type = one["crypto_type"] == 0 ? KeyType::ed25519 : KeyType::sr25519;
      std::copy_n(key.begin(), 32, signer.bytes.begin());
      Signature signature;
      std::copy_n(given.begin(), 64, signature.begin());
      const Bytes bytes = assemble_extrinsic(metadata, call, payload, signer, signature);
      if (auto difference = expect_equal("bytes", hex_of(bytes), one["extrinsic_hex"]);
          !difference.empty()) {
        return difference;
      }
      const DecodedExtrinsic decoded = decode_extrinsic(metadata, bytes);
      if (decoded.signer != signer || decoded.call != call)
        return std::string("decodes to another");
      return expect_equal("hash", "0x" + extrinsic_hash(bytes).hex(), one["extrinsic_hash"]);
    });
  }
}

void check_events(const ChainFile& file, const Metadata& metadata) {
  const Json& events = file.document["events"];
  const Bytes raw = bytes_of(events["raw_hex"]);
  attempt(file.tally, "events", [&] {
    const Json decoded = metadata.decode_events(raw);
    if (encode_value(metadata.types(), *metadata.event_records(), decoded) != raw) {
      return std::string("encode to other bytes");
    }
    return expect_same("events", decoded, events["decoded"]);
  });
  if (!file.document.contains("receipt")) return;
  const Json& receipt = file.document["receipt"];
  attempt(file.tally, "receipt", [&] {
    Json triggered = Json::array();
    bool success = false;
    for (const Json& record : metadata.decode_events(raw)) {
      if (!same_value(record["extrinsic_idx"], receipt["extrinsic_idx"])) continue;
      success = success || record["event_id"] == "ExtrinsicSuccess";
      triggered.push_back(record);
    }
    if (success != receipt["is_success"]) return std::string("other success");
    return expect_same("events", triggered, receipt["triggered_events"]);
  });
}

void check_addresses(const ChainFile& file, const Metadata& metadata) {
  for (const Json& one : file.document["ss58"]) {
    attempt(file.tally, "address", [&] {
      PublicKey key;
      const Bytes bytes = bytes_of(one["public_key_hex"]);
      std::copy_n(bytes.begin(), 32, key.bytes.begin());
      if (from_ss58(one["address"].get<std::string>()) != key)
        return std::string("reads as another");
      return expect_equal("address", to_ss58(key), one["address"]);
    });
  }
  for (const Json& one : file.document["multisig"]) {
    attempt(file.tally, "multisig", [&] {
      std::vector<PublicKey> keys;
      for (const Json& address : one["signatories"]) {
        keys.push_back(from_ss58(address.get<std::string>()));
      }
      const PublicKey account = multisig_account(keys, one["threshold"].get<std::uint16_t>());
      return expect_equal("address", to_ss58(account), one["ss58_address"]);
    });
  }
  for (const Json& one : file.document["constants"]) {
    attempt(file.tally, "constant " + one["name"].get<std::string>(), [&] {
      return expect_same(
          "value",
          metadata.constant_value(one["module"].get<std::string>(), one["name"].get<std::string>()),
          one["decoded"]);
    });
  }
}

// Two kinds of type have several encodings of one recorded value: maps, whose recorded samples are
// in no order (no chain would send them so), and options of options, where Some(None) is null like
// None.
bool is_ambiguous(const TypeRegistry& types, TypeId id, int depth = 0) {
  const Type& type = types.at(id);
  if (type.role == TypeRole::map) return true;
  if (type.role == TypeRole::option) {
    for (const auto& [name, inner] : type.parameters) {
      if (inner && types.at(*inner).role == TypeRole::option) return true;
    }
  }
  if (depth > 24) return false;
  const auto fields_have = [&](const std::vector<TypeField>& fields) {
    return std::any_of(fields.begin(), fields.end(), [&](const auto& field) {
      return is_ambiguous(types, field.type, depth + 1);
    });
  };
  if (fields_have(type.fields)) return true;
  for (const auto& variant : type.variants) {
    if (fields_have(variant.fields)) return true;
  }
  for (const TypeId element : type.elements) {
    if (is_ambiguous(types, element, depth + 1)) return true;
  }
  const bool has_element = type.kind == TypeKind::sequence || type.kind == TypeKind::array;
  return has_element && is_ambiguous(types, type.element, depth + 1);
}

std::string check_sample(const TypeRegistry& types, TypeId id, const Json& sample) {
  const Bytes bytes = bytes_of(sample["scale_hex"]);
  const Json value = decode_value(types, id, bytes);
  if (auto difference = expect_same("decoded", value, sample["decoded"]); !difference.empty()) {
    return difference;
  }
  const Bytes encoded = encode_value(types, id, sample["decoded"], CompactRange::any);
  if (encoded == bytes) return "";
  if (is_ambiguous(types, id) && same_value(decode_value(types, id, encoded), value)) return "";
  return expect_equal("encoded", hex_of(encoded), sample["scale_hex"]);
}

}  // namespace

void check_golden(const ChainFile& file) {
  const std::string stem = file.path.filename().string();
  for (const int version : {14, 15}) {
    const std::string field = "v" + std::to_string(version) + "_hex";
    if (!file.document["metadata"].contains(field)) continue;
    const Metadata* metadata = nullptr;
    attempt(file.tally, "metadata " + field, [&] {
      metadata = &file.metadata.of_hex(stem + "#" + std::to_string(version),
                                       file.document["metadata"][field]);
      return std::string(metadata->version() == version ? "" : "has another version");
    });
    if (metadata == nullptr) continue;
    check_storage(file, *metadata);
    check_calls(file, *metadata);
    check_events(file, *metadata);
    check_addresses(file, *metadata);
  }
}

void check_shapes(const ChainFile& file) {
  const Metadata& metadata =
      file.metadata.of_golden(file.path, file.document["spec_version"].get<std::uint64_t>(), 15);
  for (const Json& one : file.document["types"]) {
    const auto id = one["id"].get<TypeId>();
    const std::string name = "type " + std::to_string(id) + " " + one["name"].get<std::string>();
    for (const Json& sample : one["samples"]) {
      attempt(file.tally, name, [&] { return check_sample(metadata.types(), id, sample); });
    }
  }
}

}  // namespace yumoe::conformance
