"""A tree of studies whose copy was interrupted, or whose series is spread, as the data set that it is."""

import numpy as np
import pytest
from dicom_files import write_series

from medseg import open_scan
from medseg.datasets.check import open_image
from medseg.datasets.layouts.dicom_tree import read
from medseg.geometry import Box
from medseg.scans.scan import create_mask
from medseg.scans.segments import Segment, Segmentation, SegmentLook

AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])
VOLUME = np.random.default_rng(0).integers(0, 500, (9, 8, 5)).astype(np.int16)


@pytest.fixture
def tree(tmp_path):
    """One series and a SEG of all its slices."""
    about = {"PatientID": "P", "FrameOfReferenceUID": "1.2.9"}
    series = write_series(tmp_path / "tree" / "ct", VOLUME, AFFINE, **about)
    scan = open_scan(series)
    look = Segment("liver", (1,), 0, SegmentLook())
    sink = create_mask(tmp_path / "tree" / "seg.dcm", scan, segmentation=Segmentation((look,), "expert", "1", "seg"))
    sink.write(Box.of(scan.shape), np.ones((9, 8, 5), np.uint8))
    sink.close()
    return tmp_path / "tree"


def problem(tree):
    found = read(tree)
    (one,) = found.problems
    assert not found.cases
    return one.text


def test_slices_that_the_label_refers_to_and_that_are_not_there_are_counted(tree):
    assert not read(tree).problems and len(read(tree).cases) == 1
    for name in ("3.dcm", "4.dcm"):
        (tree / "ct" / name).unlink()
    assert "lack 2 of the 5 that its label refers to" in problem(tree)


def test_an_empty_slice_is_a_problem_of_its_case(tree):
    (tree / "ct" / "4.dcm").write_bytes(b"")
    assert "1 of its 5 files that should be DICOM is not: file 5 (0 bytes)" in problem(tree)


def test_a_series_of_two_patients_is_no_case(tree):
    from pydicom import dcmread

    header = dcmread(tree / "ct" / "4.dcm")
    header.PatientID = "ANOTHER"
    header.save_as(tree / "ct" / "4.dcm")
    text = problem(tree)
    assert "are of several patients or studies" in text and "ANOTHER" not in text


def test_a_series_alone_in_several_folders_is_a_case(tree):
    (tree / "ct" / "a").mkdir()
    (tree / "ct" / "b").mkdir()
    for k in range(5):
        (tree / "ct" / f"{k}.dcm").rename(tree / "ct" / "ab"[k // 3] / f"{k}.dcm")
    (case,) = read(tree).cases
    scan = open_image(case)
    assert case.image == tree / "ct"
    np.testing.assert_array_equal(scan.read(Box.of(scan.shape))[0], VOLUME)
