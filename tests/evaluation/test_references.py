"""References that are no plain folder of label files: numbered objects, DICOM's labels, and data sets of any layout."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from scipy.ndimage import binary_erosion

sys.path.insert(0, str(Path(__file__).parents[1] / "scans"))

from dicom_files import tilted, write_series
from test_rtstruct import contour, rectangle, structures

from medseg import open_scan
from medseg.datasets.borders import bordered_labels
from medseg.datasets.labels import Border, Labels
from medseg.errors import MedsegError
from medseg.evaluation.evaluate import Wanted, evaluate
from medseg.evaluation.report import Report
from medseg.geometry import Box
from medseg.scans.scan import create_mask
from medseg.scans.segments import Segment, Segmentation, SegmentLook

NUCLEI = bordered_labels(Labels({"background": 0, "nucleus": 1}, instances=True), "rim", Border((2,)))
SHAPE = (12, 10, 6)
COUNTS = Wanted(metrics=["dice"])


def squares(count: int) -> np.ndarray:
    """Numbered squares of 10 x 10, the first two of which touch."""
    numbers = np.zeros((32, 64), np.uint16)
    for number, (row, column) in zip(range(1, count + 1), [(2, 2), (2, 12), (18, 2), (18, 40)], strict=False):
        numbers[row : row + 10, column : column + 10] = number
    return numbers


def drawn(numbers: np.ndarray) -> np.ndarray:
    """Inside 1, border 2: each object alone eroded by a square of 5 x 5."""
    found = np.where(numbers > 0, 2, 0).astype(np.uint8)
    for number in np.unique(numbers[numbers > 0]):
        found[binary_erosion(numbers == number, np.ones((5, 5)), border_value=1)] = 1
    return found


def saved(folder: Path, voxels: np.ndarray, labels: Labels | None = None) -> Path:
    folder.mkdir(parents=True)
    tifffile.imwrite(folder / "a.tif", voxels)
    if labels is not None:
        (folder / "inference.json").write_text(json.dumps({"labels": labels.to_dict()}))
    return folder


def dice(report: Report) -> dict[str, float]:
    return {name: columns["dice"].mean for name, columns in report.summary().items()}  # type: ignore[misc]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_numbered_objects_become_the_insides_and_borders_that_masks_hold(tmp_path: Path, count: int) -> None:
    numbers = squares(count)
    guessed = np.roll(drawn(numbers), 1, 0)
    masks = saved(tmp_path / "p", guessed, NUCLEI)
    found = dice(evaluate(masks, saved(tmp_path / "r", numbers), wanted=COUNTS))
    truth = drawn(numbers)
    assert found == pytest.approx({name: overlap(guessed == n, truth == n) for n, name in ((1, "nucleus"), (2, "rim"))})


def test_references_that_are_drawn_already_are_taken_as_they_are(tmp_path: Path) -> None:
    truth = drawn(squares(4))
    masks, references = saved(tmp_path / "p", truth, NUCLEI), saved(tmp_path / "r", truth)
    (references / "dataset.json").write_text(json.dumps({"labels": NUCLEI.values, "dims": 2}))
    assert dice(evaluate(masks, references, wanted=COUNTS)) == {"nucleus": 1, "rim": 1}


def test_classes_are_never_compared_with_numbers(tmp_path: Path) -> None:
    numbers = squares(2)
    masks = saved(tmp_path / "p", drawn(numbers), NUCLEI)
    references = saved(tmp_path / "r", numbers)
    with pytest.raises(MedsegError, match="nucleus, rim: number the objects with medseg infer --instances"):
        evaluate(masks, references, wanted=Wanted(instances=True))
    (masks / "inference.json").write_text(json.dumps({"labels": {"values": NUCLEI.values}}))
    told = {"labels": {"background": 0, "nucleus": 1}, "dims": 2, "instances": True}
    (references / "dataset.json").write_text(json.dumps(told))
    with pytest.raises(MedsegError, match="the references number objects"):
        evaluate(masks, references)


@pytest.fixture
def series(tmp_path: Path) -> Path:
    voxels = np.random.default_rng(0).integers(-200, 900, SHAPE).astype(np.int16)
    return write_series(tmp_path / "ct", voxels, tilted(), FrameOfReferenceUID="1.2.9", PatientID="P1")


def seg(path: Path, series: Path, voxels: np.ndarray, segments: dict[str, tuple[int, ...]]) -> Path:
    """A SEG of the segments in their order, each of some of the voxels' values."""
    listed = tuple(Segment(name, values, n, SegmentLook()) for n, (name, values) in enumerate(segments.items()))
    path.parent.mkdir(exist_ok=True)
    sink = create_mask(path, open_scan(series), dtype=np.uint8, segmentation=Segmentation(listed, "x", "0", "a" * 8))
    sink.write(Box.of(voxels.shape), voxels)
    sink.close()
    return path.parent


@pytest.mark.parametrize("tumour", [(2,), (2, 3)])
def test_segments_are_told_by_their_names_whatever_their_numbers(
    series: Path, tmp_path: Path, tumour: tuple[int, ...]
) -> None:
    """Where both have the value 3 they overlap."""
    truth, guessed = np.random.default_rng(1).integers(0, 4, (2, *SHAPE)).astype(np.uint8)
    references = seg(tmp_path / "r" / "x.dcm", series, truth, {"liver": (1, 3), "tumour": tumour})
    masks = seg(tmp_path / "p" / "x.dcm", series, guessed, {"tumour": tumour, "liver": (1, 3)})
    parts = {"liver": (1, 3), "tumour": tumour}
    wanted = {name: overlap(np.isin(guessed, some), np.isin(truth, some)) for name, some in parts.items()}
    assert dice(evaluate(masks, references, wanted=COUNTS)) == pytest.approx(wanted)
    shutil.copytree(references, tmp_path / "copy")
    assert dice(evaluate(tmp_path / "copy", references, wanted=COUNTS)) == {"liver": 1, "tumour": 1}


