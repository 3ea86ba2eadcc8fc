import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg import Box, Footprint, MedsegError, Tiling
from medseg.geometry.footprint import least_congruent

axis_of_footprint = st.builds(
    lambda halo, step, offset: (halo, step, offset % step), st.integers(0, 40), st.integers(1, 16), st.integers(0, 15)
)


@st.composite
def tilings(draw):
    axes = draw(st.integers(1, 3))
    parts = draw(st.lists(axis_of_footprint, min_size=axes, max_size=axes))
    footprint = Footprint(*(tuple(p[i] for p in parts) for i in range(3)))
    extent = draw(st.lists(st.integers(1, 40), min_size=axes, max_size=axes))
    core = draw(st.lists(st.integers(1, 50), min_size=axes, max_size=axes))
    return Tiling(extent, core, footprint, spare=draw(st.integers(0, 1)))


@given(tilings())
def test_write_boxes_partition_the_extent(tiling):
    owners = np.zeros(tiling.extent, int)
    for tile in tiling:
        assert tile.write.within(tiling.extent)
        assert tile.write.voxels > 0
        owners[tile.write.slices] += 1
    assert (owners == 1).all()


@given(tilings())
def test_every_tile_is_an_admissible_window_on_the_step_grid(tiling):
    footprint = tiling.footprint
    for tile in tiling:
        assert tile.read.shape == tiling.window
        core = footprint.core_shape(tile.read.shape)
        assert all(k + tiling.spare <= c for k, c in zip(tile.keep.shape, core, strict=True))
        assert tile.keep == Box.of(tile.write.shape)
        for axis in range(tile.read.ndim):
            assert tile.read.start[axis] + footprint.halo[axis] == tile.write.start[axis]
            assert tile.write.start[axis] % footprint.step[axis] == 0


@given(tilings())
def test_a_tile_is_a_function_of_its_index(tiling):
    tiles = list(tiling)
    assert len(tiles) == len(tiling)
    assert [t.index for t in tiles] == list(range(len(tiling)))
    assert tiling[-1] == tiles[-1]
    assert tiling[1:] == tiles[1:]
    with pytest.raises(IndexError):
        tiling[len(tiling)]


@given(tilings())
def test_the_whole_is_one_tile(tiling):
    whole = Tiling.whole(tiling.extent, tiling.footprint, tiling.spare)
    assert [t.write for t in whole] == [Box.of(tiling.extent)]


@given(axis_of_footprint, st.integers(1, 200))
def test_input_shape_is_the_least_admissible_window(axis, core):
    footprint = Footprint(*((value,) for value in axis))
    (n,) = footprint.input_shape((core,))
    assert footprint.core_shape((n,))[0] >= core
    halo, step, offset = axis
    smaller = [m for m in range(core + 2 * halo, n) if m % step == offset]
    assert not smaller


@given(st.integers(0, 500), st.integers(1, 64), st.integers(0, 63))
def test_least_congruent_is_the_first_by_search(minimum, step, offset):
    found = least_congruent(minimum, step, offset % step)
    assert found == next(n for n in range(minimum, minimum + step) if n % step == offset % step)


UNET = Footprint((92, 92), (16, 16), (12, 12))


def test_the_papers_tile():
    assert UNET.input_shape((388, 388)) == (572, 572)
    tiling = Tiling((1000, 1000), (388, 388), UNET)
    assert (tiling.core, tiling.window, tiling.grid) == ((384, 384), (572, 572), (3, 3))
    assert Tiling.by_window((1000, 1000), (572, 572), UNET).core == (384, 384)


@pytest.mark.parametrize(("size", "below", "above"), [(570, 556, 572), (573, 572, 588), (100, 188, 204), (1, 188, 204)])
def test_an_inadmissible_tile_names_the_nearest_two(size, below, above):
    with pytest.raises(MedsegError, match=f"tile {size} is not admissible.*try {below} or {above}"):
        UNET.core_shape((size, size))


def test_a_window_that_answers_for_less_than_a_step_is_refused():
    with pytest.raises(MedsegError, match="less than one step"):
        Tiling.by_window((100, 100), (188, 188), UNET)


@pytest.mark.parametrize(("extent", "core"), [((0, 5), (16, 16)), ((5, 5), (0, 16)), ((5,), (16, 16)), ((5, 5), (16,))])
def test_an_extent_or_core_that_makes_no_sense_is_refused(extent, core):
    with pytest.raises(MedsegError):
        Tiling(extent, core, UNET)


def test_a_tiling_of_a_huge_extent_costs_nothing():
    tiling = Tiling((10**9, 10**9), (384, 384), UNET)
    last = tiling[len(tiling) - 1]
    assert last.write.stop == (10**9, 10**9)
