#pragma once
// A growing chain in front of the scripted node. Its answers are the recorded ones: runtime,
// metadata, storage, account, block header and events of the recorded session; only block numbers,
// hashes and the extrinsics that were sent to it are new.

#include <algorithm>
#include <filesystem>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cluster/bytes.hpp"
#include "coordinator/extrinsic.hpp"
#include "coordinator/metadata.hpp"
#include "coordinator/scripted_node.hpp"

namespace yumoe::test {

class RecordedChain {
 public:
  // Of the recorded session (runtime 218), or with the metadata of a live node of runtime 461 and its
  // defaults in storage; nobody recorded a session with that one.
  enum class Runtime { spec218, spec461 };
  explicit RecordedChain(Runtime runtime = Runtime::spec218) {
    if (runtime == Runtime::spec218) {
      const std::string raw = read_recorded("tests/conformance/data/chain/metadata_spec218_v14.gz");
      metadata_bytes_[14].assign(raw.begin(), raw.end());
      const auto setup = nlohmann::json::parse(
          read_recorded("tests/conformance/data/chain/rpc/setup_storage.json.gz"));
      for (const auto& pair : setup.at("pairs")) storage_[pair[0].get<std::string>()] = pair[1];
    } else {
      const auto golden = nlohmann::json::parse(
          read_recorded("tests/conformance/data/chain/golden_spec461.json.gz"));
      metadata_bytes_[15] = from_hex(golden["metadata"]["v15_hex"].get<std::string>());
    }
    begin(runtime == Runtime::spec218 ? 0 : 461);
  }
  // Of any runtime of which the metadata was recorded: `folder` holds metadata_v14.hex (or .hex.gz), and so
  // on, each served as a node serves it. Its defaults are in storage.
  RecordedChain(const std::string& folder, std::uint32_t spec_version) {
    for (const int version : {14, 15, 16}) {
      for (const char* ending : {".hex", ".hex.gz"}) {
        const std::string file = folder + "/metadata_v" + std::to_string(version) + ending;
        if (!std::filesystem::exists(file)) continue;
        std::string text = read_recorded(file);
        while (!text.empty() && text.back() <= ' ') text.pop_back();
        metadata_bytes_[version] = from_hex(text);
      }
    }
    begin(spec_version);
    account_ = "0x" + to_hex(metadata.storage("System", "Account").default_value);
  }

 private:
  // The recorded session's own spec version where `spec_version` is 0.
  void begin(std::uint32_t spec_version) {
    node.load_transcript();
    const auto newest = metadata_bytes_.rbegin();
    // As a node does: version 14 by its own method, version 15 on request; 16 where there is no other.
    metadata =
        Metadata::parse(metadata_bytes_.contains(15) ? metadata_bytes_.at(15) : newest->second);
    spec_version_ = spec_version;
    for (const auto& outcome : nlohmann::json::parse(read_recorded(kOutcomes))) {
      if (outcome.contains("events_hex")) events_[outcome["label"]] = outcome["events_hex"];
    }
    read_transcript();
    answer_all();
  }

