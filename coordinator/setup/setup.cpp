#include "coordinator/setup.hpp"

#include <algorithm>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

constexpr std::string_view kStakePrefix = "stake-";

// Journal metadata is name and text; a configuration is many of both, so it is one text of lines,
// with line ends inside a value escaped.
std::string join(const OptionTexts& texts) {
  std::string lines;
  for (const auto& [key, value] : texts) {
    lines += key + "=";
    for (const char c : value) {
      if (c == '\n') {
        lines += "\\n";
      } else if (c == '\\') {
        lines += "\\\\";
      } else {
        lines += c;
      }
    }
    lines += '\n';
  }
  return lines;
}

OptionTexts split(std::string_view lines) {
  OptionTexts texts;
  while (!lines.empty()) {
    const std::size_t end = lines.find('\n');
    const std::size_t equals = lines.find('=');
    if (end == std::string_view::npos || equals == std::string_view::npos || equals > end) {
      throw Error(ErrorCode::journal_corrupt, "configuration kept in the journal is not readable");
    }
    std::string value;
    for (std::size_t i = equals + 1; i < end; ++i) {
      if (lines[i] == '\\' && i + 1 < end) {
        ++i;
        value += lines[i] == 'n' ? '\n' : lines[i];
      } else {
        value += lines[i];
      }
    }
    texts.emplace_back(std::string(lines.substr(0, equals)), std::move(value));
    lines.remove_prefix(end + 1);
  }
  return texts;
}

}  // namespace

RunSetup RunSetup::from(std::string run, OptionTexts configuration, const Digest& token_set,
                        std::map<std::string, double> stakes) {
  RunSetup setup;
  setup.run = std::move(run);
  std::sort(configuration.begin(), configuration.end());
  setup.configuration = std::move(configuration);
  setup.token_set = token_set;
  setup.stakes = std::move(stakes);
  const OptionTexts& texts = setup.configuration;
  setup.model = section_from<ModelOptions>(texts, "model");
  setup.training = section_from<InnerOptions>(texts, "training");
  setup.outer = section_from<OuterOptions>(texts, "outer");
  setup.codec = section_from<CodecOptions>(texts, "codec");
  setup.aggregate = section_from<AggregateOptions>(texts, "aggregate");
  setup.ledger = section_from<ledger::LedgerOptions>(texts, "ledger");
  setup.economy = section_from<EconomyOptions>(texts, "economy");
  setup.settings.run = section_from<RunOptions>(texts, "run");
  setup.settings.placement = section_from<PlacementOptions>(texts, "placement");
  setup.settings.scoring = section_from<ScoringOptions>(texts, "scoring");
  setup.settings.batch_sequences = setup.training.batch_sequences;
  setup.settings.schedule_steps = setup.training.total_steps;
  // A place among the block's costs some 7.6 bits, entropy-coded, beside the value.
  setup.settings.update_bytes_per_parameter = static_cast<double>(setup.codec.kept_per_block) /
                                              static_cast<double>(setup.codec.block_elements) *
                                              (static_cast<double>(setup.codec.value_bits) + 7.6) /
                                              8;
  return setup;
}

std::string RunSetup::granted_tier(const PublicKey& hotkey, const std::string& claimed) const {
  const std::string address = to_ss58(hotkey);
  const auto names = [&](const std::vector<std::string>& list) {
    return std::find(list.begin(), list.end(), address) != list.end();
  };
  const auto own = tiers.find(address);
  std::string most = own == tiers.end() ? "open" : own->second;
  const PlacementOptions& placement = settings.placement;
  if (tier_rank(most) < 1 && names(placement.hotkeys_known)) most = "known";
  if (tier_rank(most) < 2 && names(placement.hotkeys_trusted)) most = "trusted";
  return tier_rank(claimed) <= tier_rank(most) ? claimed : most;
}

std::vector<std::pair<std::string, std::string>> RunSetup::journal_metadata() const {
  std::vector<std::pair<std::string, std::string>> metadata{{"configuration", join(configuration)},
                                                            {"token-set", token_set.hex()}};
  for (const auto& [address, stake] : stakes) {
    metadata.emplace_back(std::string(kStakePrefix) + address, option_detail::text_of(stake));
  }
  return metadata;
}

RunSetup RunSetup::from_journal(std::string run,
                                const std::vector<std::pair<std::string, std::string>>& metadata) {
  OptionTexts configuration;
  Digest token_set;
  std::map<std::string, double> stakes;
  for (const auto& [name, text] : metadata) {
    if (name == "configuration") {
      configuration = split(text);
    } else if (name == "token-set") {
      const Bytes bytes = from_hex(text);
      if (bytes.size() != token_set.bytes.size()) {
        throw Error(ErrorCode::journal_corrupt, "token set digest kept in the journal");
      }
      std::copy(bytes.begin(), bytes.end(), token_set.bytes.begin());
    } else if (name.starts_with(kStakePrefix)) {
      double& stake = stakes[name.substr(kStakePrefix.size())];
      if (!option_detail::parse(text, stake)) {
        throw Error(ErrorCode::journal_corrupt, "stake kept in the journal: " + text);
      }
    }
  }
  return from(std::move(run), std::move(configuration), token_set, std::move(stakes));
}

Digest RunSetup::configuration_digest() const { return digest_of(configuration); }

}  // namespace yumoe
