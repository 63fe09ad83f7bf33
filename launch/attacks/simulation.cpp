#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <set>

#include "attacks/world.hpp"
#include "cluster/error.hpp"
#include "coordinator/filter.hpp"
#include "coordinator/model_state.hpp"
#include "coordinator/run_ledger.hpp"
#include "launch/attacks.hpp"
#include "router/evaluation.hpp"

namespace yumoe {
namespace {

using attack_world::quick_normal;
using attack_world::World;

constexpr std::uint32_t kPrivateWindows = 24, kAssignedWindows = 6;
constexpr double kFullSpeed = 240;  // tokens a second: 30 steps of 8 windows of 8 tokens in 8 s
constexpr double kForwardOfStep = 1.0 / 3;  // a window's evaluation against its training

ModelOptions model_of() {
  ModelOptions model;
  model.vocabulary = 256, model.context = 8, model.width = 16, model.layers = 1, model.heads = 2;
  model.key_value_heads = 1, model.experts = 4, model.expert_width = 16;
  return model;
}

RunSetup setup_of(const AttackScenario& scenario) {
  RunSetup setup;
  setup.run = "attacks";
  setup.model = model_of();
  setup.codec.block_elements = 256;
  setup.codec.kept_per_block = 16;
  setup.outer.learning_rate = setup.outer.learning_rate_final = 0.2;
  setup.aggregate = scenario.aggregate;
  setup.training.batch_sequences = 8;
  setup.settings.batch_sequences = 8;
  setup.settings.run.rounds = scenario.rounds;
  setup.settings.run.seed = static_cast<std::int64_t>(scenario.seed);
  setup.settings.run.workers_min = scenario.workers - (scenario.odd_ones ? 1 : 0);  // the late one
  setup.settings.run.audit_share = scenario.audit_share;
  setup.settings.run.evaluated_max = scenario.evaluated_max;
  setup.settings.run.commit_wait_min_ms = 12'000;
  setup.settings.run.commit_wait_max_ms = 12'000;
  setup.settings.run.reveal_wait_max_ms = 1'000;
  setup.settings.placement.round_s = 8;
  setup.settings.placement.inner_steps_first = 30;
  setup.settings.scoring = scenario.scoring;
  setup.ledger.tempo = 10;
  setup.ledger.weights_set_rate_limit = 0;
  setup.economy.block_ms = 1'000;
  setup.economy.participant_funds = 1'000;
  return setup;
}

struct Player {
  ParticipantResult result;
  PublicKey hotkey;
  Uid uid;
  double speed = 1;         // of full
  std::uint64_t joins = 1;  // round it joins in
  bool shirked = false;     // did less than all of its work in some round
  std::string behaviour;    // of attackers
  std::size_t group = 0;    // of colluders: index of the first
  std::vector<float> residual, shift;
  Bytes cached;  // an update of its own, or one it copies
  bool joined = false;
};

PublicKey key_of(std::uint64_t who) {
  PublicKey key;
  const Digest digest = digest_of(as_bytes(std::span<const std::uint64_t>(&who, 1)));
  key.bytes = digest.bytes;
  return key;
}

// A contribution's bytes, or nothing; what was committed; and what was done for it.
struct Delivery {
  Bytes bytes;
  Digest commitment;
  bool commits = true, reveals = true, late = false;
  double steps = 0;    // really done for this shard
  bool honest = true;  // trained as assigned: an audit finds the same
};

class Simulation {
 public:
  explicit Simulation(const AttackScenario& scenario)
      : scenario_(scenario),
        setup_(setup_of(scenario)),
        layout_(Layout::of(setup_.model)),
        core_(layout_, setup_.settings),
        model_(layout_, setup_),
        ledger_(setup_.ledger, setup_.economy),
        world_(layout_, model_.base().parameters(), scenario.seed),
        seen_(layout_, scenario.scoring),
        random_(derive_seed("attack", {scenario.seed})) {
    if (!scenario.attack.empty()) info_ = &attack_named(scenario.attack);
    enrol();
  }

  AttackResult run() {
    submit(Started{model_.base().digest(), scenario_.seed});
    for (Player& judge : judges_) join(judge, Role::validator);
    for (std::int64_t r = 1; r <= scenario_.rounds; ++r) round(static_cast<std::uint64_t>(r));
    return result();
  }

 private:
  // --- who is there ---------------------------------------------------------------------------------------

