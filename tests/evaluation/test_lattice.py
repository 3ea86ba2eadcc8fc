"""Distances and volumes of scans whose axes are askew are those of their voxels' places in the world."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist, pdist

from medseg.datasets.labels import Labels
from medseg.evaluation import points
from medseg.evaluation.evaluate import Wanted, evaluate
from medseg.evaluation.objects import boundary, boundary_scores, compare_objects
from medseg.evaluation.surfaces import Borders, SurfaceDistances
from medseg.scans.blocks import boxes
from medseg.scans.header import Header, HeaderScan
from medseg.scans.lattice import bounds, diagonal, places, steps_of, volume
from medseg.scans.scan import open_scan

LABELS = Labels({"background": 0, "aorta": 1})
TILTED = np.array([[0.7, 0, 0, 10], [0, 0.7, 2, -20], [0, 0, 4, 30], [0, 0, 0, 1]])
"""Slices 4 mm apart, each 2 mm behind the one below: a gantry tilted by 27 degrees."""


@st.composite
def affines(draw: st.DrawFn, sheared: bool = True) -> np.ndarray:
    """Turned, flipped, of any spacing, and sheared along all axes or none."""
    numbers = st.floats(-1, 1, width=32)
    turn = np.linalg.qr(np.array(draw(st.lists(numbers, min_size=9, max_size=9))).reshape(3, 3) + 3 * np.eye(3)).Q
    shear = np.eye(3)
    if sheared:
        shear[np.triu_indices(3, 1)] = draw(st.lists(numbers, min_size=3, max_size=3))
        assume(np.abs(shear[0, 1]) > 0.01)
    signs = draw(st.lists(st.sampled_from([-1, 1]), min_size=3, max_size=3))
    spacing = draw(st.lists(st.floats(0.3, 5), min_size=3, max_size=3))
    affine = np.eye(4)
    affine[:3, :3] = turn @ shear @ np.diag(np.multiply(signs, spacing))
    affine[:3, 3] = 10, -20, 30
    return affine


def pairs(least: int = 2) -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    shapes = array_shapes(min_dims=2, max_dims=3, min_side=least, max_side=6)
    return shapes.flatmap(lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape)))


def scan_of(affine: np.ndarray, shape: tuple[int, ...]) -> HeaderScan:
    return HeaderScan(Header("a", shape, 1, np.dtype(np.uint8), "XYZ"[: len(shape)], affine, "mm"))


def world(affine: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return indices @ affine[:3, : indices.shape[1]].T + affine[:3, 3]


def surfaces(pair: tuple[np.ndarray, np.ndarray], steps: np.ndarray, block: tuple[int, ...]) -> SurfaceDistances:
    prediction, reference = (mask.astype(np.uint8) for mask in pair)
    found = Borders(reference.shape)
    for box in boxes(reference.shape, block[: reference.ndim]):
        near = box.grow(1).clip(reference.shape)
        found.add(box, near, prediction[near.slices], reference[near.slices])
    return found.distances(steps)[1]


def by_trees(pair: tuple[np.ndarray, np.ndarray], affine: np.ndarray) -> list[np.ndarray]:
    """Both ways' distances between the borders, in the world."""
    one, other = (world(affine, np.argwhere(mask ^ binary_erosion(mask))) for mask in pair)
    return [cKDTree(other).query(one)[0], cKDTree(one).query(other)[0]]


@given(affines(), array_shapes(min_dims=2, max_dims=3, max_side=5))
def test_steps_keep_distances_and_volumes_and_the_farthest_voxels_are_a_diagonal_apart(affine, shape):
    steps = steps_of(scan_of(affine, shape))
    indices = np.argwhere(np.ones(shape, bool))
    truly = pdist(world(affine, indices))
    np.testing.assert_allclose(pdist(places(indices, steps)), truly, rtol=1e-9)
    assert diagonal(shape, steps) == pytest.approx(truly.max(initial=0), rel=1e-9)
    columns = affine[:3, : len(shape)]
    cell = abs(np.linalg.det(columns)) if len(shape) == 3 else np.linalg.norm(np.cross(*columns.T))
    assert volume(steps) == pytest.approx(cell, rel=1e-9)


@given(affines(sheared=False), st.integers(2, 3), st.booleans())
def test_at_right_angles_steps_are_the_spacing_however_the_scan_lies(affine, axes, rounded):
    scan = scan_of(affine.astype(np.float32) if rounded else affine, (4, 3, 5)[:axes])
    np.testing.assert_array_equal(steps_of(scan), scan.spacing_mm)
    assert volume(steps_of(scan)) == pytest.approx(np.prod(scan.spacing_mm))


@pytest.mark.parametrize(("shear", "askew"), [(9e-6, False), (2e-5, True)])
def test_a_shear_of_less_than_what_headers_round_to_is_none(shear, askew):
    affine = np.eye(4)
    affine[1, 2] = shear
    assert steps_of(scan_of(affine, (2, 2, 2))).ndim == 1 + askew


