import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from medseg.scans.blocks import blocks
from medseg.scans.scan import open_scan


@given(st.lists(st.integers(1, 200), min_size=2, max_size=3), st.integers(1, 5000))
def test_blocks_partition_the_scan_and_stay_small(shape, voxels):
    scan = open_scan(np.broadcast_to(np.zeros(1, np.uint8), (1, *shape)))
    seen = np.zeros(shape, np.uint8)
    for box in blocks(scan, voxels):
        seen[box.slices] += 1
        assert box.voxels <= max(voxels, 64 ** len(shape))
    assert (seen == 1).all()
