#pragma once
// A chain in memory for the settlement machine: forks, finality, a pool that forgets, runtime
// upgrades, other users of the same key. It believes nothing the machine says; it counts effects.

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cluster/random.hpp"
#include "coordinator/settlement.hpp"

namespace yumoe::test {
using namespace settlement;  // NOLINT: short names in a test

struct SimulatedTransaction {
  std::string intent;  // empty: of somebody else with the same key
  PublicKey signer;
  Attempt attempt;
};

struct SimulatedBlock {
  std::uint32_t number = 0;
  Digest hash;
  std::uint32_t spec_version = 0;  // that executes the next block
  struct Included {
    SimulatedTransaction transaction;
    bool success = false;
    std::string error;
  };
  std::vector<Included> included;
  std::map<PublicKey, std::uint64_t> nonces;  // after it
};

class SimulatedChain {
 public:
  explicit SimulatedChain(std::uint64_t seed) : random_(seed) {
    SimulatedBlock genesis;
    genesis.number = 100;
    genesis.spec_version = 1;
    genesis.hash = digest_of(as_bytes("genesis"));
    blocks_.push_back(genesis);
  }

  // How a call of this intent ends when it is executed, by how often it was before.
  std::map<std::string, std::vector<std::string>> errors;

  const SimulatedBlock& finalized() const { return blocks_[finalized_]; }
  const SimulatedBlock& best() const { return blocks_.back(); }
  const SimulatedBlock& at(std::uint32_t number) const {
    return blocks_[number - blocks_.front().number];
  }

  void produce(double inclusion) {
    SimulatedBlock block;
    block.number = best().number + 1;
    block.spec_version = best().spec_version;
    block.nonces = best().nonces;
    const std::uint32_t executing_spec = best().spec_version;
    if (upgrade_waits_) {
      ++block.spec_version;
      upgrade_waits_ = false;
    }
    std::vector<SimulatedTransaction> kept;
    for (SimulatedTransaction& transaction : pool_) {
      // As real pools do: what can never be valid again is thrown out.
      if (transaction.attempt.spec_version < executing_spec ||
          block.number >= transaction.attempt.death() ||
          transaction.attempt.nonce < nonce_after(block, transaction.signer)) {
        continue;
      }
      const bool valid = valid_in(transaction, block.number, executing_spec, block.nonces);
      if (!valid || random_.uniform() >= inclusion) {
        kept.push_back(std::move(transaction));
        continue;
      }
      ++block.nonces[transaction.signer];
      SimulatedBlock::Included included{transaction, true, ""};
      if (const std::string error = error_now(transaction.intent); !error.empty()) {
        included.success = false;
        included.error = error;
      }
      block.included.push_back(std::move(included));
    }
    pool_ = std::move(kept);
    const std::string text = best().hash.hex() + std::to_string(random_());
    block.hash = digest_of(as_bytes(text));
    blocks_.push_back(std::move(block));
  }

  void finalize(std::size_t unfinalized_max) {
    while (blocks_.size() - 1 - finalized_ > unfinalized_max) ++finalized_;
  }

  // Throws away what is not final; its transactions come back to the pool or are forgotten.
  void reorganise(double remembered) {
    while (blocks_.size() - 1 > finalized_) {
      for (auto& included : blocks_.back().included) {
        if (random_.uniform() < remembered) pool_.push_back(included.transaction);
      }
      blocks_.pop_back();
    }
  }

  void upgrade() { upgrade_waits_ = true; }
  void forget_pool() { pool_.clear(); }

  // Somebody else uses the key.
  void foreign(const PublicKey& signer) {
    SimulatedTransaction transaction;
    transaction.signer = signer;
    transaction.attempt.nonce = pool_nonce(signer);
    transaction.attempt.birth = finalized().number;
    transaction.attempt.period = 64;
    transaction.attempt.checkpoint = finalized().hash;
    transaction.attempt.spec_version = best().spec_version;
    pool_.insert(pool_.begin() + static_cast<std::ptrdiff_t>(random_.below(pool_.size() + 1)),
                 transaction);
  }

  std::uint64_t pool_nonce(const PublicKey& signer) const {
    std::uint64_t nonce = nonce_after(best(), signer);
    bool moved = true;
    while (moved) {
      moved = false;
      for (const auto& waiting : pool_) {
        if (waiting.signer == signer && waiting.attempt.nonce == nonce) {
          ++nonce;
          moved = true;
        }
      }
    }
    return nonce;
  }

  static std::uint64_t nonce_after(const SimulatedBlock& block, const PublicKey& signer) {
    const auto found = block.nonces.find(signer);
    return found == block.nonces.end() ? 0 : found->second;
  }

  // As a node's pool: nullopt if taken.
  std::optional<PoolVerdict> submit(const SimulatedTransaction& transaction) {
    using Kind = PoolVerdict::Kind;
    const Attempt& attempt = transaction.attempt;
    for (const auto& waiting : pool_) {
      if (waiting.attempt.hash == attempt.hash) {
        return PoolVerdict{Kind::already_imported, 0, "AlreadyImported"};
      }
      if (waiting.signer == transaction.signer && waiting.attempt.nonce == attempt.nonce) {
        return PoolVerdict{Kind::priority_low, 0, "PriorityTooLow"};
      }
    }
    if (attempt.spec_version != best().spec_version) {
      return PoolVerdict{Kind::bad_proof, 0, "BadProof"};
    }
    if (attempt.nonce < nonce_after(best(), transaction.signer)) {
      return PoolVerdict{Kind::stale, 0, "Stale"};
    }
    if (!in_era(attempt, best().number + 1)) {
      return PoolVerdict{Kind::ancient_birth, 0, "AncientBirthBlock"};
    }
    pool_.push_back(transaction);
    return std::nullopt;
  }

  // Successes of an intent in finalized blocks.
  int effects(const std::string& intent) const {
    int count = 0;
    for (std::size_t i = 0; i <= finalized_; ++i) {
      for (const auto& included : blocks_[i].included) {
        count += included.success && included.transaction.intent == intent;
      }
    }
    return count;
  }

 private:
  bool in_era(const Attempt& attempt, std::uint32_t number) const {
    if (number <= attempt.birth || number >= attempt.death()) return false;
    if (attempt.birth > best().number) return false;
    return at(attempt.birth).hash == attempt.checkpoint;
  }
  bool valid_in(const SimulatedTransaction& transaction, std::uint32_t number, std::uint32_t spec,
                const std::map<PublicKey, std::uint64_t>& nonces) const {
    const auto nonce = nonces.find(transaction.signer);
    return transaction.attempt.spec_version == spec && in_era(transaction.attempt, number) &&
           transaction.attempt.nonce == (nonce == nonces.end() ? 0 : nonce->second);
  }
  std::string error_now(const std::string& intent) {
    const auto found = errors.find(intent);
    if (found == errors.end() || found->second.empty()) return "";
    const std::string error = found->second.front();
    // The last one stays for ever when it is marked so.
    if (found->second.size() > 1 || error.front() != '!')
      found->second.erase(found->second.begin());
    return error.front() == '!' ? error.substr(1) : error;
  }

  Random random_;
  std::vector<SimulatedBlock> blocks_;
  std::size_t finalized_ = 0;
  std::vector<SimulatedTransaction> pool_;
  bool upgrade_waits_ = false;
};

}  // namespace yumoe::test
