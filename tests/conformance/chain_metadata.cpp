// Metadata: finding it, parsing it, and its tables of calls, storage, constants, errors and events.

#include <algorithm>
#include <set>
#include <stdexcept>

#include "conformance/chain_checks.hpp"
#include "coordinator/extrinsic.hpp"

namespace yumoe::conformance {
namespace {

namespace fs = std::filesystem;

bool is_metadata_name(const std::string& name) {
  return name.starts_with("metadata") && (name.ends_with(".hex") || name.ends_with(".hex.gz"));
}

int version_in(const std::string& name) {
  const std::size_t at = name.find("_v");
  return at == name.npos ? 0 : std::atoi(name.c_str() + at + 2);
}

// Metadata files in folders whose name says "spec<N>", below `root` and two levels down.
std::vector<fs::path> metadata_below(const fs::path& root, const std::string& spec) {
  std::vector<fs::path> found;
  if (!fs::is_directory(root)) return found;
  for (const auto& folder : fs::directory_iterator(root)) {
    if (!folder.is_directory() || !folder.path().filename().string().ends_with(spec)) continue;
    for (const auto& file : fs::directory_iterator(folder)) {
      if (is_metadata_name(file.path().filename().string())) found.push_back(file.path());
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

// Where the data of a vector file may lie: around it, then in the repository and beside it.
std::vector<fs::path> roots_near(const fs::path& near) {
  std::vector<fs::path> roots;
  fs::path folder = fs::absolute(near).parent_path();
  for (int levels = 0; levels < 4 && folder.has_relative_path(); ++levels) {
    roots.push_back(folder);
    roots.push_back(folder / "metadata");
    folder = folder.parent_path();
  }
  for (const char* place :
       {YUMOE_SOURCE_DIR "/tests/conformance/data/chain",
        YUMOE_SOURCE_DIR "/../shared/vectors/chain", "../shared/vectors/chain"}) {
    roots.emplace_back(place);
    roots.push_back(fs::path(place) / "metadata");
  }
  return roots;
}

std::string spaces_joined(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == ' ' && (out.empty() || out.back() == ' ')) continue;
    out += c == '\n' ? ' ' : c;
  }
  while (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

std::string check_call(const Metadata& metadata, const Json& row) {
  const TypeVariant& call =
      metadata.call(row["pallet"].get<std::string>(), row["call"].get<std::string>());
  const Pallet& pallet = metadata.pallet(row["pallet"].get<std::string>());
  const std::uint8_t prefix[2] = {pallet.index, call.index};
  std::string difference = expect_equal("prefix", hex_of(prefix), row["call_prefix"]);
  if (call.fields.size() != row["args"].size()) return "has other arguments";
  for (std::size_t i = 0; i < call.fields.size(); ++i) {
    const Json& argument = row["args"][i];
    if (!same_name(call.fields[i].name, argument["name"].get<std::string>()))
      return "argument name";
    if (difference.empty()) {
      difference = expect_equal("type name", call.fields[i].type_name, argument["type_name"]);
    }
  }
  return difference;
}

std::string hasher_name(StorageHasher hasher) {
  constexpr const char* kNames[] = {"Blake2_128", "Blake2_256",   "Blake2_128Concat", "Twox128",
                                    "Twox256",    "Twox64Concat", "Identity"};
  return kNames[static_cast<std::size_t>(hasher)];
}

std::string check_storage_item(const Metadata& metadata, const Json& row) {
  const StorageItem& item =
      metadata.storage(row["pallet"].get<std::string>(), row["item"].get<std::string>());
  const Bytes key = metadata.storage_key(item.pallet, item.name, Json::array());
  Json hashers = Json::array();
  for (const StorageHasher hasher : item.hashers) hashers.push_back(hasher_name(hasher));
  for (const std::string& difference :
       {expect_equal("key prefix", hex_of(key), row["key_prefix_hex"]),
        expect_equal("prefix", item.prefix, row["prefix"]),
        expect_same("hashers", hashers, row["hashers"]),
        expect_equal("modifier", item.optional ? "Optional" : "Default", row["modifier"]),
        expect_equal("default", hex_of(item.default_value), row["default_hex"])}) {
    if (!difference.empty()) return difference;
  }
  if (item.optional) return "";
  const Json value = metadata.decode_storage(item, std::nullopt);
  return expect_equal("default encoded again",
                      hex_of(encode_value(metadata.types(), item.value, value)),
                      row["default_hex"]);
}

std::string check_constant(const Metadata& metadata, const Json& row) {
  const Constant& constant =
      metadata.constant(row["pallet"].get<std::string>(), row["name"].get<std::string>());
  if (auto difference = expect_equal("value", hex_of(constant.value), row["value_hex"]);
      !difference.empty()) {
    return difference;
  }
  const Json value = metadata.constant_value(row["pallet"].get<std::string>(), constant.name);
  if (auto difference = expect_equal("value encoded again",
                                     hex_of(encode_value(metadata.types(), constant.type, value)),
                                     row["value_hex"]);
      !difference.empty()) {
    return difference;
  }
  return similar(row["value"], value) ? "" : expect_same("value", value, row["value"]);
}

std::string check_error(const Metadata& metadata, const Json& row) {
  const auto error = metadata.module_error(row["pallet_index"].get<std::uint8_t>(),
                                           row["error_index"].get<std::uint8_t>());
  if (!error) return "no such error";
  for (const std::string& difference :
       {expect_equal("name", error->name, row["error"]),
        expect_equal("pallet", error->pallet, row["pallet"]),
        expect_equal("docs", spaces_joined(error->docs), spaces_joined(row.value("docs", "")))}) {
    if (!difference.empty()) return difference;
  }
  return "";
}

std::string check_event(const Metadata& metadata, const Json& row) {
  const Pallet& pallet = metadata.pallet(row["pallet"].get<std::string>());
  if (!pallet.event) return "the pallet has no events";
  const TypeVariant* event =
      metadata.types().at(*pallet.event).variant(row["event"].get<std::string>());
  if (event == nullptr) return "no such event";
  if (event->index != row["event_index"] || pallet.index != row["pallet_index"])
    return "other index";
  if (event->fields.size() != row["fields"].size()) return "other fields";
  for (std::size_t i = 0; i < event->fields.size(); ++i) {
    const Json& field = row["fields"][i];
    const std::string name = field["name"].is_null() ? "" : field["name"].get<std::string>();
    if (!same_name(event->fields[i].name, name)) return "field " + name + " has another name";
    if (field["type_name"].is_string() && event->fields[i].type_name != field["type_name"]) {
      return "field " + name + " has another type name";
    }
  }
  return "";
}

// Named in a list, or as version 16 describes them.
Json wanted_extensions(const Json& document) {
  if (document.contains("signed_extensions")) return document["signed_extensions"];
  Json identifiers = Json::array();
  for (const Json& extension : document["extrinsic"]["transactionExtensions"]) {
    identifiers.push_back(extension["identifier"]);
  }
  return identifiers;
}

std::vector<fs::path> metadata_beside(const fs::path& file) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(fs::absolute(file).parent_path())) {
    if (is_metadata_name(entry.path().filename().string())) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  if (found.empty()) throw std::runtime_error("no metadata_v*.hex lies beside it");
  return found;
}

}  // namespace

const Metadata& MetadataStore::of_hex(const std::string& key, const std::string& hex) {
  auto& slot = parsed_[key];
  if (!slot) slot = std::make_unique<Metadata>(Metadata::parse(from_hex(hex)));
  return *slot;
}

const Metadata& MetadataStore::of_file(const fs::path& file) {
  std::string hex = read_text(file);
  while (!hex.empty() && (hex.back() == '\n' || hex.back() == '\r' || hex.back() == ' '))
    hex.pop_back();
  return of_hex(fs::absolute(file).string(), hex);
}

const Metadata& MetadataStore::of_spec(const fs::path& near, std::uint64_t spec, int version) {
  const std::string name = "spec" + std::to_string(spec);
  for (const fs::path& root : roots_near(near)) {
    const auto found = metadata_below(root, name);
    for (const auto& file : found) {
      if (version != 0 && version_in(file.filename().string()) == version) return of_file(file);
    }
    if (!found.empty() && version == 0) return of_file(found.back());
  }
  throw std::runtime_error("the metadata of spec " + std::to_string(spec) +
                           " lies neither near the file nor in the repository");
}

const Metadata& MetadataStore::of_golden(const fs::path& near, std::uint64_t spec, int version) {
  const std::string wanted = "golden_spec" + std::to_string(spec) + ".json";
  const std::string key = wanted + "#" + std::to_string(version);
  if (const auto found = parsed_.find(key); found != parsed_.end()) return *found->second;
  for (const fs::path& root : roots_near(near)) {
    for (const std::string& name : {wanted + ".gz", wanted}) {
      if (!fs::exists(root / name)) continue;
      const Json golden = parse_json_exact(read_text(root / name));
      return of_hex(key, golden["metadata"]["v" + std::to_string(version) + "_hex"]);
    }
  }
  throw std::runtime_error(wanted + " does not lie near the file");
}

void check_metadata_table(const ChainFile& file) {
  for (const fs::path& path : metadata_beside(file.path)) {
    const Metadata& metadata = file.metadata.of_file(path);
    for (const Json& row : file.document) {
      const std::string name = path.filename().string() + " " + row["pallet"].get<std::string>();
      attempt(file.tally, name, [&]() -> std::string {
        if (row.contains("call")) return check_call(metadata, row);
        if (row.contains("item")) return check_storage_item(metadata, row);
        if (row.contains("value_hex")) return check_constant(metadata, row);
        if (row.contains("error")) return check_error(metadata, row);
        return check_event(metadata, row);
      });
    }
  }
}

void check_extrinsic_format(const ChainFile& file) {
  for (const fs::path& path : metadata_beside(file.path)) {
    const Metadata& metadata = file.metadata.of_file(path);
    const std::string name = path.filename().string();
    attempt(file.tally, name + " extensions", [&] {
      Json identifiers = Json::array();
      for (const auto& extension : metadata.extrinsic().extensions) {
        identifiers.push_back(extension.identifier);
      }
      return expect_same("list", identifiers, wanted_extensions(file.document));
    });
    attempt(file.tally, name + " pallets", [&] {
      Json pallets = Json::array();
      for (const auto& pallet : metadata.pallets()) {
        pallets.push_back({{"name", pallet.name}, {"index", pallet.index}});
      }
      return expect_same("list", pallets, file.document["pallets"]);
    });
    if (!file.document.contains("ss58")) continue;
    attempt(file.tally, name + " SS58 prefix",
            [&] { return expect_same("prefix", metadata.ss58_prefix(), file.document["ss58"]); });
  }
}

void check_metadata_bytes(const fs::path& path, MetadataStore& store, Tally& tally) {
  const std::string name = path.filename().string();
  attempt(tally, name, [&] {
    const Metadata& metadata = store.of_file(path);
    if (version_in(name) != 0 && version_in(name) != metadata.version()) {
      return std::string("has version " + std::to_string(metadata.version()));
    }
    return std::string(metadata.pallets().empty() ? "has no pallets" : "");
  });
}

void check_genesis(const ChainFile& file) {
  for (const auto& [name, spec] : file.document["specs"].items()) {
    for (const char* version : {"state_version_0", "state_version_1"}) {
      if (!spec.contains(version)) continue;
      const Json& state = spec[version];
      attempt(file.tally, name + " " + version, [&state = state] {
        ScaleWriter header;
        header.raw(Bytes(32));
        header.compact(std::uint64_t{0});
        header.raw(bytes_of(state["state_root"]));
        header.raw(blake2(Bytes{0}, 32));  // no extrinsics: the empty trie's root
        header.u8(0);
        const std::string difference =
            expect_equal("header", hex_of(header.view()), state["genesis_header"]);
        if (!difference.empty()) return difference;
        return expect_equal("hash", hex_of(blake2(header.view(), 32)), state["genesis_hash"]);
      });
    }
  }
}

}  // namespace yumoe::conformance
