import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import distance_transform_edt
from skimage.measure import label, regionprops
from skimage.segmentation import find_boundaries

from medseg import MedsegError, open_scan
from medseg.datasets.labels import Labels
from medseg.evaluation.objects import Objects, boundary, boundary_scores, compare_objects

SHAPES = st.one_of(
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=14), hnp.array_shapes(min_dims=3, max_dims=3, max_side=6)
)
PAIRS = SHAPES.flatmap(lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape)))


def by_hand(prediction, reference, least, overlap):
    """One object after the other, with scikit-image's components."""
    components = label(prediction, connectivity=1)
    rows = []
    for region in regionprops(label(reference, connectivity=1)):
        inside = tuple(region.coords.T)
        if region.area < least:
            continue
        found = components[inside]
        sizes = {c: int((found == c).sum()) for c in np.unique(found) if c}
        pieces = [c for c, size in sizes.items() if size >= min(overlap, region.area)]
        iou = max([s / (region.area + (components == c).sum() - s) for c, s in sizes.items()], default=0.0)
        rows.append((region.area, int((found > 0).sum()), len(pieces), tuple(pieces), iou))
    shared = [max([sum(c in other[3] for other in rows) for c in row[3]], default=0) for row in rows]
    return [(area, covered, count, s, iou) for (area, covered, count, _, iou), s in zip(rows, shared, strict=True)]


@given(PAIRS, st.integers(1, 4), st.integers(1, 4))
def test_objects_are_what_scikit_image_finds_one_by_one(pair, least, overlap):
    found = Objects.of(*pair, least=least, overlap=overlap)
    rows = zip(found.voxels, found.covered, found.fragments, found.shared, found.iou, strict=True)
    expected = by_hand(*pair, least, overlap)
    assert sorted(rows) == sorted(expected)


@given(PAIRS)
def test_instance_numbers_of_components_are_those_components(pair):
    prediction, reference = pair
    numbers = label(reference, connectivity=1) * 7
    ones, others = Objects.of(prediction, reference), Objects.of(prediction, numbers)
    for key in vars(ones):
        assert sorted(vars(ones)[key]) == sorted(vars(others)[key])


@given(PAIRS)
def test_a_perfect_prediction_recalls_and_matches_all_in_one_fragment_each(pair):
    _, reference = pair
    found = Objects.of(reference, reference)
    assert found.recalled.all()
    assert found.matched.all()
    assert (found.fragments == 1).all()
    assert (found.shared == 1).all()


@given(PAIRS)
def test_nothing_ignored_is_as_without_and_all_ignored_leaves_no_object(pair):
    prediction, reference = pair
    none, everything = np.zeros(reference.shape, bool), np.ones(reference.shape, bool)
    ones, others = Objects.of(prediction, reference), Objects.of(prediction, reference, ignored=none)
    assert all(np.array_equal(vars(ones)[key], vars(others)[key]) for key in vars(ones))
    assert not Objects.of(prediction, reference, ignored=everything).voxels.size
    assert boundary_scores(prediction, reference, 1, ignored=none).f1 == boundary_scores(prediction, reference, 1).f1
    assert boundary_scores(prediction, reference, 1, ignored=everything).f1 == 1


@given(hnp.arrays(np.int64, st.integers(1, 40), elements=st.integers(1, 9)), st.data())
def test_quartiles_divide_where_numpys_do(sizes, data):
    covered = data.draw(hnp.arrays(np.int64, sizes.shape, elements=st.integers(0, 9)))
    found = Objects(sizes, np.minimum(covered, sizes), sizes, sizes, np.zeros(sizes.size))
    low, median, high = np.percentile(sizes, [25, 50, 75])
    groups = [sizes <= low, (low < sizes) & (sizes <= median), (median < sizes) & (sizes <= high), sizes > high]
    expected = [np.mean(2 * found.covered[g] >= sizes[g]) if g.any() else np.nan for g in groups]
    assert found.recall_by_size == pytest.approx(expected, nan_ok=True)
    assert sum(int((found.quartile == q).sum()) for q in range(4)) == sizes.size


def test_a_large_object_that_is_broken_and_a_small_one_that_is_lost_are_told_apart():
    reference = np.zeros((20, 20), bool)
    reference[2:10, 2:18] = True
    reference[14:16, 14:16] = True
    prediction = reference.copy()
    prediction[:, 9:11] = False
    prediction[14:16, 14:16] = False
    found = Objects.of(prediction, reference)
    order = np.argsort(found.voxels)
    assert found.fragments[order].tolist() == [0, 2]
    assert found.recalled[order].tolist() == [False, True]
    assert found.matched[order].tolist() == [False, False]
    assert found.fragments_per_object == 2


