#include "conformance/plain_epoch.hpp"

#include <algorithm>
#include <numeric>

namespace yumoe::ledger::plain {
namespace {

const I32F32 kZero = I32F32::zero();
const I32F32 kOne = I32F32::one();

Vec dense_row(const SparseRow& row, std::size_t columns) {
  Vec out(columns, kZero);
  for (const auto& [j, v] : row) {
    if (j < columns) out[j] = v;
  }
  return out;
}

template <typename Keep>
SMat keep_if(SMat rows, Keep keep) {
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::erase_if(rows[i], [&](const auto& entry) { return !keep(i, entry.first); });
  }
  return rows;
}

SMat rows_of(const std::vector<Row>& stored, std::size_t n) {
  SMat rows(n);
  for (std::size_t i = 0; i < n; ++i) {
    for (const Entry& e : stored[i]) {
      if (e.uid < n) rows[i].emplace_back(e.uid, I32F32::from_integer(e.value));
    }
  }
  return rows;
}

std::vector<std::uint16_t> to_u16(const Vec& values) {
  std::vector<std::uint16_t> out;
  for (const I32F32 v : values) out.push_back(share_to_u16(v));
  return out;
}

I32F32 interpolated_quantile(Vec sorted, double quantile) {
  std::sort(sorted.begin(), sorted.end());
  const double position = quantile * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<std::size_t>(position);
  const auto high =
      std::min(low + (position > static_cast<double>(low) ? 1 : 0), sorted.size() - 1);
  if (low == high) return sorted[low];
  const I32F32 weight = I32F32::from_literal(position - static_cast<double>(low));
  return sorted[low] + (sorted[high] - sorted[low]).saturating_mul(weight);
}

I32F32 logit_below(I32F32 z) {  // ln(1/z - 1)
  return ln(kOne.safe_div(z).saturating_sub(kOne)).value_or(kZero);
}

// The rate a column of the quantile rule, or nothing when its guard says to use the plain rate.
std::optional<Vec> quantile_rates(const EpochParameters& p, const Vec& consensus) {
  const I32F32 high_q = interpolated_quantile(consensus, 0.75);
  const I32F32 low_q = interpolated_quantile(consensus, 0.25);
  if (!(high_q > low_q || high_q != kZero || low_q < kZero)) return std::nullopt;
  const I32F32 low = share_of_u16(p.alpha_low);
  const I32F32 high = share_of_u16(p.alpha_high);
  I32F32 a = kZero;
  I32F32 b = kZero;
  if (high_q > low_q && low != kZero && high != kZero) {
    a = logit_below(high).saturating_sub(logit_below(low)).safe_div(low_q.saturating_sub(high_q));
    b = logit_below(low).saturating_add(a.saturating_mul(low_q));
  }
  Vec rates;
  for (const I32F32 c : consensus) {
    const I32F32 power = exp_safe(b.saturating_sub(a.saturating_mul(c)));
    const I32F32 rate = kOne.safe_div(kOne.saturating_add(power));
    rates.push_back(std::max(low, std::min(high, rate)));
  }
  return rates;
}

Mat union_ema(const Mat& fresh, const Mat& old, const Mat& alpha) {
  Mat out = fresh;
  for (std::size_t i = 0; i < out.size(); ++i) {
    for (std::size_t j = 0; j < out[i].size(); ++j) {
      out[i][j] = alpha.at(i)
                      .at(j)
                      .saturating_mul(fresh.at(i).at(j))
                      .saturating_add(
                          kOne.saturating_sub(alpha.at(i).at(j)).saturating_mul(old.at(i).at(j)));
    }
  }
  return out;
}

struct Shared {
  std::size_t n;
  std::vector<std::uint8_t> old_permit;
  std::vector<std::uint8_t> new_permit;
  Vec stake;
};

struct MechanismResult {
  std::vector<std::uint8_t> active;
  Vec incentive, dividends, consensus, validator_trust, trust, combined;
  std::vector<std::uint64_t> server, validator, emission;
  SMat bonds;
};

bool is_owner(const EpochInput& in, std::size_t uid, bool exempt) {
  return exempt && in.owner_uid && *in.owner_uid == uid;
}

Shared shared_of(const EpochInput& in, bool exempt) {
  Shared s{in.stake.size(), in.permit, {}, {}};
  std::vector<I64F64> filtered = in.stake;
  I64F64 total;
  for (std::size_t i = 0; i < s.n; ++i) {
    const bool low = in.rules.stake_threshold_in_epoch && !is_owner(in, i, exempt) &&
                     in.stake[i].to_u64() < in.parameters.stake_threshold;
    if (low) filtered[i] = I64F64::zero();
    total += filtered[i];
    if (is_owner(in, i, exempt)) s.old_permit[i] = 1;
  }
  for (const I64F64 f : filtered) {
    s.stake.push_back((total != I64F64::zero() ? f.safe_div(total) : f).convert<I32F32>());
  }
  s.new_permit = largest_k(s.stake, in.parameters.max_allowed_validators);
  for (std::size_t i = 0; i < s.n; ++i) {
    if (in.rules.permit_needs_stake && s.stake[i] == kZero) s.new_permit[i] = 0;
    if (is_owner(in, i, exempt)) s.new_permit[i] = 1;
  }
  return s;
}

std::uint64_t last_update_of(const MechanismInput& m, std::size_t i) {
  return i < m.last_update.size() ? m.last_update[i] : 0;
}

SMat masked_weights(const EpochInput& in, const MechanismInput& m, const Shared& s, bool exempt,
                    bool commits) {
  SMat w = keep_if(rows_of(m.weights, s.n), [&](std::size_t i, std::uint16_t j) {
    if (!s.old_permit[i] || (i == j && !is_owner(in, i, exempt))) return false;
    if (last_update_of(m, i) <= in.registered_at[j]) return false;
    const std::uint64_t first = m.first_commit.empty() ? kNoCommit : m.first_commit[i];
    return !(commits && first < in.registered_at[j]);
  });
  return row_normalize(w);
}

MechanismResult run_mechanism(const EpochInput& in, const MechanismInput& m, const Shared& s,
                              std::uint64_t emission, bool dense_variant) {
  const EpochParameters& p = in.parameters;
  const bool exempt = in.rules.owner_exempt && !dense_variant;
  const std::size_t n = s.n;
  MechanismResult r;
  Vec active = s.stake;
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint64_t updated = last_update_of(m, i);
    const bool is_active = in.block <= updated || in.block - updated <= p.activity_cutoff;
    r.active.push_back(is_active);
    if (!is_active || !s.old_permit[i]) active[i] = kZero;
  }
  active = normalize(active);
  const bool commits = in.rules.commits_mask_weights && p.commit_reveal && !dense_variant;
  const SMat w = masked_weights(in, m, s, exempt, commits);
  r.consensus = weighted_median_columns(active, w, n, share_of_u16(p.kappa));
  const SMat clipped = col_clip(w, r.consensus);
  r.validator_trust = row_sum(clipped);
  Vec rank = matmul(clipped, active);
  rank.resize(n, kZero);
  Vec before = matmul(w, active);
  before.resize(n, kZero);
  for (std::size_t j = 0; j < n; ++j) r.trust.push_back(rank[j].safe_div(before[j]));
  r.incentive = normalize(rank);

