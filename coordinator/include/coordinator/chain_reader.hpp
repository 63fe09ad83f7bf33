#pragma once
// What a subnet looks like in one finalized block: neurons, hyperparameters, pool, price, balances.
// Every item is looked up by name in the runtime's metadata; what a runtime does not have is
// absent, never zero.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cluster/ids.hpp"
#include "coordinator/chain_rpc.hpp"
#include "coordinator/metadata.hpp"

namespace yumoe {

struct ServedAddress {
  std::string ip;  // "" if none is served
  std::uint16_t port = 0;
};

struct ChainNeuron {
  Uid uid;
  std::string hotkey;   // SS58 with prefix 42, whatever the chain's own is
  std::string coldkey;  // the same
  std::optional<bool> active;
  std::optional<bool> validator_permit;
  std::optional<std::uint16_t> incentive, dividends, consensus, validator_trust, trust, rank;
  std::optional<std::uint64_t> emission;     // rao of alpha (of TAO before dTAO) in the last epoch
  std::optional<std::uint64_t> stake;        // rao of alpha (of TAO before dTAO) on the hotkey
  std::optional<std::uint64_t> last_update;  // block
  std::optional<std::uint64_t> registered_at;  // block
  ServedAddress axon;
};

using WeightRow = std::vector<std::pair<std::uint16_t, std::uint16_t>>;  // (uid, value)

struct Metagraph {
  Netuid netuid;
  std::uint32_t block = 0;
  Digest block_hash;
  std::uint32_t spec_version = 0;
  std::vector<ChainNeuron> neurons;  // by uid
  std::vector<WeightRow> weights;    // by uid
  std::vector<WeightRow> bonds;      // by uid
};

struct SubnetPool {
  std::optional<std::uint64_t> tao;        // rao in the pool
  std::optional<std::uint64_t> alpha_in;   // rao of alpha in the pool
  std::optional<std::uint64_t> alpha_out;  // rao of alpha outside
  std::optional<double> moving_price;      // TAO an alpha; for people, never for payouts
  std::optional<double> price;             // TAO an alpha now, by `formula`
  // "fixed" (no pool: 1), "balancer" (weighted reserves), "concentrated" (a square root that the chain
  // keeps) or "constant product" (tao / alpha_in): whichever this runtime has.
  std::string formula;
  std::optional<double> quote_weight;  // TAO's weight, of a balancer
};

struct ChainBalance {
  std::uint64_t nonce = 0;
  std::string free;      // rao, decimal
  std::string reserved;  // rao, decimal
};

// The newest runtime's metadata, kept from block to block: it is some hundred kilobytes, and changes with
// the runtime alone. One thread.
class MetadataCache {
 public:
  std::shared_ptr<const Metadata> at(ChainNode& node, const Digest& block,
                                     std::uint32_t spec_version);

 private:
  std::shared_ptr<const Metadata> metadata_;
  std::uint32_t spec_version_ = 0;
};

class ChainReader {
 public:
  // Reads everything at `block`; nullopt: the newest finalized one. `cache` is used here only.
  // Throws what ChainNode throws.
  explicit ChainReader(ChainNode& node, const std::optional<Digest>& block = {},
                       MetadataCache* cache = nullptr);
  // By number. Throws Error{usage} if there is no such block yet, Error{chain_state_pruned} if the node does
  // not know it.
  static ChainReader at(ChainNode& node, std::uint32_t number);

  std::uint32_t block() const { return number_; }
  const Digest& block_hash() const { return block_; }
  const RuntimeVersion& runtime() const { return version_; }
  const Metadata& metadata() const { return *metadata_; }
  std::shared_ptr<const Metadata> share_metadata() const { return metadata_; }

  // Existing subnets, ascending.
  std::vector<Netuid> subnets();
  Metagraph metagraph(Netuid netuid);
  // One validator's row alone.
  WeightRow weights_of(Netuid netuid, Uid validator);
  // Every SubtensorModule item that is kept by netuid alone and is a plain value: name as in the
  // metadata and value as JSON text, in the metadata's order.
  std::vector<std::pair<std::string, std::string>> hyperparameters(Netuid netuid);
  SubnetPool pool(Netuid netuid);
  ChainBalance balance(const std::string& ss58);
  // The neuron of a hotkey; nullopt: it is not registered there.
  std::optional<Uid> uid_of(Netuid netuid, const std::string& hotkey);
  // What sending this extrinsic would cost now, rao, decimal; only its length and call count, so the
  // signature may be any. Throws Error{rpc_failed} where the runtime cannot tell.
  std::string fee(ByteView extrinsic);

  // Any storage value, as the codec's JSON; `keys` is a JSON array. The item's default where
  // absent.
  Json value(std::string_view pallet, std::string_view item, const Json& keys);

 private:
  bool has(std::string_view item) const { return has("SubtensorModule", item); }
  bool has(std::string_view pallet, std::string_view item) const;
  void read_price(SubnetPool& pool, const Json& keys);
  std::optional<std::uint64_t> number_of(std::string_view item, const Json& keys);
  std::vector<Json> values(std::string_view item, const std::vector<Json>& keys);
  std::vector<WeightRow> rows(std::string_view item, Netuid netuid, std::size_t count);
  void read_columns(Metagraph& graph);

  ChainNode& node_;
  Digest block_;
  std::uint32_t number_ = 0;
  RuntimeVersion version_;
  std::shared_ptr<const Metadata> metadata_;
};

}  // namespace yumoe
