// Every set of row kernels gives the numbers of the fixed-point types, on whatever processor runs
// this.

#include "ledger/row_kernels.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "coordinator/fixed.hpp"
#include "ledger/consensus.hpp"

namespace yumoe::ledger {
namespace {

constexpr std::size_t kCount = 64 * 5;

I32F32 share(std::uint64_t bits) { return I32F32::from_bits(static_cast<std::int64_t>(bits)); }
std::uint64_t bits(I32F32 x) { return static_cast<std::uint64_t>(x.bits()); }

class RowKernelSets : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    kernels = row_kernels_named(GetParam());
    if (kernels == nullptr) GTEST_SKIP() << "this processor has no " << GetParam();
  }
  // Shares of every size, with many at the ends.
  std::uint64_t any_share() {
    switch (random() % 6) {
      case 0: return 0;
      case 1: return kShareOne;
      case 2: return kShareOne - random() % 4;
      default: return (random() >> 32) >> (random() % 32);
    }
  }
  // Packed shares that rows can hold: never 2^32 - 1 but as 1.0.
  std::uint32_t any_packed() {
    return pack_share(
        std::min<std::uint64_t>(any_share(), random() % 8 ? kShareOne - 2 : kShareOne));
  }
  Divisors divisors(const std::vector<std::uint64_t>& by) {
    reciprocal.clear();
    for (const std::uint64_t d : by) reciprocal.push_back(0x1p32 / static_cast<double>(d));
    return {by.data(), reciprocal.data()};
  }

  const RowKernels* kernels = nullptr;
  std::mt19937_64 random{3};
  std::vector<double> reciprocal;
};

TEST_P(RowKernelSets, NormalizeLikeTheFixedPointDivision) {
  for (int round = 0; round < 200; ++round) {
    std::vector<std::uint32_t> cells(kCount, 0);
    std::vector<std::uint32_t> out(kCount);
    const int density = static_cast<int>(random() % 8);
    for (std::uint32_t& c : cells)
      c = static_cast<int>(random() % 8) <= density ? kSeen | (random() & 0xffff) : 0;
    I32F32 sum;
    for (const std::uint32_t c : cells) sum += I32F32::from_integer(c & 0xffff);
    kernels->normalize(cells.data(), out.data(), kCount);
    for (std::size_t k = 0; k < kCount; ++k) {
      const I32F32 value = I32F32::from_integer(cells[k] & 0xffff);
      const I32F32 expected = sum == I32F32::zero() ? value : value.safe_div(sum);
      ASSERT_EQ(unpack_share(out[k]), bits(expected));
    }
  }
}

TEST_P(RowKernelSets, ClipRankAndBlendLikeTheFixedPointProducts) {
  for (int round = 0; round < 200; ++round) {
    std::vector<std::uint32_t> weight(kCount);
    std::vector<std::uint32_t> limit(kCount);
    for (std::size_t k = 0; k < kCount; ++k) {
      weight[k] = any_packed();
      limit[k] = any_packed();
    }
    const std::uint64_t stake = any_share();
    std::vector<std::uint64_t> rank(kCount, 5);
    const std::uint64_t trust =
        kernels->clip_and_rank(weight.data(), limit.data(), stake, rank.data(), kCount);
    std::uint64_t expected_trust = 0;
    for (std::size_t k = 0; k < kCount; ++k) {
      const I32F32 clipped = share(unpack_share(std::min(weight[k], limit[k])));
      expected_trust += bits(clipped);
      ASSERT_EQ(rank[k], 5 + bits(clipped.saturating_mul(share(stake))));
    }
    ASSERT_EQ(trust, expected_trust);
    const auto penalty = static_cast<std::uint16_t>(random());
    const I32F32 ratio = share_of_u16(penalty);
    std::vector<std::uint32_t> out(kCount);
    kernels->bond_weights(weight.data(), {limit.data(), pack_share(bits(ratio))}, out.data(),
                          kCount);
    for (std::size_t k = 0; k < kCount; ++k) {
      const I32F32 w = share(unpack_share(weight[k]));
      const I32F32 clipped = share(unpack_share(std::min(weight[k], limit[k])));
      const I32F32 blended = w.saturating_add(ratio.saturating_mul(clipped.saturating_sub(w)));
      // 2^32 - 1 has no packed form; rows of normalised weights never blend to it.
      if (bits(blended) == kShareOne - 1) continue;
      ASSERT_EQ(unpack_share(out[k]), bits(blended));
    }
  }
}

