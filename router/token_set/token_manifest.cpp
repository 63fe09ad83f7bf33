#include "router/token_manifest.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kFormat = "yumoe token set";
constexpr std::uint64_t kVersion = 1;
constexpr std::uint64_t kVocabularyMax = 65'536;
constexpr std::size_t kDomainsMax = 1'024;
constexpr int kDepthMax = 8;

// Thrown and caught in this file: what is wrong, before the file's name is put to it.
struct Refusal {
  std::string what;
};

[[noreturn]] void refuse(std::string what) { throw Refusal{std::move(what)}; }

const Json& field(const Json& object, const char* name, const std::string& where) {
  if (!object.is_object()) refuse(where + " is not an object");
  const auto found = object.find(name);
  if (found == object.end()) refuse(where + " has no " + name);
  return *found;
}

std::uint64_t number(const Json& object, const char* name, std::uint64_t min, std::uint64_t max,
                     const std::string& where) {
  const Json& value = field(object, name, where);
  if (!value.is_number_unsigned()) refuse(where + "." + name + " is not a whole number");
  const auto number = value.get<std::uint64_t>();
  if (number < min || number > max) {
    refuse(where + "." + name + " = " + std::to_string(number) + " must be between " +
           std::to_string(min) + " and " + std::to_string(max));
  }
  return number;
}

Digest digest(const Json& object, const char* name, const std::string& where) {
  const Json& value = field(object, name, where);
  const auto* text = value.get_ptr<const std::string*>();
  const auto is_hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  Digest digest;
  if (text == nullptr || text->size() != 2 * digest.bytes.size() ||
      !std::all_of(text->begin(), text->end(), is_hex)) {
    refuse(where + "." + name + " is not a digest of 64 hexadecimal digits");
  }
  const Bytes bytes = from_hex(*text);
  std::copy(bytes.begin(), bytes.end(), digest.bytes.begin());
  return digest;
}

TokenFile token_file(const Json& object, const std::string& where) {
  TokenFile file;
  file.tokens = number(object, "tokens", 0, kTokenFileTokensMax, where);
  file.documents = number(object, "documents", 0, file.tokens, where);
  file.text_bytes = number(object, "text_bytes", 0, 1'024 * kTokenFileTokensMax, where);
  file.digest = digest(object, "digest", where);
  return file;
}

TokenDomain token_domain(const Json& object, const std::string& where) {
  TokenDomain domain;
  const Json& name = field(object, "name", where);
  const auto* text = name.get_ptr<const std::string*>();
  if (text == nullptr || !is_domain_name(*text)) {
    refuse(where + ".name must be 1 to 64 of a-z, 0-9, _ and -");
  }
  domain.name = *text;
  for (const Split split : kSplits) {
    const std::string split_name(name_of(split));
    domain.files[static_cast<std::size_t>(split)] =
        token_file(field(object, split_name.c_str(), where), where + "." + split_name);
  }
  return domain;
}

// Nesting is refused while it is read, so that hostile text cannot make us build a deep tree.
Json parse_bounded(std::string_view text) {
  if (text.size() > kManifestBytesMax) refuse("larger than allowed");
  bool too_deep = false;
  const auto shallow = [&](int depth, Json::parse_event_t, Json&) {
    too_deep = too_deep || depth > kDepthMax;
    return !too_deep;
  };
  Json json = Json::parse(text, shallow, /*allow_exceptions=*/false);
  if (too_deep || json.is_discarded()) refuse("not the JSON of a token set");
  return json;
}

TokenManifest manifest_of(const Json& json) {
  if (field(json, "format", "manifest") != kFormat) {
    refuse("format is not '" + std::string(kFormat) + "'");
  }
  number(json, "version", kVersion, kVersion, "manifest");

  TokenManifest manifest;
  manifest.vocabulary =
      static_cast<std::uint32_t>(number(json, "vocabulary", 2, kVocabularyMax, "manifest"));
  manifest.end_token =
      static_cast<std::uint16_t>(number(json, "end_token", 0, manifest.vocabulary - 1, "manifest"));
  manifest.tokenizer = digest(json, "tokenizer", "manifest");

  const Json& domains = field(json, "domains", "manifest");
  if (!domains.is_array() || domains.empty() || domains.size() > kDomainsMax) {
    refuse("domains must be a list of 1 to " + std::to_string(kDomainsMax));
  }
  std::set<std::string> names;
  for (std::size_t i = 0; i < domains.size(); ++i) {
    const std::string where = "domains[" + std::to_string(i) + "]";
    manifest.domains.push_back(token_domain(domains[i], where));
    if (!names.insert(manifest.domains.back().name).second) {
      refuse(where + ".name '" + manifest.domains.back().name + "' is there twice");
    }
  }
  return manifest;
}

}  // namespace

std::string_view name_of(Split split) {
  switch (split) {
    case Split::train: return "train";
    case Split::heldout: return "heldout";
    case Split::validation_private: return "private";
  }
  return "unknown";
}

bool is_domain_name(std::string_view name) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  };
  return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), allowed);
}

std::string file_of(const TokenDomain& domain, Split split) {
  return domain.name + "." + std::string(name_of(split)) + ".tokens";
}

TokenManifest parse_manifest(std::string_view json, std::string_view name) {
  try {
    return manifest_of(parse_bounded(json));
  } catch (const Refusal& refusal) {
    throw Error(ErrorCode::data_invalid, std::string(name) + ": " + refusal.what +
                                             "; build the token set again with `yumoe data build`");
  }
}

std::string json_of(const TokenManifest& manifest) {
  Json json;
  json["format"] = kFormat;
  json["version"] = kVersion;
  json["vocabulary"] = manifest.vocabulary;
  json["end_token"] = manifest.end_token;
  json["tokenizer"] = manifest.tokenizer.hex();
  json["domains"] = Json::array();
  for (const TokenDomain& domain : manifest.domains) {
    Json entry;
    entry["name"] = domain.name;
    for (const Split split : kSplits) {
      const TokenFile& file = domain.file(split);
      Json& out = entry[std::string(name_of(split))];
      out["documents"] = file.documents;
      out["tokens"] = file.tokens;
      out["text_bytes"] = file.text_bytes;
      out["digest"] = file.digest.hex();
    }
    json["domains"].push_back(std::move(entry));
  }
  return json.dump(1) + "\n";
}

}  // namespace yumoe
