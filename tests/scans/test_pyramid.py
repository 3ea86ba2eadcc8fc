from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scan_laws import numbers

from medseg.geometry import Box
from medseg.scans.blocks import boxes
from medseg.scans.pyramid import LARGEST, every_second, levels_of, mean, source_of, step_of


@given(st.data(), st.sampled_from([2, 3]))
def test_levels_halve_the_finest_axes_until_one_is_small(data, axes):
    shape = data.draw(st.tuples(*[st.integers(1, 5000)] * axes))
    spacing = data.draw(st.tuples(*[st.sampled_from([0.5, 1.0, 1.7, 5.0])] * axes))
    levels = levels_of(shape, spacing)
    assert levels[0].shape == shape and max(levels[-1].shape) <= LARGEST[axes]
    for fine, coarse in pairwise(levels):
        assert max(fine.shape) > LARGEST[axes]
        finest = min(s * f for s, f, n in zip(spacing, fine.factor, fine.shape, strict=True) if n > 1)
        for axis, step in enumerate(step_of(fine, coarse)):
            near = spacing[axis] * fine.factor[axis] <= 2 * finest
            assert step == (2 if near and fine.shape[axis] > 1 else 1)
            assert coarse.shape[axis] == -(-fine.shape[axis] // step)


@pytest.mark.parametrize("dtype", ["u1", "u2", "f2", "f4", "f8"])
@given(st.data())
def test_a_level_made_part_by_part_is_the_level_of_the_whole(dtype, data):
    shape = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    step = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    values = numbers((2, *shape), dtype)
    for reduce in (every_second, mean):
        whole = reduce(values, step)
        assert whole.dtype == values.dtype
        for box in boxes(whole.shape[1:], data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))):
            source = source_of(box, step, shape)
            np.testing.assert_array_equal(reduce(values[(..., *source.slices)], step), whole[(..., *box.slices)])


@given(st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_a_mean_is_of_the_voxels_that_there_are(shape):
    values = numbers(shape, "f8")
    means = mean(values, (2, 2))
    for index in np.ndindex(means.shape):
        voxels = values[source_of(Box(index, tuple(i + 1 for i in index)), (2, 2), shape).slices]
        np.testing.assert_allclose(means[index], voxels.mean(), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(every_second(values, (2, 2)), values[::2, ::2])
    assert np.abs(mean((values * 9).astype("i4"), (2, 1)) - mean(np.trunc(values * 9), (2, 1))).max() <= 0.5
