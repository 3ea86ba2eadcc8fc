"""Comparisons: how often one claims a difference, how often intervals hold, how far the figures are from SciPy's.

python benchmarks/comparison.py                    1 000 simulations of each kind, through the whole comparison

Under no true difference both models score from one law: a case's own difficulty, and each model's noise. Dice is cut
off at 1, so that there are ties; hd95 comes in steps of half a millimetre, and follows Dice: families of both hang
together, and those of one metric's labels do not.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from workbench import RESULTS, account, save

from medseg.evaluation.comparison import Asked, compare
from medseg.evaluation.paired import ALPHA, bootstrap_intervals, paired, wilcoxon
from medseg.evaluation.score_table import Measure, ScoreTable

CASES = (6, 10, 20, 50)
LABELS = ("liver", "tumor", "vessel")
MEASURES = {"dice": Measure("dice", "dice", "higher"), "hd95_mm": Measure("hd95_mm", "hd95", "lower")}
BOTH = list(MEASURES)
BETTER_BY = 0.03
"""The true difference of the simulations that look for one."""

Values = dict[tuple[str, str], NDArray[np.float64]]


def model(rng: np.random.Generator, hardness: NDArray[np.float64], better: float) -> Values:
    """Scores of one model by column and label; hardness (labels, cases)."""
    values: Values = {}
    for label, hard in zip(LABELS, hardness, strict=True):
        noise = rng.normal(0, 0.04, hard.shape)
        values["dice", label] = np.clip(0.85 - 0.12 * hard + noise + better, 0, 1)
        values["hd95_mm", label] = np.round(2 * np.exp(1 + 0.6 * hard - 8 * (noise + better))) / 2
    return values


def table(name: str, values: Values) -> ScoreTable:
    """As a report is read."""
    number = len(next(iter(values.values())))
    cases = tuple(f"case{i}" for i in range(number))
    kept = {key: dict(zip(cases, map(float, column), strict=True)) for key, column in values.items()}
    measures = {column: MEASURES[column] for column, _ in kept}
    return ScoreTable(name, cases, measures, kept)


def simulated(number: int, cases: int, models: int, better: float, seed: int) -> Iterator[list[Values]]:
    """Models that score the same cases; all but the first are better by ``better``."""
    for simulation in range(number):
        rng = np.random.default_rng([seed, cases, simulation])
        hardness = rng.normal(size=(1, cases)) * 0.7 + rng.normal(size=(len(LABELS), cases)) * 0.7
        yield [model(rng, hardness, better * (place > 0)) for place in range(models)]


def claims(
    number: int, cases: int, models: int, metrics: Sequence[str], labels: Sequence[str], better: float = 0.0
) -> dict[str, Any]:
    """In which share of simulations something is claimed."""
    asked = Asked(metrics, labels, all_pairs=models > 2, resamples=99)
    claimed, made, begun = 0, 0, time.process_time()
    for drawn in simulated(number, cases, models, better, 0):
        found = compare([table(str(i), values) for i, values in enumerate(drawn)], asked)
        claimed += any(contrast.claimed for contrast in found.contrasts)
        made = len(found.contrasts)
    interval = stats.binomtest(claimed, number).proportion_ci()
    return {
        "cases": cases,
        "models": models,
        "metrics": list(metrics),
        "labels": len(labels),
        "comparisons": made,
        "true_difference": better,
        "simulations": number,
        "claimed_share": claimed / number,
        "share_95_interval": [round(interval.low, 4), round(interval.high, 4)],
        "cpu_seconds": round(time.process_time() - begun, 1),
    }


def coverage(number: int, cases: int) -> dict[str, Any]:
    """In which share of simulations the interval of the mean difference misses the true one, which is 0."""
    drawn = simulated(number, cases, 2, 0.0, 1)
    samples = {column: [] for column in MEASURES}
    for first, second in drawn:
        for column, found in samples.items():
            found.append(second[column, "tumor"] - first[column, "tumor"])
    begun = time.process_time()
    missed = {}
    for column, found in samples.items():
        missed[column] = sum(not low <= 0 <= high for low, high in bootstrap_intervals(found)) / number
    return {"cases": cases, "missed_share": missed, "cpu_seconds": round(time.process_time() - begun, 1)}


def agreement(number: int) -> dict[str, float]:
    """The largest differences from SciPy's on planted data without ties, of 5 to 50 cases."""
    off = {"wilcoxon_p": 0.0, "bca_ends": 0.0, "dz_by_t_test": 0.0}
    for seed in range(number):
        rng = np.random.default_rng(seed)
        d = rng.normal(0.3, 1, int(rng.integers(5, 51)))
        (found,) = paired([d], seed, 999)
        interval = stats.bootstrap((d,), np.mean, n_resamples=999, rng=np.random.default_rng(seed)).confidence_interval
        t = stats.ttest_1samp(d, 0).statistic
        ends = max(abs(found.low - interval.low), abs(found.high - interval.high))
        for key, value in zip(
            off,
            (abs(wilcoxon(d) - stats.wilcoxon(d, method="exact").pvalue), ends, abs(found.dz - t / np.sqrt(d.size))),
            strict=True,
        ):
            off[key] = max(off[key], float(value))
    return off


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=1000)
    number = parser.parse_args().simulations
    one = [claims(number, cases, 2, ["dice"], LABELS[:1]) for cases in CASES]
    families = [
        claims(number, cases, models, metrics, LABELS)
        for cases, models, metrics in ((20, 2, ["dice"]), (20, 2, BOTH), (50, 2, BOTH), (20, 4, BOTH))
    ]
    power = [claims(number, cases, 2, ["dice"], LABELS[:1], BETTER_BY) for cases in CASES]
    result = {
        **account(),
        "alpha": ALPHA,
        "no_true_difference": {"one_comparison": one, "families_with_holm": families},
        "a_true_difference": power,
        "intervals_under_no_difference": [coverage(number, cases) for cases in CASES],
        "largest_difference_from_scipy": agreement(200),
    }
    save(RESULTS / "comparison.json", result)


if __name__ == "__main__":
    main()
