// A recorded session with a node: every message through our reader, every extrinsic through our decoder.

#include <set>
#include <sstream>

#include "conformance/chain_checks.hpp"
#include "coordinator/chain_rpc.hpp"
#include "coordinator/extrinsic.hpp"

namespace yumoe::conformance {
namespace {

// What a node sent reads as what it is: the answer to a call that is open, or a notice.
std::string check_incoming(const Json& message, std::set<std::uint64_t>& open) {
  const RpcMessage read = rpc_message_from(message.dump());
  if (message.contains("method")) {
    if (read.kind != RpcMessage::Kind::notice) return "a notice does not read as one";
    const Json& params = message["params"];
    std::string different = expect_equal("method", read.method, message["method"]);
    if (different.empty())
      different = expect_same("value", Json::parse(read.json), params["result"]);
    if (different.empty())
      different = expect_equal("subscription", read.subscription, params["subscription"].dump());
    return different;
  }
  if (open.erase(read.id) != 1) return "answers no open call";
  if (message.contains("error")) {
    if (read.kind != RpcMessage::Kind::failure) return "an error does not read as one";
    std::string different =
        expect_equal("error's text", read.error_message, message["error"]["message"]);
    if (read.error_code != message["error"]["code"]) different = "error's code differs";
    return different;
  }
  if (read.kind != RpcMessage::Kind::answer) return "an answer does not read as one";
  return expect_same("result", Json::parse(read.json), message["result"]);
}

// Extrinsics in a block and those that are sent: decoded, and encoded again to the same bytes.
std::string check_extrinsic(const Metadata& metadata, const std::string& hex) {
  const Bytes bytes = from_hex(hex);
  const DecodedExtrinsic decoded = decode_extrinsic(metadata, bytes);
  const Json call = metadata.decode_call(decoded.call);
  Json arguments = Json::object();
  for (const Json& argument : call["call_args"]) {
    arguments[argument["name"].get<std::string>()] = argument["value"];
  }
  const Bytes again = metadata.encode_call(call["call_module"].get<std::string>(),
                                           call["call_function"].get<std::string>(), arguments);
  return again == decoded.call ? "" : "its call encodes to other bytes";
}

}  // namespace

void check_transcript(const std::filesystem::path& path, MetadataStore& store, Tally& tally) {
  const Metadata& metadata = store.of_spec(path, 218);
  std::istringstream lines(read_text(path));
  std::set<std::uint64_t> open;
  std::size_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    const std::string name = "line " + std::to_string(++number);
    const Json entry = Json::parse(line);
    if (!entry.contains("msg")) {
      // Cut when it was recorded; only its id is left.
      if (entry.contains("id") && entry["id"].is_number_unsigned())
        open.erase(entry["id"].get<std::uint64_t>());
      tally.unsupported("messages over 20 kB were cut when they were recorded");
      continue;
    }
    const Json& message = entry["msg"];
    if (entry["dir"] == "in") {
      attempt(tally, name, [&] { return check_incoming(message, open); });
      if (message.contains("result") && message["result"].is_object() &&
          message["result"].contains("block")) {
        for (const Json& extrinsic : message["result"]["block"]["extrinsics"]) {
          attempt(tally, name, [&] { return check_extrinsic(metadata, extrinsic); });
        }
      }
      continue;
    }
    open.insert(message["id"].get<std::uint64_t>());
    const std::string method = message["method"];
    if (!method.starts_with("author_submit")) continue;
    const std::string hex = message["params"][0];
    // Some were sent to be refused: what cannot be decoded must at least be refused in good order.
    attempt(tally, name, [&]() -> std::string {
      try {
        return check_extrinsic(metadata, hex);
      } catch (const Error& error) {
        return error.code() == ErrorCode::scale_malformed ? "" : error.what();
      }
    });
  }
}

}  // namespace yumoe::conformance
