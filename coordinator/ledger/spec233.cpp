#include "ledger/spec233.hpp"

#include <algorithm>

#include "ledger/block.hpp"
#include "ledger/books.hpp"
#include "ledger/payout.hpp"

namespace yumoe::ledger {
namespace spec233 {
namespace {

I96F32 whole(std::uint64_t value) { return I96F32::from_integer(value); }

I96F32 price_of(const Subnet& subnet) {
  if (!subnet.dynamic) return I96F32::one();
  return whole(subnet.reserves.tao).safe_div(whole(subnet.reserves.alpha));
}

I96F32 moving_price_of(const Subnet& subnet) {
  return subnet.dynamic ? subnet.moving_price : I96F32::one();
}

std::optional<std::uint64_t> output(const Subnet& subnet, Side side, std::uint64_t amount) {
  if (!subnet.dynamic) {
    if (side == Side::sell && subnet.reserves.tao < amount) return std::nullopt;
    return amount;
  }
  const bool buy = side == Side::buy;
  return constant_product_output(ConstantProduct::spec233,
                                 buy ? subnet.reserves.tao : subnet.reserves.alpha,
                                 buy ? subnet.reserves.alpha : subnet.reserves.tao, amount);
}

// Sells alpha that is counted in alpha_out; nothing moves when the pool refuses.
std::uint64_t sell(LedgerState& state, Subnet& subnet, std::uint64_t alpha) {
  const auto tao = output(subnet, Side::sell, alpha);
  if (!tao) return 0;
  subnet.reserves.alpha += alpha;
  subnet.alpha_out -= alpha;
  subnet.reserves.tao -= *tao;
  state.total_stake = books::minus(state.total_stake, *tao);
  subnet.volume = books::plus(subnet.volume, *tao);
  return *tao;
}

struct Terms {
  std::uint64_t tao_in = 0;
  std::uint64_t alpha_in = 0;
  std::uint64_t alpha_out = 0;
};

Terms terms_of(const Subnet& subnet, std::uint64_t emission, I96F32 all_prices) {
  Terms terms;
  const I96F32 tao = whole(emission).saturating_mul(moving_price_of(subnet)).safe_div(all_prices);
  terms.alpha_out = block_emission(subnet.reserves.alpha + subnet.alpha_out);
  const I96F32 alpha = whole(terms.alpha_out);
  terms.alpha_in = std::min(tao.checked_div(price_of(subnet)).value_or(alpha), alpha).to_u64();
  const bool closed =
      !subnet.parameters.registration_allowed && subnet.parameters.pow_registration_allowed;
  terms.tao_in = closed ? 0 : tao.to_u64();
  return terms;
}

void inject(LedgerState& state, Subnet& subnet, const Terms& terms) {
  subnet.tao_in_emission = terms.tao_in;
  subnet.alpha_in_emission = terms.alpha_in;
  subnet.alpha_out_emission = terms.alpha_out;
  subnet.reserves.alpha += terms.alpha_in;
  subnet.alpha_out += terms.alpha_out;
  subnet.alpha_adrift += static_cast<std::int64_t>(terms.alpha_out);
  subnet.reserves.tao += terms.tao_in;
  state.total_stake = books::plus(state.total_stake, terms.tao_in);
  state.issuance += terms.tao_in;
}

// Moves alpha between what is adrift and a bucket.
void set_aside(Subnet& subnet, std::uint64_t& bucket, std::uint64_t alpha) {
  bucket += alpha;
  subnet.alpha_adrift -= static_cast<std::int64_t>(alpha);
}

void fill_buckets(LedgerState& state, Subnet& subnet, const Terms& terms) {
  const I96F32 share = whole(state.parameters.owner_cut).safe_div(whole(65535));
  I96F32 alpha = whole(terms.alpha_out);
  const I96F32 cut = alpha.saturating_mul(share);
  alpha = alpha.saturating_sub(cut);
  set_aside(subnet, subnet.pending.owner_cut, cut.to_u64());
  const I96F32 part = root_proportion(state.subnets.at(kRootNetuid).reserves.tao,
                                      share_of_u64(state.parameters.tao_weight),
                                      subnet.reserves.alpha, subnet.alpha_out)
                          .convert<I96F32>();
  const I96F32 root = part.saturating_mul(alpha).saturating_mul(I96F32::from_bits(Int128{1} << 31));
  const std::uint64_t before = subnet.alpha_out;
  const std::uint64_t tao = sell(state, subnet, root.to_u64());
  subnet.alpha_adrift -= static_cast<std::int64_t>(before - subnet.alpha_out);
  subnet.pending_alpha_swapped += root.to_u64();
  set_aside(subnet, subnet.pending_emission, alpha.saturating_sub(root).to_u64());
  subnet.pending_root_tao += tao;
}

void move_price(const LedgerState& state, Subnet& subnet) {
  const I96F32 weight = I96F32::from_bits(static_cast<Int128>(state.parameters.moving_alpha_bits));
  subnet.moving_price = weight.saturating_mul(price_of(subnet))
                            .saturating_add(I96F32::one().saturating_sub(weight).saturating_mul(
                                moving_price_of(subnet)));
}

bool due(const LedgerState& state, const Subnet& subnet) {
  const std::uint64_t tempo = subnet.parameters.tempo;
  if (subnet.pending_epoch_at > 0 && state.block >= subnet.pending_epoch_at) return true;
  return tempo != 0 && (state.block + subnet.netuid + 1) % (tempo + 1) == tempo;
}

// One drain. The chain pays validators their whole dividend in alpha and, beside it, the TAO of the
// root alpha sold, so alpha_adrift falls below what was issued; we keep that.
class Drain {
 public:
  Drain(LedgerState& state, Subnet& subnet)
      : state_(state), subnet_(subnet), weight_(share_of_u64(state.parameters.tao_weight)) {
    report_.netuid = subnet.netuid;
    report_.block = state.block;
  }

