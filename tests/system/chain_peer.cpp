// Our side of the talk with real clients (tests/system/real_clients): one JSON request a line on
// stdin, one answer a line on stdout; {"error": ...} where the library refuses.

#include <zlib.h>

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

#include "cluster/wallet.hpp"
#include "coordinator/extrinsic.hpp"
#include "coordinator/timelock.hpp"

namespace {

using namespace yumoe;

std::string hex(ByteView bytes) { return "0x" + to_hex(bytes); }
Bytes unhex(const Json& request, const char* field) {
  return from_hex(request.at(field).get_ref<const std::string&>());
}
KeyType type_of(const Json& request) {
  return request.value("type", 1) == 0 ? KeyType::ed25519 : KeyType::sr25519;
}
Keypair pair_of(const Json& request) {
  return Keypair::from_uri(type_of(request), request.at("uri").get<std::string>());
}
Digest digest_from(const Bytes& bytes) {
  Digest digest;
  if (bytes.size() != digest.bytes.size()) throw std::runtime_error("a hash has 32 bytes");
  std::copy(bytes.begin(), bytes.end(), digest.bytes.begin());
  return digest;
}

const Metadata& metadata_of(const Json& request) {
  static std::map<std::string, Metadata> parsed;
  const auto& path = request.at("metadata").get_ref<const std::string&>();
  if (const auto found = parsed.find(path); found != parsed.end()) return found->second;
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
  if (!file) throw std::runtime_error("cannot open " + path);
  std::string text;
  char buffer[1 << 16];
  for (int n = 0; (n = gzread(file.get(), buffer, sizeof buffer)) > 0;) {
    text.append(buffer, static_cast<std::size_t>(n));
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return parsed.emplace(path, Metadata::parse(from_hex(text))).first->second;
}

ExtrinsicParameters parameters_of(const Json& request) {
  ExtrinsicParameters p;
  p.nonce = request.at("nonce").get<std::uint64_t>();
  p.tip = request.at("tip").get<std::string>();
  if (request.contains("period")) {
    p.era = Era::mortal(request["period"].get<std::uint64_t>(),
                        request.at("current").get<std::uint64_t>());
  }
  p.genesis_hash = digest_from(unhex(request, "genesis_hash"));
  p.checkpoint_hash = digest_from(unhex(request, "checkpoint_hash"));
  p.spec_version = request.at("spec_version").get<std::uint32_t>();
  p.transaction_version = request.at("transaction_version").get<std::uint32_t>();
  return p;
}

PasswordSource password_of(const Json& request) {
  if (!request.contains("password")) return nullptr;
  return [text = request["password"].get<std::string>()](const std::filesystem::path&) {
    return std::optional(LockedBytes(as_bytes(text)));
  };
}

Json sign(const Json& request) {
  const Keypair pair = pair_of(request);
  return {{"public", hex(pair.public_key().bytes)},
          {"address", to_ss58(pair.public_key())},
          {"signature", hex(pair.sign(unhex(request, "message")))}};
}

Json check(const Json& request) {
  PublicKey key{type_of(request), {}};
  key.bytes = digest_from(unhex(request, "public")).bytes;
  const Bytes bytes = unhex(request, "signature");
  Signature signature{};
  if (bytes.size() != signature.size()) return {{"valid", false}};
  std::copy(bytes.begin(), bytes.end(), signature.begin());
  return {{"valid", verify(key, unhex(request, "message"), signature)}};
}

Json extrinsic(const Json& request) {
  const Metadata& metadata = metadata_of(request);
  const Bytes call =
      metadata.encode_call(request.at("pallet").get<std::string>(),
                           request.at("call").get<std::string>(), request.at("params"));
  const ExtrinsicParameters parameters = parameters_of(request);
  const Bytes bytes = sign_extrinsic(metadata, call, parameters, pair_of(request));
  return {{"call", hex(call)},
          {"message", hex(signing_payload(metadata, call, parameters).message)},
          {"extrinsic", hex(bytes)},
          {"hash", "0x" + extrinsic_hash(bytes).hex()}};
}

Json decode(const Json& request) {
  const Metadata& metadata = metadata_of(request);
  const Bytes bytes = unhex(request, "extrinsic");
  const DecodedExtrinsic decoded = decode_extrinsic(metadata, bytes);
  return {{"decoded", extrinsic_to_json(metadata, bytes)},
          {"valid", verify_extrinsic(metadata, decoded, parameters_of(request))}};
}

Json seal(const Json& request) {
  const auto round = request.at("round").get<std::uint64_t>();
  return {{"envelope", hex(to_bytes({timelock_seal(unhex(request, "plaintext"), round), round}))}};
}

Json open(const Json& request) {
  const TimelockEnvelope envelope = timelock_envelope_from(unhex(request, "envelope"));
  return {{"plaintext", hex(timelock_open(envelope.sealed, unhex(request, "signature")))}};
}

Json write(const Json& request) {
  const Wallet wallet{request.at("root").get<std::string>(),
                      request.at("wallet").get<std::string>()};
  const Key key = request.contains("mnemonic")
                      ? Key::from_mnemonic(type_of(request), request["mnemonic"].get<std::string>())
                      : Key::from_uri(type_of(request), request.at("uri").get<std::string>());
  const PasswordSource password = password_of(request);
  write_hotkey(wallet, request.at("hotkey").get<std::string>(), key,
               password ? password({}) : std::nullopt, true);
  return {{"address", to_ss58(key.public_key())}};
}

Json read(const Json& request) {
  const Key key =
      read_key(std::filesystem::path(request.at("path").get<std::string>()), password_of(request));
  return {{"address", to_ss58(key.public_key())},
          {"type", key.public_key().type == KeyType::sr25519 ? 1 : 0}};
}

Json multisig(const Json& request) {
  std::vector<PublicKey> keys;
  for (const Json& address : request.at("signatories")) {
    keys.push_back(from_ss58(address.get_ref<const std::string&>()));
  }
  return {
      {"address", to_ss58(multisig_account(keys, request.at("threshold").get<std::uint16_t>()))}};
}

Json answer(const Json& request) {
  const std::map<std::string, Json (*)(const Json&)> operations = {
      {"sign", sign},     {"verify", check}, {"extrinsic", extrinsic},
      {"decode", decode}, {"seal", seal},    {"open", open},
      {"write", write},   {"read", read},    {"multisig", multisig}};
  return operations.at(request.at("op").get<std::string>())(request);
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    Json result;
    try {
      result = answer(parse_json_exact(line));
    } catch (const std::exception& error) {
      result = {{"error", error.what()}};
    }
    std::cout << result.dump() << std::endl;
  }
}
