#pragma once
// The refusals of the ledger's calls, by their names on the chain.

#include <string_view>

namespace yumoe::ledger {

// A call that is refused changes nothing. The names are the chain's; the list grows, its order means nothing.
#define YUMOE_LEDGER_ERRORS(X)            \
  /* weights: coordinator/weights.hpp */  \
  X(CommitRevealEnabled)                  \
  X(CommitRevealDisabled)                 \
  X(CanNotSetRootNetworkWeights)          \
  X(WeightVecNotEqualSize)                \
  X(MechanismDoesNotExist)                \
  X(UidsLengthExceedUidsInSubNet)         \
  X(HotKeyNotRegisteredInSubNet)          \
  X(NotEnoughStakeToSetWeights)           \
  X(IncorrectWeightVersionKey)            \
  X(SettingWeightsTooFast)                \
  X(NeuronNoValidatorPermit)              \
  X(DuplicateUids)                        \
  X(UidVecContainInvalidOne)              \
  X(WeightVecLengthIsLow)                 \
  X(MaxWeightExceeded)                    \
  X(CommittingWeightsTooFast)             \
  X(TooManyUnrevealedCommits)             \
  X(NoWeightsCommitFound)                 \
  X(ExpiredWeightCommit)                  \
  X(InvalidRevealCommitHashNotMatch)      \
  X(RevealTooEarly)                       \
  X(InputLengthsUnequal)                  \
  X(IncorrectCommitRevealVersion)         \
  X(InvalidRevealRound)                   \
  /* pools: coordinator/pool.hpp */       \
  X(SwapInputTooLarge)                    \
  X(ReservesTooLow)                       \
  X(PriceLimitExceeded)                   \
  X(InsufficientLiquidity)                \
  /* the rest: coordinator/ledger.hpp */  \
  X(SubnetNotExists)                      \
  X(RootNetworkDoesNotExist)              \
  X(SubtokenDisabled)                     \
  X(AmountTooLow)                         \
  X(SlippageTooHigh)                      \
  X(NotEnoughBalanceToStake)              \
  X(HotKeyAccountNotExists)               \
  X(NotEnoughStakeToWithdraw)             \
  X(SameNetuid)                           \
  X(TransferDisallowed)                   \
  X(NonAssociatedColdKey)                 \
  X(CannotUseSystemAccount)               \
  X(RegistrationNotPermittedOnRootSubnet) \
  X(RegistrationPriceLimitExceeded)       \
  X(SubNetRegistrationDisabled)           \
  X(HotKeyAlreadyRegisteredInSubNet)      \
  X(NoNeuronIdAvailable)                  \
  X(TooManyRegistrationsThisBlock)        \
  X(TooManyRegistrationsThisInterval)     \
  X(StakeTooLowForRoot)                   \
  X(NetworkTxRateLimitExceeded)           \
  X(SubnetLimitReached)                   \
  X(CannotAffordLockCost)                 \
  X(NotSubnetOwner)                       \
  X(FirstEmissionBlockNumberAlreadySet)   \
  X(NeedWaitingMoreBlocksToStarCall)      \
  X(DelegateTakeTooLow)                   \
  X(DelegateTakeTooHigh)                  \
  X(DelegateTxRateLimitExceeded)          \
  X(InvalidChildkeyTake)                  \
  X(TxChildkeyTakeRateLimitExceeded)      \
  X(TooManyChildren)                      \
  X(ProportionOverflow)                   \
  X(InvalidChild)                         \
  X(DuplicateChild)                       \
  X(ParentChildCannotBeBoth)              \
  X(NotEnoughStakeToSetChildkeys)         \
  X(TxRateLimitExceeded)                  \
  X(InvalidSubnetNumber)                  \
  X(InvalidValue)                         \
  X(InsufficientBalance)                  \
  X(FaucetDisabled)                       \
  X(ProposalMissing)                      \
  X(AdminActionProhibitedDuringWeightsWindow)

enum class LedgerError {
#define YUMOE_LEDGER_ERROR(name) name,
  YUMOE_LEDGER_ERRORS(YUMOE_LEDGER_ERROR)
#undef YUMOE_LEDGER_ERROR
};

constexpr std::string_view name_of(LedgerError error) {
  switch (error) {
#define YUMOE_LEDGER_ERROR(name) \
  case LedgerError::name: return #name;
    YUMOE_LEDGER_ERRORS(YUMOE_LEDGER_ERROR)
#undef YUMOE_LEDGER_ERROR
  }
  return "unknown";
}

}  // namespace yumoe::ledger
