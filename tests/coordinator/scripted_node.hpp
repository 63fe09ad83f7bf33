#pragma once
// A chain node that answers from a recorded session and fails on command. A real WebSocket server
// on 127.0.0.1, on its own thread; the one mock of the project.

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace yumoe::test {

// Text of a file, gzipped or plain; a path that is not absolute is relative to the source folder.
std::string read_recorded(const std::string& path);

inline constexpr const char* kTranscript = "tests/conformance/data/chain/rpc/transcript.jsonl.gz";
inline constexpr const char* kOutcomes = "tests/conformance/data/chain/rpc/outcomes.json.gz";

// How an answer goes wrong.
enum class Fault {
  disconnect,        // reads the call and drops the connection
  answer_then_drop,  // does what was asked, but the connection ends before the answer
  silence,           // never answers
  garbage,           // sends bytes that are no JSON
  not_rpc,           // sends JSON that is no JSON-RPC
  deep,              // nests 10,000 lists
  oversized,         // an answer of 1 MiB
  unknown_id,        // answers a call nobody made
  pruned,            // says that the state is gone
  wrong_type,        // a result of a type no method has
};

struct Reply {
  std::string result = "null";     // JSON
  std::string error = {};          // JSON of the error object; wins over `result`
  std::string notice_method = {};  // with `notices`: sent after the answer, for its subscription
  std::vector<std::string> notices = {};  // JSON of params.result
};

class ScriptedNode {
 public:
  explicit ScriptedNode(bool tls = false);
  ~ScriptedNode();

  std::string url() const;
  std::string certificate_file() const;  // of a TLS node: trust this

  // Replays every recorded call by method and parameters; several answers to one call come in their
  // order, the last one again and again. Returns how many calls there are.
  std::size_t load_transcript(const std::string& path = kTranscript);
  // Answers a method in code, before the transcript is looked at. Runs on the node's thread.
  void answer(const std::string& method, std::function<Reply(const std::string& params)> handler);

  void fault(const std::string& method, Fault fault, int times = 1);
  void delay(const std::string& method, std::chrono::milliseconds by, int times = 1);
  void disconnect_all();
  // Takes connections and closes them at once, as a node that is starting does.
  void refuse(bool on);
  // Tells every subscription made by `subscribe_method`.
  void notify(const std::string& subscribe_method, const std::string& notice_method,
              const std::string& result);

  // Every call received: method and parameters (JSON).
  std::vector<std::pair<std::string, std::string>> received() const;
  std::size_t received(const std::string& method) const;

 private:
  class Server;
  std::unique_ptr<Server> server_;
};

}  // namespace yumoe::test