  EpochReport run() {
    const std::uint64_t emission = subnet_.pending_emission + subnet_.pending_alpha_swapped;
    const std::uint64_t owner_cut = subnet_.pending.owner_cut;
    subnet_.alpha_adrift += static_cast<std::int64_t>(subnet_.pending_emission + owner_cut);
    subnet_.pending_emission = 0;
    subnet_.pending_alpha_swapped = 0;
    subnet_.pending.owner_cut = 0;
    report_.owner_cut = owner_cut;
    const EpochOutput output = run_epoch(epoch_input(state_, subnet_, emission));
    store_epoch(subnet_, output);
    for (std::size_t uid = 0; uid < subnet_.neurons.size(); ++uid) {
      Payout payout;
      payout.uid = static_cast<std::uint16_t>(uid);
      payout.hotkey = subnet_.neurons[uid].hotkey;
      payout.incentive = output.server_emission[uid];
      payout.emission = output.emission[uid];
      report_.payouts.push_back(payout);
      incentives_[payout.hotkey] += payout.incentive;
      share(payout.hotkey, output.validator_emission[uid]);
    }
    pay_out_tao();
    if (subnet_.owner_hotkey != AccountId{}) {
      give(subnet_.owner_hotkey, subnet_.owner_coldkey, owner_cut);
    }
    for (const auto& [hotkey, amount] : incentives_) {
      give(hotkey, state_.hotkeys.at(hotkey).coldkey, amount);
    }
    pay_alpha();
    pay_tao();
    return std::move(report_);
  }

 private:
  void give(const AccountId& hotkey, const AccountId& coldkey, std::uint64_t alpha) {
    if (books::stake(state_, subnet_, hotkey, coldkey, alpha)) {
      subnet_.alpha_adrift -= static_cast<std::int64_t>(alpha);
    }
  }

  OwnStake own(const AccountId& hotkey) const {
    return {books::total_of(subnet_, hotkey), books::root_stake_of(state_, hotkey)};
  }

  void share(const AccountId& hotkey, std::uint64_t dividend) {
    static const Family kNone;
    const auto at = subnet_.families.find(hotkey);
    const Family& family = at == subnet_.families.end() ? kNone : at->second;
    std::vector<std::uint64_t> children;
    for (const Relation& child : family.children) children.push_back(child.proportion);
    std::vector<ParentShare> parents;
    for (const Relation& parent : family.parents) {
      parents.push_back(
          {parent.proportion, own(parent.key),
           state_.hotkeys.at(parent.key).coldkey == state_.hotkeys.at(hotkey).coldkey});
    }
    const ParentDividends parts =
        divide_among_parents(dividend, own(hotkey), children, parents, weight_,
                             books::u16_share(family.childkey_take.value_or(0)), U96F32::zero());
    // The hotkey itself gets what the parents' floors leave, no second floor.
    std::uint64_t left = dividend;
    for (std::size_t i = 0; i < parts.parents.size(); ++i) {
      dividends_[family.parents[i].key] += books::whole(parts.parents[i]);
      left -= parts.parents[i];
    }
    dividends_[hotkey] += books::whole(left);
  }

