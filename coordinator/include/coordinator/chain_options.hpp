#pragma once
// How a run, or a command, meets a chain: which one, as whom, and how patiently. Declared once for the
// section [chain] of a run's file and for the flags of `yumoe chain`.

#include <cstdint>
#include <string>

#include "cluster/option.hpp"
#include "coordinator/chain_rpc.hpp"
#include "coordinator/settlement.hpp"

namespace yumoe {

struct ChainOptions {
  std::string target = "local";
  std::int64_t netuid = 0;
  std::string wallet;
  std::string hotkey = "default";
  std::string coldkey;
  std::string wallets = "~/.bittensor/wallets";
  std::int64_t password_fd = -1;
  ChainRpcOptions rpc;
  settlement::SettlementOptions settlement;

  template <typename Visitor>
  void visit(Visitor& option) {
    option(
        "target", target,
        {.choices = "local|substrate",
         .help = "where a run's weights become money: its own ledger alone, or a chain as well"});
    option("netuid", netuid, {.min = 0, .max = 65'535, .help = "the subnet on the chain"});
    option("wallet", wallet, {.help = "name of the wallet whose hotkey sets the weights"});
    option("hotkey", hotkey,
           {.help = "a hotkey of the wallet, a key file (with a '/'), or a secret "
                    "URI such as //Alice for tests"});
    option("coldkey", coldkey,
           {.help = "key file or test URI that pays for `register` and staking; "
                    "empty: the wallet's; a run never opens it"});
    option("wallets", wallets, {.help = "folder in which wallets lie"});
    option("password_fd", password_fd,
           {.min = -1,
            .max = 1'000'000,
            .help = "open file descriptor that gives the password; -1: the "
                    "variable BT_PW_..., then the terminal"});
    rpc.visit(option);
    settlement.visit(option);
  }
};

}  // namespace yumoe
