"""Surface distances equal a distance transform's and MONAI's, are the same whatever the blocks, and obey geometry."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter

from medseg.evaluation import points
from medseg.evaluation.surfaces import Borders, Distances, SurfaceDistances
from medseg.geometry import Box
from medseg.scans.blocks import boxes
from medseg.scans.lattice import diagonal

SPACINGS = st.lists(st.floats(0.3, 5), min_size=3, max_size=3)


@st.composite
def pairs(draw: st.DrawFn, classes: int = 1) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=7))
    values = st.integers(0, classes)
    return draw(arrays(np.int8, shape, elements=values)), draw(arrays(np.int8, shape, elements=values))


def borders_of(prediction: np.ndarray, reference: np.ndarray, block: tuple[int, ...] | None = None) -> Borders:
    found = Borders(reference.shape)
    for box in boxes(reference.shape, block or reference.shape):
        near = box.grow(1).clip(reference.shape)
        found.add(box, near, prediction[near.slices], reference[near.slices])
    return found


def distances_of(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing: list[float] | None = None,
    block: tuple[int, ...] | None = None,
) -> SurfaceDistances:
    spacing = list(spacing or [1.0] * 3)[: reference.ndim]
    return borders_of(prediction, reference, block).distances(spacing)[1]


def by_transform(prediction: np.ndarray, reference: np.ndarray, spacing: list[float]) -> list[np.ndarray]:
    """Both ways' distances, from whole distance transforms."""
    borders = [mask ^ binary_erosion(mask) for mask in (prediction == 1, reference == 1)]
    maps = [distance_transform_edt(~border, sampling=spacing) for border in borders]
    return [maps[1][borders[0]], maps[0][borders[1]]]


@given(pairs(classes=2), SPACINGS, st.floats(0, 6))
def test_distances_are_those_of_a_distance_transform(pair, spacing, tolerance):
    prediction, reference = pair
    assume((prediction == 1).any() and (reference == 1).any())
    spacing = spacing[: reference.ndim]
    found = distances_of(prediction, reference, spacing)
    ways = by_transform(prediction, reference, spacing)
    both = np.concatenate(ways)
    assert [way.total for way in found.both] == [len(way) for way in ways]
    assert found.hausdorff() == pytest.approx(both.max(), rel=1e-12)
    assert found.hausdorff(0.95) == pytest.approx(max(np.percentile(way, 95) for way in ways), rel=1e-12)
    assert found.mean == pytest.approx(both.mean(), rel=1e-12)
    assume(np.abs(both - tolerance).min() > 1e-4)
    assert found.within(tolerance) == (both <= tolerance).mean()


@settings(max_examples=20)
@given(pairs(), SPACINGS)
def test_metrics_are_monais(pair, spacing):
    torch = pytest.importorskip("torch")
    monai = pytest.importorskip("monai.metrics")
    prediction, reference = pair
    assume(prediction.any() and reference.any())
    spacing = spacing[: reference.ndim]
    one, other = (torch.tensor(mask[None, None].astype(np.float32)) for mask in pair)
    given = {"include_background": True, "spacing": spacing}
    found = distances_of(prediction, reference, spacing)
    assert found.hausdorff() == pytest.approx(float(monai.compute_hausdorff_distance(one, other, **given)), rel=1e-5)
    theirs = float(monai.compute_hausdorff_distance(one, other, percentile=95, **given))
    assert found.hausdorff(0.95) == pytest.approx(theirs, rel=1e-5)
    theirs = float(monai.compute_average_surface_distance(one, other, symmetric=True, **given))
    assert found.mean == pytest.approx(theirs, rel=1e-5)
    tolerance = 1.2345 * spacing[0]
    theirs = float(monai.compute_surface_dice(one, other, [tolerance], **given))
    assert found.within(tolerance) == pytest.approx(theirs, rel=1e-6)


@given(pairs(classes=2), st.lists(st.integers(1, 4), min_size=3, max_size=3), st.integers(1, 5), st.integers(0, 9))
def test_blocks_chunks_and_files_change_nothing(pair, block, chunk, kept):
    prediction, reference = pair
    whole = borders_of(prediction, reference).distances((0.7, 1.1, 3.0)[: reference.ndim])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(points, "CHUNK", chunk)
        patch.setattr(points, "KEPT", kept)
        parts = borders_of(prediction, reference, tuple(block[: reference.ndim]))
        parted = parts.distances((0.7, 1.1, 3.0)[: reference.ndim])
    assert list(parted) == list(whole)
    for number, found in parted.items():
        for ours, theirs in zip(found.both, whole[number].both, strict=True):
            np.testing.assert_allclose(ours.values, theirs.values, rtol=1e-14)
            np.testing.assert_array_equal(ours.counts, theirs.counts)


def test_large_surfaces_in_chunks_are_those_of_a_distance_transform(monkeypatch):
    monkeypatch.setattr(points, "CHUNK", 500)
    monkeypatch.setattr(points, "KEPT", 2000)
    rng = np.random.default_rng(3)
    noise = gaussian_filter(rng.standard_normal((40, 36, 32)), 3)
    prediction, reference = ((noise + shift > 0.02).astype(np.uint8) for shift in (0.0, 0.02))
    prediction[:4] = 0
    reference[30:] = 0
    found = distances_of(prediction, reference, [0.8, 1.0, 2.5], (9, 40, 40))
    ways = by_transform(prediction, reference, [0.8, 1.0, 2.5])
    for ours, theirs in zip(found.both, ways, strict=True):
        np.testing.assert_allclose(np.repeat(ours.values, ours.counts), np.sort(theirs), rtol=1e-12)