TEST_P(RowKernelSets, FormBondsAndDividendsLikeTheFixedPointTypes) {
  for (int round = 0; round < 200; ++round) {
    std::vector<std::uint32_t> weight(kCount);
    std::vector<std::uint16_t> raw(kCount);
    std::vector<std::uint64_t> raw_sum(kCount), fresh_sum(kCount), rate(kCount), incentive(kCount),
        bond(kCount), sum(kCount, 0);
    const std::uint64_t stake = any_share();
    for (std::size_t k = 0; k < kCount; ++k) {
      weight[k] = any_packed();
      raw[k] = random() % 3 ? static_cast<std::uint16_t>(random()) : 65535;
      raw_sum[k] = std::max<std::uint64_t>(1, raw[k] + random() % 100000);
      fresh_sum[k] = std::max<std::uint64_t>(
          1, bits(share(unpack_share(weight[k])).saturating_mul(share(stake))) + any_share());
      rate[k] = any_share();
      incentive[k] = any_share();
    }
    const Divisors fresh = divisors(fresh_sum);
    const std::vector<double> fresh_reciprocal = reciprocal;
    const Divisors old = divisors(raw_sum);
    kernels->relative_bonds(weight.data(), stake, {fresh.by, fresh_reciprocal.data()}, raw.data(),
                            old, rate.data(), bond.data(), sum.data(), kCount);
    for (std::size_t k = 0; k < kCount; ++k) {
      const I32F32 delta =
          share(unpack_share(weight[k])).saturating_mul(share(stake)).safe_div(share(fresh_sum[k]));
      const I32F32 before = I32F32::from_integer(raw[k]).safe_div(I32F32::from_integer(raw_sum[k]));
      const I32F32 keep = I32F32::one().saturating_sub(share(rate[k]));
      const I32F32 expected =
          share(rate[k]).saturating_mul(delta).saturating_add(keep.saturating_mul(before));
      ASSERT_EQ(bond[k], bits(expected));
      ASSERT_EQ(sum[k], bond[k]);
      sum[k] = std::max<std::uint64_t>(1, sum[k] + (random() % 2 ? any_share() : random() >> 20));
    }
    const Divisors by = divisors(sum);
    std::uint64_t expected = 0;
    for (std::size_t k = 0; k < kCount; ++k) {
      expected += bits(share(bond[k]).safe_div(share(sum[k])).saturating_mul(share(incentive[k])));
    }
    ASSERT_EQ(kernels->dividend(bond.data(), by, incentive.data(), kCount), expected);
    std::vector<std::uint64_t> largest(kCount, 0);
    std::vector<std::uint64_t> shares = bond;
    ASSERT_EQ(
        kernels->dividend_and_share(shares.data(), by, incentive.data(), largest.data(), kCount),
        expected);
    std::vector<std::uint16_t> u16(kCount);
    kernels->quantize(bond.data(), u16.data(), kCount);
    for (std::size_t k = 0; k < kCount; ++k) {
      ASSERT_EQ(shares[k], bits(share(bond[k]).safe_div(share(sum[k]))));
      ASSERT_EQ(u16[k], share(bond[k]).saturating_mul(I32F32::from_integer(65535)).to_u16());
    }
  }
}

TEST_P(RowKernelSets, FindTheMediansThatSortingFinds) {
  TileMedians medians;
  for (int round = 0; round < 400; ++round) {
    const std::size_t rows = 2 + random() % 120;
    const std::size_t width = 1 + random() % kTile;
    std::vector<std::uint32_t> tile(rows * kTile, 0);
    std::vector<std::uint32_t> stake(rows);
    const std::uint32_t range = round % 3 == 0 ? 4 : ~0U;
    for (std::size_t i = 0; i < rows; ++i) {
      stake[i] = 1 + static_cast<std::uint32_t>(random() % (kPackedOne / rows));
      for (std::size_t c = 0; c < width; ++c)
        tile[i * kTile + c] = static_cast<std::uint32_t>(random() % range) >> (random() % 32);
    }
    const auto threshold = static_cast<std::int64_t>(random() % (kShareOne + 10)) - 5;
    std::vector<std::uint32_t> found(kTile);
    medians.find(*kernels, tile.data(), stake, width, threshold, found.data());
    for (std::size_t c = 0; c < width; ++c) {
      std::vector<Vote> votes;
      for (std::size_t i = 0; i < rows; ++i) votes.push_back({tile[i * kTile + c], stake[i]});
      std::sort(votes.begin(), votes.end(),
                [](const Vote& a, const Vote& b) { return a.weight > b.weight; });
      std::uint32_t expected = votes.front().weight;
      for (const Vote& candidate : votes) {
        std::int64_t above = 0;
        for (const Vote& v : votes) above += v.weight > candidate.weight ? v.stake : 0;
        if (above < threshold) expected = std::min(expected, candidate.weight);
      }
      ASSERT_EQ(found[c], expected);
      ASSERT_EQ(median_of(votes, 0, threshold), expected);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, RowKernelSets, ::testing::Values("portable", "avx2", "avx512"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace yumoe::ledger
