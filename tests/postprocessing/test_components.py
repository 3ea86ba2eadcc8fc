"""Labelling block by block equals labelling the whole."""

import numpy as np
import pytest
import scipy.ndimage as ndi
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import label
from small_masks import blocked, by_first_voxel, masks

from medseg.postprocessing.components import Components, Selection
from medseg.postprocessing.mask import Grid


def numbers_of(components):
    out = np.zeros(components.mask.grid.shape, np.int64)
    for index, box in enumerate(components.mask.grid):
        out[box.slices] = components.block(index, components.mask.block(index))
    return out


@given(masks(values=2))
def test_a_mask_of_one_value_is_numbered_as_scipy_numbers_the_whole(drawn):
    array, sides, connectivity = drawn
    found = Components.of(blocked(array, sides), Selection(0), connectivity)
    wanted, count = ndi.label(array, ndi.generate_binary_structure(array.ndim, connectivity))
    np.testing.assert_array_equal(numbers_of(found), wanted)
    assert len(found) == count


@given(masks(), st.integers(0, 2))
def test_values_are_told_apart_as_by_scikit_image(drawn, background):
    array, sides, connectivity = drawn
    found = Components.of(blocked(array, sides), Selection(background), connectivity)
    wanted = by_first_voxel(label(array, background=background, connectivity=connectivity))
    np.testing.assert_array_equal(numbers_of(found), wanted)
    np.testing.assert_array_equal(found.voxels, np.bincount(wanted.ravel())[1:])
    firsts = [array.ravel()[np.flatnonzero(wanted == n)[0]] for n in range(1, len(found) + 1)]
    assert found.values.tolist() == firsts


@given(masks())
def test_joined_values_are_one_object(drawn):
    array, sides, connectivity = drawn
    found = Components.of(blocked(array, sides), Selection(0, (1, 2), joined=True), connectivity)
    np.testing.assert_array_equal(numbers_of(found), label(array > 0, connectivity=connectivity))


@given(masks())
def test_only_the_values_asked_for_are_looked_at(drawn):
    array, sides, connectivity = drawn
    found = Components.of(blocked(array, sides), Selection(0, (2,)), connectivity)
    np.testing.assert_array_equal(numbers_of(found), label(array == 2, connectivity=connectivity))


@given(masks())
def test_what_touches_the_border_and_what_touches_each_other_is_known(drawn):
    array, sides, connectivity = drawn
    found = Components.of(blocked(array, sides), Selection(None), connectivity, touching=True)
    numbers = numbers_of(found)
    structure = ndi.generate_binary_structure(array.ndim, connectivity)
    pairs = set()
    for n in range(1, len(found) + 1):
        own = numbers == n
        at_border = any(own.take(end, axis).any() for axis in range(own.ndim) for end in (0, -1))
        assert found.at_border[n - 1] == at_border
        around = np.unique(numbers[ndi.binary_dilation(own, structure) & ~own])
        pairs |= {(min(n, m) - 1, max(n, m) - 1) for m in around.tolist()}
    assert set(map(tuple, found.touching.T.tolist())) == pairs


@given(masks(), st.data())
def test_other_blocks_make_no_difference(drawn, data):
    array, sides, connectivity = drawn
    others = tuple(data.draw(st.integers(1, n)) for n in array.shape)
    one, other = (Components.of(blocked(array, s), Selection(0), connectivity) for s in (sides, others))
    np.testing.assert_array_equal(numbers_of(one), numbers_of(other))


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint16, np.int64])
def test_negative_and_large_values_are_values_too(dtype):
    limits = np.iinfo(dtype)
    array = np.array([[limits.min, limits.min, 5], [limits.max, 5, 5], [limits.max, limits.min, 7]], dtype)
    found = Components.of(blocked(array, (2, 2)), Selection(5), 1)
    wanted = [[1, 1, 0], [2, 0, 0], [2, 3, 4]]
    assert numbers_of(found).tolist() == wanted


@given(st.lists(st.integers(1, 9), min_size=2, max_size=3), st.data())
def test_blocks_partition_a_mask(shape, data):
    sides = tuple(data.draw(st.integers(1, n)) for n in shape)
    grid = Grid(tuple(shape), sides)
    covered = np.zeros(shape, int)
    for box in grid:
        covered[box.slices] += 1
        assert all(n <= s for n, s in zip(box.shape, sides, strict=True))
    assert (covered == 1).all()
    assert len(list(grid)) == len(grid)


def test_what_is_held_is_a_block_and_the_layers_between_blocks(monkeypatch):
    """No array of the whole is made: neither while blocks are counted nor when one is asked for."""
    import medseg.postprocessing.frontier as frontier

    largest = [0]
    make = frontier._Layer.empty.__func__

    def counted(cls, shape, dtype):
        largest[0] = max(largest[0], int(np.prod(shape)))
        return make(cls, shape, dtype)

    monkeypatch.setattr(frontier._Layer, "empty", classmethod(counted))
    array = np.random.default_rng(0).integers(0, 2, (40, 16, 12)).astype(np.uint8)
    mask = blocked(array, (4, 16, 12))
    read = []

    class Watched:
        grid, dtype = mask.grid, mask.dtype

        def block(self, index):
            read.append(index)
            return mask.block(index)

    found = Components.of(Watched(), Selection(0), 3)
    assert largest[0] == 16 * 12
    assert read == list(range(10))
    found.block(3, mask.block(3))
    assert len(read) == 10
