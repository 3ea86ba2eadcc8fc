"""What a model remembers of its training images: numbers of the set, in the patient's axes, and no name of a case."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, ornt_transform

from medseg.datasets.checks.facts import QUANTILES, facts_of
from medseg.datasets.checks.finding import CaseFacts
from medseg.datasets.fingerprint import Fingerprint, Image, Span

RAS = np.diag([1.0, 2.0, 3.0, 1.0])


def nifti(path: Path, voxels: np.ndarray, affine: np.ndarray = RAS, codes: str = "RAS") -> Path:
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    turned = image.as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes)))
    nib.save(turned, path)
    return path


def case(*paths: Path, name: str = "case") -> CaseFacts:
    return CaseFacts(name, name, tuple(facts_of(path, "image") for path in paths), None)


def volume(seed: int = 0, shape: tuple[int, ...] = (9, 7, 5)) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 30, shape).astype(np.float32)


@given(st.lists(st.tuples(*[st.floats(-1e6, 1e6)] * 3), min_size=1, max_size=9))
def test_a_span_is_numpys(rows: list[tuple[float, ...]]) -> None:
    span = Span.of(rows)
    assert span is not None
    np.testing.assert_array_equal(span.least, np.min(rows, 0))
    np.testing.assert_array_equal(span.largest, np.max(rows, 0))
    np.testing.assert_allclose(span.median, np.median(rows, 0))
    assert Span.of([]) is None


@pytest.mark.parametrize("codes", ["LPS", "PIR", "SRA", "ILA"])
def test_axes_are_the_patients_whatever_the_files(tmp_path: Path, codes: str) -> None:
    straight = Image.of(case(nifti(tmp_path / "a.nii", volume())).images)
    turned = Image.of(case(nifti(tmp_path / "b.nii", volume(), codes=codes)).images)
    assert straight is not None and turned is not None
    assert turned.orientation == codes
    assert turned.shape == straight.shape == (9, 7, 5)
    np.testing.assert_allclose(turned.spacing_mm, straight.spacing_mm, rtol=1e-6)
    np.testing.assert_allclose(turned.extent_mm, (9, 14, 15), rtol=1e-6)


def test_percentiles_are_those_of_the_files(tmp_path: Path) -> None:
    volumes = [volume(seed) * (seed + 1) for seed in range(3)]
    known = Fingerprint.of(case(nifti(tmp_path / f"{n}.nii", v)) for n, v in enumerate(volumes))
    assert known is not None and known.intensities[0] is not None
    exact = np.array([np.percentile(v, QUANTILES, method="lower") for v in volumes])
    found = known.intensities[0].percentiles
    np.testing.assert_allclose(found.least, exact.min(0), rtol=1 / 64, atol=1e-6)
    np.testing.assert_allclose(found.largest, exact.max(0), rtol=1 / 64, atol=1e-6)
    assert known.cases == 3 and known.dtypes == ("float32",) and known.orientations == ("RAS",)


def test_channels_in_files_of_their_own_are_channels(tmp_path: Path) -> None:
    paths = [nifti(tmp_path / f"{n}.nii", volume(n) + 1000 * n) for n in range(2)]
    known = Fingerprint.of([case(*paths)])
    assert known is not None
    low, high = (intensities.percentiles.median[2] for intensities in known.intensities if intensities is not None)
    assert low < 500 < high


def test_no_case_and_no_file_is_named(tmp_path: Path) -> None:
    known = Fingerprint.of([case(nifti(tmp_path / "Doe_Jane.nii", volume()), name="Doe_Jane")])
    assert known is not None
    assert "Doe" not in known.model_dump_json() and str(tmp_path) not in known.model_dump_json()
    assert Fingerprint.model_validate(json.loads(known.model_dump_json())) == known


def test_files_that_cannot_be_read_or_say_no_unit(tmp_path: Path) -> None:
    (tmp_path / "broken.nii").write_bytes(b"no image")
    assert Fingerprint.of([case(tmp_path / "broken.nii")]) is None
    nib.save(nib.Nifti1Image(volume(), None), tmp_path / "bare.nii")
    known = Fingerprint.of([case(tmp_path / "bare.nii")])
    assert known is not None
    assert (known.spacing_mm is None) == (known.units == ("pixel",))
    assert (known.orientations, known.unit_assumed) == (("XYZ",), True)