  // The TAO of the sold root alpha, by each hotkey's root dividend.
  void pay_out_tao() {
    std::map<AccountId, OwnStake> stakes;
    for (const auto& [hotkey, dividend] : dividends_) stakes[hotkey] = own(hotkey);
    tao_ = split_dividends(dividends_, stakes, 0, subnet_.pending_root_tao, weight_).root;
  }

  U96F32 taken(const AccountId& hotkey, U96F32 amount) const {
    const Hotkey& account = state_.hotkeys.at(hotkey);
    return books::u16_share(account.take.value_or(state_.parameters.default_take))
        .saturating_mul(amount);
  }

  void pay_alpha() {
    subnet_.alpha_dividends.clear();
    for (const auto& [hotkey, amount] : dividends_) {
      const U96F32 take = taken(hotkey, amount);
      const std::uint64_t rest = amount.saturating_sub(take).to_u64();
      give(hotkey, state_.hotkeys.at(hotkey).coldkey, take.to_u64());
      if (rest > 0) {
        books::pool_of(state_, subnet_, hotkey).deposit_for_all(rest);
        subnet_.alpha_adrift -= static_cast<std::int64_t>(rest);
      }
      subnet_.alpha_dividends[hotkey] = rest;
      note(hotkey, &Payout::dividend_alpha, rest + take.to_u64(), take.to_u64());
    }
  }

  // Root stake grows without SubnetTAO of root: the chain's books leave that out, ours keep it as TAO
  // waiting beside root.
  void pay_tao() {
    Subnet& root = state_.subnets.at(kRootNetuid);
    subnet_.tao_dividends.clear();
    std::uint64_t paid = 0;
    for (const auto& [hotkey, amount] : tao_) {
      const U96F32 take = taken(hotkey, amount);
      const std::uint64_t rest = amount.saturating_sub(take).to_u64();
      if (books::stake(state_, root, hotkey, state_.hotkeys.at(hotkey).coldkey, take.to_u64())) {
        paid += take.to_u64();
      }
      if (rest > 0) books::pool_of(state_, root, hotkey).deposit_for_all(rest);
      paid += rest;
      subnet_.tao_dividends[hotkey] = rest;
      note(hotkey, &Payout::dividend_root, rest + take.to_u64(), take.to_u64());
    }
    YUMOE_ASSERT(paid <= subnet_.pending_root_tao);
    root.alpha_out += paid;
    root.pending_root_tao += paid;
    state_.burned += subnet_.pending_root_tao - paid;
    subnet_.pending_root_tao = 0;
  }

  void note(const AccountId& hotkey, std::uint64_t Payout::*field, std::uint64_t amount,
            std::uint64_t take) {
    for (Payout& payout : report_.payouts) {
      if (payout.hotkey != hotkey) continue;
      payout.*field = amount;
      payout.take += take;
    }
  }