  const SMat for_bonds = p.bonds_penalty == 65535 ? clipped
                         : p.bonds_penalty == 0
                             ? w
                             : interpolate(w, clipped, n, share_of_u16(p.bonds_penalty));
  const std::uint64_t last_tempo = in.last_step_block == 0
                                       ? (in.block > p.tempo ? in.block - p.tempo : 0)
                                       : in.last_step_block + 1;
  SMat bonds = keep_if(rows_of(m.bonds, n), [&](std::size_t i, std::uint16_t j) {
    return (in.rules.bonds_masked_by_last_step ? last_tempo : last_update_of(m, i)) >
           in.registered_at[j];
  });
  const I32F32 plain_rate = kOne - I64F64::from_integer(p.bonds_moving_average)
                                       .safe_div(I64F64::from_integer(1000000))
                                       .convert<I32F32>();
  Mat rates(n, Vec(n, plain_rate));
  if (p.yuma == 3) {
    for (SparseRow& row : bonds) {
      for (auto& [j, v] : row) v = v.safe_div(I32F32::from_integer(65535));
    }
    const bool some =
        std::any_of(r.consensus.begin(), r.consensus.end(), [](I32F32 c) { return c != kZero; });
    const Mat dw = dense(for_bonds, n);
    const Mat db = dense(bonds, n);
    if (p.liquid_alpha && in.rules.liquid == LiquidAlpha::cell && some) {
      for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = 0; j < n; ++j) {
          rates[i][j] = liquid_rate(r.consensus[j], dw[i][j], db[i][j], share_of_u16(p.alpha_low),
                                    share_of_u16(p.alpha_high), p.alpha_sigmoid_steepness);
        }
      }
      r.bonds = dense_variant ? sparse(ema_alpha_dense(dw, db, rates))
                              : ema_alpha(for_bonds, bonds, rates);
    } else {
      r.bonds = sparse(union_ema(dw, db, rates));
    }
    Vec d = matmul_transpose(col_normalize(r.bonds, n), r.incentive);
    for (std::size_t i = 0; i < n; ++i) d[i] = d[i].checked_mul(active[i]).value_or(kZero);
    r.dividends = normalize(d);
  } else {
    bonds = col_normalize(bonds, n);
    const SMat delta = col_normalize(row_hadamard(for_bonds, active), n);
    if (p.liquid_alpha && in.rules.liquid == LiquidAlpha::quantile && n > 0) {
      if (const auto columns = quantile_rates(p, r.consensus)) rates.assign(n, *columns);
    }
    bonds = col_normalize(sparse(union_ema(dense(delta, n), dense(bonds, n), rates)), n);
    r.dividends = normalize(matmul_transpose(bonds, r.incentive));
    Vec top(n, kZero);
    for (const SparseRow& row : bonds) {
      for (const auto& [j, v] : row) top[j] = std::max(top[j], v);
    }
    for (SparseRow& row : bonds) {
      for (auto& [j, v] : row) v = top[j] == kZero ? v : v.safe_div(top[j]);
    }
    r.bonds = bonds;
  }

  Vec both;
  for (std::size_t i = 0; i < n; ++i) both.push_back(r.incentive[i].saturating_add(r.dividends[i]));
  const I32F32 total = sum(both);
  Vec server(n, kZero);
  Vec validator(n, kZero);
  if (total != kZero) {
    for (std::size_t i = 0; i < n; ++i) {
      server[i] = r.incentive[i].safe_div(total);
      validator[i] = r.dividends[i].safe_div(total);
    }
    r.combined = normalize(both);
  } else {
    validator = sum(active) == kZero ? s.stake : active;
    r.combined = validator;
  }
  const auto rao = [&](I32F32 share) {
    return share.convert<I96F32>().saturating_mul(I96F32::from_integer(emission)).to_u64();
  };
  for (std::size_t i = 0; i < n; ++i) {
    r.server.push_back(rao(server[i]));
    r.validator.push_back(rao(validator[i]));
    r.emission.push_back(rao(r.combined[i]));
  }
  return r;
}

