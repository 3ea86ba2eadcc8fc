"""The weight map against its definition over all cells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from medseg.training.weightmap import border_weights, instances_from_classes

CELLS = st.one_of(
    stn.arrays(np.int32, stn.array_shapes(min_dims=2, max_dims=2, max_side=20), elements=st.integers(0, 5)),
    stn.arrays(np.uint8, stn.array_shapes(min_dims=3, max_dims=3, max_side=9), elements=st.sampled_from([0, 0, 3, 7])),
    stn.arrays(np.int64, (40, 7), elements=st.just(0), fill=st.nothing()),
)


def on_border(cell: np.ndarray) -> np.ndarray:
    """The voxels of a cell that have a face neighbour which is not the cell's."""
    found = np.zeros_like(cell)
    padded = np.pad(cell, 1, constant_values=True)
    for axis in range(cell.ndim):
        for shift in (-1, 1):
            neighbour = np.roll(padded, shift, axis)[(slice(1, -1),) * cell.ndim]
            found |= cell & ~neighbour
    return found


def by_definition(instances: np.ndarray, w0: float, sigma: float) -> np.ndarray:
    """Every voxel's distance to every border voxel."""
    far = np.full(instances.shape, np.inf)
    places = np.indices(instances.shape).reshape(instances.ndim, -1).T
    distances = [far.ravel(), far.ravel()]
    for cell in np.unique(instances[instances != 0]):
        border = np.argwhere(on_border(instances == cell))
        if len(border):
            distances.append(np.sqrt(((places[:, None] - border) ** 2).sum(-1)).min(1))
    first, second = (d.reshape(instances.shape) for d in np.sort(np.stack(distances), axis=0)[:2])
    foreground = instances != 0
    share = foreground.mean()
    balance = np.where(foreground, 0.5 / share, 0.5 / (1 - share)) if 0 < share < 1 else 1.0
    return balance + w0 * np.exp(-((first + second) ** 2) / (2 * sigma**2))


@given(instances=CELLS, sigma=st.sampled_from([0.7, 2.0, 5.0]))
@settings(max_examples=60, deadline=None)
def test_equals_its_definition(instances, sigma):
    weights = border_weights(instances, sigma=sigma)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, by_definition(instances, 10, sigma), atol=1.1e-3)


def test_far_cells_are_left_out_by_less_than_a_thousandth():
    instances = np.zeros((60, 9), np.int32)
    instances[2:4, 4], instances[40:44, 3:6], instances[47:, 4] = 1, 2, 3
    np.testing.assert_allclose(border_weights(instances), by_definition(instances, 10, 5), atol=1.1e-3)


def test_touching_cells_weigh_most_between_them():
    instances = np.zeros((21, 30), np.int32)
    instances[:, 3:14], instances[:, 15:26] = 1, 2
    weights = border_weights(instances, balance=False)
    np.testing.assert_allclose(weights[:, 14], weights.max())
    np.testing.assert_allclose(weights[:, 14], 1 + 10 * np.exp(-(2**2) / 50), rtol=1e-6)
    np.testing.assert_allclose(weights[:, 10], 1 + 10 * np.exp(-((3 + 5) ** 2) / 50), rtol=1e-6)
    np.testing.assert_allclose(weights[:, 29], 1 + 10 * np.exp(-((4 + 16) ** 2) / 50), rtol=1e-2)


@pytest.mark.parametrize("fill", [0, 1])
def test_one_class_alone_weighs_one(fill):
    np.testing.assert_array_equal(border_weights(np.full((5, 6), fill)), 1)


@given(stn.arrays(np.uint8, (12, 13), elements=st.integers(0, 2)))
@settings(max_examples=30, deadline=None)
def test_classes_get_a_mean_weight_of_one(mask):
    np.testing.assert_allclose(border_weights(mask, w0=0.0).mean(), 1, rtol=1e-5)


def test_components_are_numbered_by_class():
    mask = np.array([[1, 1, 0, 2], [0, 2, 0, 2], [1, 0, 1, 1]])
    instances = instances_from_classes(mask)
    assert (instances > 0).tolist() == (mask > 0).tolist()
    assert len(np.unique(instances)) == 6
    assert instances[0, 0] == instances[0, 1] != instances[1, 1]
    assert instances[2, 0] != instances[2, 2] == instances[2, 3]
