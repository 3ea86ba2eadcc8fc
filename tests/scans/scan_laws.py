"""Laws that every backend obeys, and boxes to try them on."""

import threading

import numpy as np
from hypothesis import strategies as st

from medseg.geometry import Box


@st.composite
def boxes(draw, shape):
    """Boxes within a shape that hold at least one voxel."""
    sides = [draw(st.tuples(st.integers(0, n - 1), st.integers(1, n))) for n in shape]
    return Box(tuple(a for a, _ in sides), tuple(min(a + w, n) for (a, w), n in zip(sides, shape, strict=True)))


def grid_boxes(shape, sides):
    """Boxes of these sides that partition a shape."""
    starts = np.stack(
        np.meshgrid(*(range(0, n, s) for n, s in zip(shape, sides, strict=True)), indexing="ij"), -1
    ).reshape(-1, len(shape))
    return [Box(tuple(a), tuple(a + np.array(sides))).clip(shape) for a in starts]


def assert_reads(scan, whole, boxes_to_read):
    """Every box equals the slice of the whole array (C, *shape), in its type and in native byte order."""
    assert (scan.channels, *scan.shape) == whole.shape
    for box in [Box.of(scan.shape), *boxes_to_read]:
        got = scan.read(box)
        assert got.dtype == scan.dtype and got.dtype.isnative
        np.testing.assert_array_equal(got, whole[(slice(None), *box.slices)])


def assert_threads_agree(scan, whole):
    """Several threads may read at once."""
    wrong = []

    def read(seed):
        rng = np.random.default_rng(seed)
        for _ in range(20):
            start = [int(rng.integers(n)) for n in scan.shape]
            box = Box(tuple(start), tuple(int(rng.integers(a, n)) + 1 for a, n in zip(start, scan.shape, strict=True)))
            if not np.array_equal(scan.read(box), whole[(slice(None), *box.slices)]):
                wrong.append(box)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def numbers(shape, dtype, seed=0):
    """Values that use the range of their type."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return rng.normal(size=shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
