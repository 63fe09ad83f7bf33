// Extrinsics: calls, payloads, signatures, complete bytes; outcomes, events and errors by name.

#include <algorithm>

#include "conformance/chain_checks.hpp"
#include "coordinator/extrinsic.hpp"

namespace yumoe::conformance {
namespace {

Digest digest_from(const Json& hex) {
  Digest digest;
  const Bytes bytes = bytes_of(hex);
  std::copy_n(bytes.begin(), std::min<std::size_t>(bytes.size(), 32), digest.bytes.begin());
  return digest;
}

std::uint64_t number_of(const Json& value) {
  return value.is_string() ? std::stoull(value.get<std::string>()) : value.get<std::uint64_t>();
}

ExtrinsicParameters parameters_of(const Json& one) {
  ExtrinsicParameters p;
  p.nonce = number_of(one["nonce"]);
  p.tip = text_of(one["tip"]);
  if (one["era"].is_object()) {
    p.era = Era::mortal(number_of(one["era"]["period"]), number_of(one["era"]["current"]));
  }
  p.genesis_hash = digest_from(one["genesis_hash"]);
  p.checkpoint_hash = digest_from(one["block_hash"]);
  p.spec_version = static_cast<std::uint32_t>(number_of(one["spec_version"]));
  p.transaction_version = static_cast<std::uint32_t>(number_of(one["transaction_version"]));
  return p;
}

std::string check_payload(const Json& one, const SigningPayload& payload) {
  Bytes suffix = payload.extra;
  suffix.insert(suffix.end(), payload.additional.begin(), payload.additional.end());
  std::string difference;
  const auto compare = [&](const char* field, const Bytes& got) {
    if (difference.empty() && one.contains(field)) {
      difference = expect_equal(field, hex_of(got), one[field]);
    }
  };
  compare("extra_and_additional_hex", suffix);
  compare("signing_payload_hex", payload.payload);
  compare("signing_payload_blake2_256", blake2(payload.payload, 32));
  compare("signing_message_hex", payload.message);
  return difference;
}

Signature signature_from(const Json& hex) {
  Signature signature{};
  const Bytes bytes = bytes_of(hex);
  std::copy_n(bytes.begin(), std::min(bytes.size(), signature.size()), signature.begin());
  return signature;
}

// One recorded signature: ed25519 is made again byte for byte, sr25519 is verified.
std::string check_signed(const Metadata& metadata, ByteView call, const SigningPayload& payload,
                         const ExtrinsicParameters& parameters, const Json& entry, KeyType type) {
  const Keypair pair = Keypair::from_seed(type, bytes_of(entry["seed"]));
  if (auto difference =
          expect_equal("public key", hex_of(pair.public_key().bytes), entry["public"]);
      !difference.empty()) {
    return difference;
  }
  if (auto difference = expect_equal("address", to_ss58(pair.public_key()), entry["ss58"]);
      !difference.empty()) {
    return difference;
  }
  const Signature recorded = signature_from(entry["signature"]);
  if (!verify(pair.public_key(), payload.message, recorded)) return "recorded signature not valid";
  const Signature made = pair.sign(payload.message);
  if (type == KeyType::ed25519 && made != recorded) return "signature differs";
  if (!verify(pair.public_key(), payload.message, made)) return "own signature not valid";
  const Bytes extrinsic = assemble_extrinsic(metadata, call, payload, pair.public_key(), recorded);
  if (auto difference = expect_equal("extrinsic", hex_of(extrinsic), entry["extrinsic_hex"]);
      !difference.empty()) {
    return difference;
  }
  if (auto difference = expect_equal("hash", "0x" + extrinsic_hash(extrinsic).hex(),
                                     entry["extrinsic_blake2_256"]);
      !difference.empty()) {
    return difference;
  }
  const DecodedExtrinsic decoded = decode_extrinsic(metadata, extrinsic);
  if (decoded.nonce != parameters.nonce || decoded.tip != parameters.tip ||
      decoded.era != parameters.era || decoded.signer != pair.public_key()) {
    return "decodes to other fields";
  }
  if (!verify_extrinsic(metadata, decoded, parameters)) return "decoded extrinsic does not verify";
  // A flipped bit anywhere in the signature must be noticed.
  DecodedExtrinsic spoilt = decoded;
  (*spoilt.signature)[9] ^= 4;
  return verify_extrinsic(metadata, spoilt, parameters) ? "spoilt signature is accepted" : "";
}

std::string check_call(const Metadata& metadata, const Json& one, Bytes& call) {
  const std::string pallet = pallet_named(metadata, one["pallet"].get<std::string>());
  const std::string name = call_named(metadata, pallet, one["call"].get<std::string>());
  call = metadata.encode_call(pallet, name, one["args"]);
  if (auto difference = expect_equal("call", hex_of(call), one["call_hex"]); !difference.empty()) {
    return difference;
  }
  if (auto difference = expect_equal("call hash", hex_of(blake2(call, 32)), one["call_blake2_256"]);
      !difference.empty()) {
    return difference;
  }
  const Json decoded = metadata.decode_call(call);
  const Bytes again = encode_value(metadata.types(), metadata.extrinsic().call, decoded);
  return again == call ? "" : "decoded call encodes to other bytes";
}

void check_case(const ChainFile& file, const Metadata& metadata, const Json& one) {
  const std::string id = one.value("id", "case");
  Bytes call;
  attempt(file.tally, id + " call", [&] { return check_call(metadata, one, call); });
  if (call.empty()) return;
  const ExtrinsicParameters parameters = parameters_of(one);
  attempt(file.tally, id + " era",
          [&] { return expect_equal("era", hex_of(parameters.era.encode()), one["era_hex"]); });
  SigningPayload payload;
  attempt(file.tally, id + " payload", [&] {
    payload = signing_payload(metadata, call, parameters);
    return check_payload(one, payload);
  });
  for (const auto& [field, type] :
       {std::pair{"ed25519", KeyType::ed25519}, std::pair{"sr25519", KeyType::sr25519}}) {
    if (!one.contains(field)) continue;
    for (const Json& entry : one[field]) {
      attempt(file.tally, id + " " + field, [&, type = type] {
        return check_signed(metadata, call, payload, parameters, entry, type);
      });
    }
  }
}

std::string check_arguments(const Json& theirs, const Json& ours) {
  if (theirs.size() != ours.size()) return "other arguments";
  for (std::size_t i = 0; i < ours.size(); ++i) {
    const Json& value = ours[i]["value"];
    if (!similar(theirs[i], value)) {
      return "argument " + ours[i]["name"].get<std::string>() + " is " + value.dump() +
             ", wanted " + theirs[i].dump();
    }
  }
  return "";
}

std::string check_outcome_call(const Metadata& metadata, const Json& one) {
  const Json decoded = extrinsic_to_json(metadata, bytes_of(one["extrinsic_hex"]))["call"];
  std::string name = one["call"].get<std::string>();
  std::string pallet;
  if (const std::size_t dot = name.find('.'); dot != name.npos) {
    pallet = name.substr(0, dot);
    name = name.substr(dot + 1);
  }
  if (!pallet.empty() && !same_name(pallet, decoded["call_module"].get<std::string>())) {
    return "other pallet";
  }
  if (!same_name(name, decoded["call_function"].get<std::string>())) return "other call";
  return check_arguments(one["args"], decoded["call_args"]);
}

// The recorded session's chain answers a placeholder as its genesis hash; all its eras are
// immortal.
std::string check_outcome_signature(const Metadata& metadata, const Json& one, std::uint32_t spec) {
  const DecodedExtrinsic extrinsic = decode_extrinsic(metadata, bytes_of(one["extrinsic_hex"]));
  ExtrinsicParameters parameters;
  parameters.nonce = extrinsic.nonce;
  parameters.tip = extrinsic.tip;
  parameters.era = extrinsic.era;
  parameters.genesis_hash.bytes.fill(0x45);
  parameters.checkpoint_hash = parameters.genesis_hash;
  parameters.spec_version = spec;
  parameters.transaction_version = 1;
  const bool wanted = one.value("validate_transaction_hex", "") != "0x010004";  // BadProof
  return verify_extrinsic(metadata, extrinsic, parameters) == wanted ? ""
                                                                     : "signature: other verdict";
}

std::string check_outcome_events(const Metadata& metadata, const Json& one) {
  const Bytes raw = bytes_of(one["events_hex"]);
  const Json records = metadata.decode_events(raw);
  if (encode_value(metadata.types(), *metadata.event_records(), records) != raw) {
    return "events encode to other bytes";
  }
  std::size_t next = 0;
  for (const Json& record : records) {
    if (record["extrinsic_idx"] != one["extrinsic_index"]) continue;
    if (next == one["events"].size()) return "more events than recorded";
    const Json& wanted = one["events"][next++];
    if (!same_name(record["module_id"].get<std::string>(), wanted["pallet"].get<std::string>()) ||
        record["event_id"] != wanted["event"] ||
        "0x" + record["event"]["event_index"].get<std::string>() != wanted["index"]) {
      return "event " + record["event_id"].dump() + " instead of " + wanted["event"].dump();
    }
    Json values = Json::array();
    const Json& attributes = record["attributes"];
    if (attributes.is_structured() && wanted["data"].size() != 1) {
      // By declaration order in theirs, by name in ours.
      const auto& event = *metadata.types()
                               .at(*metadata.pallet(record["module_id"].get<std::string>()).event)
                               .variant(record["event_id"].get<std::string>());
      for (std::size_t i = 0; i < event.fields.size(); ++i) {
        values.push_back(attributes.is_object() ? attributes[event.fields[i].name] : attributes[i]);
      }
    } else if (attributes.is_object()) {
      values.push_back(attributes.begin().value());
    } else if (!attributes.is_null()) {
      values.push_back(attributes);
    }
    if (!similar(wanted["data"], values)) {
      return "event data " + values.dump() + ", wanted " + wanted["data"].dump();
    }
  }
  return next == one["events"].size() ? "" : "fewer events than recorded";
}

std::string check_outcome_error(const Metadata& metadata, const Json& one) {
  const Json& wanted = one["dispatch_error"];
  std::string name;
  if (one.contains("events_hex")) {
    for (const Json& record : metadata.decode_events(bytes_of(one["events_hex"]))) {
      if (record["event_id"] != "ExtrinsicFailed") continue;
      if (record["extrinsic_idx"] == one["extrinsic_index"]) {
        name = metadata.dispatch_error_name(record["attributes"]["dispatch_error"]);
      }
    }
    if (wanted.contains("other")) {
      const Json other = parse_json_exact(wanted["other"].get<std::string>());
      const std::string text = other.is_string()
                                   ? other.get<std::string>()
                                   : other.begin().key() + "." + text_of(other.begin().value());
      return same_name(name, text) ? "" : expect_equal("error", name, text);
    }
  }
  const auto error = metadata.module_error(wanted["pallet_index"].get<std::uint8_t>(),
                                           wanted["error_index"].get<std::uint8_t>());
  if (!error) return "no such error";
  if (!name.empty()) {
    if (auto difference = expect_equal("error in events", name, error->pallet + "." + error->name);
        !difference.empty()) {
      return difference;
    }
  }
  return expect_equal("error", error->name, wanted["name"]);
}

std::string check_validity(const Metadata& metadata, const Json& one) {
  const ApiMethod& api = metadata.api("TaggedTransactionQueue", "validate_transaction");
  const Json value =
      decode_value(metadata.types(), api.output, bytes_of(one["validate_transaction_hex"]));
  return similar(one["validity"], value) ? "" : expect_same("validity", value, one["validity"]);
}

}  // namespace

void check_extrinsics(const ChainFile& file) {
  const auto spec = number_of(file.document["spec"]);
  const Metadata& metadata = file.metadata.of_spec(file.path, spec);
  attempt(file.tally, "signed extensions", [&] {
    Json identifiers = Json::array(), wanted = Json::array();
    for (const auto& extension : metadata.extrinsic().extensions) {
      identifiers.push_back(extension.identifier);
    }
    for (const Json& extension : file.document["signed_extensions"]) {
      wanted.push_back(extension["identifier"]);
    }
    return expect_same("list", identifiers, wanted);
  });
  for (const Json& one : file.document["cases"]) check_case(file, metadata, one);
}

void check_outcomes(const ChainFile& file) {
  for (const Json& one : file.document) {
    const std::uint64_t spec = one.contains("spec") ? number_of(one["spec"]) : 218;
    const Metadata& metadata = file.metadata.of_spec(file.path, spec);
    const std::string label = one["label"].get<std::string>();
    attempt(file.tally, label + ": call", [&] { return check_outcome_call(metadata, one); });
    attempt(file.tally, label + ": signature", [&] {
      return check_outcome_signature(metadata, one, static_cast<std::uint32_t>(spec));
    });
    if (one.contains("events_hex")) {
      attempt(file.tally, label + ": events", [&] { return check_outcome_events(metadata, one); });
    }
    if (one.contains("dispatch_error") && one["dispatch_error"].is_object()) {
      attempt(file.tally, label + ": error", [&] { return check_outcome_error(metadata, one); });
    }
    if (one.contains("validity") && one["validity"].is_object()) {
      const Metadata& with_apis = file.metadata.of_spec(file.path, spec, 15);
      attempt(file.tally, label + ": validity", [&] { return check_validity(with_apis, one); });
    }
  }
}

void check_raw_storage(const ChainFile& file) {
  const Metadata& metadata = file.metadata.of_spec(file.path, 218);
  for (const Json& pair : file.document["pairs"]) {
    attempt(file.tally, pair[0].get<std::string>(), [&]() -> std::string {
      const Bytes key = bytes_of(pair[0]);
      for (const auto& pallet : metadata.pallets()) {
        for (const auto& item : pallet.storage) {
          const Bytes prefix = storage_prefix(item.prefix, item.name);
          if (key.size() < 32 || !std::equal(prefix.begin(), prefix.end(), key.begin())) continue;
          const Json keys = metadata.decode_storage_key(item, key);
          if (metadata.storage_key(pallet.name, item.name, keys) != key)
            return "key made anew differs";
          const Json value = metadata.decode_storage(item, bytes_of(pair[1]));
          return expect_equal("value encoded again",
                              hex_of(encode_value(metadata.types(), item.value, value)), pair[1]);
        }
      }
      return "no storage item has this prefix";
    });
  }
}

void check_commit_reveal(const ChainFile& file) {
  const Json& one = file.document;
  attempt(file.tally, "commit", [&] {
    const auto numbers = [](const Json& list, ScaleWriter& out) {
      out.compact(list.size());
      for (const Json& number : list) out.u16(number.get<std::uint16_t>());
    };
    ScaleWriter preimage;
    preimage.raw(bytes_of(one["who"]));
    preimage.u16(one["netuid"].get<std::uint16_t>());
    numbers(one["uids"], preimage);
    numbers(one["values"], preimage);
    numbers(one["salt"], preimage);
    preimage.u64(number_of(one["version_key"]));
    const std::string difference =
        expect_equal("preimage", hex_of(preimage.view()), one["preimage_hex"]);
    if (!difference.empty()) return difference;
    return expect_equal("hash", hex_of(blake2(preimage.view(), 32)), one["commit_hash_blake2_256"]);
  });
}

}  // namespace yumoe::conformance