def test_a_segment_of_another_name_is_told(series: Path, tmp_path: Path) -> None:
    voxels = np.random.default_rng(1).integers(0, 2, SHAPE).astype(np.uint8)
    references = seg(tmp_path / "r" / "x.dcm", series, voxels, {"liver": (1,)})
    with pytest.raises(MedsegError, match=r"segments 'Liver' are none of .*liver"):
        evaluate(seg(tmp_path / "p" / "x.dcm", series, voxels, {"Liver": (1,)}), references)


def test_masks_of_numbers_alone_need_one_meaning_of_each(series: Path, tmp_path: Path) -> None:
    voxels = np.random.default_rng(1).integers(0, 3, SHAPE).astype(np.uint8)
    names = {"liver": (1,), "tumour": (2,)}
    for case in "xy":
        seg(tmp_path / "r" / f"{case}.dcm", series, voxels, names)
        (tmp_path / "p").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, open_scan(series).affine), tmp_path / "p" / f"{case}.nii")
    assert dice(evaluate(tmp_path / "p", tmp_path / "r", wanted=COUNTS)) == {"liver": 1, "tumour": 1}
    (tmp_path / "r" / "y.dcm").unlink()
    seg(tmp_path / "r" / "y.dcm", series, voxels, dict(reversed(names.items())))
    with pytest.raises(MedsegError, match=r"numbered alike \('tumour' is segment 1 in .*y\.dcm.*dataset\.json"):
        evaluate(tmp_path / "p", tmp_path / "r", wanted=COUNTS)


def test_contours_are_told_by_their_names_too(series: Path, tmp_path: Path) -> None:
    """Against a SEG by name, where one overlaps the other; against values by number."""
    scan = open_scan(series)
    sides = {"spleen": (1, 2, 4, 5), "liver": (3, 4, 6, 4)}  # x, y, width, height
    regions = {name: [contour(scan, 2, rectangle(*side))] for name, side in sides.items()}
    (tmp_path / "r").mkdir()
    structures(tmp_path / "r" / "x.dcm", regions)
    voxels = np.zeros(SHAPE, np.uint8)
    for bit, (x, y, width, height) in enumerate(sides.values()):
        voxels[x : x + width, y : y + height, 2] |= 1 << bit
    masks = seg(tmp_path / "s" / "x.dcm", series, voxels, {"liver": (2, 3), "spleen": (1, 3)})
    assert dice(evaluate(masks, tmp_path / "r", wanted=COUNTS)) == {"liver": 1, "spleen": 1}
    del regions["liver"]
    structures(tmp_path / "r" / "x.dcm", regions)
    (tmp_path / "p").mkdir()
    nib.save(nib.Nifti1Image(voxels & 1, scan.affine), tmp_path / "p" / "x.nii")
    assert dice(evaluate(tmp_path / "p", tmp_path / "r", wanted=COUNTS)) == {"spleen": 1}


def bids(root: Path) -> Path:
    """Two subjects with labels, and one without."""
    rng = np.random.default_rng(0)
    for number in (1, 2, 3):
        stem, place = f"sub-{number}", Path(f"sub-{number}", "anat")
        for folder, ending in ((root / place, "T1w"), (root / "derivatives" / "manual" / place, "dseg")):
            if number < 3 or ending == "T1w":
                folder.mkdir(parents=True)
                nib.save(
                    nib.Nifti1Image(rng.integers(0, 3, SHAPE).astype(np.uint8), np.eye(4)),
                    folder / f"{stem}_{ending}.nii",
                )
    (root / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.8.0"}))
    (root / "derivatives" / "manual" / "dseg.tsv").write_text("index\tname\n1\tedema\n2\tcore\n")
    return root


@pytest.mark.parametrize("given", ["", "derivatives/manual"])
def test_a_data_set_gives_its_labelled_cases(tmp_path: Path, given: str) -> None:
    root = bids(tmp_path / "set")
    (tmp_path / "p").mkdir()
    for number in (1, 2):
        label = root / "derivatives" / "manual" / f"sub-{number}" / "anat" / f"sub-{number}_dseg.nii"
        shutil.copy(label, tmp_path / "p" / f"sub-{number}_T1w.nii")
    report = evaluate(tmp_path / "p", root / given, wanted=COUNTS)
    assert [case.name for case in report.cases] == ["sub-1_T1w", "sub-2_T1w"]
    assert dice(report) == {"edema": 1, "core": 1}


def test_a_folder_that_is_no_data_set_and_holds_no_scan(tmp_path: Path) -> None:
    masks = saved(tmp_path / "p", squares(1))
    (tmp_path / "r" / "below").mkdir(parents=True)
    with pytest.raises(MedsegError, match="holds no file that medseg can read"):
        evaluate(masks, tmp_path / "r")
    root = bids(tmp_path / "set")
    shutil.rmtree(root / "derivatives")
    with pytest.raises(MedsegError, match="none of its 3 cases has a label"):
        evaluate(masks, root)
