"""A case that is not fit is refused in one sentence with its numbers."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.datasets.cases import Case
from medseg.datasets.check import check_case, check_grid
from medseg.datasets.labels import Labels
from medseg.errors import GridError, MedsegError, ScanError
from medseg.scans.scan import open_scan

LABELS = Labels({"background": 0, "lesion": 1})
AFFINE = np.diag([-1.0, -1.0, 2.5, 1.0])


def nifti(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def case(tmp_path: Path, image: np.ndarray, label: np.ndarray, affine: np.ndarray = AFFINE) -> Case:
    return Case("a", nifti(tmp_path / "a.nii", image), nifti(tmp_path / "a_label.nii", label, affine), "a")


IMAGE = np.zeros((6, 5, 4), np.float32)
LABEL = np.ones((6, 5, 4), np.uint8)


def moved(*by: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[:3, 3] += by
    return affine


def test_a_case_that_is_fit(tmp_path: Path) -> None:
    check_case(case(tmp_path, IMAGE, LABEL, moved(1e-5, 0, 0) * [1.0001, 1, 1, 1]), LABELS, 1, 3)
    check_case(Case("a", tmp_path / "a.nii", None, "a"), LABELS, 1, 3)


@pytest.mark.parametrize(
    ("label", "affine", "message"),
    [
        (LABEL[:5], AFFINE, r"different shapes, 5 x 5 x 4 and 6 x 5 x 4"),
        (LABEL, AFFINE * [1, 1, 1.1, 1], r"different spacings, 1 x 1 x 2.75 and 1 x 1 x 2.5 mm"),
        (LABEL, moved(0, 3, 4), r"different affines: their grids lie up to 5 mm apart"),
        (LABEL, AFFINE * [-1, 1, 1, 1], r"lie up to 10 mm apart"),
    ],
)
def test_image_and_label_on_different_grids(
    tmp_path: Path, label: np.ndarray, affine: np.ndarray, message: str
) -> None:
    with pytest.raises(GridError, match=message):
        check_case(case(tmp_path, IMAGE, label, affine), LABELS, 1, 3)


def test_undeclared_values(tmp_path: Path) -> None:
    label = LABEL.copy()
    label[5, 4, 3] = 7
    with pytest.raises(MedsegError, match=r"a_label.nii holds the undeclared label value 7"):
        check_case(case(tmp_path, IMAGE, label), LABELS, 1, 3)


@pytest.mark.parametrize(("value", "word"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_values_that_are_not_finite(tmp_path: Path, value: float, word: str) -> None:
    image = IMAGE.copy()
    image[5, 2, 3] = value
    with pytest.raises(ScanError, match=rf"a.nii has {word} at \(0, 5, 2, 3\)"):
        check_case(case(tmp_path, image, LABEL), LABELS, 1, 3)


def test_channels_and_axes(tmp_path: Path) -> None:
    fit = case(tmp_path, IMAGE, LABEL)
    with pytest.raises(GridError, match="has 1 channel; 3 expected"):
        check_case(fit, LABELS, 3, 3)
    with pytest.raises(GridError, match=r"has 3 axes, 6 x 5 x 4; 2 are expected"):
        check_case(fit, LABELS, 1, 2)


def test_a_grid_that_says_nothing_of_itself_fits_any(tmp_path: Path) -> None:
    check_grid(open_scan(LABEL[None]), open_scan(nifti(tmp_path / "a.nii", IMAGE)))
