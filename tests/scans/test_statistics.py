"""Streamed statistics equal NumPy's and MONAI's on whole arrays."""

from __future__ import annotations

import math

import monai.transforms as mt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from medseg.errors import ConfigError, GridError, ScanError
from medseg.geometry import Box
from medseg.scans import statistics
from medseg.scans.blocks import blocks
from medseg.scans.memory import ArrayScan
from medseg.scans.statistics import Moments, dataset_statistics, fixed_range, keys_of, values_of, zscore
from medseg.scans.views import Normalized

FINITE = st.floats(-1e4, 1e4, width=32)
VOXELS = st.one_of(
    stn.arrays(np.float32, stn.array_shapes(min_dims=3, max_dims=4, max_side=7), elements=FINITE),
    stn.arrays(np.int16, stn.array_shapes(min_dims=3, max_dims=4, max_side=7)),
    stn.arrays(np.uint8, stn.array_shapes(min_dims=3, max_dims=4, max_side=7)),
    stn.arrays(np.int32, stn.array_shapes(min_dims=3, max_dims=4, max_side=5)),
)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Scans come in many boxes, as large ones do."""
    monkeypatch.setattr(statistics, "blocks", lambda scan: blocks(scan, 20))


def normalized(scan, rescale):
    return Normalized(scan, rescale).read(Box.of(scan.shape))


@given(VOXELS)
def test_zscore_equals_monai(voxels):
    rescale = zscore(ArrayScan(voxels))
    wide = voxels.astype(np.float64)
    axes = tuple(range(1, voxels.ndim))
    size = np.abs(wide).max() + 1
    np.testing.assert_allclose(rescale.shift, wide.mean(axes), atol=1e-12 * size)
    sd = wide.std(axes)
    constant = (wide == wide.reshape(len(wide), -1)[:, :1].reshape((-1,) + (1,) * (voxels.ndim - 1))).all(axes)
    np.testing.assert_allclose(rescale.scale, np.where(constant, 1, sd), rtol=1e-6, atol=1e-12 * size)
    if (sd > 1e-3 * size).all():  # of a constant channel MONAI divides rounding noise by rounding noise
        oracle = mt.NormalizeIntensity(channel_wise=True, dtype=np.float64)(wide)
        np.testing.assert_allclose(normalized(ArrayScan(voxels), rescale), oracle, rtol=1e-4, atol=1e-4)


def test_a_constant_channel_becomes_zero():
    scan = ArrayScan(np.full((2, 9, 9), 0.1, np.float32))
    assert zscore(scan).scale == (1, 1)
    np.testing.assert_array_equal(normalized(scan, zscore(scan)), 0)


def test_a_large_offset_costs_no_precision():
    voxels = np.random.default_rng(0).integers(0, 3, (1, 30, 30)) + 10**8
    np.testing.assert_allclose(zscore(ArrayScan(voxels)).scale, voxels.std(), rtol=1e-9)


@given(st.lists(stn.arrays(np.float64, st.integers(0, 5), elements=FINITE), max_size=5))
def test_moments_do_not_depend_on_the_pieces(pieces):
    together, apart, merged = Moments(), Moments(), Moments()
    together.add(np.concatenate([*pieces, np.zeros(1)]))
    for piece in [*pieces, np.zeros(1)]:
        apart.add(piece)
        other = Moments()
        other.add(piece)
        merged.merge(other)
    for one in (apart, merged):
        assert one.count == together.count
        np.testing.assert_allclose([one.mean, one.squares], [together.mean, together.squares], rtol=1e-9, atol=1e-6)


def test_fixed_range_equals_monai():
    voxels = np.arange(-50, 50, dtype=np.int16).reshape(1, 10, 10)
    oracle = mt.ScaleIntensityRange(-20, 30, 0, 1, clip=True)(voxels)
    np.testing.assert_allclose(normalized(ArrayScan(voxels), fixed_range(-20, 30)), oracle, atol=1e-6)


@given(
    st.integers(1, 2).flatmap(
        lambda c: st.lists(
            st.one_of(
                stn.arrays(np.float32, st.tuples(st.just(c), st.integers(1, 6), st.integers(1, 6)), elements=FINITE),
                stn.arrays(np.uint8, st.tuples(st.just(c), st.integers(1, 6), st.integers(1, 6))),
                stn.arrays(np.int16, st.tuples(st.just(c), *[st.integers(1, 4)] * 3)),
            ),
            min_size=1,
            max_size=3,
        )
    ),
    st.sampled_from([(0.5, 99.5), (0, 100), (25, 75), (49.9, 50.1), (0, 1e-3)]),
)
def test_dataset_statistics_equal_numpys(arrays, percentiles):
    rescale = dataset_statistics([ArrayScan(a) for a in arrays], percentiles)
    for channel in range(len(arrays[0])):
        pooled = np.concatenate([a[channel].ravel() for a in arrays]).astype(np.float64)
        low, high = np.percentile(pooled, percentiles)
        size = np.abs(pooled).max() + 1
        np.testing.assert_allclose([rescale.low[channel], rescale.high[channel]], [low, high], atol=1e-9 * size)
        clipped = pooled.clip(low, high)
        np.testing.assert_allclose(rescale.shift[channel], clipped.mean(), atol=1e-9 * size)
        if high - low > 1e-3 * size:
            np.testing.assert_allclose(rescale.scale[channel], clipped.std() or 1, rtol=1e-6)


def test_dataset_statistics_of_many_close_values():
    rng = np.random.default_rng(0)
    arrays = [rng.normal(1, 1e-3, (1, 50, 50)).astype(np.float32) for _ in range(2)]
    arrays[0][0, 3, 4] = 1e30
    rescale = dataset_statistics([ArrayScan(a) for a in arrays])
    pooled = np.concatenate(arrays).ravel().astype(np.float64)
    low, high = np.percentile(pooled, (0.5, 99.5))
    np.testing.assert_allclose([*rescale.low, *rescale.high], [low, high], rtol=1e-12)
    np.testing.assert_allclose(rescale.scale, pooled.clip(low, high).std(), rtol=1e-9)


@given(stn.arrays(np.float32, 8, elements=st.floats(width=32, allow_nan=False)))
def test_keys_are_in_the_order_of_the_values(values):
    keys = keys_of(values)
    np.testing.assert_array_equal(values_of(keys), values)
    np.testing.assert_array_equal(keys[:, None] < keys, values[:, None] < values)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("measure", [zscore, lambda scan: dataset_statistics([scan])])
def test_names_the_voxel_that_is_not_finite(measure, value):
    voxels = np.zeros((1, 9, 9), np.float32)
    voxels[0, 7, 2] = value
    with pytest.raises(ScanError, match=rf"scan array has {value} at \(0, 7, 2\)"):
        measure(ArrayScan(voxels))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (([],), ConfigError),
        (([ArrayScan(np.zeros((1, 2, 2)))], (5, 5)), ConfigError),
        (([ArrayScan(np.zeros((1, 2, 2)))], (-1, 5)), ConfigError),
        (([ArrayScan(np.zeros((1, 2, 2))), ArrayScan(np.zeros((2, 2, 2)))],), GridError),
    ],
)
def test_dataset_statistics_refuse(arguments, error):
    with pytest.raises(error):
        dataset_statistics(*arguments)


def test_a_range_without_width_is_refused():
    with pytest.raises(ConfigError, match="no width"):
        fixed_range(1, 1)