@given(pairs())
def test_a_mask_agrees_with_itself(pair):
    mask, _ = pair
    assume(mask.any())
    found = distances_of(mask, mask)
    assert (found.hausdorff(), found.hausdorff(0.95), found.mean, found.within(0)) == (0, 0, 0, 1)


@given(pairs(), SPACINGS, st.floats(0, 5))
def test_distances_are_symmetric(pair, spacing, tolerance):
    prediction, reference = pair
    assume(prediction.any() and reference.any())
    one, other = distances_of(prediction, reference, spacing), distances_of(reference, prediction, spacing)
    assert (one.hausdorff(), one.hausdorff(0.95)) == (other.hausdorff(), other.hausdorff(0.95))
    assert one.mean == pytest.approx(other.mean, rel=1e-14)
    assert one.within(tolerance) == other.within(tolerance)


@given(pairs(), SPACINGS, st.sampled_from([0.25, 2.0, 16.0]))
def test_distances_scale_with_the_spacing(pair, spacing, factor):
    prediction, reference = pair
    assume(prediction.any() and reference.any())
    one = distances_of(prediction, reference, spacing)
    other = distances_of(prediction, reference, [factor * s for s in spacing])
    assert other.hausdorff(0.95) == factor * one.hausdorff(0.95)
    assert other.mean == pytest.approx(factor * one.mean, rel=1e-14)
    assert other.within(factor * 2) == one.within(2)


@given(pairs(), SPACINGS, st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_distances_do_not_depend_on_where_the_objects_lie(pair, spacing, around):
    prediction, reference = pair
    assume(prediction.any() and reference.any())
    margins = [(around[2 * axis], around[2 * axis + 1]) for axis in range(reference.ndim)]
    one = distances_of(prediction, reference, spacing)
    other = distances_of(np.pad(prediction, margins), np.pad(reference, margins), spacing)
    assert other.hausdorff() == pytest.approx(one.hausdorff(), rel=1e-14)
    assert other.mean == pytest.approx(one.mean, rel=1e-14)


@given(pairs(), SPACINGS)
def test_no_distance_is_above_the_diagonal_and_the_ones_are_in_order(pair, spacing):
    prediction, reference = pair
    assume(prediction.any() and reference.any())
    found = distances_of(prediction, reference, spacing)
    worst = diagonal(reference.shape, spacing[: reference.ndim])
    assert 0 <= found.hausdorff(0.95) <= found.hausdorff() <= worst * (1 + 1e-12)
    assert found.mean <= found.hausdorff()
    assert found.within(worst) == 1


@given(arrays(np.float64, st.integers(1, 30), elements=st.sampled_from([0.0, 0.5, 1.0, 2.25, 7.0])), st.floats(0, 1))
def test_quantiles_of_counts_are_numpys(values, share):
    found = Distances(*np.unique(values, return_counts=True))
    assert found.quantile(share) == pytest.approx(np.quantile(values, share), rel=1e-12, abs=1e-12)
    assert found.sum == pytest.approx(values.sum())


def test_a_plane_in_space_has_the_borders_of_a_picture():
    rng = np.random.default_rng(0)
    flat = [(rng.random((12, 9)) < 0.6).astype(np.uint8) for _ in range(2)]
    one, other = distances_of(*flat), distances_of(*(mask[None] for mask in flat))
    assert (one.hausdorff(), one.mean) == (other.hausdorff(), other.mean)


@pytest.mark.parametrize("cut", [5, 7])
def test_what_is_ignored_makes_no_border_and_no_distance(cut):
    reference, prediction = np.zeros((12, 12), np.int8), np.zeros((12, 12), np.int8)
    reference[2:9, 2:9] = 1
    prediction[2:9, 3:12] = 1
    reference[:, cut:] = -1
    found = distances_of(prediction, reference)
    columns = np.concatenate([chunk[:, 1] for chunk in found_points(prediction, reference)])
    assert columns.max() < cut
    assert found.hausdorff() == 1


def found_points(prediction, reference):
    pair = borders_of(prediction, reference)._found[1]
    for these in pair:
        these.finish()
        yield from (these.indices(these.read(chunk)) for chunk in these.chunks)


def test_a_class_without_a_border_in_one_mask_has_no_distances():
    some, none = np.ones((3, 3), np.uint8), np.zeros((3, 3), np.uint8)
    assert borders_of(some, none).distances((1, 1)) == {}
    assert borders_of(some, none).sizes(1) == (8, 0)
    assert borders_of(none, none).sizes(1) == (0, 0)


def test_tolerances_forgive_single_precision():
    reference, prediction = np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.uint8)
    reference[4, 2] = prediction[4, 5] = 1
    spacing = float(np.float32(0.7))
    assert distances_of(prediction, reference, [spacing] * 3).within(2.1) == 1
    assert distances_of(prediction, reference, [0.7] * 3).within(2.099) == 0


def test_the_diagonal_goes_from_centre_to_centre():
    assert diagonal((4, 1, 5), (1.0, 9.0, 0.75)) == math.hypot(3, 3)


def test_boxes_that_hold_nothing_are_passed_over():
    found = Borders((4, 4))
    found.add(Box((0, 0), (4, 4)), Box((0, 0), (4, 4)), np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8))
    assert found.distances((1, 1)) == {}