 public:
  // The pool refuses the next `times` extrinsics with this error object.
  void refuse_next(int times, const std::string& error) {
    const std::lock_guard lock(mutex_);
    refusals_left_ = times;
    refusal_ = error;
  }
  // Every extrinsic included from now on has the recorded events of this case.
  void outcome(const std::string& label) {
    const std::lock_guard lock(mutex_);
    outcome_ = events_.at(label);
  }
  // As above, by the bytes of System.Events themselves.
  void outcome_bytes(const std::string& hex) {
    const std::lock_guard lock(mutex_);
    outcome_ = hex;
  }
  void set_storage(const std::string& key, const nlohmann::json& value) {
    const std::lock_guard lock(mutex_);
    storage_[key] = value;
  }
  // The same, but only in blocks that are produced from now on.
  void set_storage_later(const std::string& key, const nlohmann::json& value) {
    const std::lock_guard lock(mutex_);
    changes_[key][blocks_.size()] = value;
  }
  void upgrade() {
    const std::lock_guard lock(mutex_);
    ++spec_version_;
  }
  // Takes the newest blocks back, as dev_setHead of a fork simulator does: what stood in them is in no
  // pool, and what is built next has the same numbers and other hashes.
  void set_back(int count) {
    std::string header;
    {
      const std::lock_guard lock(mutex_);
      blocks_.resize(blocks_.size() - static_cast<std::size_t>(count), blocks_.front());
      nonce_ = blocks_.back().nonce;
      header = header_of(blocks_.size() - 1).dump();
    }
    node.notify("chain_subscribeFinalizedHeads", "chain_finalizedHead", header);
  }
  // The next block's number is `count` higher than it would be.
  void leave_out(std::size_t count) {
    const std::lock_guard lock(mutex_);
    gap_at_ = blocks_.size();
    gap_ = count;
  }
  // Lets the pool's transactions wait while blocks pass.
  void hold_pool(bool on) {
    const std::lock_guard lock(mutex_);
    pool_held_ = on;
  }
  // Lets everything that waits in the pool be lost.
  void forget_pool() {
    const std::lock_guard lock(mutex_);
    pool_.clear();
  }

  // A new block with what the pool holds, final at once, told to all who listen.
  void produce(int count = 1) {
    for (int i = 0; i < count; ++i) {
      std::string header;
      {
        const std::lock_guard lock(mutex_);
        Block block{outcome_, inherent_, {}};
        block.hash = hash_of(++blocks_made_);
        if (pool_.empty() || pool_held_) block.events.clear();
        if (!pool_held_) {
          for (const std::string& extrinsic : pool_) {
            block.extrinsics.push_back(extrinsic);
            ++nonce_;
          }
          pool_.clear();
        }
        block.nonce = nonce_;
        blocks_.push_back(block);
        header = header_of(blocks_.size() - 1).dump();
      }
      node.notify("chain_subscribeFinalizedHeads", "chain_finalizedHead", header);
    }
  }

  std::uint32_t number() {
    const std::lock_guard lock(mutex_);
    return static_cast<std::uint32_t>(number_of(blocks_.size() - 1));
  }
  // Extrinsics of ours in all blocks.
  std::vector<DecodedExtrinsic> included() {
    std::vector<DecodedExtrinsic> all;
    for (auto& [block, extrinsic] : placed()) all.push_back(std::move(extrinsic));
    return all;
  }
  // The same, with the number of the block.
  std::vector<std::pair<std::uint32_t, DecodedExtrinsic>> placed() {
    const std::lock_guard lock(mutex_);
    std::vector<std::pair<std::uint32_t, DecodedExtrinsic>> all;
    for (std::size_t index = 0; index < blocks_.size(); ++index) {
      const Block& block = blocks_[index];
      for (std::size_t i = 1; i < block.extrinsics.size(); ++i) {
        all.emplace_back(static_cast<std::uint32_t>(number_of(index)),
                         decode_extrinsic(metadata, from_hex(block.extrinsics[i])));
      }
    }
    return all;
  }

  ScriptedNode node;
  Metadata metadata;

 private:
  static constexpr std::size_t kFirst = 5000;
  static constexpr const char* kGenesisHash =
      "0x4545454545454545454545454545454545454545454545454545454545454545";
  static std::string hash_of(std::size_t made) {
    return "0x" + digest_of(as_bytes("recorded block " + std::to_string(made))).hex();
  }
  struct Block {
    std::string events;
    std::string inherent;
    std::vector<std::string> extrinsics;
    std::uint64_t nonce = 0;
    std::string hash = hash_of(0);
    Block(std::string events, std::string inherent, std::vector<std::string> none)
        : events(std::move(events)), inherent(inherent), extrinsics(std::move(none)) {
      extrinsics.push_back(std::move(inherent));
    }
  };