template <typename T>
void accumulate(std::vector<T>& into, const std::vector<T>& from, U64F64 share) {
  into.resize(from.size());
  for (std::size_t i = 0; i < from.size(); ++i) {
    into[i] = U64F64::from_integer(into[i])
                  .saturating_add(U64F64::from_integer(from[i]).saturating_mul(share))
                  .template to<T>();
  }
}

}  // namespace

I32F32 sum(const Vec& values) { return std::accumulate(values.begin(), values.end(), kZero); }

Vec normalize(Vec values) {
  const I32F32 total = sum(values);
  if (total == kZero) return values;
  for (I32F32& v : values) v = v.safe_div(total);
  return values;
}

Mat dense(const SMat& rows, std::size_t columns) {
  Mat out;
  for (const SparseRow& row : rows) out.push_back(dense_row(row, columns));
  return out;
}

SMat sparse(const Mat& rows) {
  SMat out(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (std::size_t j = 0; j < rows[i].size(); ++j) {
      if (rows[i][j] > kZero) out[i].emplace_back(static_cast<std::uint16_t>(j), rows[i][j]);
    }
  }
  return out;
}

Vec row_sum(const SMat& rows) {
  Vec out;
  for (const SparseRow& row : rows) {
    I32F32 total;
    for (const auto& [j, v] : row) total = total.saturating_add(v);
    out.push_back(total);
  }
  return out;
}

