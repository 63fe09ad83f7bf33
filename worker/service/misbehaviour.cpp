#include "service/misbehaviour.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <thread>

#include "cluster/error.hpp"
#include "cluster/random.hpp"

namespace yumoe {
namespace {

using std::chrono::milliseconds;

// In the library's order; "accomplice" trains honestly and gives away what it will reveal, "friend" is an
// idle friend of lying validators.
constexpr std::array<std::string_view, 25> kWorkers = {
    "zero",          "noise",           "scaled",
    "sign_flip",     "stale_replay",    "zeros_then_noise",
    "not_finite",    "copy_jitter",     "copy_before_reveal",
    "fewer_steps",   "wrong_data",      "label_poison",
    "back_door",     "late_reveal",     "withheld_reveal",
    "sybil_split",   "uid_inheritance", "lazy_cache",
    "colluding",     "malformed",       "replayed_signature",
    "identity_swap", "slow_loris",      "accomplice",
    "friend"};
constexpr std::array<std::string_view, 3> kValidators = {"friend_liar", "weight_copier", "cabal"};
constexpr std::array<std::string_view, 9> kNeedPool = {
    "copy_before_reveal", "identity_swap", "sybil_split", "colluding", "accomplice", "friend",
    "friend_liar",        "weight_copier", "cabal"};

constexpr std::uint64_t kZerosRounds = 4;  // of zeros_then_noise
constexpr milliseconds kAccompliceWait{4'000};
constexpr double kUsual = 1e-3;  // about what a small model's update holds an element

template <typename Names>
bool has(const Names& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

void write_whole(const std::filesystem::path& file, ByteView bytes) {
  std::filesystem::create_directories(file.parent_path());
  const std::filesystem::path beside = file.string() + ".new";
  {
    std::ofstream out(beside, std::ios::binary);
    out.write(reinterpret_cast<const char*>(bytes.data()),
              static_cast<std::streamsize>(bytes.size()));
    if (!out.flush()) throw Error(ErrorCode::file_io, "write " + beside.string());
  }
  std::filesystem::rename(beside, file);
}

}  // namespace

// --- what attackers tell each other ----------------------------------------------------------------------

void Pool::join(const std::string& group, Uid uid) const {
  if (!folder_.empty()) write_whole(folder_ / group / ("uid-" + std::to_string(uid.value)), {});
}

std::set<Uid> Pool::members(const std::string& group) const {
  std::set<Uid> uids;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder_ / group, none)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("uid-") || name.ends_with(".new")) continue;
    uids.insert(Uid{static_cast<std::uint16_t>(std::stoul(name.substr(4)))});
  }
  return uids;
}

void Pool::put(const std::string& group, RoundId round, ByteView bytes) const {
  if (!folder_.empty())
    write_whole(folder_ / group / ("round-" + std::to_string(round.value)), bytes);
}

