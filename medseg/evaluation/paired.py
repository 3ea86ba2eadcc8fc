"""Statistics of paired differences: what one model scored less what another did, on the same cases.

Legend: n cases, m comparisons, d the differences. docs/comparing.md says what each number means.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

ALPHA = 0.05
"""A difference is claimed where the corrected p is at most this; intervals cover 1 - ALPHA."""

RESAMPLES = 9999
EXACT = 200
"""Up to so many pairs that differ, the test's distribution is the exact one."""

DIGITS = 12
"""Differences that agree to so many digits of the scores' magnitude are equal: the rest is rounding."""

_NUMBERS = 2_000_000
"""How many numbers the bootstrap draws at once."""


@dataclass(frozen=True)
class Paired:
    """What n paired differences say; NaN where they say nothing.

    Attributes:
        n: the pairs.
        mean: of the differences.
        low: the lower end of the mean's bootstrap interval.
        high: its upper end.
        sd: of the differences, that of a sample (n - 1).
        p: of Wilcoxon's signed-rank test, two-sided.
        least_p: the smallest p that so many pairs that differ can reach.
        rank_biserial: the matched-pairs rank-biserial correlation, from -1 to 1.
        dz: Cohen's d_z, the mean difference in standard deviations of the differences.
        above: differences above zero.
        zero: that are none.
        below: below zero.
    """

    n: int
    mean: float
    low: float
    high: float
    sd: float
    p: float
    least_p: float
    rank_biserial: float
    dz: float
    above: int
    zero: int
    below: int


def paired(samples: Sequence[NDArray[np.float64]], seed: int = 0, resamples: int = RESAMPLES) -> list[Paired]:
    """The statistics of several samples of differences.

    Args:
        samples: m arrays (n,) of finite differences, as :func:`differences` makes them; each n may be another.
        seed: of the bootstrap. What is found for one sample does not depend on which others are there.
        resamples: of the bootstrap.
    """
    intervals = bootstrap_intervals(samples, seed, resamples)
    return [_paired(d, *interval) for d, interval in zip(samples, intervals, strict=True)]


def _paired(d: NDArray[np.float64], low: float, high: float) -> Paired:
    mean = float(d.mean()) if d.size else math.nan
    sd = float(d.std(ddof=1)) if d.size > 1 else math.nan
    dz = mean / sd if sd > 0 else math.nan
    above, below = int((d > 0).sum()), int((d < 0).sum())
    least = 2.0 ** (1 - max(above + below, 1)) if d.size else math.nan
    tied = d.size - above - below
    return Paired(d.size, mean, low, high, sd, wilcoxon(d), least, rank_biserial(d), dz, above, tied, below)


def differences(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Second less first, rounded to :data:`DIGITS` digits of the largest magnitude, so that ties are ties.

    Args:
        first: (n,) finite scores.
        second: (n,), of the same cases.
    """
    scale = float(np.abs([first, second]).max(initial=0.0))
    return np.round((second - first) / scale, DIGITS) * scale if scale else np.zeros(len(first))


def wilcoxon(d: NDArray[np.float64]) -> float:
    """The two-sided p of the signed-rank test (Wilcoxon 1945): that the differences lie symmetrically about zero.

    Differences of zero are left out; equal ones share their mean rank. The distribution is the exact one given these
    ranks, ties or not (the shift algorithm of Streitberg & Röhmel 1986), which SciPy has without ties only; of more
    than :data:`EXACT` differences it is SciPy's normal approximation.

    Args:
        d: (n,) differences.

    Returns:
        1 where none differs from zero; NaN where there are none.
    """
    if not d.size:
        return math.nan
    d = d[d != 0]
    if d.size > EXACT:
        return float(stats.wilcoxon(d, method="asymptotic").pvalue)
    ranks = (2 * stats.rankdata(np.abs(d))).astype(np.int64)  # twice a mean rank is a whole number
    above = int(ranks[d > 0].sum())
    tail = min(above, int(ranks.sum()) - above)
    return min(1.0, 2 * float(_chances(ranks)[: tail + 1].sum()))


def _chances(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """The chance of each sum of ranks, where each is in it or not with chance 1/2."""
    chances = np.zeros(int(ranks.sum()) + 1)
    chances[0] = 1.0
    for rank in ranks:
        shifted = np.zeros_like(chances)
        shifted[rank:] = chances[: len(chances) - rank]
        chances = (chances + shifted) / 2
    return chances


def rank_biserial(d: NDArray[np.float64]) -> float:
    """The matched-pairs rank-biserial correlation (Kerby 2014): (W₊ - W₋) / (W₊ + W₋), W the sums of ranks.

    Differences of zero are left out, as in :func:`wilcoxon`.

    Args:
        d: (n,) differences.

    Returns:
        from -1, all below zero, to 1; 0 where none differs; NaN where there are none.
    """
    if not d.size:
        return math.nan
    ranks = stats.rankdata(np.abs(d[d != 0]))
    return float((ranks * np.sign(d[d != 0])).sum() / ranks.sum()) if ranks.size else 0.0


def bootstrap_intervals(
    samples: Sequence[NDArray[np.float64]], seed: int = 0, resamples: int = RESAMPLES
) -> list[tuple[float, float]]:
    """The bootstrap intervals of means: bias-corrected and accelerated (BCa, Efron 1987), by SciPy.

    Args:
        samples: m arrays (n,); those of equal n are drawn from by the same resamples.
        seed: of the resamples.
        resamples: how many.

    Returns:
        (low, high), of each; both the mean where all values are equal, NaN of fewer than two values and where the
        resamples leave it undefined.
    """
    intervals = [(float(d[0]), float(d[0])) if d.size > 1 else (math.nan, math.nan) for d in samples]
    by_size: dict[int, list[int]] = {}
    for number, d in enumerate(samples):
        if d.size > 1 and np.ptp(d) > 0:
            by_size.setdefault(d.size, []).append(number)
    for numbers in by_size.values():
        stacked = np.stack([samples[number] for number in numbers])
        for number, interval in zip(numbers, _bca(stacked, seed, resamples), strict=True):
            intervals[number] = interval
    return intervals


def _bca(rows: NDArray[np.float64], seed: int, resamples: int) -> list[tuple[float, float]]:
    """Of each row of (m, n); NaN where all resamples lie on one side of the mean."""
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            (rows,),
            np.mean,
            axis=-1,
            vectorized=True,
            method="BCa",
            confidence_level=1 - ALPHA,
            n_resamples=resamples,
            batch=max(1, _NUMBERS // rows.size),
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return [(float(low), float(high)) for low, high in zip(found.low, found.high, strict=True)]


def holm(ps: Sequence[float]) -> list[float]:
    """P values corrected for their number by Holm's (1979) step-down procedure.

    Rejecting where the corrected p is at most alpha claims anything wrongly with a chance of at most alpha, however
    the tests hang together.

    Args:
        ps: of all tests that were made; NaN for one that could not be, which does not count and stays NaN.
    """
    made = sorted((p, number) for number, p in enumerate(ps) if not math.isnan(p))
    corrected = [math.nan] * len(ps)
    highest = 0.0
    for before, (p, number) in enumerate(made):
        highest = max(highest, min(1.0, p * (len(made) - before)))
        corrected[number] = highest
    return corrected
