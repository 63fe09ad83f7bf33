// Takes a node's message apart. Nothing here knows a socket.

#include <nlohmann/json.hpp>

#include "coordinator/chain_rpc.hpp"

namespace yumoe {
namespace {

using nlohmann::json;

constexpr int kDepthMax = 64;
constexpr std::size_t kErrorTextMax = 4'096;  // of a node's error text that is kept

[[noreturn]] void malformed(const std::string& what) {
  throw Error(ErrorCode::message_malformed, "chain node's message " + what);
}

// Before the parser allocates anything.
void check_depth(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kDepthMax) malformed("nests deeper than 64");
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
}

std::string text_of(const json& value) {
  std::string text = value.is_string() ? value.get<std::string>() : value.dump();
  if (text.size() > kErrorTextMax) text.resize(kErrorTextMax);
  return text;
}

RpcMessage notice_from(const json& message) {
  RpcMessage out;
  out.kind = RpcMessage::Kind::notice;
  const auto& method = message["method"];
  const auto params = message.find("params");
  if (!method.is_string() || params == message.end() || !params->is_object()) {
    malformed("is a notice without method or params");
  }
  const auto subscription = params->find("subscription");
  const auto result = params->find("result");
  if (subscription == params->end() || result == params->end() ||
      !(subscription->is_string() || subscription->is_number_integer())) {
    malformed("is a notice without subscription or result");
  }
  out.method = method.get<std::string>();
  out.subscription = subscription->dump();
  out.json = result->dump();
  return out;
}

RpcMessage failure_from(const json& error, std::uint64_t id) {
  RpcMessage out;
  out.kind = RpcMessage::Kind::failure;
  out.id = id;
  if (!error.is_object()) malformed("has an error that is not an object");
  const auto code = error.find("code");
  const auto text = error.find("message");
  if (code == error.end() || !code->is_number_integer() || text == error.end() ||
      !text->is_string()) {
    malformed("has an error without code or message");
  }
  out.error_code = code->get<std::int64_t>();
  out.error_message = text_of(*text);
  if (const auto data = error.find("data"); data != error.end()) out.error_data = text_of(*data);
  return out;
}

RpcMessage message_from(const json& message) {
  if (!message.is_object()) malformed("is not an object");
  const auto version = message.find("jsonrpc");
  if (version == message.end() || *version != "2.0") malformed("is not JSON-RPC 2.0");
  if (message.contains("method")) return notice_from(message);
  const auto id = message.find("id");
  if (id == message.end() || !id->is_number_unsigned()) malformed("has no id of ours");
  const auto result = message.find("result");
  const auto error = message.find("error");
  if ((result == message.end()) == (error == message.end())) {
    malformed("has not exactly one of result and error");
  }
  if (error != message.end()) return failure_from(*error, id->get<std::uint64_t>());
  RpcMessage out;
  out.id = id->get<std::uint64_t>();
  out.json = result->dump();
  return out;
}

}  // namespace

RpcMessage rpc_message_from(std::string_view text) {
  check_depth(text);
  try {
    return message_from(json::parse(text));
  } catch (const json::exception& error) {
    malformed(std::string("is not JSON: ") + error.what());
  }
}

}  // namespace yumoe
