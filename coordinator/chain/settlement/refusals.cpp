// Names for refusals, and what an operator or the machine does about each.

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "coordinator/settlement.hpp"

namespace yumoe::settlement {
namespace {

using Kind = PoolVerdict::Kind;
using React = Reaction::Kind;

struct KnownText {
  std::string_view text;
  Kind kind;
  std::string_view name;
};

// sc-rpc's texts, then chopsticks' JSON keys.
constexpr KnownText kTexts[] = {
    {"Transaction is outdated", Kind::stale, "Stale"},
    {"Transaction will be valid in the future", Kind::future, "Future"},
    {"Transaction has a bad signature", Kind::bad_proof, "BadProof"},
    {"Inability to pay some fees", Kind::payment, "Payment"},
    {"Transaction has an ancient birth block", Kind::ancient_birth, "AncientBirthBlock"},
    {"Transaction would exhaust the block limits", Kind::exhausts_resources, "ExhaustsResources"},
    {"Transaction call is not expected", Kind::call_forbidden, "Call"},
    {"\"stale\"", Kind::stale, "Stale"},
    {"\"future\"", Kind::future, "Future"},
    {"\"badProof\"", Kind::bad_proof, "BadProof"},
    {"\"payment\"", Kind::payment, "Payment"},
    {"\"ancientBirthBlock\"", Kind::ancient_birth, "AncientBirthBlock"},
    {"\"exhaustsResources\"", Kind::exhausts_resources, "ExhaustsResources"},
    {"\"call\"", Kind::call_forbidden, "Call"},
};

constexpr std::string_view kOlderCustom[] = {"",
                                             "StakeTooLowToCommit",
                                             "StakeTooLowToReveal",
                                             "StakeTooLowToSetWeights",
                                             "StakeTooLowForRootWeights",
                                             "TooManyRegistrations"};

constexpr std::string_view kNewerCustom[] = {"",
                                             "StakeAmountTooLow",
                                             "BalanceTooLow",
                                             "SubnetNotExists",
                                             "HotkeyAccountDoesntExist",
                                             "NotEnoughStakeToWithdraw",
                                             "RateLimitExceeded",
                                             "InsufficientLiquidity",
                                             "SlippageTooHigh",
                                             "TransferDisallowed",
                                             "HotKeyNotRegisteredInNetwork",
                                             "InvalidIpAddress",
                                             "ServingRateLimitExceeded",
                                             "InvalidPort",
                                             "ZeroMaxAmount",
                                             "InvalidRevealRound",
                                             "CommitNotFound",
                                             "CommitBlockNotInRevealRange",
                                             "InputLengthsUnequal",
                                             "UidNotFound",
                                             "EvmKeyAssociateRateLimitExceeded",
                                             "ColdkeySwapDisputed",
                                             "InvalidRealAccount",
                                             "FailedShieldedTxParsing",
                                             "InvalidShieldedTxPubKeyHash",
                                             "NonAssociatedColdKey",
                                             "DelegateTakeTooLow",
                                             "DelegateTakeTooHigh"};

std::string custom_name(std::uint8_t code, CustomCodes codes) {
  const std::span<const std::string_view> names =
      codes == CustomCodes::older ? std::span<const std::string_view>(kOlderCustom)
                                  : std::span<const std::string_view>(kNewerCustom);
  if (code == 255 && codes == CustomCodes::newer) return "BadRequest";
  if (code == 0 || code >= names.size()) return "Custom(" + std::to_string(code) + ")";
  return std::string(names[code]);
}

// The number behind "Custom error: " or in {"custom":3}.
std::optional<std::uint8_t> custom_code(std::string_view text) {
  for (const std::string_view mark : {"Custom error: ", "\"custom\":"}) {
    const std::size_t at = text.find(mark);
    if (at == std::string_view::npos) continue;
    const std::string_view digits = text.substr(at + mark.size());
    unsigned code = 0;
    const auto end = std::from_chars(digits.data(), digits.data() + digits.size(), code);
    if (end.ec == std::errc{} && code <= 255) return static_cast<std::uint8_t>(code);
  }
  return std::nullopt;
}

struct KnownError {
  std::string_view name;
  React kind;
  std::string_view advice;
};

constexpr std::string_view kRegister = "register the hotkey: yumoe chain register";
constexpr std::string_view kWaitLimit = "rate limit: it is tried again by itself";
constexpr std::string_view kWeights =
    "the weight vector does not fit the subnet's rules; see "
    "yumoe chain hyperparameters";
constexpr std::string_view kFunds = "put more TAO on the paying key";
constexpr std::string_view kStake = "add stake to the hotkey until it reaches the subnet's minimum";
constexpr std::string_view kRule =
    "the subnet's weight rule changed: settle again, which reads it anew";

constexpr KnownError kErrors[] = {
    // wait
    {"SettingWeightsTooFast", React::wait, kWaitLimit},
    {"CommittingWeightsTooFast", React::wait, kWaitLimit},
    {"RateLimitExceeded", React::wait, kWaitLimit},
    {"ServingRateLimitExceeded", React::wait, kWaitLimit},
    {"StakeRateLimitExceeded", React::wait, kWaitLimit},
    {"StakingRateLimitExceeded", React::wait, kWaitLimit},
    {"UnstakeRateLimitExceeded", React::wait, kWaitLimit},
    {"TooManyRegistrations", React::wait, "many register now: it is tried again by itself"},
    {"TooManyRegistrationsThisBlock", React::wait,
     "many register now: it is tried again by itself"},
    {"TooManyRegistrationsThisInterval", React::wait,
     "many register now: it is tried again by itself"},
    {"RevealTooEarly", React::wait, "the reveal epoch has not come: it is tried again by itself"},
    {"CommitBlockNotInRevealRange", React::wait,
     "the reveal epoch has not come or is over: it is tried until the window closes"},
    {"TooManyUnrevealedCommits", React::wait, "reveal the older commits first"},
    {"ExhaustsResources", React::wait, "blocks are full: it is tried again by itself"},
    // retry
    {"Stale", React::retry, "the nonce was taken: it is read again"},
    {"AncientBirthBlock", React::retry, "the era is over: it is signed anew"},
    // stop: the key
    {"BadProof", React::stop,
     "the signature does not verify: check the key and the chain's genesis"},
    {"BadSigner", React::stop, "the chain does not take this key's signature"},
    {"BadOrigin", React::stop, "this key may not make this call"},
    {"NonAssociatedColdKey", React::stop, "the hotkey belongs to another coldkey"},
    {"HotKeyNotRegisteredInSubNet", React::stop, kRegister},
    {"HotKeyNotRegisteredInNetwork", React::stop, kRegister},
    {"HotkeyAccountDoesntExist", React::stop, kRegister},
    {"HotKeyAccountNotExists", React::stop, kRegister},
    {"NotRegistered", React::stop, kRegister},
    {"HotKeyAlreadyRegisteredInSubNet", React::stop, "nothing: it is registered already"},
    {"NeuronNoValidatorPermit", React::stop,
     "the hotkey has no validator permit: it needs more stake than the subnet's weakest validator"},
    // stop: money
    {"Payment", React::stop, kFunds},
    {"BalanceTooLow", React::stop, kFunds},
    {"NotEnoughBalanceToStake", React::stop, kFunds},
    {"InsufficientBalance", React::stop, kFunds},
    {"FundsUnavailable", React::stop, kFunds},
    {"ExistentialDeposit", React::stop, "send more than the existential deposit"},
    {"BelowMinimum", React::stop, "send more than the existential deposit"},
    {"NotEnoughStakeToSetWeights", React::stop, kStake},
    {"StakeTooLowToSetWeights", React::stop,
     "add stake, or register: older runtimes answer so for an unknown hotkey or subnet too"},
    {"StakeTooLowToCommit", React::stop, kStake},
    {"StakeTooLowToReveal", React::stop, kStake},
    {"StakeAmountTooLow", React::stop, kStake},
    {"AmountTooLow", React::stop, "use a larger amount"},
    {"NotEnoughStakeToWithdraw", React::stop, "withdraw no more than the stake"},
    {"InsufficientLiquidity", React::stop, "use a smaller amount"},
    {"SlippageTooHigh", React::stop, "raise the limit or use a smaller amount"},
    {"RegistrationPriceLimitExceeded", React::stop, "raise the limit"},
    // stop: the weights
    {"WeightVecLengthIsLow", React::stop, "too few weights: the subnet wants min_allowed_weights"},
    {"WeightVecNotEqualSize", React::stop, kWeights},
    {"DuplicateUids", React::stop, kWeights},
    {"UidVecContainInvalidOne", React::stop,
     "a uid is not in the subnet: read the metagraph again"},
    {"UidsLengthExceedUidsInSubNet", React::stop, kWeights},
    {"MaxWeightExceeded", React::stop, "a weight is above the subnet's max_weights_limit"},
    {"IncorrectWeightVersionKey", React::stop,
     "the subnet wants a newer version_key: yumoe chain hyperparameters shows it"},
    {"CommitRevealEnabled", React::stop, kRule},
    {"CommitRevealDisabled", React::stop, kRule},
    {"IncorrectCommitRevealVersion", React::stop,
     "this program speaks another commit version: update"},
    {"InvalidRevealCommitHashNotMatch", React::stop, "what was revealed is not what was committed"},
    {"NoWeightsCommitFound", React::stop, "there is no such commit on the chain"},
    {"CommitNotFound", React::stop, "there is no such commit on the chain"},
    {"ExpiredWeightCommit", React::stop, "the reveal came after its epoch"},
    {"InvalidRevealRound", React::stop, "the drand round is over: check this machine's clock"},
    // stop: the place
    {"SubnetNotExists", React::stop, "there is no such subnet"},
    {"MechanismDoesNotExist", React::stop, "there is no such subnet"},
    {"SubNetworkDoesNotExist", React::stop, "there is no such subnet"},
    {"SubNetRegistrationDisabled", React::stop, "the subnet takes no registrations now"},
    {"InvalidIpAddress", React::stop, "serve a public address"},
    {"InvalidIpType", React::stop, "serve an IPv4 or IPv6 address"},
    {"InvalidPort", React::stop, "serve a port other than 0"},
};

}  // namespace

PoolVerdict pool_verdict(std::int64_t rpc_code, std::string_view message, std::string_view data,
                         CustomCodes codes) {
  const auto known = [&](Kind kind, std::string_view name) {
    return PoolVerdict{kind, 0, std::string(name)};
  };
  switch (rpc_code) {  // sc-rpc-api, author
    case 1012: return known(Kind::banned, "TemporarilyBanned");
    case 1013: return known(Kind::already_imported, "AlreadyImported");
    case 1014: return known(Kind::priority_low, "PriorityTooLow");
    case 1016: return known(Kind::dropped, "ImmediatelyDropped");
    default: break;
  }
  for (const std::string_view text : {data, message}) {
    if (const auto code = custom_code(text)) {
      return {Kind::custom, *code, custom_name(*code, codes)};
    }
    for (const KnownText& entry : kTexts) {
      if (text.find(entry.text) != std::string_view::npos) return known(entry.kind, entry.name);
    }
  }
  std::string name = "Pool(" + std::to_string(rpc_code) + " " + std::string(message.substr(0, 200));
  if (!data.empty()) name += ": " + std::string(data.substr(0, 200));
  return {Kind::other, 0, name + ")"};
}

Reaction reaction_to(std::string_view error_name) {
  const std::size_t dot = error_name.rfind('.');
  const std::string_view name =
      dot == std::string_view::npos ? error_name : error_name.substr(dot + 1);
  const auto known = std::ranges::find(kErrors, name, &KnownError::name);
  if (known != std::end(kErrors)) return {known->kind, known->advice};
  return {React::stop, "this program does not know the error; nothing is repeated"};
}

}  // namespace yumoe::settlement