@given(affines(), arrays(np.int64, (4, 2, 3), elements=st.integers(0, 9)))
def test_bounds_are_those_of_the_corners(affine, ends):
    low, high = np.sort(ends, axis=1).transpose(1, 0, 2)
    steps = steps_of(scan_of(affine, (2, 2, 2)))
    corners = np.stack([places(np.where(chosen, low, high), steps) for chosen in product((False, True), repeat=3)])
    for ours, theirs in zip(bounds(low, high, steps), (corners.min(0), corners.max(0)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@given(pairs(), affines(), st.floats(0, 6), st.tuples(*[st.integers(1, 6)] * 3), st.integers(1, 5))
def test_distances_between_borders_are_those_of_their_places(pair, affine, tolerance, block, chunk):
    assume(pair[0].any() and pair[1].any())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(points, "CHUNK", chunk)
        found = surfaces(pair, steps_of(scan_of(affine, pair[0].shape)), block)
    ways = by_trees(pair, affine)
    both = np.concatenate(ways)
    assert found.hausdorff() == pytest.approx(both.max(), rel=1e-9)
    assert found.hausdorff(0.95) == pytest.approx(max(np.percentile(way, 95) for way in ways), rel=1e-9)
    assert found.mean == pytest.approx(both.mean(), rel=1e-9)
    assume(np.abs(both - tolerance).min() > 1e-4)
    assert found.within(tolerance) == pytest.approx((both <= tolerance).mean())


@given(pairs(), affines(), st.floats(0, 4))
def test_boundary_scores_are_those_of_distances_between_all_places(pair, affine, tolerance):
    edges = [boundary(mask) for mask in pair]
    assume(edges[0].any() and edges[1].any())
    apart = cdist(*(world(affine, np.argwhere(edge)) for edge in edges))
    assume(np.abs(apart - tolerance).min() > 1e-4)
    found = boundary_scores(*pair, tolerance, steps_of(scan_of(affine, pair[0].shape)))
    assert found.precision == pytest.approx((apart.min(1) <= tolerance).mean())
    assert found.recall == pytest.approx((apart.min(0) <= tolerance).mean())


def save(folder: Path, unit: str, **masks: np.ndarray) -> Path:
    folder.mkdir()
    for name, mask in masks.items():
        image = nib.Nifti1Image(mask.astype(np.uint8), TILTED)
        image.header.set_xyzt_units(xyz={"mm": "mm", "um": "micron"}[unit])
        nib.save(image, folder / f"{name}.nii.gz")
    return folder


def test_the_tolerance_of_objects_is_in_voxels_of_the_finest_spacing_where_axes_are_askew(tmp_path):
    reference, prediction = np.zeros((3, 5, 3), bool), np.zeros((3, 5, 3), bool)
    reference[1, 1, 0] = prediction[1, 3, 2] = True
    scans = [open_scan(save(tmp_path / n, "mm", a=m) / "a.nii.gz") for n, m in (("p", prediction), ("r", reference))]
    apart = np.linalg.norm(TILTED[:3, :3] @ (0, 2, 2)) / 0.7
    for tolerance, score in ((apart * 0.999, 0), (apart * 1.001, 1)):
        assert compare_objects(*scans, LABELS, tolerance=tolerance).boundary_f1 == score


@pytest.mark.parametrize("unit", ["mm", "um"])
def test_files_of_a_tilted_scan_score_as_they_lie(tmp_path, unit):
    rng = np.random.default_rng(5)
    one, other = rng.random((2, 12, 11, 6)) < 0.04
    predictions = save(tmp_path / "p", unit, a=one, empty=np.zeros_like(one))
    references = save(tmp_path / "r", unit, a=other, empty=other, missing=other)
    wanted = Wanted(metrics=["counts", "surfaces"], tolerance=4.0)
    evaluate(predictions, references, LABELS, tmp_path / "out", wanted=wanted)
    cases = json.loads((tmp_path / "out" / "metrics.json").read_text())["cases"]
    values = {case["case"]: case["labels"]["aorta"] for case in cases}
    ways = by_trees((one, other), TILTED)
    both = np.concatenate(ways)
    expected = {
        f"hd_{unit}": both.max(),
        f"hd95_{unit}": max(np.percentile(way, 95) for way in ways),
        f"assd_{unit}": both.mean(),
        "nsd": (both <= 4.0).mean(),
        f"volume_difference_{unit}3": (int(one.sum()) - int(other.sum())) * abs(np.linalg.det(TILTED)),
    }
    assert {column: values["a"][column] for column in expected} == pytest.approx(expected, rel=1e-6)
    corners = world(TILTED, np.array(list(product((0, 11), (0, 10), (0, 5)))))
    for case in ("empty", "missing"):
        assert values[case][f"hd95_{unit}"] == pytest.approx(pdist(corners).max(), rel=1e-6)