Vec matmul(const SMat& rows, const Vec& by_row) {
  Vec out;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (const auto& [j, v] : rows[i]) {
      if (j >= out.size()) out.resize(j + 1U, kZero);
      out[j] = out[j].saturating_add(by_row.at(i).saturating_mul(v));
    }
  }
  return out;
}

Vec matmul_transpose(const SMat& rows, const Vec& by_col) {
  Vec out;
  for (const SparseRow& row : rows) {
    I32F32 total;
    for (const auto& [j, v] : row) total = total.saturating_add(v.saturating_mul(by_col.at(j)));
    out.push_back(total);
  }
  return out;
}

SMat row_hadamard(SMat rows, const Vec& by_row) {
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (auto& [j, v] : rows[i]) v = v.saturating_mul(by_row.at(i));
  }
  return rows;
}

SMat mat_vec_mul(SMat rows, const Vec& by_col) {
  for (SparseRow& row : rows) {
    std::erase_if(row, [&](const auto& e) { return e.first >= by_col.size(); });
    for (auto& [j, v] : row) v = v.saturating_mul(by_col.at(j));
  }
  return rows;
}

SMat col_clip(const SMat& rows, const Vec& limit) {
  SMat out(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (const auto& [j, v] : rows[i]) {
      if (limit.at(j) >= v) {
        out[i].emplace_back(j, v);
      } else if (limit.at(j) > kZero) {
        out[i].emplace_back(j, limit.at(j));
      }
    }
  }
  return out;
}

SMat row_normalize(SMat rows) {
  for (SparseRow& row : rows) {
    I32F32 total;
    for (const auto& [j, v] : row) total += v;
    if (total <= kZero) continue;
    for (auto& [j, v] : row) v = v.safe_div(total);
  }
  return rows;
}

SMat col_normalize(SMat rows, std::size_t columns) {
  Vec totals(columns, kZero);
  for (const SparseRow& row : rows) {
    for (const auto& [j, v] : row) totals.at(j) += v;
  }
  for (SparseRow& row : rows) {
    for (auto& [j, v] : row) v = totals.at(j) == kZero ? v : v.safe_div(totals.at(j));
  }
  return rows;
}

SMat interpolate(const SMat& a, const SMat& b, std::size_t columns, I32F32 ratio) {
  if (ratio == kZero) return a;
  if (ratio == kOne) return b;
  Mat out = dense(a, columns);
  const Mat other = dense(b, columns);
  for (std::size_t i = 0; i < out.size(); ++i) {
    for (std::size_t j = 0; j < columns; ++j) {
      out[i][j] =
          out[i][j].saturating_add(ratio.saturating_mul(other[i][j].saturating_sub(out[i][j])));
    }
  }
  return sparse(out);
}

SMat ema_alpha(const SMat& fresh, const SMat& old, const Mat& alpha) {
  if (fresh.size() != old.size() || fresh.size() != alpha.size()) return fresh;
  SMat out(fresh.size());
  for (std::size_t i = 0; i < fresh.size(); ++i) {
    const Vec before = dense_row(old[i], alpha[i].size());
    for (const auto& [j, v] : fresh[i]) {
      if (j >= alpha[i].size()) continue;
      const I32F32 decayed = kOne.saturating_sub(alpha.at(i).at(j)).saturating_mul(before[j]);
      const I32F32 value = std::min(
          kOne, decayed.saturating_add(std::max(kZero, alpha.at(i).at(j).saturating_mul(v))));
      if (value > kZero) out[i].emplace_back(j, value);
    }
  }
  return out;
}

Mat ema_alpha_dense(const Mat& fresh, const Mat& old, const Mat& alpha) {
  Mat out = fresh;
  for (std::size_t i = 0; i < out.size(); ++i) {
    for (std::size_t j = 0; j < out[i].size(); ++j) {
      const I32F32 decayed = kOne.saturating_sub(alpha.at(i).at(j)).saturating_mul(old.at(i).at(j));
      const I32F32 gain = std::max(kZero, alpha.at(i).at(j).saturating_mul(fresh.at(i).at(j)));
      out[i][j] = std::min(kOne, decayed.saturating_add(gain));
    }
  }
  return out;
}

