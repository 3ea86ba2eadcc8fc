"""Noise is a function of position."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.datasets.noise import smooth, uniform, white


@given(st.integers(0, 2**32 - 1), st.integers(-50, 50), st.integers(1, 20), st.sampled_from([3.0, 7.5, 40.0]))
def test_boxes_are_cut_from_one_field(seed: int, start: int, length: int, period: float) -> None:
    whole = [np.arange(-60, 80), np.arange(-5, 9)]
    part = [np.arange(start, start + length), np.arange(2, 5)]
    cut = (slice(start + 60, start + 60 + length), slice(7, 10))
    np.testing.assert_array_equal(white(seed, part), white(seed, whole)[cut])
    np.testing.assert_allclose(smooth(seed, part, period), smooth(seed, whole, period)[cut], atol=1e-5)
    np.testing.assert_allclose(
        smooth(seed, [part[0][::-1], part[1]], period)[::-1], smooth(seed, part, period), atol=1e-5
    )


@pytest.mark.parametrize("field", [white, lambda seed, axes: smooth(seed, axes, 4.0)])
def test_mean_0_and_sd_1(field) -> None:  # type: ignore[no-untyped-def]
    values = field(5, [np.arange(400), np.arange(400)])
    assert abs(values.mean()) < 0.05 and abs(values.std() - 1) < 0.05


def test_uniform_is_spread_evenly_and_unlike_for_other_seeds() -> None:
    axes = [np.arange(300), np.arange(300)]
    one, two = uniform(1, axes), uniform(2, axes)
    counts = np.histogram(one, 10, (0, 1))[0]
    assert counts.sum() == one.size and abs(counts / 9000 - 1).max() < 0.05
    assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(one[:, 1:].ravel(), one[:, :-1].ravel())[0, 1]) < 0.02
