"""Small masks in blocks smaller still."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medseg import open_scan
from medseg.postprocessing.mask import Grid, ScanMask


@st.composite
def masks(draw, values=3, side=8):
    """(array, block's sides, connectivity): two or three axes, any of one voxel."""
    shape = tuple(draw(st.lists(st.integers(1, side), min_size=2, max_size=3)))
    array = draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, values - 1)))
    sides = tuple(draw(st.integers(1, n)) for n in shape)
    return array, sides, draw(st.integers(1, len(shape)))


def blocked(array, sides):
    """An array as a mask in blocks."""
    return ScanMask(open_scan(array[None]), Grid(array.shape, tuple(sides)))


def whole(mask):
    """A mask's blocks put together."""
    out = np.zeros(mask.grid.shape, mask.dtype)
    for index, box in enumerate(mask.grid):
        out[box.slices] = mask.block(index)
    return out


def by_first_voxel(numbers):
    """Numbered anew from 1 by each component's first voxel in C order; 0 stays."""
    found, first = np.unique(numbers, return_index=True)
    order = found[found != 0][np.argsort(first[found != 0])]
    table = np.zeros(int(found.max()) + 1, np.int64)
    table[order] = np.arange(1, len(order) + 1)
    return table[numbers]
