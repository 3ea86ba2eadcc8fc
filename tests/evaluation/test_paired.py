"""The statistics agree with SciPy's, with definitions, and with what chance allows."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from medseg.evaluation.paired import (
    ALPHA,
    EXACT,
    bootstrap_intervals,
    differences,
    holm,
    paired,
    rank_biserial,
    wilcoxon,
)

WHOLE = st.lists(st.integers(-6, 6), min_size=1, max_size=9).map(lambda values: np.array(values, float))
CHANCES = st.lists(st.floats(0, 1), min_size=1, max_size=6)


def planted(n: int, seed: int, shift: float = 0.5) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, n)


@pytest.mark.parametrize("n", [1, 2, 5, 6, 20, 50, 75, EXACT])
def test_without_ties_the_test_is_scipys_exact_one(n: int) -> None:
    for seed in range(5):
        d = planted(n, seed)
        assert wilcoxon(d) == pytest.approx(stats.wilcoxon(d, method="exact").pvalue, rel=1e-9)


def test_of_many_differences_the_test_is_scipys_approximation() -> None:
    d = np.concatenate([planted(EXACT + 1, 0, 0.1), np.zeros(3)])
    assert wilcoxon(d) == pytest.approx(stats.wilcoxon(d, method="asymptotic").pvalue, rel=1e-9)


@given(WHOLE)
def test_with_ties_the_test_counts_every_flip_of_signs(d: np.ndarray) -> None:
    """The definition: of all sign patterns, twice the share whose rank sum lies as far out on the nearer side."""
    left = d[d != 0]
    ranks = stats.rankdata(np.abs(left))
    sums = np.array([ranks[list(signs)].sum() for signs in itertools.product([False, True], repeat=len(left))])
    seen = ranks[left > 0].sum()
    expected = min(1.0, 2 * min((sums <= seen).mean(), (sums >= seen).mean()))
    assert wilcoxon(d) == pytest.approx(expected, rel=1e-12)


def test_with_ties_the_test_is_scipys_permutation_test() -> None:
    for seed in range(3):
        d = np.round(planted(6, seed, 1), 0)
        d = d[d != 0]
        assert wilcoxon(d) == pytest.approx(stats.wilcoxon(d, method=stats.PermutationMethod()).pvalue, rel=1e-9)


@given(WHOLE)
def test_swapping_the_two_changes_the_sign_and_nothing_else(d: np.ndarray) -> None:
    (one,), (other,) = paired([d], resamples=99), paired([-d], resamples=99)
    assert one.p == other.p and one.rank_biserial == -other.rank_biserial and one.mean == -other.mean
    assert (one.above, one.zero, one.below) == (other.below, other.zero, other.above)


@given(WHOLE)
def test_zeros_change_neither_p_nor_the_rank_correlation(d: np.ndarray) -> None:
    more = np.concatenate([d, np.zeros(4)])
    assert wilcoxon(more) == wilcoxon(d) and rank_biserial(more) == rank_biserial(d)


@given(WHOLE)
def test_no_p_lies_below_the_least_one_that_is_told(d: np.ndarray) -> None:
    (found,) = paired([d], resamples=99)
    assert found.p >= found.least_p
    (outermost,) = paired([np.abs(d)], resamples=99)
    assert outermost.p == pytest.approx(outermost.least_p)


def test_the_rank_correlation_is_kerbys_simple_difference() -> None:
    d = planted(12, 3)
    pairs = [(a + b) / 2 for a, b in itertools.combinations_with_replacement(d, 2)]  # Walsh averages: Tukey 1949
    share = np.mean(np.array(pairs) > 0)
    assert rank_biserial(d) == pytest.approx(share - (1 - share))


def test_dz_is_the_t_statistic_over_the_root_of_n() -> None:
    d = planted(15, 4)
    (found,) = paired([d], resamples=99)
    assert found.dz == pytest.approx(stats.ttest_1samp(d, 0).statistic / math.sqrt(15))


def test_intervals_are_scipys_whatever_else_is_compared() -> None:
    samples = [planted(n, n) for n in (20, 7, 20, 2)]
    together = bootstrap_intervals(samples, seed=3, resamples=999)
    for d, interval in zip(samples, together, strict=True):
        alone = stats.bootstrap(
            (d,), np.mean, n_resamples=999, method="BCa", vectorized=True, rng=np.random.default_rng(3)
        ).confidence_interval
        assert interval == pytest.approx((alone.low, alone.high))
    assert bootstrap_intervals(samples, seed=4, resamples=999) != together
    assert bootstrap_intervals(samples, seed=3, resamples=999) == together


def test_what_cannot_be_estimated_is_said_to_be_unknown() -> None:
    none, one, equal, ties = paired([np.array(d) for d in ([], [0.5], [0.5] * 8, [0.0] * 8)], resamples=99)
    assert all(math.isnan(v) for v in (none.p, none.mean, none.low, none.rank_biserial, one.low, one.sd, equal.dz))
    assert one.p == 1 and one.mean == 0.5
    assert (equal.low, equal.high, equal.p) == (0.5, 0.5, 2**-7)
    assert (ties.p, ties.rank_biserial, ties.zero, ties.low) == (1, 0, 8, 0)


@given(CHANCES)
def test_holm_is_the_closed_test_of_bonferronis(ps: list[float]) -> None:
    """A hypothesis falls where every intersection that it is part of does, each by Bonferroni's test."""
    subsets = [s for k in range(1, len(ps) + 1) for s in itertools.combinations(range(len(ps)), k)]
    expected = [max(min(1.0, len(s) * min(ps[j] for j in s)) for s in subsets if i in s) for i in range(len(ps))]
    assert holm(ps) == pytest.approx(expected)


def test_what_was_not_tested_is_not_corrected_for() -> None:
    assert holm([0.01, math.nan, 0.04]) == [0.02, pytest.approx(math.nan, nan_ok=True), 0.04]


@given(
    st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.7, 0.8, 0.9]), min_size=2, max_size=8), st.sampled_from([1e-3, 1, 1e6])
)
def test_rounding_makes_no_ranks(values: list[float], scale: float) -> None:
    """0.3 - 0.2 and 0.2 - 0.1 are one difference."""
    first = np.array(values) * scale
    d = differences(first, first + 0.1 * scale)
    assert len(set(d)) == 1 and rank_biserial(d) == 1
    assert not differences(first, first).any()


def test_where_nothing_differs_one_in_twenty_is_claimed() -> None:
    """Within what chance allows of 600 tests; with many tests at once, of the families."""
    simulations, tests = 600, 5
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(simulations, 1, 20))
    d = 0.5 * shared + rng.normal(size=(simulations, tests, 20))
    ps = [[wilcoxon(row) for row in family] for family in d]
    allowed = stats.binom(simulations, ALPHA).ppf([0.0005, 0.9995])
    assert allowed[0] <= sum(family[0] <= ALPHA for family in ps) <= allowed[1]
    assert sum(min(holm(family)) <= ALPHA for family in ps) <= allowed[1]
    assert sum(min(family) <= ALPHA for family in ps) > allowed[1], (
        "uncorrected, more are claimed: that is what Holm is for"
    )
