"""Each step equals its peer on the whole array, whatever the blocks."""

import monai.transforms as mt
import numpy as np
import scipy.ndimage as ndi
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import label
from skimage.morphology import remove_small_objects
from small_masks import blocked, by_first_voxel, masks, whole

from medseg.postprocessing.components import Selection
from medseg.postprocessing.islands import fill_holes, instances, keep_largest, remove_small


def border_free(part):
    return not any(part.take(end, axis).any() for axis in range(part.ndim) for end in (0, -1))


@given(masks(), st.integers(1, 6))
def test_small_objects_go_as_with_scikit_image(drawn, least):
    array, sides, connectivity = drawn
    found = whole(remove_small(blocked(array, sides), Selection(0), connectivity, least))
    wanted = np.zeros_like(array)
    for value in (1, 2):
        kept = remove_small_objects(array == value, max_size=least - 1, connectivity=connectivity)
        wanted[kept] = value
    np.testing.assert_array_equal(found, wanted)


@given(masks(), st.integers(1, 3))
def test_the_largest_objects_of_each_label_stay(drawn, count):
    array, sides, connectivity = drawn
    found = whole(keep_largest(blocked(array, sides), Selection(0), connectivity, count))
    for value in (1, 2):
        numbers = label(array == value, connectivity=connectivity)
        sizes = np.bincount(numbers.ravel())[1:]
        largest = np.argsort(-sizes, kind="stable")[:count] + 1
        np.testing.assert_array_equal(found == value, np.isin(numbers, largest))


@given(masks())
def test_where_one_is_largest_it_is_monai_s(drawn):
    array, sides, connectivity = drawn
    found = whole(keep_largest(blocked(array, sides), Selection(0), connectivity))
    monai = mt.KeepLargestConnectedComponent(connectivity=connectivity)(torch.from_numpy(array.copy())[None])[0].numpy()
    for value in (1, 2):
        sizes = np.sort(np.bincount(label(array == value, connectivity=connectivity).ravel())[1:])
        if len(sizes) < 2 or sizes[-1] > sizes[-2]:
            np.testing.assert_array_equal(found == value, monai == value)


@given(masks())
def test_an_organ_and_what_lies_in_it_can_be_one_object(drawn):
    array, sides, connectivity = drawn
    found = whole(keep_largest(blocked(array, sides), Selection(0, joined=True), connectivity))
    numbers = label(array > 0, connectivity=connectivity)
    largest = np.bincount(numbers.ravel())[1:].argmax() + 1 if array.any() else -1
    np.testing.assert_array_equal(found, np.where(numbers == largest, array, 0))


@given(masks(values=2))
def test_holes_of_one_label_are_scipy_s(drawn):
    array, sides, connectivity = drawn
    found = whole(fill_holes(blocked(array, sides), Selection(0), connectivity))
    structure = ndi.generate_binary_structure(array.ndim, connectivity)
    np.testing.assert_array_equal(found, ndi.binary_fill_holes(array, structure))


@given(masks(), st.none() | st.integers(1, 9))
def test_of_several_labels_the_innermost_fills_its_hole_and_none_is_overwritten(drawn, most):
    array, sides, connectivity = drawn
    found = whole(fill_holes(blocked(array, sides), Selection(0), connectivity, most))
    wanted, smallest = array.copy(), np.full(array.shape, array.size + 1)
    for value in (1, 2):
        holes = label(array != value, connectivity=connectivity)
        for number in range(1, int(holes.max()) + 1):
            hole = holes == number
            if border_free(hole) and hole.sum() <= (most or array.size):
                filled = hole & (array == 0) & (hole.sum() < smallest)
                wanted[filled], smallest[filled] = value, hole.sum()
    np.testing.assert_array_equal(found, wanted)


def test_a_rim_between_a_tumour_and_its_organ_becomes_organ():
    array = np.zeros((9, 9), np.uint8)
    array[1:8, 1:8] = 1
    array[3:6, 3:6] = 0
    array[4, 4] = 2
    wanted = np.where(array == 0, 1, array)
    wanted[[0, -1]] = wanted[:, [0, -1]] = 0
    np.testing.assert_array_equal(whole(fill_holes(blocked(array, (4, 4)), Selection(0), 1)), wanted)
    untouched = whole(fill_holes(blocked(array, (4, 4)), Selection(0, (2,)), 1))
    np.testing.assert_array_equal(untouched, array)


@given(masks())
def test_instances_are_the_components_of_the_whole(drawn):
    array, sides, connectivity = drawn
    numbered = instances(blocked(array, sides), Selection(0), connectivity)
    found = whole(numbered)
    assert found.dtype == numbered.dtype == np.uint32
    np.testing.assert_array_equal(found, by_first_voxel(label(array, connectivity=connectivity)))


@given(masks(), st.integers(2, 5))
def test_steps_follow_each_other_without_the_whole_in_between(drawn, least):
    array, sides, connectivity = drawn
    both = instances(remove_small(blocked(array, sides), Selection(0), 1, least), Selection(0), connectivity)
    between = whole(remove_small(blocked(array, array.shape), Selection(0), 1, least))
    np.testing.assert_array_equal(whole(both), whole(instances(blocked(between, sides), Selection(0), connectivity)))


@given(masks(), st.integers(1, 6))
def test_the_account_counts_what_is_changed(drawn, least):
    array, sides, connectivity = drawn
    mapped = remove_small(blocked(array, sides), Selection(0), connectivity, least)
    account = mapped.account
    assert account["components"] == label(array, connectivity=connectivity).max()
    assert account["changed_voxels"] == (whole(mapped) != array).sum()
