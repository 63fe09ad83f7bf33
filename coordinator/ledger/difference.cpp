// Where two ledgers part, in words.
#include "coordinator/ledger.hpp"

namespace yumoe::ledger {
namespace {

// Keeps the first difference it is told of.
class Difference {
 public:
  template <typename Value>
  Difference& number(const std::string& name, const Value& recorded, const Value& computed) {
    if (text_.empty() && recorded != computed) {
      text_ =
          name + " is " + std::to_string(computed) + ", recorded is " + std::to_string(recorded);
    }
    return *this;
  }
  template <typename Value>
  Difference& thing(const std::string& name, const Value& recorded, const Value& computed) {
    if (text_.empty() && !(recorded == computed)) text_ = name + " differs";
    return *this;
  }
  // Each key that one of both has; `compare` gets two values.
  template <typename Map, typename Compare>
  Difference& each(const Map& recorded, const Map& computed, const std::string& kind,
                   Compare compare) {
    for (const auto& [key, value] : recorded) {
      if (!text_.empty()) return *this;
      const auto other = computed.find(key);
      if (other == computed.end()) {
        text_ = kind + name_of_key(key) + " is gone";
      } else {
        compare(kind + name_of_key(key), value, other->second);
      }
    }
    for (const auto& [key, value] : computed) {
      if (text_.empty() && !recorded.contains(key)) text_ = kind + name_of_key(key) + " is new";
    }
    return *this;
  }
  const std::string& text() const { return text_; }

 private:
  static std::string name_of_key(const AccountId& account) { return to_hex(account); }
  static std::string name_of_key(std::uint64_t number) { return std::to_string(number); }

  std::string text_;
};

template <typename Parameters>
void compare_parameters(Difference& out, const std::string& name, const Parameters& recorded,
                        const Parameters& computed) {
  Parameters copy = recorded;
  copy.visit_named([&](std::string_view parameter, auto& field, const Bounds&) {
    out.number(name + std::string(parameter), static_cast<std::uint64_t>(field),
               *parameter_value(computed, parameter));
  });
}

void compare_neurons(Difference& out, const std::string& name, const Subnet& recorded,
                     const Subnet& computed) {
  out.number(name + "number of neurons", recorded.neurons.size(), computed.neurons.size());
  for (std::size_t uid = 0; uid < std::min(recorded.neurons.size(), computed.neurons.size());
       ++uid) {
    const Neuron& a = recorded.neurons[uid];
    const Neuron& b = computed.neurons[uid];
    const std::string neuron = name + "uid " + std::to_string(uid) + ": ";
    out.thing(neuron + "hotkey", a.hotkey, b.hotkey);
    out.number(neuron + "registration block", a.registered_at, b.registered_at);
    out.number(neuron + "emission", a.emission, b.emission);
    out.number(neuron + "dividends", a.dividends, b.dividends);
    out.number(neuron + "consensus", a.consensus, b.consensus);
    out.thing(neuron + "what the epoch said of it", a, b);
  }
}

void compare_subnet(Difference& out, const std::string& name, const Subnet& a, const Subnet& b) {
  compare_parameters(out, name, a.parameters, b.parameters);
  out.thing(name + "owner", a.owner_coldkey, b.owner_coldkey);
  out.number(name + "TAO in the pool", a.reserves.tao, b.reserves.tao);
  out.number(name + "alpha in the pool", a.reserves.alpha, b.reserves.alpha);
  out.number(name + "alpha outside the pool", a.alpha_out, b.alpha_out);
  out.number(name + "protocol alpha", a.protocol_alpha, b.protocol_alpha);
  out.number(name + "pending server alpha", a.pending.server, b.pending.server);
  out.number(name + "pending validator alpha", a.pending.validator, b.pending.validator);
  out.number(name + "pending root alpha", a.pending.root, b.pending.root);
  out.number(name + "pending owner cut", a.pending.owner_cut, b.pending.owner_cut);
  compare_neurons(out, name, a, b);
  out.each(a.stakes, b.stakes, name + "stake behind ",
           [&](const std::string& stake, const SharePool& was, const SharePool& is) {
             out.number(stake, was.total(), is.total());
             out.thing(stake + ": nominators' shares", was, is);
           });
  out.each(a.families, b.families, name + "family of ",
           [&](const std::string& family, const Family& was, const Family& is) {
             out.thing(family, was, is);
           });
  out.each(a.claims, b.claims, name + "root claims on ",
           [&](const std::string& claim, const RootClaim& was, const RootClaim& is) {
             out.thing(claim, was, is);
           });
  out.thing(name + "weights, bonds or commits", a.mechanisms, b.mechanisms);
  out.number(name + "last epoch", a.last_epoch_block, b.last_epoch_block);
  out.thing(name + "prices, flows or schedule", a, b);
}

}  // namespace

std::string first_difference(const LedgerState& recorded, const LedgerState& computed) {
  Difference out;
  out.number("block", recorded.block, computed.block);
  out.number("issuance", recorded.issuance, computed.issuance);
  compare_parameters(out, "network's ", recorded.parameters, computed.parameters);
  out.each(recorded.coldkeys, computed.coldkeys, "account ",
           [&](const std::string& name, const Coldkey& was, const Coldkey& is) {
             out.number("free balance of " + name, was.free, is.free);
             out.thing(name, was, is);
           });
  out.each(recorded.subnets, computed.subnets, "subnet ",
           [&](const std::string& name, const Subnet& was, const Subnet& is) {
             compare_subnet(out, name + ": ", was, is);
           });
  out.each(recorded.hotkeys, computed.hotkeys, "hotkey ",
           [&](const std::string& name, const Hotkey& was, const Hotkey& is) {
             out.thing(name, was, is);
           });
  out.each(recorded.proposals, computed.proposals, "proposal ",
           [&](const std::string& name, const Proposal& was, const Proposal& is) {
             out.thing(name, was, is);
           });
  out.number("total stake", recorded.total_stake, computed.total_stake);
  out.number("burned", recorded.burned, computed.burned);
  out.thing("something beside accounts and subnets", recorded, computed);
  return out.text();
}

}  // namespace yumoe::ledger