I32F32 weighted_median(const Vec& stake, const Vec& score, std::vector<std::size_t> partition,
                       I32F32 minority, I32F32 low, I32F32 high) {
  for (std::size_t rounds = partition.size(); rounds > 0; --rounds) {
    if (partition.size() == 1) return score[partition.front()];
    const I32F32 pivot = score[partition[partition.size() / 2]];
    std::vector<std::size_t> lower;
    std::vector<std::size_t> upper;
    I32F32 lower_stake;
    I32F32 upper_stake;
    for (const std::size_t i : partition) {
      if (score.at(i) < pivot) {
        lower.push_back(i);
        lower_stake += stake[i];
      } else if (score.at(i) > pivot) {
        upper.push_back(i);
        upper_stake += stake[i];
      }
    }
    if (minority < low + lower_stake && !lower.empty()) {
      high = low + lower_stake;
      partition = lower;
    } else if (high - upper_stake <= minority && !upper.empty()) {
      low = high - upper_stake;
      partition = upper;
    } else {
      return pivot;
    }
  }
  return kZero;
}

Vec weighted_median_columns(const Vec& stake, const SMat& rows, std::size_t columns,
                            I32F32 majority) {
  Vec held;
  std::vector<std::size_t> row_of;
  for (std::size_t i = 0; i < stake.size(); ++i) {
    if (stake[i] > kZero) {
      held.push_back(stake[i]);
      row_of.push_back(i);
    }
  }
  held = normalize(held);
  const I32F32 total = sum(held);
  std::vector<std::size_t> all(held.size());
  std::iota(all.begin(), all.end(), std::size_t{0});
  Mat scores(columns, Vec(held.size(), kZero));
  for (std::size_t i = 0; i < row_of.size(); ++i) {
    for (const auto& [j, v] : rows.at(row_of[i])) {
      if (j < columns) scores[j][i] = v;
    }
  }
  Vec out;
  for (std::size_t j = 0; j < columns; ++j) {
    out.push_back(
        weighted_median(held, scores[j], all, total.saturating_sub(majority), kZero, total));
  }
  return out;
}

EpochOutput run_epoch(const EpochInput& input, bool dense_variant) {
  const Shared shared = shared_of(input, input.rules.owner_exempt && !dense_variant);
  EpochOutput out;
  out.permit = shared.new_permit;
  out.active.assign(shared.n, 0);
  out.stake.assign(shared.n, 0);
  out.server_emission.assign(shared.n, 0);
  out.validator_emission.assign(shared.n, 0);
  const auto parts = split_emission(input.emission, input.mechanisms.size(), input.emission_split);
  for (std::size_t k = 0; k < parts.size(); ++k) {
    const MechanismResult r =
        run_mechanism(input, input.mechanisms[k], shared, parts[k], dense_variant);
    const U64F64 share =
        input.emission == 0
            ? U64F64::from_integer(k == 0 ? 1 : 0)
            : U64F64::from_integer(parts[k]).safe_div(U64F64::from_integer(input.emission));
    accumulate(out.stake_weight, to_u16(shared.stake), share);
    accumulate(out.consensus, to_u16(r.consensus), share);
    accumulate(out.dividends, to_u16(r.dividends), share);
    accumulate(out.validator_trust, to_u16(r.validator_trust), share);
    accumulate(out.emission, r.emission, share);
    for (std::size_t i = 0; i < shared.n; ++i) {
      out.active[i] |= r.active[i];
      out.stake[i] += input.stake[i].to_u64();
      out.server_emission[i] += r.server[i];
      out.validator_emission[i] += r.validator[i];
    }
    MechanismOutput mechanism;
    mechanism.incentive = to_u16(r.incentive);
    mechanism.trust = to_u16(r.trust);
    mechanism.pruning_scores = upscale_to_u16(r.combined);
    mechanism.bonds.resize(shared.n);
    for (std::size_t i = 0; i < shared.n; ++i) {
      if (!shared.new_permit[i]) continue;
      for (const auto& [j, v] : r.bonds[i]) mechanism.bonds[i].push_back({j, share_to_u16(v)});
    }
    out.mechanisms.push_back(std::move(mechanism));
  }
  return out;
}

}  // namespace yumoe::ledger::plain
