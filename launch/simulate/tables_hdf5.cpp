#include "coordinator/table_file.hpp"
#include "launch/simulate.hpp"
#include "simulate/names.hpp"

namespace yumoe {
namespace {

using Integers = std::vector<std::int64_t>;

// Amounts fit: the whole supply is 2.1e16 rao.
template <typename Rows, typename Get>
Column integers(std::string name, std::string units, std::string meaning, const Rows& rows,
                Get get) {
  Integers values;
  for (const auto& row : rows) values.push_back(static_cast<std::int64_t>(get(row)));
  return {std::move(name), std::move(units), std::move(meaning), std::move(values)};
}

template <typename Rows, typename Get>
Column reals(std::string name, std::string units, std::string meaning, const Rows& rows, Get get) {
  std::vector<double> values;
  for (const auto& row : rows) values.push_back(get(row));
  return {std::move(name), std::move(units), std::move(meaning), std::move(values)};
}

template <typename Rows, typename Get>
Column texts(std::string name, std::string meaning, const Rows& rows, Get get) {
  std::vector<std::string> values;
  for (const auto& row : rows) values.push_back(get(row));
  return {std::move(name), "", std::move(meaning), std::move(values)};
}

Table subnets_table(const ledger::Scenario& scenario, const ledger::SimulationResult& result) {
  using Row = ledger::SubnetSample;
  const auto& rows = result.subnets;
  return {
      "subnets",
      "each subnet at each sampled block",
      {integers("block", "blocks", "since the start", rows, [](const Row& r) { return r.block; }),
       integers("netuid", "1", "number of the subnet", rows, [](const Row& r) { return r.netuid; }),
       texts("subnet", "its name", rows,
             [&](const Row& r) { return subnet_name(scenario, r.netuid); }),
       reals("price", "TAO/alpha", "spot price", rows, [](const Row& r) { return r.price; }),
       reals("moving_price", "TAO/alpha", "what shares of the emission follow", rows,
             [](const Row& r) { return r.moving_price; }),
       integers("tao_reserve", "rao", "TAO in the pool", rows,
                [](const Row& r) { return r.tao_reserve; }),
       integers("alpha_reserve", "rao", "alpha in the pool", rows,
                [](const Row& r) { return r.alpha_reserve; }),
       integers("alpha_out", "rao", "alpha outside the pool", rows,
                [](const Row& r) { return r.alpha_out; }),
       integers("tao_emission", "rao/block", "TAO injected in this block", rows,
                [](const Row& r) { return r.tao_emission; })}};
}

struct Holding {
  const ledger::BalanceSample* sample;
  std::int64_t netuid;  // -1: free money
  std::uint64_t amount;
  double worth_tao;  // of the account, all places together
};

Table balances_table(const ledger::Scenario& scenario, const ledger::SimulationResult& result) {
  const std::vector<double> worths = worths_tao(result);
  std::vector<Holding> rows;
  for (std::size_t i = 0; i < result.balances.size(); ++i) {
    const ledger::BalanceSample& sample = result.balances[i];
    rows.push_back({&sample, -1, sample.free, worths[i]});
    for (const auto& [netuid, alpha] : sample.alpha)
      rows.push_back({&sample, netuid, alpha, worths[i]});
  }
  const auto place = [&](const Holding& h) {
    return h.netuid < 0 ? std::string("free")
                        : subnet_name(scenario, static_cast<std::uint16_t>(h.netuid));
  };
  return {"balances",
          "each place where an account has money, at each sampled block",
          {integers("block", "blocks", "since the start", rows,
                    [](const Holding& h) { return h.sample->block; }),
           texts("account", "the coldkey's name", rows,
                 [](const Holding& h) { return h.sample->account; }),
           integers("netuid", "1", "subnet of the stake; -1: free TAO", rows,
                    [](const Holding& h) { return h.netuid; }),
           texts("place", "name of the subnet, or free", rows, place),
           integers("amount", "rao", "of TAO if free or on root, else of the subnet's alpha", rows,
                    [](const Holding& h) { return h.amount; }),
           reals("account_worth", "TAO", "all the account has, at the block's prices", rows,
                 [](const Holding& h) { return h.worth_tao; })}};
}

Table epochs_table(const ledger::Scenario& scenario, const ledger::SimulationResult& result) {
  using Row = ledger::EpochReport;
  const auto& rows = result.epochs;
  return {
      "epochs",
      "each epoch that was due",
      {integers("block", "blocks", "when it ran", rows, [](const Row& r) { return r.block; }),
       integers("netuid", "1", "number of the subnet", rows, [](const Row& r) { return r.netuid; }),
       texts("subnet", "its name", rows,
             [&](const Row& r) { return subnet_name(scenario, r.netuid); }),
       texts("state", "run, skipped or deferred", rows,
             [](const Row& r) { return std::string(state_of(r)); }),
       integers("owner_cut", "rao", "alpha to the owner", rows,
                [](const Row& r) { return r.owner_cut; })}};
}

Table payouts_table(const ledger::SimulationResult& result, const HotkeyNames& names) {
  struct Row {
    const ledger::EpochReport* epoch;
    const ledger::Payout* payout;
  };
  std::vector<Row> rows;
  for (const ledger::EpochReport& epoch : result.epochs) {
    for (const ledger::Payout& payout : epoch.payouts) rows.push_back({&epoch, &payout});
  }
  const auto amount = [&](const char* name, const char* meaning,
                          std::uint64_t ledger::Payout::*field) {
    return integers(name, "rao", meaning, rows, [field](const Row& r) { return r.payout->*field; });
  };
  using ledger::Payout;
  return {
      "payouts",
      "what each neuron was paid in each epoch, in alpha",
      {integers("block", "blocks", "when", rows, [](const Row& r) { return r.epoch->block; }),
       integers("netuid", "1", "number of the subnet", rows,
                [](const Row& r) { return r.epoch->netuid; }),
       integers("uid", "1", "number of the neuron", rows,
                [](const Row& r) { return r.payout->uid; }),
       texts("hotkey", "its name", rows,
             [&](const Row& r) { return names.name_of(r.payout->hotkey); }),
       amount("incentive", "as a miner", &Payout::incentive),
       integers("withheld", "1", "1: the owner's own miner, not paid", rows,
                [](const Row& r) { return r.payout->withheld ? 1 : 0; }),
       amount("dividend_alpha", "to all its stakers, take included", &Payout::dividend_alpha),
       amount("dividend_root", "for root stakers to claim, take included", &Payout::dividend_root),
       amount("take", "of both, to its owner", &Payout::take),
       amount("emission", "what the metagraph shows", &Payout::emission)}};
}

}  // namespace

void write_simulation_hdf5(const ledger::Scenario& scenario, const ledger::SimulationResult& result,
                           const std::filesystem::path& file) {
  const HotkeyNames names(scenario);
  write_table_file(file,
                   {{"format", "yumoe simulation"},
                    {"ledger_digest", result.ledger.digest().hex()},
                    {"blocks", std::to_string(scenario.blocks)}},
                   {subnets_table(scenario, result), balances_table(scenario, result),
                    epochs_table(scenario, result), payouts_table(result, names)});
  std::filesystem::path plot = file;
  write_whole(plot.replace_extension(".svg"), simulation_svg(scenario, result));
}

}  // namespace yumoe