  void enrol() {
    const bool by_workers = info_ != nullptr && info_->kind != AttackKind::validator;
    const auto workers = static_cast<std::size_t>(scenario_.workers);
    const auto bad =
        static_cast<std::size_t>(std::lround(scenario_.share * static_cast<double>(workers)));
    // Lying validators have two idle friends among the workers.
    const std::size_t attackers = by_workers ? bad : info_ != nullptr ? 2 : 0;
    for (std::size_t i = 0; i < workers; ++i) {
      Player p;
      p.hotkey = key_of(1'000 + i);
      p.residual.assign(layout_.parameters(), 0.0f);
      if (i + attackers >= workers) {
        p.result.part = PartPlayed::attacker;
        p.behaviour = by_workers ? scenario_.attack : "zero";
        p.group = workers - attackers + (i + attackers - workers) / 3 * 3;
      } else if (scenario_.odd_ones && i < 3) {
        p.result.part = std::array{PartPlayed::slow, PartPlayed::late, PartPlayed::odd}[i];
        if (i == 0) p.speed = 0.4;
        if (i == 1) p.joins = 11;
        if (i == 2) p.shift = world_.direction(0.5, derive_seed("odd", {scenario_.seed}));
      } else if (!scenario_.speeds.empty()) {
        p.speed = scenario_.speeds[i % scenario_.speeds.size()];
      }
      players_.push_back(std::move(p));
    }
    enrol_judges();
  }

  void enrol_judges() {
    const bool lying = info_ != nullptr && info_->kind == AttackKind::validator;
    std::vector<std::pair<double, bool>> stakes{{600, false}, {400, false}};
    for (std::int64_t i = 2; i < scenario_.validators; ++i) stakes.emplace_back(400, false);
    if (lying && scenario_.attack == "cabal") {
      stakes = {{1'000 * (1 - scenario_.share) / 2, false},
                {1'000 * (1 - scenario_.share) / 2, false},
                {1'000 * scenario_.share / 2, true},
                {1'000 * scenario_.share / 2, true}};
    } else if (lying) {
      stakes = {{1'000 * (1 - scenario_.share) / 2, false},
                {1'000 * (1 - scenario_.share) / 2, false},
                {1'000 * scenario_.share, true}};
    }
    double all = 0;
    for (const auto& [stake, is_lying] : stakes) all += stake;
    for (std::size_t i = 0; i < stakes.size(); ++i) {
      Player p;
      p.hotkey = key_of(i);
      p.result.part = stakes[i].second ? PartPlayed::lying_validator : PartPlayed::validator;
      p.result.stake = stakes[i].first / all;
      judges_.push_back(std::move(p));
    }
  }

  void join(Player& player, Role role) {
    WorkerProfile profile;
    profile.tokens_per_s = role == Role::worker ? kFullSpeed * player.speed : 0;
    submit(Joined{player.hotkey, role, "", profile, 1'000 * player.result.stake});
    player.uid = *core_.uid_of(player.hotkey);
    player.result.uid = player.uid.value;
    player.joined = true;
  }

  void submit(const Event& event) {
    YUMOE_ASSERT(!core_.refusal_of(event, now_));
    core_.apply(event, now_);
    ledger_.apply(event, core_, now_);
  }

  // --- a round -----------------------------------------------------------------------------------------------

  void round(std::uint64_t r) {
    for (Player& player : players_) {
      if (player.behaviour == "uid_inheritance" && player.joined && r % 10 == 0) {
        submit(Left{player.uid, "leaves"});
        player.hotkey = key_of(random_());
        player.joined = false;
      }
      if (!player.joined && r >= player.joins) join(player, Role::worker);
    }
    const RoundId id{r};
    YUMOE_ASSERT(core_.round() == id && core_.phase() == Phase::training);
    const TimeMs started = now_;
    std::vector<Delivery> deliveries(players_.size());
    for (std::size_t i = 0; i < players_.size(); ++i) {
      const auto& shards = core_.round_state(id)->shards;
      if (players_[i].joined && shards.contains(players_[i].uid)) {
        deliveries[i] = deliver(i, shards.at(players_[i].uid).shard, deliveries);
        players_[i].result.work += deliveries[i].steps;
        training_ += shards.at(players_[i].uid).shard.inner_steps * 8.0;
      } else {
        deliveries[i].commits = false;
      }
    }
    now_ = started + std::chrono::milliseconds(8'000);
    reveal_late();
    for (std::size_t i = 0; i < players_.size(); ++i) {
      if (!deliveries[i].commits || deliveries[i].late) continue;
      submit(Committed{players_[i].uid,
                       id,
                       deliveries[i].commitment,
                       std::max<std::size_t>(1, deliveries[i].bytes.size()),
                       {}});
    }
    if (core_.phase() == Phase::training) pass_deadline();
    for (std::size_t i = 0; i < players_.size(); ++i) {
      if (deliveries[i].commits && deliveries[i].reveals && !deliveries[i].late) {
        reveal(players_[i], id, deliveries[i]);
      }
    }
    if (core_.phase() == Phase::revealing) pass_deadline();
    for (std::size_t i = 0; i < players_.size(); ++i) {
      if (deliveries[i].late) waiting_.push_back({i, id, std::move(deliveries[i])});
    }
    aggregate();
    measure(id, deliveries);
    note();
  }

  void pass_deadline() {
    now_ = std::max(now_, *core_.next_deadline());
    submit(Tick{});
  }

  // As the service does it: the commitment first, then the filters.
  void reveal(Player& player, RoundId id, const Delivery& delivery) {
    const RoundState* round = core_.round_state(id);
    if (round == nullptr || !round->shards.contains(player.uid)) return;
    const ShardState& shard = round->shards.at(player.uid);
    if (shard.answer != Answer::committed) return;
    const Digest commitment = commitment_of(player.hotkey, delivery.bytes);
    const Revealed revealed =
        commitment != shard.commitment
            ? broken_commitment(shard.shard, shard.commitment, commitment, delivery.bytes, 1)
            : examine(layout_, setup_.codec, setup_.training, shard.shard, round->base,
                      delivery.bytes, round->shards.size(), seen_);
    if (!revealed.filter.empty()) {
      ++player.result.refused;
      player.result.filter = revealed.filter;
    }
    blobs_[revealed.blob] = delivery.bytes;
    submit(revealed);
  }

  void reveal_late() {
    std::vector<Waiting> waiting = std::move(waiting_);
    waiting_.clear();
    for (const Waiting& w : waiting) {
      const Player& player = players_[w.player];
      const Committed late{player.uid,
                           w.round,
                           w.delivery.commitment,
                           std::max<std::size_t>(1, w.delivery.bytes.size()),
                           {}};
      if (core_.refusal_of(late, now_)) continue;
      submit(late);
      reveal(players_[w.player], w.round, w.delivery);
    }
  }

  void aggregate() {
    YUMOE_ASSERT(core_.phase() == Phase::aggregating);
    AggregationInput input = core_.aggregation();
    if (!scenario_.trust) {
      for (AggregationInput::Item& item : input.items) item.weight = 1;
    }
    if (!scenario_.selection.empty()) select(input);
    const ModelState::Result result =
        model_.aggregate(input, [this](const Digest& digest) -> std::optional<Bytes> {
          const auto found = blobs_.find(digest);
          return found == blobs_.end() ? std::nullopt : std::optional(found->second);
        });
    base_before_ = base_now_.empty() ? std::vector<float>(world_base_) : base_now_;
    base_now_.assign(model_.base().parameters().begin(), model_.base().parameters().end());
    submit(Aggregated{core_.round(), digest_of(result.aggregate), result.version, result.up_bytes,
                      result.aggregate.size()});
    loss_.push_back(world_.loss(base_now_));
  }

  std::vector<std::vector<float>> dense_updates(const AggregationInput& input) const {
    std::vector<std::vector<float>> dense(input.items.size(),
                                          std::vector<float>(layout_.parameters(), 0.0f));
    for (std::size_t i = 0; i < dense.size(); ++i) {
      const Update update(layout_, decode_contribution(blobs_.at(input.items[i].blob)).update);
      for (std::size_t t = 0; t < update.tensors().size(); ++t) {
        const TensorSpec& tensor = layout_.tensors()[update.tensors()[t]];
        update.add_to(t, 1, std::span(dense[i]).subspan(tensor.offset, tensor.elements));
      }
    }
    return dense;
  }

  // Where each is weighed by its distance to the middle v: 1 / |x - v| has the geometric median (RFA,
  // Pillutla et al. 2022; Weiszfeld's steps) as its fixed point, min(1, tau / |x - v|) CenteredClip's
  // (Karimireddy et al. 2021; tau: the median of the norms).
  void weigh_by_distance(AggregationInput& input) {
    const std::vector<std::vector<float>> dense = dense_updates(input);
    std::vector<double> weights(dense.size(), 1);
    double tau = 0;
    for (int step = 0; step < 8 && !dense.empty(); ++step) {
      std::vector<double> middle(layout_.parameters(), 0);
      double sum = 0;
      for (std::size_t i = 0; i < dense.size(); ++i) {
        sum += weights[i];
        for (std::size_t e = 0; e < middle.size(); ++e) middle[e] += weights[i] * dense[i][e];
      }
      // CenteredClip starts at nothing, and its tau is the usual norm.
      if (step == 0 && scenario_.selection == "centered_clip") sum = 1e300;
      std::vector<double> distances;
      for (const std::vector<float>& x : dense) {
        double squares = 0;
        for (std::size_t e = 0; e < x.size(); ++e) {
          squares += (x[e] - middle[e] / sum) * (x[e] - middle[e] / sum);
        }
        distances.push_back(std::sqrt(squares));
      }
      if (step == 0) {
        std::vector<double> sorted = distances;
        std::sort(sorted.begin(), sorted.end());
        tau = sorted[sorted.size() / 2];
      }
      for (std::size_t i = 0; i < dense.size(); ++i) {
        const double inverse = 1 / std::max(distances[i], 1e-12);
        weights[i] =
            scenario_.selection == "centered_clip" ? std::min(1.0, tau * inverse) : inverse;
      }
    }
    const double largest = weights.empty() ? 1 : *std::max_element(weights.begin(), weights.end());
    for (std::size_t i = 0; i < dense.size(); ++i) input.items[i].weight = weights[i] / largest;
  }

  // Krum and Multi-Krum (Blanchard et al. 2017), on the decoded updates: who is nearest to its n - f - 2
  // nearest neighbours stays.
  void select(AggregationInput& input) {
    if (scenario_.selection != "krum" && scenario_.selection != "multi_krum") {
      return weigh_by_distance(input);
    }
    const std::size_t n = input.items.size();
    const auto f = static_cast<std::size_t>(
        std::lround(scenario_.share * static_cast<double>(players_.size())));
    if (n < f + 3) return;
    const std::vector<std::vector<float>> dense = dense_updates(input);
    std::vector<std::pair<double, std::size_t>> order;
    for (std::size_t i = 0; i < n; ++i) {
      std::vector<double> distances;
      for (std::size_t j = 0; j < n; ++j) {
        double sum = 0;
        for (std::size_t e = 0; e < dense[i].size(); ++e) {
          sum += (dense[i][e] - dense[j][e]) * (dense[i][e] - dense[j][e]);
        }
        if (j != i) distances.push_back(sum);
      }
      std::sort(distances.begin(), distances.end());
      double score = 0;
      for (std::size_t k = 0; k < n - f - 2; ++k) score += distances[k];
      order.emplace_back(score, i);
    }
    std::sort(order.begin(), order.end());
    order.resize(scenario_.selection == "krum" ? 1 : n - f);
    std::set<std::size_t> kept;
    for (const auto& [score, i] : order) kept.insert(i);
    std::vector<AggregationInput::Item> items;
    for (const std::size_t i : kept) items.push_back(input.items[i]);
    input.items = std::move(items);
  }

  // --- what workers deliver --------------------------------------------------------------------------------

  Delivery deliver(std::size_t index, const TrainingShard& shard,
                   const std::vector<Delivery>& others) {
    Player& player = players_[index];
    Delivery d;
    Bytes update;
    const double steps = shard.inner_steps;
    if (player.behaviour.empty()) {
      d.steps = steps;
      update = trained(player, shard, d.steps, player.shift, 1);
    } else {
      update = attack(index, shard, others, d);
      player.shirked = player.shirked || !d.honest;
    }
    d.bytes = update.empty() && d.bytes.empty() ? Bytes{}
              : d.bytes.empty()                 ? contribution(shard, update)
                                                : d.bytes;
    if (d.commitment == Digest{}) d.commitment = commitment_of(player.hotkey, d.bytes);
    return d;
  }

  // Trains, and packs what came of it with the residual.
  Bytes trained(Player& player, const TrainingShard& shard, double steps,
                std::span<const float> shift, float factor) {
    const std::vector<float> delta =
        world_.train(base(), steps, shift, derive_seed("training", {shard.seed}));
    for (std::size_t i = 0; i < delta.size(); ++i) {
      player.residual[i] = 0.95f * player.residual[i] + factor * delta[i];
    }
    std::vector<float>& residual = player.residual;
    return encode_update(layout_, shard.experts, residual, setup_.codec);
  }

  // What it does not send stays in the residual of `keeper`, if there is one.
  Bytes packed(const TrainingShard& shard, std::vector<float> values, Player* keeper = nullptr) {
    Bytes update = encode_update(layout_, shard.experts, values, setup_.codec);
    if (keeper != nullptr) keeper->residual = std::move(values);
    return update;
  }

  Bytes contribution(const TrainingShard& shard, const Bytes& update) const {
    Contribution c;
    c.round = shard.round;
    c.uid = shard.uid;
    c.shard = digest_of_shard(shard);
    c.base = core_.version_digest();
    c.steps = shard.inner_steps;
    c.tokens = shard.data.count * static_cast<std::uint64_t>(layout_.model().context);
    c.seconds = 8;
    c.moments_from = shard.round;
    c.expert_tokens.assign(static_cast<std::size_t>(layout_.model().experts), 0);
    for (const std::uint32_t e : shard.experts) {
      c.expert_tokens[e] = static_cast<std::uint32_t>(c.tokens / 2);
    }
    c.update = update;
    return encode(c);
  }

  // An update with its values and a tenth of its elements altered.
  Bytes jittered(const TrainingShard& shard, const Bytes& update) {
    const Update parsed(layout_, update);
    std::vector<float> values(layout_.parameters(), 0.0f);
    float largest = 0;
    for (std::size_t i = 0; i < parsed.tensors().size(); ++i) {
      const std::uint64_t offset = layout_.tensors()[parsed.tensors()[i]].offset;
      parsed.for_each(i, [&](std::uint64_t at, float value) {
        largest = std::max(largest, std::abs(value));
        if (random_.below(10) != 0)
          values[offset + at] = value * (1 + 0.2f * quick_normal(random_));
      });
    }
    for (std::size_t i = 0; i < values.size() / 160; ++i) {
      values[random_.below(values.size())] = largest * quick_normal(random_) / 2;
    }
    return packed(shard, std::move(values));
  }

  Bytes attack(std::size_t index, const TrainingShard& shard, const std::vector<Delivery>& others,
               Delivery& d) {
    Player& player = players_[index];
    const std::string& how = player.behaviour;
    const double steps = shard.inner_steps;
    const double usual = 0.2;  // about what an honest residual holds an element
    d.honest = false;
    if (how == "zero" || how == "uid_inheritance")
      return packed(shard, std::vector<float>(layout_.parameters()));
    if (how == "noise") return packed(shard, world_.direction(usual, random_()));
    if (how == "zeros_then_noise") {
      if (shard.round.value <= 10) return packed(shard, std::vector<float>(layout_.parameters()));
      return packed(shard, world_.direction(3 * usual, random_()));
    }
    if (how == "scaled") {
      d.steps = steps / 10;
      return trained(player, shard, d.steps, {}, 10);
    }
    if (how == "sign_flip") return trained(player, shard, steps, {}, -1);
    if (how == "label_poison") {
      // Away from where it stands, to where the wrong labels are.
      if (player.shift.empty())
        player.shift = world_.direction(0.05, derive_seed("labels", {scenario_.seed}));
      for (std::size_t i = 0; i < player.residual.size(); ++i)
        player.residual[i] += player.shift[i];
      return packed(shard, player.residual, &player);
    }
    if (how == "stale_replay" || how == "lazy_cache") {
      const bool trains =
          player.cached.empty() || (how == "lazy_cache" && shard.round.value % 3 == 1);
      if (trains) {
        d.steps = steps;
        d.honest = true;
        return player.cached = trained(player, shard, steps, {}, 1);
      }
      return how == "lazy_cache" ? jittered(shard, player.cached) : player.cached;
    }
    if (how == "not_finite") {
      Bytes update = packed(shard, world_.direction(usual, random_()));
      const std::uint32_t bad[] = {0x7f800000, 0x7fc00000, 0xff800000};
      for (int i = 0; i < 40; ++i) {
        const std::size_t at = random_.below(update.size() - 4);
        std::memcpy(update.data() + at, &bad[random_.below(3)], 4);
      }
      return update;
    }
    if (how == "copy_jitter") {
      const Bytes* victim = newest_of_another(index);
      return victim == nullptr ? packed(shard, std::vector<float>(layout_.parameters()))
                               : jittered(shard, *victim);
    }
    if (how == "copy_before_reveal") {
      const Delivery& victim = others[players_.size() > 3 ? 3 : 0];
      d.bytes = victim.bytes;
      d.commitment = victim.commitment;
      return {};
    }
    if (how == "fewer_steps") {
      d.steps = steps / 2;
      return trained(player, shard, d.steps, {}, 1);
    }
    if (how == "wrong_data") {
      d.steps = steps;
      if (player.shift.empty()) player.shift = world_.direction(1, random_());
      return trained(player, shard, steps, player.shift, 1);
    }
    if (how == "back_door") {
      d.steps = steps / 2;
      for (std::size_t i = 0; i < player.residual.size(); i += 97) player.residual[i] += 0.2f;
      return trained(player, shard, d.steps, {}, 1);
    }
    if (how == "late_reveal") {
      d.steps = steps;
      d.honest = d.late = true;
      return trained(player, shard, steps, {}, 1);
    }
    if (how == "withheld_reveal" || how == "slow_loris") {
      d.reveals = false;
      return packed(shard, world_.direction(usual, random_()));
    }
    if (how == "sybil_split" || how == "colluding") {
      const std::size_t turn = how == "sybil_split" ? 0 : shard.round.value % 3;
      std::size_t leader = player.group + turn;
      if (leader >= players_.size()) leader = player.group;
      if (index == leader) {
        d.steps = steps;
        d.honest = true;
        return player.cached = trained(player, shard, steps, {}, 1);
      }
      // Who comes before the one that trains is given it all the same: it waits for it.
      const Bytes& from = players_[leader].cached;
      return from.empty() ? packed(shard, std::vector<float>(layout_.parameters()))
                          : jittered(shard, from);
    }
    if (how == "malformed") {
      d.bytes.resize(1 + random_.below(5'000));
      for (std::uint8_t& byte : d.bytes) byte = static_cast<std::uint8_t>(random_());
      return {};
    }
    if (how == "identity_swap") {
      const Delivery& victim = others[players_.size() > 3 ? 3 : 0];
      d.bytes = victim.bytes;
      return {};
    }
    YUMOE_ASSERT(how == "replayed_signature");
    replay_envelope();
    d.commits = false;
    return {};
  }

  // Sends another's signed commitment again over its own connection: what the session checks refuse it.
  void replay_envelope() {
    if (replayed_) return;
    replayed_ = true;
    const Keypair victim = Keypair::from_uri(KeyType::sr25519, "//victim");
    Nonce theirs{}, ours{};
    theirs[0] = 1, ours[0] = 2;
    const Envelope envelope =
        open_envelope(seal(victim, theirs, 1, now_, encode(ToCoordinator{Hello{}})));
    YUMOE_ASSERT(envelope.challenge != ours && is_signed(envelope));
    Envelope moved = envelope;
    moved.challenge = ours;
    YUMOE_ASSERT(!is_signed(moved));
  }

  const Bytes* newest_of_another(std::size_t index) {
    const std::size_t victim = players_.size() > 4 ? 3 + index % 2 : 0;
    return victim == index || newest_[victim].empty() ? nullptr : &newest_[victim];
  }

  std::span<const float> base() const { return model_.base().parameters(); }

  // --- what validators do ------------------------------------------------------------------------------------

  void measure(RoundId id, const std::vector<Delivery>& deliveries) {
    find_usual_norms(id);
    for (std::size_t v = 0; v < judges_.size(); ++v) {
      const Directive directive = core_.directive_for(judges_[v].uid);
      if (directive.evaluate.round != id) continue;
      Scores scores;
      scores.round = id;
      const bool lies = judges_[v].result.part == PartPlayed::lying_validator;
      if (!lies) scores.entries = measured(v, directive.evaluate);
      for (const Evaluation::Item& item : directive.evaluate.contributions) {
        if (lies) scores.entries.push_back(lie(item.shard.uid));
        measuring_ += kForwardOfStep * kPrivateWindows;
      }
      measuring_ += kForwardOfStep * kPrivateWindows;  // of the base, once for all
      if (directive.evaluate.closer) {
        measuring_ += kForwardOfStep * static_cast<double>(evaluation_.heldout_windows);
      }
      const auto more =
          !directive.evaluate.closer
              ? 0.0
              : static_cast<double>(std::min<std::size_t>(
                    static_cast<std::size_t>(evaluation_.given_sampled), scores.entries.size()));
      // All together once, and each of the drawn without it, without its experts, and on its own data.
      if (more > 0) {
        measuring_ += kForwardOfStep * kPrivateWindows *
                      (1 + more * (1 + static_cast<double>(evaluation_.experts_sampled)));
        measuring_ += kForwardOfStep * more * 2 * kAssignedWindows;
      }
      for (const Evaluation::Item& item : directive.evaluate.audits) {
        const std::size_t i = index_of(item.shard.uid);
        scores.audits.push_back(
            {item.shard.uid,
             id,
             deliveries[i].honest ? AuditVerdict::same : AuditVerdict::different,
             0,
             {}});
        measuring_ += item.shard.inner_steps * 8.0;
      }
      submit(Scored{judges_[v].uid, scores, {}});
    }
    for (std::size_t i = 0; i < players_.size(); ++i) newest_[i] = update_of(deliveries[i].bytes);
  }

  // Median norm of each tensor over the round's contributions: they are measured as they would be applied.
  void find_usual_norms(RoundId id) {
    std::map<std::uint32_t, std::vector<double>> norms;
    for (const auto& [uid, shard] : core_.round_state(id)->shards) {
      if (shard.answer != Answer::revealed) continue;
      const Update update(layout_, decode_contribution(blobs_.at(shard.blob)).update);
      for (std::size_t i = 0; i < update.tensors().size(); ++i) {
        norms[update.tensors()[i]].push_back(std::sqrt(update.squared_norm(i)));
      }
    }
    usual_norms_.clear();
    for (auto& [tensor, values] : norms) {
      std::sort(values.begin(), values.end());
      usual_norms_[tensor] = values[values.size() / 2];
    }
  }

  // As a validator does it: each alone, and some given the others and expert by expert.
  std::vector<ScoreEntry> measured(std::size_t judge, const Evaluation& job) {
    std::vector<ScoreEntry> entries;
    std::vector<std::vector<float>> changes;
    const auto scale = static_cast<float>(outer_rate(setup_.outer, job.round) *
                                          evaluation_.step_share_of(job.answered));
    std::vector<float> together = base_before_;
    for (const Evaluation::Item& item : job.contributions) {
      const Update update(layout_, decode_contribution(blobs_.at(item.digest)).update);
      changes.push_back(change_by(update, scale, -1));
      entries.push_back(measured(judge, job.round, item.shard.uid, changes.back()));
      for (std::size_t e = 0; e < together.size(); ++e) together[e] -= changes.back()[e];
    }
    Random random(derive_seed("given", {scenario_.seed, judge, job.round.value}));
    const std::int64_t closer = job.closer && !entries.empty() ? evaluation_.given_sampled : 0;
    for (std::int64_t i = 0; i < closer; ++i) {
      const std::size_t at = random.below(entries.size());
      if (entries[at].verdict != Verdict::measured || entries[at].given.windows > 0) continue;
      const Evaluation::Item& item = job.contributions[at];
      std::vector<float> others = together;
      for (std::size_t e = 0; e < others.size(); ++e) others[e] += changes[at][e];
      entries[at].given =
          gained(judge, job.round, item.shard.uid, others, changes[at], kPrivateWindows);
      const Update update(layout_, decode_contribution(blobs_.at(item.digest)).update);
      const std::uint32_t expert = item.shard.experts[random.below(item.shard.experts.size())];
      const std::vector<float> part = change_by(update, scale, static_cast<int>(expert));
      std::vector<float> rest = base_before_;
      for (std::size_t e = 0; e < rest.size(); ++e) rest[e] -= changes[at][e] - part[e];
      entries[at].experts.push_back(
          {expert, gained(judge, job.round, item.shard.uid, rest, part, kPrivateWindows)});
    }
    return entries;
  }

  // What is subtracted from the base for a contribution, clipped as the aggregate would; of one expert, or all.
  std::vector<float> change_by(const Update& update, float scale, int expert) {
    std::vector<float> change(layout_.parameters(), 0.0f);
    for (std::size_t i = 0; i < update.tensors().size(); ++i) {
      const TensorSpec& tensor = layout_.tensors()[update.tensors()[i]];
      if (expert >= 0 && tensor.expert != expert) continue;
      const double norm = std::sqrt(update.squared_norm(i)),
                   usual = usual_norms_[update.tensors()[i]];
      const auto clip = static_cast<float>(norm > usual && norm > 0 ? usual / norm : 1);
      update.add_to(i, scale * clip, std::span(change).subspan(tensor.offset, tensor.elements));
    }
    return change;
  }

  Measurement gained(std::size_t judge, RoundId id, Uid uid, std::span<const float> base,
                     std::span<const float> change, std::uint32_t windows) const {
    return world_.measure(base, change, derive_seed("windows", {scenario_.seed, judge, id.value}),
                          derive_seed("own", {scenario_.seed, judge, id.value, uid.value}),
                          windows);
  }

  ScoreEntry measured(std::size_t judge, RoundId id, Uid uid, std::span<const float> change) const {
    ScoreEntry entry{uid, Verdict::measured, {}, {}};
    entry.private_draw = gained(judge, id, uid, base_before_, change, kPrivateWindows);
    if (!std::isfinite(entry.private_draw.reduction)) return {uid, Verdict::not_finite, {}, {}};
    return entry;
  }

  ScoreEntry lie(Uid uid) const {
    const bool is_friend = players_[index_of(uid)].result.part == PartPlayed::attacker;
    double reduction = is_friend ? 1 : -1;
    if (scenario_.attack == "weight_copier") {
      // Reductions whose weights are those of the round before; it copies the first validator.
      reduction = 1e-3;
      for (const auto& [worker, weight] : copied_) {
        if (worker == uid) reduction = std::sqrt(weight / 65'535.0 + 1e-4) / 10;
      }
    } else if (scenario_.attack == "friend_liar" && !is_friend) {
      reduction = 0.02;
    }
    return {uid, Verdict::measured, {}, {3, reduction, 1e-3, kPrivateWindows}};
  }

  std::size_t index_of(Uid uid) const {
    for (std::size_t i = 0; i < players_.size(); ++i) {
      if (players_[i].joined && players_[i].uid == uid) return i;
    }
    return 0;
  }

  Bytes update_of(const Bytes& contribution) const {
    try {
      return contribution.empty() ? Bytes{} : decode_contribution(contribution).update;
    } catch (const Error&) {
      return {};  // one of those that are no contributions
    }
  }

  // --- what came of it -----------------------------------------------------------------------------------------

  void note() {
    copied_ = core_.scoring().weights(judges_[0].uid);
    std::map<std::array<std::uint8_t, 32>, ledger::Payout> paid;
    for (; epochs_ < ledger_.epochs().size(); ++epochs_) {
      for (const ledger::Payout& payout : ledger_.epochs()[epochs_].report.payouts) {
        ledger::Payout& sum = paid[payout.hotkey];
        sum.incentive += payout.incentive;
        sum.dividend_alpha += payout.dividend_alpha + payout.dividend_root;
      }
    }
    for (Player& p : players_) {
      const double alpha = static_cast<double>(paid[p.hotkey.bytes].incentive) / 1e9;
      p.result.by_round.push_back(alpha);
      p.result.weight.push_back(p.joined ? core_.scoring().weight(p.uid) : 0);
    }
    for (Player& p : judges_) {
      p.result.by_round.push_back(static_cast<double>(paid[p.hotkey.bytes].dividend_alpha) / 1e9);
    }
    if (blobs_.size() > 4 * players_.size()) {
      std::set<Digest> kept;
      for (std::uint64_t back = 0; back < 4; ++back) {
        const RoundState* round =
            core_.round_state({core_.round().value - std::min(core_.round().value, back)});
        if (round == nullptr) continue;
        for (const auto& [uid, shard] : round->shards) kept.insert(shard.blob);
      }
      std::erase_if(blobs_, [&](const auto& entry) { return !kept.contains(entry.first); });
    }
  }

  AttackResult result() {
    AttackResult result;
    result.scenario = scenario_;
    result.loss = loss_;
    result.evaluation_share = training_ > 0 ? measuring_ / training_ : 0;
    share_out(players_);
    share_out(judges_);
    double attacker_work = 0, attackers = 0, honest_work = 0, honest = 0;
    double special = std::numeric_limits<double>::infinity(), worst = 0, largest = 1;
    for (const Player& p : players_) {
      const double last = p.result.weight.empty() ? 0 : p.result.weight.back();
      largest = std::max(largest, last);
      if (p.result.part == PartPlayed::attacker) {
        attackers += p.result.emission;
        attacker_work += p.result.work;
        if (p.shirked) worst = std::max(worst, last);
      } else if (p.result.part == PartPlayed::honest) {
        honest += p.result.emission;
        honest_work += p.result.work;
      } else {
        special = std::min(special, last);
      }
      result.participants.push_back(p.result);
    }
    double liars = 0;
    for (const Player& p : judges_) {
      if (p.result.part == PartPlayed::lying_validator) liars += p.result.emission;
      result.participants.push_back(p.result);
    }
    const bool by_validators = info_ != nullptr && info_->kind == AttackKind::validator;
    result.attackers_share = by_validators ? liars : attackers;
    result.friends_share = by_validators ? attackers : 0;
    if (attacker_work > 0 && honest > 0)
      result.pay_per_work = attackers / attacker_work * honest_work / honest;
    result.special_over_attackers = std::isfinite(special) ? (special - worst) / largest : 0;
    return result;
  }

  static void share_out(std::vector<Player>& players) {
    double all = 0;
    for (const Player& p : players) {
      for (const double alpha : p.result.by_round) all += alpha;
    }
    for (Player& p : players) {
      double own = 0;
      for (const double alpha : p.result.by_round) own += alpha;
      p.result.emission = all > 0 ? own / all : 0;
    }
  }

  struct Waiting {
    std::size_t player;
    RoundId round;
    Delivery delivery;
  };

  const AttackScenario scenario_;
  const AttackInfo* info_ = nullptr;
  const RunSetup setup_;
  const Layout layout_;
  Run core_;
  ModelState model_;
  RunLedger ledger_;
  World world_;
  Seen seen_;
  const EvaluationOptions evaluation_;  // the defaults: what a run has if nobody says otherwise
  Random random_;
  std::vector<Player> players_, judges_;
  std::map<Digest, Bytes> blobs_;
  std::map<std::size_t, Bytes> newest_;  // updates of the round before, which anybody may fetch
  std::map<std::uint32_t, double> usual_norms_;
  std::vector<Waiting> waiting_;
  std::vector<std::pair<Uid, std::uint16_t>> copied_;
  std::vector<float> base_now_, base_before_;
  std::vector<float> world_base_{model_.base().parameters().begin(),
                                 model_.base().parameters().end()};
  std::vector<double> loss_;
  TimeMs now_{1'000'000};
  double training_ = 0, measuring_ = 0;  // windows, in units of a training step's
  std::size_t epochs_ = 0;
  bool replayed_ = false;
};

}  // namespace

AttackResult simulate_attack(const AttackScenario& scenario) { return Simulation(scenario).run(); }

}  // namespace yumoe