def test_objects_that_are_merged_are_recalled_but_not_matched():
    reference = np.zeros((9, 30), bool)
    for left in (1, 11, 21):
        reference[1:8, left : left + 8] = True
    found = Objects.of(np.ones_like(reference), reference)
    assert found.recalled.all()
    assert not found.matched.any()
    assert found.objects_per_component == 3
    assert found.fragments_per_object == 1


@given(PAIRS, PAIRS)
def test_pooled_objects_are_all_of_them(one, other):
    parts = [Objects.of(*one), Objects.of(*other)]
    pooled = Objects.pooled(parts)
    assert pooled.voxels.tolist() == [*parts[0].voxels, *parts[1].voxels]
    assert Objects.pooled([]).recall_by_size == pytest.approx([np.nan] * 4, nan_ok=True)


@given(PAIRS)
def test_a_boundary_is_scikit_images_inner_one(pair):
    mask = pair[0]
    assert np.array_equal(boundary(mask), find_boundaries(mask, connectivity=1, mode="inner") & mask)


@given(PAIRS, st.floats(0, 4), st.tuples(*[st.sampled_from([0.5, 1.0, 2.5])] * 3))
def test_boundary_scores_are_those_of_distances_between_all_pairs(pair, tolerance, steps):
    prediction, reference = pair
    spacing = steps[: reference.ndim]
    predicted, expected = (np.argwhere(boundary(mask)) * spacing for mask in pair)
    found = boundary_scores(prediction, reference, tolerance, spacing)
    if not (len(predicted) and len(expected)):
        assert found.f1 == float(len(predicted) == len(expected))
        return
    apart = np.sqrt(((predicted[:, None] - expected[None]) ** 2).sum(-1))
    assert found.precision == pytest.approx((apart.min(1) <= tolerance).mean())
    assert found.recall == pytest.approx((apart.min(0) <= tolerance).mean())
    both = found.precision + found.recall
    assert found.f1 == pytest.approx(2 * found.precision * found.recall / both if both else 0)


@given(PAIRS, st.floats(0, 5))
def test_a_mask_agrees_with_itself_and_a_larger_tolerance_is_never_worse(pair, tolerance):
    prediction, reference = pair
    assert boundary_scores(reference, reference, 0).f1 == 1
    assert (
        boundary_scores(prediction, reference, tolerance + 1).f1 >= boundary_scores(prediction, reference, tolerance).f1
    )


def test_a_boundary_that_is_shifted_passes_within_the_tolerance_alone():
    reference = np.zeros((32, 32), bool)
    reference[:, :16] = True
    prediction = np.roll(reference, 3, axis=1)
    prediction[:, :3] = True
    assert distance_transform_edt(~boundary(reference))[boundary(prediction)].max() == 3
    assert boundary_scores(prediction, reference, 3).f1 == 1
    assert boundary_scores(prediction, reference, 2.9).f1 == 0
    assert boundary_scores(prediction, reference, 3, steps=(1, 1.1)).f1 == 0


def test_the_edge_of_what_is_ignored_is_no_boundary():
    mask = np.zeros((16, 16), bool)
    mask[:, :8] = True
    ignored = np.zeros_like(mask)
    ignored[:, 8:10] = True
    assert not boundary(mask, ignored).any()
    assert boundary(mask).any()


def test_shapes_that_differ_are_refused():
    for compared in (Objects.of, lambda a, b: boundary_scores(a, b, 1)):
        with pytest.raises(ValueError, match="differ in shape"):
            compared(np.ones((2, 3), bool), np.ones((3, 2), bool))


def test_objects_of_the_background_class_are_compared_by_name():
    labels = Labels({"membrane": 0, "cell": 255}, ("membrane",))
    values = np.full((1, 12, 12), 255, np.uint8)
    values[0, :, 6] = 0
    reference, prediction = open_scan(values), open_scan(np.full_like(values, 255))
    cells = compare_objects(prediction, reference, labels, ["cell"])
    assert cells.objects.voxels.size == 2
    assert cells.objects.objects_per_component == 2
    membranes = compare_objects(prediction, reference, labels)
    assert membranes.objects.recall == 0
    assert membranes.boundary_f1 == 0
    with pytest.raises(MedsegError, match="did you mean 'cell'"):
        compare_objects(prediction, reference, labels, ["cel"])


def test_instance_numbers_in_the_files_are_the_objects():
    labels = Labels({"background": 0, "nucleus": 1}, ("nucleus",), instances=True)
    numbers = np.zeros((1, 10, 10), np.uint16)
    numbers[0, 2:8, 2:5], numbers[0, 2:8, 5:8] = 3, 9
    found = compare_objects(open_scan((numbers > 0).astype(np.uint16)), open_scan(numbers), labels)
    assert sorted(found.objects.voxels) == [18, 18]
    assert found.objects.objects_per_component == 2