  std::size_t number_of(std::size_t index) const {
    return kFirst + index + (index >= gap_at_ ? gap_ : 0);
  }
  std::size_t index_of(const std::string& hash) const {
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      if (blocks_[i].hash == hash) return i;
    }
    return blocks_.size();
  }

  nlohmann::json header_of(std::size_t index) const {
    nlohmann::json header = header_;
    char number[16];
    std::snprintf(number, sizeof number, "0x%08x", static_cast<unsigned>(number_of(index)));
    header["number"] = number;
    header["parentHash"] = blocks_[index == 0 ? 0 : index - 1].hash;
    return header;
  }

  void read_transcript() {
    std::istringstream lines(read_recorded(kTranscript));
    std::map<std::uint64_t, std::string> asked;
    for (std::string line; std::getline(lines, line);) {
      const auto entry = nlohmann::json::parse(line);
      if (!entry.contains("msg")) continue;
      const auto& message = entry["msg"];
      if (message.contains("method") && message.contains("id")) {
        asked[message["id"]] = message["method"];
      } else if (message.contains("result")) {
        const std::string& method = asked[message["id"]];
        if (method == "state_getRuntimeVersion") version_ = message["result"];
        if (method == "chain_getBlock" && header_.is_null()) {
          header_ = message["result"]["block"]["header"];
          inherent_ = message["result"]["block"]["extrinsics"][0];
        }
        if (method == "state_getStorage" && account_.empty()) account_ = message["result"];
        if (method == "payment_queryInfo") fee_ = message["result"];
      }
    }
    if (spec_version_ == 0) spec_version_ = version_["specVersion"].get<unsigned>();
    blocks_.push_back(Block{"", inherent_, {}});
  }

  void answer_all() {
    using nlohmann::json;
    const auto on = [&](const std::string& method, auto handler) {
      node.answer(method, [this, handler](const std::string& params) {
        const std::lock_guard lock(mutex_);
        const json answer = handler(json::parse(params));
        if (answer.is_object() && answer.contains("error")) {
          return Reply{.result = "", .error = answer["error"].dump()};
        }
        return Reply{.result = answer.dump()};
      });
    };
    on("chain_getFinalizedHead", [this](const json&) { return blocks_.back().hash; });
    on("chain_getBlockHash", [this](const json& params) {
      const std::size_t number = params[0];
      if (number == 0) return json(kGenesisHash);
      for (std::size_t index = 0; index < blocks_.size(); ++index) {
        if (number_of(index) == number) return json(blocks_[index].hash);
      }
      return json();
    });
    on("chain_getHeader", [this](const json& params) {
      const std::size_t index = index_of(params[0]);
      return index == blocks_.size() ? json() : header_of(index);
    });
    on("chain_getBlock", [this](const json& params) {
      const std::size_t index = index_of(params[0]);
      if (index == blocks_.size()) return json();
      return json{
          {"block", {{"header", header_of(index)}, {"extrinsics", blocks_[index].extrinsics}}}};
    });
    on("state_getRuntimeVersion", [this](const json&) {
      json version = version_;
      version["specVersion"] = spec_version_;
      return version;
    });
    on("payment_queryInfo", [this](const json&) { return fee_; });
    on("state_call", [this](const json& params) {
      if (params[0] == "Metadata_metadata_at_version") {
        const Bytes asked = from_hex(params[1].get<std::string>());
        const auto found = metadata_bytes_.find(asked.empty() ? 0 : asked[0]);
        if (found != metadata_bytes_.end()) return json("0x" + to_hex(found->second));
      }
      // As an older node.
      return json{{"error", {{"code", -32601}, {"message", "Method not found"}}}};
    });
    on("state_getMetadata", [this](const json&) {
      const auto older = metadata_bytes_.find(14);
      return "0x" + to_hex(older == metadata_bytes_.end() ? metadata_bytes_.rbegin()->second
                                                          : older->second);
    });
    on("system_accountNextIndex", [this](const json&) { return nonce_ + pool_.size(); });
    on("state_getStorage", [this](const json& params) { return stored(params[0], params[1]); });
    on("state_queryStorageAt", [this](const json& params) {
      json changes = json::array();
      for (const json& key : params[0]) changes.push_back({key, stored(key, params[1])});
      return json::array({{{"block", params[1]}, {"changes", changes}}});
    });
    on("state_getKeysPaged", [this](const json& params) {
      json page = json::array();
      const std::string start = params[2].is_null() ? "" : params[2].get<std::string>();
      for (const auto& [key, value] : storage_) {
        if (key.starts_with(params[0].get<std::string>()) && key > start) page.push_back(key);
      }
      return page;
    });
    node.answer("author_submitAndWatchExtrinsic", [this](const std::string& params) {
      const std::lock_guard lock(mutex_);
      const std::string extrinsic = json::parse(params)[0];
      if (refusals_left_ > 0) {
        --refusals_left_;
        return Reply{.error = refusal_};
      }
      if (std::ranges::find(pool_, extrinsic) != pool_.end()) {
        return Reply{.error = R"({"code":1013,"message":"Transaction is already imported"})"};
      }
      if (decode_extrinsic(metadata, from_hex(extrinsic)).nonce < nonce_) {
        return Reply{.error = R"({"code":1010,"message":"{\"invalid\":{\"stale\":null}}"})"};
      }
      pool_.push_back(extrinsic);
      return Reply{.notice_method = "author_extrinsicUpdate", .notices = {R"({"ready":null})"}};
    });
    node.answer("chain_subscribeFinalizedHeads", [](const std::string&) { return Reply{}; });
  }

