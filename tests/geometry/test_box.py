import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg import Box

coordinate = st.integers(-20, 20)
boxes = st.integers(1, 3).flatmap(
    lambda d: st.builds(
        lambda start, size: Box(start, [a + n for a, n in zip(start, size, strict=True)]),
        st.lists(coordinate, min_size=d, max_size=d),
        st.lists(st.integers(0, 12), min_size=d, max_size=d),
    )
)


@given(boxes, st.integers(0, 9))
def test_growing_and_shrinking_is_the_same_box(box, halo):
    grown = box.grow(halo)
    assert grown.shape == tuple(n + 2 * halo for n in box.shape)
    assert grown.grow(-halo) == box


@given(boxes, st.lists(coordinate, min_size=3, max_size=3))
def test_a_shift_keeps_the_shape_and_is_undone(box, by):
    moved = box.shift(by[: box.ndim])
    assert moved.shape == box.shape
    assert moved.shift([-d for d in by[: box.ndim]]) == box


@given(boxes, st.lists(st.integers(1, 12), min_size=3, max_size=3))
def test_clip_holds_just_the_voxels_that_are_within(box, extent):
    extent = extent[: box.ndim]
    clipped = box.clip(extent)
    assert clipped.within(extent)
    inside = np.zeros(extent, bool)
    for index in np.ndindex(*extent):
        inside[index] = all(a <= i < b for a, i, b in zip(box.start, index, box.stop, strict=True))
    assert clipped.voxels == inside.sum()
    assert inside[clipped.slices].all()


def test_slices_refuse_what_numpy_would_count_from_the_end():
    with pytest.raises(IndexError, match="begins before"):
        Box((-1, 0), (2, 2)).slices  # noqa: B018


def test_axes_must_agree():
    with pytest.raises(ValueError, match="different axes"):
        Box((0,), (1, 1))


def test_a_box_reads_as_ranges():
    assert str(Box((0, -2), (4, 6))) == "[0:4, -2:6]"
