"""Two grids that differ are refused in one sentence with its numbers, unless the difference is rounding."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.datasets.check import check_grid, open_label
from medseg.datasets.checks.grids import differences, orientation_of
from medseg.errors import GridError
from medseg.scans.scan import Scan, open_scan

AFFINE = np.diag([-1.0, -1.0, 2.5, 1.0])
SHAPE = (6, 5, 4)


def scan(path: Path, affine: np.ndarray = AFFINE, shape: tuple[int, ...] = SHAPE) -> Scan:
    image = nib.Nifti1Image(np.zeros(shape, np.uint8), affine)
    image.set_sform(affine, 1)
    nib.save(image, path)
    return open_label(path)


def moved(*by: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[:3, 3] += by
    return affine


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        ((5, 5, 4), AFFINE, r"different shapes, 5 x 5 x 4 and 6 x 5 x 4; .*resample"),
        ((5, 6, 4), AFFINE, r"different shapes, 5 x 6 x 4 and 6 x 5 x 4; the axes seem to be in another order"),
        (SHAPE, AFFINE * [1, 1, 1.1, 1], r"different spacings, 1 x 1 x 2.75 and 1 x 1 x 2.5 mm, 10 % apart"),
        (SHAPE, moved(0, 3, 4), r"different affines: their grids lie up to 5 mm \(5 voxels\) apart"),
        (SHAPE, AFFINE * [-1, 1, 1, 1], r"different orientations, RPS and LPS; their grids lie up to 10 mm apart"),
    ],
)
def test_grids_that_differ_are_refused(
    tmp_path: Path, shape: tuple[int, ...], affine: np.ndarray, message: str
) -> None:
    with pytest.raises(GridError, match=message):
        check_grid(scan(tmp_path / "a_label.nii", affine, shape), scan(tmp_path / "a.nii"))


@pytest.mark.parametrize(
    ("factor", "degrees"), [(1e-8, []), (5e-6, ["rounding"]), (5e-4, ["small"]), (5e-3, ["different"])]
)
def test_the_size_of_a_difference_says_whether_it_is_rounding(
    tmp_path: Path, factor: float, degrees: list[str]
) -> None:
    image = scan(tmp_path / "a.nii")
    label = scan(tmp_path / "b.nii", AFFINE * [1, 1, 1 + factor, 1])
    assert [(d.kind, d.degree) for d in differences(label, image)] == [("spacing", degree) for degree in degrees]


@pytest.mark.parametrize(
    ("apart", "degrees"), [(1e-4, []), (4e-3, ["rounding"]), (0.08, ["small"]), (0.12, ["different"])]
)
def test_how_far_grids_lie_apart_is_measured_by_their_place_and_their_voxels(
    tmp_path: Path, apart: float, degrees: list[str]
) -> None:
    image, label = scan(tmp_path / "a.nii", moved(1000, 0, 0)), scan(tmp_path / "b.nii", moved(1000 + apart, 0, 0))
    found = list(differences(label, image))
    assert [(d.kind, d.degree) for d in found] == [("affine", degree) for degree in degrees]
    for difference in found:
        assert difference.numbers["apart_mm"] == pytest.approx(apart, abs=1e-4)


def test_a_turned_copy_fills_the_same_place(tmp_path: Path) -> None:
    image = scan(tmp_path / "a.nii")
    turned = AFFINE.copy()
    turned[:, 0], turned[0, 3] = -AFFINE[:, 0], AFFINE[0, 0] * (SHAPE[0] - 1)
    (found,) = differences(scan(tmp_path / "b.nii", turned), image)
    assert found.kind == "orientation" and found.numbers["same_place"] and "turn one" in found.remedy
    assert found.numbers["orientations"] == ["".join(nib.aff2axcodes(a)) for a in (turned, AFFINE)]


def test_orientations_are_nibabels() -> None:
    for signs in np.ndindex(2, 2, 2):
        affine = np.diag([*(1.0 - 2 * np.array(signs)), 1.0])
        assert orientation_of(affine, 3) == "".join(nib.aff2axcodes(affine))


def test_a_grid_that_says_nothing_of_itself_fits_any(tmp_path: Path) -> None:
    check_grid(open_scan(np.zeros((1, *SHAPE), np.uint8)), scan(tmp_path / "a.nii"))
