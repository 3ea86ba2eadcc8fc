import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.errors import GridError
from medseg.geometry import Box
from medseg.scans.mirror import mirrored, read_mirrored
from medseg.scans.scan import open_scan


class Watched:
    """A scan that remembers which boxes were read."""

    def __init__(self, scan):
        self._scan = scan
        self.boxes = []

    def __getattr__(self, name):
        return getattr(self._scan, name)

    def read(self, box):
        self.boxes.append(box)
        return self._scan.read(box)


def array_of(shape, channels=2):
    return np.arange(channels * int(np.prod(shape))).reshape(channels, *shape)


@st.composite
def shape_and_box(draw, reach=25):
    shape = draw(st.lists(st.integers(1, 7), min_size=2, max_size=3))
    start = [draw(st.integers(-reach, n + reach)) for n in shape]
    return tuple(shape), Box(tuple(start), tuple(a + draw(st.integers(0, 12)) for a in start))


def by_definition(whole, box):
    """One voxel at a time: walk from 0 and turn at the ends."""

    def walk(i, n):
        position, step = 0, 1
        for _ in range(abs(i)):
            if not 0 <= position + step < n:
                step = -step
            position += step if n > 1 else 0
        return position

    index = [[walk(i, n) for i in range(a, b)] for a, b, n in zip(box.start, box.stop, whole.shape[1:], strict=True)]
    return whole[np.ix_(range(len(whole)), *index)]


@given(shape_and_box())
def test_equals_its_definition_with_any_number_of_reflections(case):
    shape, box = case
    whole = array_of(shape)
    np.testing.assert_array_equal(read_mirrored(open_scan(whole), box), by_definition(whole, box))


@given(st.lists(st.integers(1, 9), min_size=2, max_size=3), st.lists(st.integers(0, 30), min_size=6, max_size=6))
def test_equals_numpy_reflect(shape, pads):
    whole = array_of(shape)
    around = [(pads[2 * n], pads[2 * n + 1]) for n in range(len(shape))]
    box = Box(tuple(-a for a, _ in around), tuple(n + b for n, (_, b) in zip(shape, around, strict=True)))
    padded = np.pad(whole, [(0, 0), *around], mode="reflect")
    np.testing.assert_array_equal(read_mirrored(open_scan(whole), box), padded)


@given(shape_and_box())
def test_reads_once_and_no_more_than_it_needs(case):
    shape, box = case
    scan = Watched(open_scan(array_of(shape)))
    read_mirrored(scan, box)
    if not box.voxels:
        return
    (source,) = scan.boxes
    for a, b, start, stop, n in zip(source.start, source.stop, box.start, box.stop, shape, strict=True):
        needed = mirrored(start, stop, n)
        assert (a, b) == (needed.min(), needed.max() + 1)


def test_a_box_within_the_scan_is_read_as_it_is():
    scan = Watched(open_scan(array_of((5, 6))))
    box = Box((1, 2), (4, 6))
    np.testing.assert_array_equal(read_mirrored(scan, box), scan.read(box))
    assert scan.boxes[0] == box


def test_other_axes_are_refused():
    with pytest.raises(GridError, match="3 axes, the scan 2"):
        read_mirrored(open_scan(array_of((5, 6))), Box((0, 0, 0), (1, 1, 1)))