  nlohmann::json stored(const std::string& key, const std::string& at) {
    const std::size_t index = index_of(at);
    if (index == blocks_.size()) return nullptr;
    static const std::string events_key = "0x" + to_hex(storage_prefix("System", "Events"));
    static const std::string account_prefix = "0x" + to_hex(storage_prefix("System", "Account"));
    if (key == events_key) {
      return blocks_[index].events.empty() ? nlohmann::json("0x00")
                                           : nlohmann::json(blocks_[index].events);
    }
    if (key.starts_with(account_prefix)) {
      Bytes nonce;  // the recorded account with its first four bytes, the nonce
      for (int i = 0; i < 4; ++i) {
        nonce.push_back(static_cast<std::uint8_t>(blocks_[index].nonce >> (8 * i)));
      }
      return "0x" + to_hex(nonce) + account_.substr(10);
    }
    if (const auto changed = changes_.find(key); changed != changes_.end()) {
      const auto after = changed->second.upper_bound(index);
      if (after != changed->second.begin()) return std::prev(after)->second;
    }
    const auto found = storage_.find(key);
    return found == storage_.end() ? nlohmann::json() : found->second;
  }

  std::mutex mutex_;
  std::map<int, Bytes> metadata_bytes_;  // by version
  std::map<std::string, nlohmann::json> storage_;
  std::map<std::string, std::map<std::size_t, nlohmann::json>> changes_;  // by block's place
  std::map<std::string, std::string> events_;
  nlohmann::json version_, header_, fee_;
  std::string inherent_, account_, outcome_;
  std::vector<Block> blocks_;
  std::vector<std::string> pool_;
  bool pool_held_ = false;
  std::size_t gap_at_ = ~std::size_t{0}, gap_ = 0;  // numbers left out before the block at a place
  std::size_t blocks_made_ = 0;
  std::uint64_t nonce_ = 0;
  std::uint32_t spec_version_ = 0;
  int refusals_left_ = 0;
  std::string refusal_;
};

}  // namespace yumoe::test
