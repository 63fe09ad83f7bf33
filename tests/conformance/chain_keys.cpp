// Keys, addresses, signatures, wallet files, trie roots and proofs, timelocked envelopes.

#include <algorithm>
#include <fstream>

#include "cluster/error.hpp"
#include "cluster/wallet.hpp"
#include "conformance/chain_checks.hpp"
#include "coordinator/timelock.hpp"
#include "coordinator/trie.hpp"

namespace yumoe::conformance {
namespace {

namespace fs = std::filesystem;

PublicKey key_of(KeyType type, const Bytes& bytes) {
  PublicKey key{type, {}};
  std::copy_n(bytes.begin(), std::min<std::size_t>(bytes.size(), 32), key.bytes.begin());
  return key;
}

std::string check_key(const Json& one) {
  const std::string type_name = one["type"].get<std::string>();
  const KeyType type = type_name == "ed25519" ? KeyType::ed25519 : KeyType::sr25519;
  PublicKey key = key_of(type, bytes_of(one["public"]));
  if (one.contains("seed") || one.contains("uri")) {
    const Keypair pair = one.contains("uri")
                             ? Keypair::from_uri(type, one["uri"].get<std::string>())
                             : Keypair::from_seed(type, bytes_of(one["seed"]));
    if (auto difference = expect_equal("public", hex_of(pair.public_key().bytes), one["public"]);
        !difference.empty()) {
      return difference;
    }
  }
  for (const auto& [field, address] : one.items()) {
    if (!field.starts_with("ss58_")) continue;
    const auto prefix = static_cast<std::uint16_t>(std::stoi(field.substr(5)));
    if (auto difference = expect_equal(field, to_ss58(key, prefix), address); !difference.empty()) {
      return difference;
    }
    if (from_ss58(address.get<std::string>(), type) != key) return field + " reads as another key";
  }
  return "";
}

std::string contents_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The passwords of throw-away wallets stand in a README above them: NAME 'password'.
std::optional<std::string> password_for(const fs::path& path) {
  fs::path folder = fs::absolute(path).parent_path();
  for (int levels = 0; levels < 5 && folder.has_relative_path();
       ++levels, folder = folder.parent_path()) {
    for (const char* name : {"README.txt", "README.md"}) {
      const std::string text = contents_of(folder / name);
      for (const std::string& key :
           {path.filename().string(), path.parent_path().filename().string() + "/*"}) {
        const std::size_t at = text.find(key + " '");
        if (at == text.npos) continue;
        const std::size_t start = at + key.size() + 2;
        return text.substr(start, text.find('\'', start) - start);
      }
    }
  }
  return std::nullopt;
}

fs::path public_file_of(const fs::path& path) {
  fs::path beside = path;
  beside += "pub.txt";
  return beside;
}

std::string check_private(const fs::path& path, const PasswordSource& password) {
  const Key key = read_key(path, password);
  if (fs::exists(public_file_of(path)) &&
      read_public_key(public_file_of(path)) != key.public_key()) {
    return "its pub file names another key";
  }
  const ByteView message = as_bytes("conformance");
  if (!verify(key.public_key(), message, key.pair().sign(message)))
    return "its signature is not valid";
  const LockedBytes json = key.to_json();
  const Key again = read_key(json.view(), path, nullptr);
  return again.public_key() == key.public_key() ? "" : "written and read again it is another key";
}

}  // namespace

void check_keys(const ChainFile& file) {
  for (const Json& one : file.document) {
    attempt(file.tally, one.value("name", "key"), [&] { return check_key(one); });
  }
}

void check_primitives(const ChainFile& file) {
  for (const Json& one : file.document["compact"]) {
    attempt(file.tally, "compact " + text_of(one["value"]), [&] {
      const Bytes wanted = bytes_of(one["hex"]);
      ScaleReader reader(wanted);
      ScaleWriter writer;
      writer.compact(ByteView(reader.compact_bytes()));
      reader.require_end("the integer");
      if (writer.size() < 10 && text_of(one["value"]).size() < 20) {
        ScaleWriter small;
        small.compact(std::stoull(text_of(one["value"])));
        if (small.view() != wanted) return std::string("encodes to other bytes");
      }
      return expect_equal("bytes", hex_of(writer.view()), one["hex"]);
    });
  }
  for (const Json& one : file.document["blake2"]) {
    attempt(file.tally, "blake2", [&] {
      const Bytes data = bytes_of(one["data"]);
      for (const std::string& difference :
           {expect_equal("256", hex_of(blake2(data, 32)), one["blake2_256"]),
            expect_equal("128", hex_of(blake2(data, 16)), one["blake2_128"]),
            expect_equal("512", hex_of(blake2(data, 64)), one["blake2_512"]),
            expect_equal("concat", hex_of(hash_storage_key(StorageHasher::blake2_128_concat, data)),
                         one["blake2_128_concat"])}) {
        if (!difference.empty()) return difference;
      }
      return std::string();
    });
  }
}

void check_signatures(const ChainFile& file) {
  for (const Json& one : file.document["sr25519"]) {
    attempt(file.tally, "signature", [&]() -> std::string {
      const Bytes message = bytes_of(one["msg"]), bytes = bytes_of(one["sig"]);
      Signature signature{};
      std::copy_n(bytes.begin(), 64, signature.begin());
      const PublicKey key = key_of(KeyType::sr25519, bytes_of(one["pub"]));
      if (!verify(key, message, signature)) return "a valid signature is refused";
      signature[5] ^= 1;
      return verify(key, message, signature) ? "a spoilt signature is accepted" : "";
    });
  }
  attempt(file.tally, "seed", [&]() -> std::string {
    const Keypair pair = Keypair::from_seed(KeyType::sr25519, bytes_of(file.document["seed"]));
    if (pair.public_key() != key_of(KeyType::sr25519, bytes_of(file.document["pub"])))
      return "other key";
    if (!file.document.contains("privateKey")) return "";
    const Keypair expanded = Keypair::from_expanded(bytes_of(file.document["privateKey"]));
    return expanded.public_key() == pair.public_key() ? "" : "other expanded key";
  });
}

bool is_keyfile(const fs::path& path) {
  const std::string name = path.filename().string();
  const bool other_kind = name.ends_with(".json") || name.ends_with(".gz") ||
                          name.ends_with(".md") || name.ends_with(".hex") ||
                          name.ends_with(".jsonl") ||
                          (name.ends_with(".txt") && !name.ends_with("pub.txt"));
  if (other_kind || fs::file_size(path) > 64u << 10) return false;
  const std::string text = contents_of(path);
  return text.starts_with("$NACL") || text.starts_with("$ANSIBLE_VAULT") ||
         text.starts_with("gAAAAA") ||
         (text.starts_with("{") && text.find("ss58Address") != text.npos);
}

void check_keyfile(const fs::path& path, Tally& tally) {
  const std::string text = contents_of(path);
  if (path.filename().string().ends_with("pub.txt")) {
    attempt(tally, "address", [&] {
      return text.find(to_ss58(read_public_key(path))) != text.npos
                 ? std::string()
                 : std::string("reads as another");
    });
    return;
  }
  const KeyfileFormat format = keyfile_format(as_bytes(text));
  if (!is_encrypted(format)) {
    attempt(tally, "key", [&] { return check_private(path, nullptr); });
    return;
  }
  const auto password = password_for(path);
  if (!password) {
    tally.unsupported("no README above the file tells its password");
    return;
  }
  attempt(tally, "encrypted key", [&] {
    return check_private(
        path, [&](const fs::path&) { return std::optional(LockedBytes(as_bytes(*password))); });
  });
  if (format != KeyfileFormat::ansible_vault) return;  // the others take seconds to refuse
  attempt(tally, "wrong password", [&]() -> std::string {
    try {
      decrypt_keyfile(as_bytes(text), as_bytes(*password + "x"));
    } catch (const Error& error) {
      return error.code() == ErrorCode::password_wrong ? "" : error.what();
    }
    return "a wrong password opens it";
  });
}

void check_trie_roots(const ChainFile& file) {
  for (const Json& one : file.document) {
    std::map<Bytes, Bytes> entries;
    for (const auto& [key, value] : one["entries"].items())
      entries[from_hex(key)] = bytes_of(value);
    for (const auto& [field, version] :
         {std::pair{"root_v0", StateVersion::v0}, std::pair{"root_v1", StateVersion::v1}}) {
      attempt(file.tally, one.value("id", "root") + " " + field,
              [&, version = version, field = field] {
                return expect_equal("root", "0x" + trie_root(entries, version).hex(), one[field]);
              });
    }
  }
}

void check_trie_proofs(const ChainFile& file) {
  Digest root;
  const Bytes bytes = bytes_of(file.document["root"]);
  std::copy_n(bytes.begin(), 32, root.bytes.begin());
  for (const Json& one : file.document["proofs"]) {
    std::vector<Bytes> nodes;
    for (const Json& node : one["nodes"]) nodes.push_back(bytes_of(node));
    const Bytes key = bytes_of(one["key"]);
    attempt(file.tally, "proof of " + one["key"].get<std::string>(), [&]() -> std::string {
      const auto value = read_proof(root, nodes, key);
      return expect_same("value", value ? Json(hex_of(*value)) : Json(), one["value"]);
    });
    attempt(file.tally, "spoilt proof of " + one["key"].get<std::string>(), [&]() -> std::string {
      auto spoilt = nodes;
      spoilt.back().back() ^= 1;
      try {
        read_proof(root, spoilt, key);
      } catch (const Error&) {
        return "";
      }
      return "is believed";
    });
  }
}

void check_timelock(const ChainFile& file) {
  const Json& one = file.document;
  const Bytes signature = bytes_of(one["drand_quicknet_signature"]);
  const std::string plaintext = one["plaintext"].get<std::string>();
  const auto round = one["round"].get<std::uint64_t>();
  attempt(file.tally, "round's signature", [&]() -> std::string {
    if (!drand_signature_valid(round, signature)) return "is refused";
    return drand_signature_valid(round + 1, signature) ? "is accepted for another round" : "";
  });
  const auto open = [&](const Bytes& bytes) {
    const TimelockEnvelope envelope = timelock_envelope_from(bytes);
    const Bytes opened = timelock_open(envelope.sealed, signature);
    return expect_equal("plaintext", std::string(opened.begin(), opened.end()), plaintext);
  };
  attempt(file.tally, "recorded envelope", [&] { return open(bytes_of(one["envelope_hex"])); });
  attempt(file.tally, "own envelope", [&] {
    return open(to_bytes({timelock_seal(as_bytes(plaintext), round), round}));
  });
}

}  // namespace yumoe::conformance
