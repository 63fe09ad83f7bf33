#include "coordinator/extrinsic.hpp"

#include <algorithm>
#include <bit>
#include <cctype>
#include <nlohmann/json.hpp>

#include "chain/text.hpp"
#include "cluster/error.hpp"

namespace yumoe {
namespace {

constexpr std::uint8_t kVersion = 4, kSignedFlag = 0x80;
constexpr std::size_t kMessageBytesMax = 256;
constexpr std::size_t kExtrinsicBytesMax = 16u << 20;
constexpr std::uint64_t kPeriodMin = 4, kPeriodMax = 65536;

// What is put for one extension into its two places.
struct ExtensionValues {
  std::optional<Json> extra, additional;
};

// The extensions a client must have a value for, by name: names are the chain's interface here, as
// call names are; types, order and presence come from the metadata.
ExtensionValues known_values(std::string_view identifier, const ExtrinsicParameters& p) {
  if (identifier == "CheckSpecVersion") return {{}, Json(p.spec_version)};
  if (identifier == "CheckTxVersion") return {{}, Json(p.transaction_version)};
  if (identifier == "CheckGenesis") return {{}, Json("0x" + p.genesis_hash.hex())};
  if (identifier == "CheckMortality" || identifier == "CheckEra") {
    return {Json(to_0x(p.era.encode())), Json("0x" + p.checkpoint_hash.hex())};
  }
  if (identifier == "CheckNonce") return {Json(p.nonce), {}};
  if (identifier == "ChargeTransactionPayment") return {Json(p.tip), {}};
  if (identifier == "ChargeAssetTxPayment") {
    return {Json::object({{"tip", p.tip}, {"asset_id", nullptr}}), {}};
  }
  if (identifier == "CheckMetadataHash") return {Json::object({{"mode", "Disabled"}}), Json()};
  return {};
}

// Writes the value, or nothing for an empty type, or None for an option nobody gave.
void write_part(const Metadata& metadata, const SignedExtension& extension, TypeId type,
                const std::optional<Json>& value, ScaleWriter& writer) {
  const TypeRegistry& types = metadata.types();
  if (types.is_empty(type)) return;
  if (value) return encode_value(types, type, *value, writer);
  if (types.at(type).role == TypeRole::option) return encode_value(types, type, Json(), writer);
  throw Error(ErrorCode::metadata_unsupported,
              "making an extrinsic: the runtime's signed extension " + extension.identifier +
                  " wants a value this client does not know: give one in `extensions`");
}

const TypeVariant* find_ignoring_case(const Type& type, std::string_view lower_case) {
  for (const auto& variant : type.variants) {
    std::string name = variant.name;
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (name == lower_case) return &variant;
  }
  return nullptr;
}

std::string_view name_of(KeyType type) { return type == KeyType::ed25519 ? "ed25519" : "sr25519"; }

void write_address(const Metadata& metadata, const PublicKey& signer, ScaleWriter& writer) {
  const Json account = to_0x(signer.bytes);
  const Type& type = metadata.types().at(metadata.extrinsic().address);
  if (type.kind == TypeKind::variant && type.variant("Id") != nullptr) {
    return encode_value(metadata.types(), metadata.extrinsic().address,
                        Json::object({{"Id", account}}), writer);
  }
  encode_value(metadata.types(), metadata.extrinsic().address, account, writer);
}

void write_signature(const Metadata& metadata, KeyType key, const Signature& signature,
                     ScaleWriter& writer) {
  const TypeId id = metadata.extrinsic().signature;
  const TypeVariant* variant = find_ignoring_case(metadata.types().at(id), name_of(key));
  if (variant == nullptr) {
    throw Error(ErrorCode::metadata_unsupported, "signing an extrinsic: this runtime takes no " +
                                                     std::string(name_of(key)) + " signatures");
  }
  encode_value(metadata.types(), id, Json::object({{variant->name, to_0x(signature)}}), writer);
}

// Reads the signer and signature from their JSON, as far as their kinds are known.
void read_signer(const Json& address, const Json& signature, DecodedExtrinsic& out) {
  if (!signature.is_object() || signature.size() != 1 || !address.is_string()) return;
  std::string kind = signature.begin().key();
  std::transform(kind.begin(), kind.end(), kind.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (kind != "ed25519" && kind != "sr25519") return;
  const Json& value = signature.begin().value();
  const auto bytes =
      value.is_string() ? parse_0x(value.get_ref<const std::string&>()) : std::nullopt;
  if (!bytes || bytes->size() != 64) return;
  out.signature.emplace();
  std::copy(bytes->begin(), bytes->end(), out.signature->begin());
  out.signer = from_ss58(address.get_ref<const std::string&>(),
                         kind == "ed25519" ? KeyType::ed25519 : KeyType::sr25519);
}

void read_extra(const Metadata& metadata, ScaleReader& reader, DecodedExtrinsic& out) {
  const std::size_t start = reader.position();
  for (const auto& extension : metadata.extrinsic().extensions) {
    const std::size_t from = reader.position();
    const Json value = decode_value(metadata.types(), extension.extra, reader);
    if (extension.identifier == "CheckMortality" || extension.identifier == "CheckEra") {
      ScaleReader era(reader.from(from));
      out.era = Era::decode(era);
    } else if (extension.identifier == "CheckNonce" && value.is_number_unsigned()) {
      out.nonce = value.get<std::uint64_t>();
    } else if (extension.identifier == "ChargeTransactionPayment" && !value.is_structured()) {
      out.tip = value.is_string() ? value.get<std::string>() : value.dump();
    } else if (extension.identifier == "ChargeAssetTxPayment" && value.is_object() &&
               value.contains("tip")) {
      out.tip = value["tip"].is_string() ? value["tip"].get<std::string>() : value["tip"].dump();
    }
  }
  const ByteView extra = reader.from(start);
  out.extra.assign(extra.begin(), extra.end());
}

}  // namespace

Era Era::mortal(std::uint64_t period, std::uint64_t current_block) {
  const std::uint64_t rounded = std::bit_ceil(std::clamp(period, kPeriodMin, kPeriodMax));
  const std::uint64_t quantum = std::max<std::uint64_t>(rounded >> 12, 1);
  return {rounded, current_block % rounded / quantum * quantum};
}

std::uint64_t Era::birth(std::uint64_t current_block) const {
  if (is_immortal()) return 0;
  return (std::max(current_block, phase) - phase) / period * period + phase;
}

std::uint64_t Era::death(std::uint64_t current_block) const {
  return is_immortal() ? ~std::uint64_t{0} : birth(current_block) + period;
}

Bytes Era::encode() const {
  if (is_immortal()) return {0};
  const std::uint64_t quantum = std::max<std::uint64_t>(period >> 12, 1);
  const auto exponent = static_cast<std::uint64_t>(std::countr_zero(period));
  const std::uint64_t low = std::min<std::uint64_t>(exponent - 1, 15);
  const std::uint64_t bits = low | (phase / quantum & 0xfff) << 4;
  return {static_cast<std::uint8_t>(bits), static_cast<std::uint8_t>(bits >> 8)};
}

Era Era::decode(ScaleReader& reader) {
  const std::uint8_t first = reader.u8();
  if (first == 0) return immortal();
  const std::uint64_t bits = first | static_cast<std::uint64_t>(reader.u8()) << 8;
  Era era;
  era.period = std::uint64_t{2} << (bits & 15);
  era.phase = (bits >> 4) * std::max<std::uint64_t>(era.period >> 12, 1);
  if (era.period < kPeriodMin || era.phase >= era.period) reader.refuse("an era is out of range");
  return era;
}

SigningPayload signing_payload(const Metadata& metadata, ByteView call,
                               const ExtrinsicParameters& parameters) {
  ScaleWriter extra, additional;
  for (const auto& extension : metadata.extrinsic().extensions) {
    ExtensionValues values = known_values(extension.identifier, parameters);
    if (const auto given = parameters.extensions.find(extension.identifier);
        given != parameters.extensions.end()) {
      const Json json = parse_json_exact(given->second);
      if (json.contains("extra")) values.extra = json["extra"];
      if (json.contains("additional")) values.additional = json["additional"];
    }
    write_part(metadata, extension, extension.extra, values.extra, extra);
    write_part(metadata, extension, extension.additional, values.additional, additional);
  }
  SigningPayload out{extra.take(), additional.take(), {}, {}};
  out.payload.assign(call.begin(), call.end());
  out.payload.insert(out.payload.end(), out.extra.begin(), out.extra.end());
  out.payload.insert(out.payload.end(), out.additional.begin(), out.additional.end());
  out.message = out.payload.size() > kMessageBytesMax ? blake2(out.payload, 32) : out.payload;
  return out;
}

Bytes assemble_extrinsic(const Metadata& metadata, ByteView call, const SigningPayload& payload,
                         const PublicKey& signer, const Signature& signature) {
  const auto& versions = metadata.extrinsic().versions;
  if (std::find(versions.begin(), versions.end(), kVersion) == versions.end()) {
    throw Error(ErrorCode::metadata_unsupported,
                "making an extrinsic: this runtime does not take version 4");
  }
  ScaleWriter body;
  body.u8(kSignedFlag | kVersion);
  write_address(metadata, signer, body);
  write_signature(metadata, signer.type, signature, body);
  body.raw(payload.extra);
  body.raw(call);
  ScaleWriter out;
  out.bytes(body.view());
  return out.take();
}

Bytes sign_extrinsic(const Metadata& metadata, ByteView call, const ExtrinsicParameters& parameters,
                     const Keypair& signer) {
  const SigningPayload payload = signing_payload(metadata, call, parameters);
  return assemble_extrinsic(metadata, call, payload, signer.public_key(),
                            signer.sign(payload.message));
}

Digest extrinsic_hash(ByteView extrinsic) { return digest_of(extrinsic); }

DecodedExtrinsic decode_extrinsic(const Metadata& metadata, ByteView extrinsic) {
  ScaleReader outer(extrinsic);
  if (extrinsic.size() > kExtrinsicBytesMax) outer.refuse("an extrinsic is over 16 MiB");
  ScaleReader reader(outer.bytes());
  outer.require_end("the extrinsic");
  DecodedExtrinsic out;
  const std::uint8_t version = reader.u8();
  out.version = version & 0x3f;
  out.is_signed = (version & 0xc0) == kSignedFlag;
  const bool bare = (version & 0xc0) == 0;
  if ((!bare && !out.is_signed) || (out.is_signed && out.version != kVersion) ||
      (bare && out.version != 4 && out.version != 5)) {
    reader.refuse("an extrinsic's version byte " + std::to_string(version) + " is not known");
  }
  if (out.is_signed) {
    const TypeRegistry& types = metadata.types();
    const Json address = decode_value(types, metadata.extrinsic().address, reader);
    const Json signature = decode_value(types, metadata.extrinsic().signature, reader);
    read_signer(address, signature, out);
    read_extra(metadata, reader, out);
  }
  const ByteView call = reader.raw(reader.left());
  ScaleReader check(call);
  skip_value(metadata.types(), metadata.extrinsic().call, check);
  check.require_end("the call");
  out.call.assign(call.begin(), call.end());
  return out;
}

Json extrinsic_to_json(const Metadata& metadata, ByteView extrinsic) {
  const DecodedExtrinsic decoded = decode_extrinsic(metadata, extrinsic);
  Json json = Json::object({{"version", decoded.version},
                            {"extrinsic_hash", "0x" + extrinsic_hash(extrinsic).hex()},
                            {"call", metadata.decode_call(decoded.call)}});
  if (!decoded.is_signed) return json;
  json["address"] =
      decoded.signer ? Json(to_ss58(*decoded.signer, metadata.ss58_prefix())) : Json();
  json["signature"] = decoded.signature ? Json(to_0x(*decoded.signature)) : Json();
  if (decoded.signer) json["signature_type"] = name_of(decoded.signer->type);
  json["era"] = decoded.era.is_immortal()
                    ? Json("00")
                    : Json::object({{"period", decoded.era.period}, {"phase", decoded.era.phase}});
  json["nonce"] = decoded.nonce;
  json["tip"] = decoded.tip;
  return json;
}

bool verify_extrinsic(const Metadata& metadata, const DecodedExtrinsic& extrinsic,
                      const ExtrinsicParameters& parameters) {
  if (!extrinsic.signer || !extrinsic.signature) return false;
  const SigningPayload payload = signing_payload(metadata, extrinsic.call, parameters);
  return payload.extra == extrinsic.extra &&
         verify(*extrinsic.signer, payload.message, *extrinsic.signature);
}

PublicKey multisig_account(std::vector<PublicKey> signatories, std::uint16_t threshold) {
  if (threshold == 0 || threshold > signatories.size()) {
    throw Error(ErrorCode::key_invalid,
                "deriving a multisig account of " + std::to_string(signatories.size()) +
                    ": a threshold of " + std::to_string(threshold) + " cannot be met");
  }
  std::sort(signatories.begin(), signatories.end(),
            [](const PublicKey& a, const PublicKey& b) { return a.bytes < b.bytes; });
  ScaleWriter preimage;
  preimage.raw(as_bytes("modlpy/utilisuba"));
  preimage.compact(signatories.size());
  for (const auto& key : signatories) preimage.raw(key.bytes);
  preimage.u16(threshold);
  PublicKey account;
  account.bytes = digest_of(preimage.view()).bytes;
  return account;
}

}  // namespace yumoe
