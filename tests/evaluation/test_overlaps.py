"""Objects and their overlaps are the same slab by slab as whole, and those of SciPy and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from medseg.evaluation import overlaps as module
from medseg.evaluation.overlaps import Components, Numbers, Overlaps, slabs, slow_axis, tally
from medseg.scans.scan import open_scan


@st.composite
def pairs(draw, most=1, dtype=np.uint8):
    shape = draw(array_shapes(min_dims=2, max_dims=3, max_side=7))
    values = st.integers(0, most)
    return tuple(draw(arrays(dtype, shape, elements=values)) for _ in range(2))


def overlaps_of(reference, prediction, numberings, voxels=1 << 22):
    scan = open_scan(reference[None])
    return tally(scan, lambda box: (reference[box.slices], prediction[box.slices]), *numberings, voxels=voxels)


def table(found: Overlaps) -> list:
    """What no numbering changes: each object's size with those of its partners."""
    rows = [
        (int(found.reference[r]), int(found.prediction[p]), int(s))
        for (r, p), s in zip(found.pairs, found.shared, strict=True)
    ]
    return sorted(rows), sorted(found.reference.tolist()), sorted(found.prediction.tolist())


@given(pairs(), st.booleans(), st.integers(1, 60))
def test_components_are_scipys_whatever_the_slabs(pair, diagonal, voxels):
    reference, prediction = (mask.astype(bool) for mask in pair)
    axes = reference.ndim
    found = overlaps_of(reference, prediction, [Components(axes, diagonal) for _ in range(2)], voxels)
    structure = ndimage.generate_binary_structure(axes, axes if diagonal else 1)
    numbers = [ndimage.label(mask, structure)[0] for mask in (reference, prediction)]
    assert table(found) == table(overlaps_of(*numbers, [Numbers(), Numbers()]))
    for sizes, local in zip((found.reference, found.prediction), numbers, strict=True):
        assert sorted(sizes) == sorted(np.bincount(local.ravel())[1:])


@given(pairs(most=4), st.integers(1, 40))
def test_numbers_are_counted_as_numpy_does_whatever_the_slabs(pair, voxels):
    reference, prediction = pair
    found = overlaps_of(reference, prediction, (Numbers(), Numbers()), voxels)
    known = [np.unique(part[part > 0]) for part in pair]
    np.testing.assert_array_equal(found.reference, [(reference == v).sum() for v in known[0]])
    np.testing.assert_array_equal(found.prediction, [(prediction == v).sum() for v in known[1]])
    dense = np.zeros((known[0].size, known[1].size), int)
    dense[tuple(found.pairs.T)] = found.shared
    expected = [[((reference == r) & (prediction == p)).sum() for p in known[1]] for r in known[0]]
    np.testing.assert_array_equal(dense, np.reshape(expected, dense.shape))
    np.testing.assert_array_equal(
        found.union,
        [((reference == known[0][r]) | (prediction == known[1][p])).sum() for r, p in found.pairs],
    )


@given(pairs(most=4), st.sampled_from([1, 2**31, -7]))
def test_large_and_negative_numbers_are_numbers_too(pair, factor):
    scaled = [part.astype(np.int64) * factor for part in pair]
    assert table(overlaps_of(*scaled, (Numbers(), Numbers()), 7)) == table(overlaps_of(*pair, (Numbers(), Numbers())))


@given(pairs(most=4))
def test_many_pairs_are_sorted_instead_of_tabled(pair):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "DENSE", 1)
        sparse = overlaps_of(*pair, (Numbers(), Numbers()), 9)
    assert table(sparse) == table(overlaps_of(*pair, (Numbers(), Numbers())))


class Along:
    """A scan of which only shape and axis order matter."""

    def __init__(self, shape, axes):
        self.shape, self.axes = shape, axes


@given(array_shapes(min_dims=2, max_dims=3, max_side=9), st.sampled_from(["XYZ", "ZYX"]), st.integers(1, 100))
def test_slabs_are_whole_cross_sections_that_partition_the_scan(shape, axes, voxels):
    scan = Along(shape, axes[: len(shape)] if axes == "XYZ" else axes[-len(shape) :])
    axis = slow_axis(scan)
    seen = np.zeros(shape, int)
    for box in slabs(scan, voxels):
        seen[box.slices] += 1
        assert all(n == m for a, (n, m) in enumerate(zip(box.shape, shape, strict=True)) if a != axis)
        assert box.shape[axis] == 1 or box.voxels <= voxels
    assert (seen == 1).all()


def test_nothing_overlaps_nothing():
    none = np.zeros((3, 3), bool)
    found = overlaps_of(none, none, [Components(2, True) for _ in range(2)])
    assert found.reference.size == found.prediction.size == found.shared.size == 0
