"""A tree of DICOM studies: which series are cases, whose they are, and what their segments mean."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scans"))

from dicom_files import write_series

from medseg import open_scan
from medseg.datasets.case_names import named
from medseg.datasets.check import open_case_label, open_image
from medseg.datasets.checks.run import check_dataset
from medseg.datasets.layouts import open_dataset, recognise
from medseg.errors import MedsegError
from medseg.geometry import Box
from medseg.scans.scan import create_mask
from medseg.scans.segments import Segment, Segmentation, SegmentLook

AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])
LIVER = SegmentLook(code="SCT 10200004 Liver", color="#dd8265")


def whole(scan):
    return scan.read(Box.of(scan.shape))


def add_study(folder, number, patient, segments, voxels):
    """A study of two series, ``ct`` with a SEG of these voxels and a localiser without; returns the series' folder."""
    uid, rng = f"1.2.3.{number}", np.random.default_rng(number)
    about = {"StudyInstanceUID": uid, "PatientID": patient, "FrameOfReferenceUID": f"{uid}.9"}
    shape = voxels.shape
    image = rng.integers(0, 500, shape).astype(np.int16)
    write_series(folder / "ct", image, AFFINE, SeriesInstanceUID=f"{uid}.1", **about)
    write_series(folder / "other", image[..., :2], AFFINE, SeriesInstanceUID=f"{uid}.2", **about)
    add_seg(folder / "seg.dcm", folder / "ct", segments, voxels)
    return folder / "ct"


def add_seg(path, series, segments, voxels):
    scan = open_scan(series)
    sink = create_mask(path, scan, segmentation=Segmentation(segments, "expert", "1", path.name))
    sink.write(Box.of(scan.shape), voxels)
    sink.close()


def voxels_of(seed, values=3):
    return np.random.default_rng(seed).integers(0, values, (9, 8, 4)).astype(np.uint8)


LIVER_FIRST = (Segment("liver", (1,), 0, LIVER), Segment("tumour", (2,), 1, SegmentLook()))
TUMOUR_FIRST = (Segment("tumour", (2,), 0, SegmentLook()), Segment("liver", (1,), 1, LIVER))
OVERLAPPING = (Segment("liver", (1, 2), 0, LIVER), Segment("tumour", (2,), 1, SegmentLook()))


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    add_study(root / "Doe^Jane" / "a", 1, "P1", LIVER_FIRST, voxels_of(1))
    add_study(root / "Doe^Jane" / "b", 2, "P1", TUMOUR_FIRST, voxels_of(2))
    add_study(root / "Roe^Rick" / "c", 3, "P2", LIVER_FIRST, voxels_of(3))
    return root


def test_every_series_with_a_seg_is_a_case_and_patients_stay_together(tree):
    assert recognise(tree)[0] == "dicom_tree"
    found = named(open_dataset(tree))
    assert len(found.labelled()) == 3 and not found.orphans
    by_folder = {case.image.parent.name: case for case in found.cases}
    assert by_folder["a"].patient == by_folder["b"].patient != by_folder["c"].patient
    assert {case.image.name for case in found.cases} == {"ct"}
    told = " ".join([found.account(), *(f"{case.name} {case.patient}" for case in found.cases)]).replace(str(tree), "")
    for private in ("Doe", "Roe", "Jane", "P1", "P2", "1.2.3"):
        assert private not in told


def test_labels_are_called_as_the_segments_are_whatever_their_numbers(tree):
    found = open_dataset(tree)
    assert found.info.labels == {"background": 0, "liver": 1, "tumour": 2}
    assert found.info.segments["liver"].code == LIVER.code
    for case in found.cases:
        number = {"a": 1, "b": 2, "c": 3}[case.image.parent.name]
        np.testing.assert_array_equal(whole(open_case_label(case))[0], voxels_of(number))
        assert open_image(case).shape == (9, 8, 4)


def test_segments_that_overlap_are_regions(tree, tmp_path):
    add_study(tree / "Poe^Pam" / "d", 4, "P3", OVERLAPPING, voxels_of(4))
    found = open_dataset(tree)
    assert found.info.labels == {"background": 0, "liver": [1, 3], "tumour": [2, 3]}
    labels = found.info.label_map
    assert set(labels.targets) == {"liver", "tumour"}
    case = next(case for case in found.cases if case.image.parent.name == "d")
    np.testing.assert_array_equal(whole(open_case_label(case))[0], np.array([0, 1, 3])[voxels_of(4)])


def test_the_checks_go_through_it(tree):
    found = named(open_dataset(tree))
    report = check_dataset(found)
    assert [finding.text for finding in report.findings if finding.severity == "error"] == []
    assert all(sum(case.label.values.counts.values()) == 9 * 8 * 4 for case in report.cases)


def test_series_in_one_folder_are_told_apart_by_their_uid(tmp_path):
    root = tmp_path / "flat"
    study = add_study(tmp_path / "source", 1, "P1", LIVER_FIRST, voxels_of(1)).parent
    root.mkdir()
    for path in study.rglob("*.dcm"):
        (root / f"{path.parent.name}-{path.name}").write_bytes(path.read_bytes())
    (case,) = open_dataset(root, "dicom_tree").cases
    assert open_image(case).shape == (9, 8, 4)
    np.testing.assert_array_equal(whole(open_case_label(case))[0], voxels_of(1))


def test_what_does_not_belong_together_is_told(tree):
    first = tree / "Doe^Jane" / "a"
    add_seg(first / "second.dcm", first / "ct", LIVER_FIRST, voxels_of(7))
    with pytest.raises(MedsegError, match="2 SEG or RTSTRUCT objects"):
        named(open_dataset(tree)).labelled()
    (first / "second.dcm").unlink()
    for path in (first / "ct").iterdir():
        path.unlink()
    with pytest.raises(MedsegError, match="labels have no image"):
        named(open_dataset(tree)).labelled()


def test_a_series_in_two_folders_is_no_case(tree):
    folder = tree / "Doe^Jane" / "a"
    (folder / "rest").mkdir()
    (folder / "ct" / "3.dcm").rename(folder / "rest" / "3.dcm")
    with pytest.raises(MedsegError, match="lie in several folders"):
        named(open_dataset(tree)).labelled()


def test_a_damaged_label_is_a_problem_of_the_set(tree):
    path = tree / "Doe^Jane" / "a" / "seg.dcm"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(MedsegError, match="cut short"):
        named(open_dataset(tree)).labelled()


def test_a_folder_without_labels_is_none(tmp_path):
    write_series(tmp_path / "ct", np.zeros((4, 4, 3), np.int16), AFFINE)
    assert recognise(tmp_path)[0] == "folders"