  LedgerState& state_;
  Subnet& subnet_;
  U96F32 weight_;
  EpochReport report_;
  std::map<AccountId, std::uint64_t> incentives_;
  std::map<AccountId, U96F32> dividends_;
  std::map<AccountId, U96F32> tao_;
};

}  // namespace

std::uint64_t simulated(const Subnet& subnet, Side side, std::uint64_t amount) {
  return output(subnet, side, amount).value_or(0);
}

std::uint64_t add_stake(LedgerState& state, Subnet& subnet, const AccountId& hotkey,
                        const AccountId& coldkey, std::uint64_t tao, std::uint64_t fee) {
  const std::uint64_t spent = books::minus(tao, fee);
  state.coldkeys[coldkey].free -= tao;
  state.total_stake = books::plus(state.total_stake, tao - spent);
  const std::uint64_t alpha = output(subnet, Side::buy, spent).value_or(0);
  subnet.reserves.tao += tao;
  if (subnet.dynamic) subnet.reserves.alpha -= alpha;
  subnet.alpha_out += alpha;
  subnet.alpha_adrift += static_cast<std::int64_t>(alpha);
  state.total_stake = books::plus(state.total_stake, spent);
  subnet.volume = books::plus(subnet.volume, spent);
  if (books::stake(state, subnet, hotkey, coldkey, alpha)) {
    subnet.alpha_adrift -= static_cast<std::int64_t>(alpha);
  }
  return alpha;
}

std::uint64_t remove_stake(LedgerState& state, Subnet& subnet, const AccountId& hotkey,
                           const AccountId& coldkey, std::uint64_t alpha, std::uint64_t fee) {
  books::unstake(state, subnet, hotkey, coldkey, alpha);
  subnet.alpha_adrift += static_cast<std::int64_t>(alpha);
  const std::uint64_t before = subnet.alpha_out;
  const std::uint64_t tao = sell(state, subnet, alpha);
  subnet.alpha_adrift -= static_cast<std::int64_t>(before - subnet.alpha_out);
  const std::uint64_t received = books::minus(tao, fee);
  subnet.reserves.tao += tao - received;
  state.total_stake = books::plus(state.total_stake, tao - received);
  state.coldkeys[coldkey].free += received;
  return received;
}

Outcome<Done> apply_to(LedgerState& state, const AddStake& operation) {
  Subnet* subnet = books::find(state, operation.netuid);
  if (subnet == nullptr) return LedgerError::SubnetNotExists;
  if (books::free_of(state, operation.coldkey) < operation.tao)
    return LedgerError::NotEnoughBalanceToStake;
  if (!books::known(state, operation.hotkey)) return LedgerError::HotKeyAccountNotExists;
  if (operation.tao < kMinStake + kStakeFee) return LedgerError::AmountTooLow;
  const std::uint64_t alpha = simulated(*subnet, Side::buy, operation.tao - kStakeFee);
  if (alpha == 0 || !books::stakeable(*subnet, operation.hotkey, alpha)) {
    return LedgerError::InsufficientLiquidity;
  }
  add_stake(state, *subnet, operation.hotkey, operation.coldkey, operation.tao, kStakeFee);
  return Done{};
}

Outcome<Done> apply_to(LedgerState& state, const RemoveStake& operation) {
  Subnet* subnet = books::find(state, operation.netuid);
  if (subnet == nullptr) return LedgerError::SubnetNotExists;
  if (!books::known(state, operation.hotkey)) return LedgerError::HotKeyAccountNotExists;
  if (operation.alpha == 0 ||
      books::stake_of(*subnet, operation.hotkey, operation.coldkey) < operation.alpha) {
    return LedgerError::NotEnoughStakeToWithdraw;
  }
  if (simulated(*subnet, Side::sell, operation.alpha) < kMinStake + kStakeFee)
    return LedgerError::AmountTooLow;
  remove_stake(state, *subnet, operation.hotkey, operation.coldkey, operation.alpha, kStakeFee);
  return Done{};
}

}  // namespace spec233

BlockReport step_spec233(LedgerState& state) {
  using namespace spec233;
  BlockReport report;
  state.block += 1;
  report.block = state.block;
  decay_registration_prices(state);
  const std::uint64_t issued = state.issuance;
  const std::uint64_t emission = block_emission(issued);
  std::vector<Subnet*> subnets;
  I96F32 all_prices;
  for (auto& [netuid, subnet] : state.subnets) {
    if (netuid == kRootNetuid) continue;
    subnets.push_back(&subnet);
    all_prices = all_prices.saturating_add(moving_price_of(subnet));
  }
  std::vector<Terms> terms;
  for (const Subnet* subnet : subnets) terms.push_back(terms_of(*subnet, emission, all_prices));
  for (std::size_t i = 0; i < subnets.size(); ++i) inject(state, *subnets[i], terms[i]);
  for (std::size_t i = 0; i < subnets.size(); ++i) fill_buckets(state, *subnets[i], terms[i]);
  for (Subnet* subnet : subnets) move_price(state, *subnet);
  for (Subnet* subnet : subnets) {
    if (!due(state, *subnet)) {
      subnet->blocks_since_last_step += 1;
      continue;
    }
    subnet->blocks_since_last_step = 0;
    subnet->last_step_block = state.block;
    subnet->last_epoch_block = state.block;
    subnet->pending_epoch_at = 0;
    subnet->epoch_index += 1;
    report.epochs.push_back(Drain(state, *subnet).run());
  }
  report.tao_emission = state.issuance - issued;
  return report;
}

}  // namespace yumoe::ledger