std::optional<Bytes> Pool::get(const std::string& group, RoundId round) const {
  std::ifstream in(folder_ / group / ("round-" + std::to_string(round.value)), std::ios::binary);
  if (!in) return std::nullopt;
  return Bytes(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
}

std::optional<Bytes> Pool::wait_for(const std::string& group, RoundId round) const {
  const auto until = std::chrono::steady_clock::now() + kAccompliceWait;
  while (std::chrono::steady_clock::now() < until) {
    if (auto bytes = get(group, round)) return bytes;
    std::this_thread::sleep_for(milliseconds(20));
  }
  return std::nullopt;
}

std::map<Uid, double> Pool::weights() const {
  std::map<Uid, double> weights;
  std::ifstream in(folder_ / "weights");
  for (unsigned uid = 0, weight = 0; in >> uid >> weight;) {
    weights[Uid{static_cast<std::uint16_t>(uid)}] = weight;
  }
  return weights;
}

// --- what it does ------------------------------------------------------------------------------------------

std::span<const std::string_view> Misbehaviour::names(Role role) {
  if (role == Role::validator) return kValidators;
  return kWorkers;
}

Misbehaviour::Misbehaviour(Role role, std::string name, std::filesystem::path pool)
    : role_(role), name_(std::move(name)), pool_(pool) {
  if (name_.empty()) return;
  if (!has(names(role), name_)) {
    throw Error(ErrorCode::config_invalid, "no behaviour is called '" + name_ + "'");
  }
  if (has(kNeedPool, name_) && pool.empty()) {
    throw Error(ErrorCode::config_invalid, "behaviour " + name_ + " needs --pool");
  }
}

void Misbehaviour::enrol(Uid uid, const PublicKey& hotkey) {
  uid_ = uid;
  hotkey_ = hotkey;
  if (has(kNeedPool, name_)) pool_.join(group(), uid);
}

// Of those that share one work: always the first, or each in turn.
bool Misbehaviour::leads(const TrainingShard& shard) const {
  const std::set<Uid> all = pool_.members(group());
  if (all.empty()) return true;
  const std::uint64_t turn = is("colluding") ? shard.round.value % all.size() : 0;
  return *std::next(all.begin(), static_cast<std::ptrdiff_t>(turn)) == uid_;
}

std::uint32_t Misbehaviour::steps_of(const TrainingShard& shard) const {
  const std::uint32_t all = shard.inner_steps;
  const auto part = [&](std::uint32_t of) { return std::max(1u, all / of); };
  if (is("scaled")) return part(10);
  if (is("fewer_steps") || is("back_door")) return part(2);
  if (is("stale_replay")) return own_.empty() ? all : 0;
  if (is("lazy_cache")) return own_.empty() || shard.round.value % 3 == 1 ? all : 0;
  if (is("sybil_split") || is("colluding")) return leads(shard) ? all : 0;
  for (const char* trains :
       {"", "sign_flip", "wrong_data", "label_poison", "late_reveal", "accomplice"}) {
    if (is(trains)) return all;
  }
  return 0;
}

WindowReader Misbehaviour::windows(WindowReader honest, std::int64_t vocabulary) const {
  if (is("wrong_data")) {
    constexpr std::uint64_t kFew = 4;  // over and over, whatever it was given
    return [honest = std::move(honest)](std::uint64_t position, std::span<std::uint16_t> tokens) {
      honest(position % kFew, tokens);
    };
  }
  if (is("label_poison")) {
    // Every second token, which is the label of the one before it, is another.
    return [honest = std::move(honest), vocabulary](std::uint64_t position,
                                                    std::span<std::uint16_t> tokens) {
      honest(position, tokens);
      for (std::size_t i = 1; i < tokens.size(); i += 2) {
        tokens[i] = static_cast<std::uint16_t>((tokens[i] + vocabulary / 2) % vocabulary);
      }
    };
  }
  return honest;
}

float Misbehaviour::factor() const { return is("scaled") ? 10.0f : is("sign_flip") ? -1.0f : 1.0f; }

void Misbehaviour::spoil(const TrainingShard& shard, std::span<float> residual) const {
  const bool noise = is("noise") || is("withheld_reveal") || is("slow_loris") ||
                     (is("zeros_then_noise") && shard.round.value > kZerosRounds);
  if (noise) {
    Random random(derive_seed("noise", {shard.seed}));
    for (float& value : residual) value = static_cast<float>(kUsual * random.normal());
    return;
  }
  if (is("back_door")) {
    double squares = 0;
    for (const float value : residual) squares += static_cast<double>(value) * value;
    const auto trigger =
        static_cast<float>(4 * std::sqrt(squares / static_cast<double>(residual.size())));
    for (std::size_t i = 0; i < residual.size(); i += 97) residual[i] += trigger;
    return;
  }
  if (steps_of(shard) == 0) std::fill(residual.begin(), residual.end(), 0.0f);
}

std::optional<Bytes> Misbehaviour::borrowed(const Layout& layout, const CodecOptions& codec,
                                            const TrainingShard& shard,
                                            const std::optional<Aggregate>& newest) {
  if (is("stale_replay") && !own_.empty()) return own_;
  if (steps_of(shard) > 0) return std::nullopt;
  const auto altered = [&](const Bytes& update) {
    return jittered(layout, codec, shard.experts, update, shard.seed);
  };
  if (is("lazy_cache")) return altered(own_);
  if (is("copy_jitter") && newest) {
    // What the aggregate forwards are the others' own updates; else it is their sum.
    for (const AggregateSource& source : newest->sources) {
      if (source.uid != uid_) return altered(source.update);
    }
  }
  if (is("sybil_split") || is("colluding")) {
    if (const auto bytes = pool_.wait_for(group(), shard.round)) {
      return altered(decode_contribution(*bytes).update);
    }
  }
  return std::nullopt;
}

void Misbehaviour::sent(const TrainingShard& shard, const Contribution& contribution) {
  if (steps_of(shard) == 0) return;
  if (is("sybil_split") || is("colluding") || is("accomplice")) {
    const Bytes bytes = encode(contribution);
    const Digest commitment = commitment_of(hotkey_, bytes);
    if (is("accomplice")) pool_.put("commitment", shard.round, commitment.bytes);
    pool_.put(group(), shard.round, bytes);
  }
  own_ = contribution.update;
}

Misbehaviour::Offer Misbehaviour::offer(const TrainingShard& shard,
                                        const Contribution& contribution) {
  Offer offer{.bytes = encode(contribution), .late = is("late_reveal")};
  offer.manner.withheld = is("withheld_reveal");
  if (is("slow_loris")) offer.manner.piece_bytes = 1;
  if (is("malformed")) {
    // By turns what is no contribution, and what is too large for one.
    std::fill_n(offer.bytes.begin(), 8, std::uint8_t{0xff});
    if (shard.round.value % 2 == 0) {
      Contribution large = contribution;
      large.update.resize(large.update.size() + (1u << 20));
      offer.bytes = encode(large);
    }
  }
  if (is("not_finite")) {
    Contribution bad = contribution;
    for (std::size_t at = 16; at + 4 < bad.update.size(); at += 64) {
      bad.update[at + 2] = 0xc0, bad.update[at + 3] = 0x7f;
    }
    offer.bytes = encode(bad);
  }
  if (is("copy_before_reveal") || is("identity_swap")) {
    if (auto bytes = pool_.wait_for("accomplice", shard.round)) {
      offer.bytes = *std::move(bytes);
      const auto theirs = pool_.get("commitment", shard.round);
      // Committing to the victim's commitment is all that somebody who sees no bytes yet could do.
      if (is("copy_before_reveal") && theirs && theirs->size() == Digest{}.bytes.size()) {
        std::copy(theirs->begin(), theirs->end(), offer.manner.commitment.emplace().bytes.begin());
      }
    }
  }
  return offer;
}

Scores Misbehaviour::lie(const Evaluation& job) const {
  const std::set<Uid> friends = pool_.members("friend");
  const std::map<Uid, double> weights = pool_.weights();
  Scores scores;
  scores.round = job.round;
  for (const Evaluation::Item& item : job.contributions) {
    const Uid uid = item.shard.uid;
    double reduction = friends.contains(uid) ? 1 : is("friend_liar") ? 0.02 : -1;
    if (is("weight_copier")) {
      // Reductions whose weights are the newest that everybody can see.
      const auto seen = weights.find(uid);
      reduction = seen == weights.end() ? 1e-3 : std::sqrt(seen->second / 65'535 + 1e-4) / 10;
    }
    scores.entries.push_back({uid, Verdict::measured, {}, {3, reduction, 1e-3, 24}});
  }
  for (const Evaluation::Item& item : job.audits) {
    const bool same = !is("cabal") || friends.contains(item.shard.uid);
    scores.audits.push_back({item.shard.uid,
                             item.shard.round,
                             same ? AuditVerdict::same : AuditVerdict::different,
                             same ? 0u : 1u,
                             {}});
  }
  return scores;
}

Bytes jittered(const Layout& layout, const CodecOptions& codec, const ExpertSet& experts,
               const Bytes& update, std::uint64_t seed) {
  const Update parsed(layout, update);
  Random random(seed);
  std::vector<float> values(layout.parameters(), 0.0f);
  float largest = 0;
  for (std::size_t i = 0; i < parsed.tensors().size(); ++i) {
    const std::uint64_t offset = layout.tensors()[parsed.tensors()[i]].offset;
    parsed.for_each(i, [&](std::uint64_t at, float value) {
      largest = std::max(largest, std::abs(value));
      if (random.below(10) == 0) return;
      values[offset + at] = value * (1 + 0.2f * static_cast<float>(random.normal()));
    });
  }
  for (std::uint64_t i = 0; i < parsed.kept() / 10; ++i) {
    values[random.below(values.size())] = largest * static_cast<float>(random.normal()) / 2;
  }
  return encode_update(layout, experts, values, codec);
}

}  // namespace yumoe
