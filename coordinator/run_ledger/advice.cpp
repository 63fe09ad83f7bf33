#include "coordinator/ledger_advice.hpp"

namespace yumoe {

// A switch without default: a new error name does not compile without its sentence.
std::string_view advice_on(ledger::LedgerError error) {
  using E = ledger::LedgerError;
  switch (error) {
    case E::CommitRevealEnabled:
      return "the subnet seals weights first (commit_reveal), which rules out this call";
    case E::CommitRevealDisabled: return "the subnet takes weights in the open: set them instead";
    case E::CanNotSetRootNetworkWeights: return "root has no weights: name another subnet";
    case E::WeightVecNotEqualSize: return "give one weight for each uid";
    case E::MechanismDoesNotExist: return "the subnet has fewer mechanisms than that";
    case E::UidsLengthExceedUidsInSubNet: return "name at most one weight for each neuron";
    case E::HotKeyNotRegisteredInSubNet:
      return "register the hotkey first: yumoe ledger register, with the same netuid";
    case E::NotEnoughStakeToSetWeights:
      return "put more stake behind the hotkey: the least is the rule stake_threshold";
    case E::IncorrectWeightVersionKey: return "the subnet asks for a newer weights_version_key";
    case E::SettingWeightsTooFast:
      return "wait weights_set_rate_limit blocks between two settings of weights";
    case E::NeuronNoValidatorPermit:
      return "only validators set weights: permits go to the largest stakes when an epoch ends";
    case E::DuplicateUids: return "name each uid once";
    case E::UidVecContainInvalidOne: return "a uid has no neuron on this subnet";
    case E::WeightVecLengthIsLow: return "give at least min_allowed_weights weights";
    case E::MaxWeightExceeded: return "a weight is above the subnet's max_weights_limit";
    case E::CommittingWeightsTooFast:
      return "wait weights_set_rate_limit blocks between two commits";
    case E::TooManyUnrevealedCommits: return "reveal what is committed before committing more";
    case E::NoWeightsCommitFound: return "commit these weights before revealing them";
    case E::ExpiredWeightCommit: return "the time to reveal has passed: commit again";
    case E::InvalidRevealCommitHashNotMatch:
      return "reveal exactly the weights, salt and version that were committed";
    case E::RevealTooEarly: return "wait until reveal_period_epochs epochs have passed";
    case E::InputLengthsUnequal: return "give lists of one length";
    case E::IncorrectCommitRevealVersion: return "the commit's version is not the chain's";
    case E::InvalidRevealRound: return "name a later round of the beacon";
    case E::SwapInputTooLarge: return "the order is more than the pool can take: order less";
    case E::ReservesTooLow: return "the subnet's pool is too small for this order: order less";
    case E::PriceLimitExceeded:
      return "the pool's price is already past --limit: give another limit";
    case E::InsufficientLiquidity:
      return "the pool or the receiver cannot take this amount: order another";
    case E::SubnetNotExists: return "yumoe ledger show lists the subnets";
    case E::RootNetworkDoesNotExist: return "this ledger has no root subnet";
    case E::SubtokenDisabled:
      return "the subnet has not started: its owner calls yumoe ledger start";
    case E::AmountTooLow:
      return "orders are at least min_stake (0.002 TAO) and its fee, before and after a limit cuts "
             "them";
    case E::SlippageTooHigh:
      return "the order would pass --limit: order less, loosen the limit or add --partial";
    case E::NotEnoughBalanceToStake:
      return "the account's free TAO is less than that: yumoe ledger balances RUN --account shows "
             "it";
    case E::HotKeyAccountNotExists:
      return "no such hotkey has registered or been staked to: check the name or address";
    case E::NotEnoughStakeToWithdraw:
      return "the account has less behind this hotkey: yumoe ledger balances RUN --account shows "
             "it";
    case E::SameNetuid: return "origin and destination are the same: name another";
    case E::TransferDisallowed: return "the subnet's owner has switched transfer_toggle off";
    case E::NonAssociatedColdKey: return "the hotkey belongs to another account, which must call";
    case E::CannotUseSystemAccount: return "the hotkey is one of the ledger's own: use another";
    case E::RegistrationNotPermittedOnRootSubnet:
      return "root has none of these: name another subnet";
    case E::RegistrationPriceLimitExceeded:
      return "registration costs more than --limit now: its price falls with time";
    case E::SubNetRegistrationDisabled: return "registration is switched off here for now";
    case E::HotKeyAlreadyRegisteredInSubNet: return "nothing to do: the hotkey has its uid";
    case E::NoNeuronIdAvailable:
      return "every uid is taken by an immune neuron: wait for the immunity_period to pass";
    case E::TooManyRegistrationsThisBlock: return "try again in the next block";
    case E::TooManyRegistrationsThisInterval: return "try again in some blocks";
    case E::StakeTooLowForRoot: return "it takes root stake: yumoe ledger stake RUN --netuid 0";
    case E::NetworkTxRateLimitExceeded:
      return "wait network_rate_limit blocks between two registrations of subnets";
    case E::SubnetLimitReached: return "every subnet is immune and no more are allowed: wait";
    case E::CannotAffordLockCost:
      return "a new subnet's price (network_lock) is more than the account's free TAO";
    case E::NotSubnetOwner:
      return "only the subnet's owner may call this (economy.owner for the run's)";
    case E::FirstEmissionBlockNumberAlreadySet: return "nothing to do: the subnet has started";
    case E::NeedWaitingMoreBlocksToStarCall:
      return "wait start_call_delay blocks after registration";
    case E::DelegateTakeTooLow:
      return "use --raise for more than the take now and --lower for less, not under take_min";
    case E::DelegateTakeTooHigh: return "the most is the rule take_max";
    case E::DelegateTxRateLimitExceeded: return "wait take_rate_limit blocks between two raises";
    case E::InvalidChildkeyTake:
      return "the take must lie between childkey_take_min and childkey_take_max";
    case E::TxChildkeyTakeRateLimitExceeded:
      return "wait take_rate_limit blocks between two raises";
    case E::TooManyChildren: return "name at most five children";
    case E::ProportionOverflow: return "the children's shares must add up to at most 1.0";
    case E::InvalidChild: return "a hotkey cannot be its own child";
    case E::DuplicateChild: return "name each child once";
    case E::ParentChildCannotBeBoth: return "a hotkey that lends to this one cannot be its child";
    case E::NotEnoughStakeToSetChildkeys:
      return "put more stake behind the hotkey: the least is the rule stake_threshold";
    case E::TxRateLimitExceeded:
      return "called again too soon: a rule may be set once in two tempos, children once in "
             "children_rate_limit blocks";
    case E::InvalidSubnetNumber: return "name one to five subnets";
    case E::InvalidValue:
      return "no rule that this call may change, or out of its bounds, or against another rule: "
             "docs/ledger.md lists them";
    case E::InsufficientBalance:
      return "the account's free TAO is less than that: yumoe ledger balances RUN --account shows "
             "it";
    case E::FaucetDisabled: return "money is made in the first block alone";
    case E::ProposalMissing:
      return "no such proposal, or it is decided: yumoe ledger show lists the open ones";
    case E::AdminActionProhibitedDuringWeightsWindow:
      return "the next epoch is less than freeze_window blocks away: try again after it";
  }
  return "";
}

std::string refusal_text(std::string_view operation, ledger::LedgerError error) {
  return std::string(operation) + ": " + std::string(name_of(error)) + ": " +
         std::string(advice_on(error));
}

}  // namespace yumoe
