// The scripted node as a process, for tests of real programs (tests/system/chain.py). Prints its address,
// then obeys one command a line on stdin and answers each with one line.
// yumoe-scripted-node [FOLDER SPEC_VERSION]: of the runtime whose metadata is in that folder.

#include <atomic>
#include <chrono>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "cluster/identity.hpp"
#include "coordinator/recorded_chain.hpp"

namespace {

using namespace yumoe;
using nlohmann::json;
using test::RecordedChain;

std::string le_hex(std::uint64_t value, int bytes) {
  Bytes out;
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
  return "0x" + to_hex(out);
}

class Program {
 public:
  Program() { chain_.outcome("set_weights good (ed25519)"); }
  Program(const std::string& folder, std::uint32_t spec_version) : chain_(folder, spec_version) {}
  ~Program() {
    stop_ = true;
    producer_.join();
  }

  std::string url() const { return chain_.node.url(); }

  json obey(const std::string& line) {
    std::istringstream words(line);
    std::string word;
    words >> word;
    if (word == "produce") return produce(words);
    if (word == "every") return every_ms_ = std::stoi(rest(words)), json("ok");
    if (word == "outcome") return chain_.outcome(rest(words)), json("ok");
    if (word == "events") return chain_.outcome_bytes(rest(words)), json("ok");
    if (word == "pool") return refuse_next(words);
    if (word == "set") return set(words);
    if (word == "register") return enrol(words);
    if (word == "neurons") return neurons_ = std::stoull(rest(words)), json("ok");
    if (word == "refuse") return refuse(rest(words) == "on"), json("ok");
    if (word == "forget") return chain_.forget_pool(), json("ok");
    if (word == "block") return chain_.number();
    if (word == "received") return chain_.node.received(rest(words));
    if (word == "included") {
      json all = json::array();
      for (const DecodedExtrinsic& extrinsic : chain_.included()) {
        all.push_back(chain_.metadata.decode_call(extrinsic.call));
      }
      return all;
    }
    if (word == "placed") {
      json all = json::array();
      for (const auto& [block, extrinsic] : chain_.placed()) {
        all.push_back({{"block", block},
                       {"nonce", extrinsic.nonce},
                       {"call", chain_.metadata.decode_call(extrinsic.call)}});
      }
      return all;
    }
    throw std::runtime_error("no such command");
  }

 private:
  static std::string rest(std::istringstream& words) {
    std::string text;
    std::getline(words >> std::ws, text);
    return text;
  }
  json produce(std::istringstream& words) {
    int count = 1;
    words >> count;
    chain_.produce(count);
    return chain_.number();
  }
  void refuse(bool on) {
    chain_.node.refuse(on);
    if (on) chain_.node.disconnect_all();
  }
  // pool TIMES ERROR: so many extrinsics are refused with this error object.
  json refuse_next(std::istringstream& words) {
    int times = 0;
    words >> times;
    chain_.refuse_next(times, json::parse(rest(words)).dump());
    return "ok";
  }
  // set ITEM KEYS HEX: a value of SubtensorModule.
  json set(std::istringstream& words) {
    std::string item, keys, value;
    words >> item >> keys >> value;
    chain_.set_storage(
        "0x" + to_hex(chain_.metadata.storage_key("SubtensorModule", item, json::parse(keys))),
        value);
    return "ok";
  }
  // register NETUID UID SS58
  json enrol(std::istringstream& words) {
    std::uint64_t netuid = 0, uid = 0;
    std::string address;
    words >> netuid >> uid >> address;
    const auto put = [&](const char* item, const json& keys, const std::string& value) {
      chain_.set_storage("0x" + to_hex(chain_.metadata.storage_key("SubtensorModule", item, keys)),
                         value);
    };
    put("Uids", json::array({netuid, address}), le_hex(uid, 2));
    put("Keys", json::array({netuid, uid}), "0x" + to_hex(from_ss58(address).bytes));
    put("SubnetworkN", json::array({netuid}), le_hex(std::max(neurons_, uid + 1), 2));
    neurons_ = std::max(neurons_, uid + 1);
    return "ok";
  }
  void produce_for_ever() {
    while (!stop_) {
      const int pause = every_ms_;
      std::this_thread::sleep_for(std::chrono::milliseconds(pause > 0 ? pause : 20));
      if (pause > 0 && !stop_) chain_.produce();
    }
  }

  RecordedChain chain_;
  std::uint64_t neurons_ = 4;  // of the recorded subnet
  std::atomic<int> every_ms_{0};
  std::atomic<bool> stop_{false};
  std::thread producer_{[this] { produce_for_ever(); }};
};

}  // namespace

int main(int argc, char** argv) {
  const auto made = argc == 3 ? std::make_unique<Program>(
                                    argv[1], static_cast<std::uint32_t>(std::stoul(argv[2])))
                              : std::make_unique<Program>();
  Program& program = *made;
  std::cout << program.url() << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    json answer;
    try {
      answer = program.obey(line);
    } catch (const std::exception& error) {
      answer = {{"error", error.what()}};
    }
    std::cout << answer.dump() << std::endl;
  }
}
