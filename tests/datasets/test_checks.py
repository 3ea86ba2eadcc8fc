"""A clean data set has no findings; each kind of damage is found, in its case, and nothing else is called an error."""

from __future__ import annotations

import json
import os
import re
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import median_abs_deviation

from medseg.datasets.cases import DicomCase
from medseg.datasets.checks import duplicates, outliers, splits, survey
from medseg.datasets.checks.facts import Facts, Role, facts_of
from medseg.datasets.checks.finding import CHECKS, CaseFacts, Expected
from medseg.datasets.checks.report import Report
from medseg.datasets.checks.run import check_dataset, used_only
from medseg.datasets.checks.survey import Item
from medseg.datasets.labels import Labels
from medseg.datasets.layouts import Problem, open_dataset
from medseg.errors import MedsegError

LABELS = Labels({"background": 0, "lesion": 1, "edema": 2})
SHAPE = (12, 11, 10)
AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
NAMES = [f"zebra_{n}" for n in range(6)]


def in_millimetres(array: np.ndarray, affine: np.ndarray = AFFINE) -> nib.Nifti1Image:
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    return image


class Zoo:
    """A data set of six clean cases, to be damaged."""

    def __init__(self, root: Path, images: str = "imagesTr", labels: str = "labelsTr") -> None:
        self.root = root
        self.folders = {"image": root / images, "label": root / labels}
        rng = np.random.default_rng(0)
        for folder in self.folders.values():
            folder.mkdir(parents=True)
        for name in NAMES:
            self.write("image", name, rng.normal(100, 20, SHAPE).astype(np.float32))
            self.write("label", name, rng.integers(0, 3, SHAPE).astype(np.uint8))

    def path(self, role: str, name: str) -> Path:
        return self.folders[role] / f"{name}.nii"

    def write(self, role: str, name: str, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
        nib.save(in_millimetres(array, affine), self.path(role, name))

    def read(self, role: str, name: str) -> np.ndarray:
        return np.array(nib.load(self.path(role, name)).dataobj)

    def change(
        self, role: str, name: str, change: Callable[[np.ndarray], np.ndarray], affine: np.ndarray = AFFINE
    ) -> None:
        self.write(role, name, change(self.read(role, name)), affine)

    def copy(self, role: str, source: str, target: str) -> None:
        self.path(role, target).write_bytes(self.path(role, source).read_bytes())

    def check(self, labels: Labels | None = LABELS, **options: object) -> Report:
        return check_dataset(open_dataset(self.root), Expected(labels), workers=1, **options)  # type: ignore[arg-type]


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    return Zoo(tmp_path / "zoo")


def put(value: float, *voxel: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[voxel or ...] = value
        return array

    return change


def test_a_clean_set_has_no_findings_whether_its_labels_are_declared_or_not(zoo: Zoo) -> None:
    for labels in (LABELS, None):
        report = zoo.check(labels)
        assert report.findings == () and report.complete == len(NAMES)
        report.refuse("nowhere")
    rows = {row.value: row.voxels for row in report.label_rows()}
    whole = np.concatenate([zoo.read("label", name).ravel() for name in NAMES])
    assert rows == dict(enumerate(np.bincount(whole).tolist()))


ERRORS: dict[str, tuple[Callable[[Zoo], object], str, list[str]]] = {
    "no label": (lambda z: z.path("label", NAMES[1]).unlink(), "no_label", [NAMES[1]]),
    "no image": (lambda z: z.path("image", NAMES[1]).unlink(), "no_image", [NAMES[1]]),
    "cut short": (lambda z: os.truncate(z.path("image", NAMES[2]), 1000), "unreadable", [NAMES[2]]),
    "no NIfTI": (lambda z: z.path("label", NAMES[2]).write_bytes(b"x" * 600), "unreadable", [NAMES[2]]),
    "empty file": (lambda z: z.path("label", NAMES[2]).write_bytes(b""), "unreadable", [NAMES[2]]),
    "shape": (lambda z: z.change("label", NAMES[0], lambda a: a[1:]), "shape", [NAMES[0]]),
    "spacing": (lambda z: z.change("label", NAMES[0], np.array, AFFINE * [1, 1, 1.2, 1]), "spacing", [NAMES[0]]),
    "turned": (lambda z: z.change("label", NAMES[0], np.array, AFFINE * [-1, 1, 1, 1]), "orientation", [NAMES[0]]),
    "moved": (
        lambda z: z.change("label", NAMES[0], np.array, AFFINE + np.eye(4, k=3) * 3),
        "affine",
        [NAMES[0]],
    ),
    "undeclared": (lambda z: z.change("label", NAMES[3], put(7, 1, 2, 3)), "undeclared", [NAMES[3]]),
    "soft label": (
        lambda z: z.change("label", NAMES[3], lambda a: put(0.5, 1, 2, 3)(a.astype(np.float32))),
        "fractions",
        [NAMES[3]],
    ),
    "NaN": (lambda z: z.change("image", NAMES[4], put(np.nan, 1, 2, 3)), "nonfinite", [NAMES[4]]),
    "inf": (lambda z: z.change("image", NAMES[4], put(-np.inf, 1, 2, 3)), "nonfinite", [NAMES[4]]),
    "constant": (lambda z: z.change("image", NAMES[4], put(3)), "constant", [NAMES[4]]),
    "copied case": (
        lambda z: [z.copy(role, NAMES[2], NAMES[5]) for role in ("image", "label")],
        "duplicate_case",
        [NAMES[2], NAMES[5]],
    ),
    "copied image": (lambda z: z.copy("image", NAMES[2], NAMES[5]), "duplicate_image", [NAMES[2], NAMES[5]]),
    "copied label": (lambda z: z.copy("label", NAMES[2], NAMES[5]), "duplicate_label", [NAMES[2], NAMES[5]]),
    "label as image": (
        lambda z: z.write("image", NAMES[1], z.read("label", NAMES[1]).astype(np.float32)),
        "label_is_image",
        [NAMES[1]],
    ),
    "two axes": (
        lambda z: [z.change(role, NAMES[1], lambda a: a[:, :, 0]) for role in ("image", "label")],
        "dims",
        [NAMES[1]],
    ),
}


@pytest.mark.parametrize("damage", ERRORS)
def test_each_damage_is_the_one_error(zoo: Zoo, damage: str) -> None:
    harm, check, names = ERRORS[damage]
    harm(zoo)
    report = zoo.check()
    (found,) = report.errors
    assert (found.check, [found.case, *found.others]) == (check, names)
    with pytest.raises(MedsegError, match="1 error in"):
        report.refuse("nowhere")
    for finding in report.findings:
        assert finding.check in CHECKS and finding.what and finding.remedy
        assert "zebra" not in finding.what + finding.remedy, "names stand in case and others alone"


WARNINGS: dict[str, tuple[Callable[[Zoo], object], str]] = {
    "empty label": (lambda z: z.change("label", NAMES[3], put(0)), "empty_label"),
    "rounding": (lambda z: z.change("label", NAMES[0], np.array, AFFINE * [1, 1, 1 + 5e-6, 1]), "spacing"),
    "other spacing": (
        lambda z: [z.change(role, NAMES[0], np.array, np.diag([1, 1, 5, 1])) for role in ("image", "label")],
        "unusual_spacing",
    ),
    "other scale": (lambda z: z.change("image", NAMES[0], lambda a: a * 5), "intensity"),
    "shifted": (lambda z: z.change("image", NAMES[0], lambda a: a + 1000), "intensity"),
    "thin": (
        lambda z: [z.change(role, NAMES[0], lambda a: a[:, :, :7]) for role in ("image", "label")],
        "tiny",
    ),
}


@pytest.mark.parametrize("oddity", WARNINGS)
def test_each_oddity_is_the_one_warning(zoo: Zoo, oddity: str) -> None:
    make, check = WARNINGS[oddity]
    make(zoo)
    assert [(f.severity, f.check) for f in zoo.check().findings] == [("warning", check)]


def test_a_scan_many_times_as_large_is_of_another_kind_and_called_nothing_else(zoo: Zoo) -> None:
    rng = np.random.default_rng(1)
    zoo.path("image", NAMES[3]).unlink()
    zoo.write("label", NAMES[3], rng.integers(0, 2, (60, 55, 50)).astype(np.uint8), np.diag([0.7, 0.7, 5, 1]))
    found = [(f.check, f.case) for f in zoo.check().findings]
    assert found == [("no_image", NAMES[3]), ("another_kind", NAMES[3])]


def test_a_scale_that_varies_over_the_set_is_one_line_unless_scans_are_scaled_by_themselves(zoo: Zoo) -> None:
    for number, name in enumerate(NAMES):
        zoo.change("image", name, lambda a, n=number: a * 10.0**n)
    (found,) = zoo.check().findings
    assert (found.check, found.case, found.severity) == ("intensity_scale", None, "warning")
    normalised = check_dataset(open_dataset(zoo.root), Expected(LABELS, normalised=True))
    assert normalised.findings == ()


def test_a_declared_label_that_no_case_has_is_told_once(zoo: Zoo) -> None:
    (found,) = zoo.check(Labels({"background": 0, "lesion": 1, "edema": 2, "vessel": 3})).findings
    assert (found.check, found.case) == ("absent_class", None) and "vessel" in found.what


def test_interpolated_masks_are_told_from_many_labels(zoo: Zoo) -> None:
    rng = np.random.default_rng(2)
    for name in NAMES:
        clean = np.where(rng.random(SHAPE) < 0.4, 255, 0).astype(np.uint8)
        clean.flat[:8] = rng.choice(np.arange(1, 255), 8, replace=False)
        zoo.write("label", name, clean)
    assert [f.check for f in zoo.check(None).findings] == ["interpolated"]
    report = zoo.check(Labels({"background": 0, "lung": 255}))
    assert {f.check for f in report.errors} == {"undeclared"} and len(report.errors) == len(NAMES)
    assert all("threshold" in f.remedy for f in report.errors)
    for name in NAMES:
        zoo.write("label", name, rng.integers(0, 117, SHAPE).astype(np.uint8))
    assert zoo.check(None).findings == ()


def test_where_no_image_has_a_label_it_is_said_once(zoo: Zoo) -> None:
    zoo.folders["label"].rename(zoo.root / "ground_truth")
    (found,) = zoo.check().findings
    assert (found.check, found.case) == ("no_label", None) and "ground_truth" in found.what


def test_test_images_are_compared_and_need_no_label(zoo: Zoo) -> None:
    folder = zoo.root / "imagesTs"
    folder.mkdir()
    (folder / "new.nii").write_bytes(zoo.path("image", NAMES[0]).read_bytes())
    (found,) = zoo.check().findings
    assert found.check == "duplicate_image" and "test image" in found.what


def test_copies_within_a_patient_are_no_errors(zoo: Zoo) -> None:
    zoo.copy("label", NAMES[0], NAMES[1])
    patients = {NAMES[0]: "p", NAMES[1]: "p"}
    info = {"dims": 3, "labels": dict(LABELS.values), "patients": patients}
    (zoo.root / "dataset.json").write_text(json.dumps(info))
    assert zoo.check().findings == ()
    zoo.copy("image", NAMES[0], NAMES[1])
    assert [(f.check, f.severity) for f in zoo.check().findings] == [("duplicate_case", "warning")]


def test_a_copy_is_known_in_another_type_and_format(zoo: Zoo) -> None:
    zoo.change("label", NAMES[1], lambda _: zoo.read("label", NAMES[0]).astype(np.float64))
    (found,) = zoo.check().errors
    assert found.check == "duplicate_label" and "files that differ" in found.what
    zoo.copy("label", NAMES[0], NAMES[1])
    assert "byte for byte" in zoo.check().errors[0].what


def test_the_channels_of_a_case_are_compared_with_its_first(tmp_path: Path) -> None:
    root, rng = tmp_path / "set", np.random.default_rng(0)
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)

    def write(name: str, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
        nib.save(in_millimetres(array, affine), root / name)

    for n in range(2):
        for channel in range(2):
            write(f"imagesTr/c{n}_{channel:04d}.nii", rng.normal(0, 1, SHAPE).astype(np.float32))
        write(f"labelsTr/c{n}.nii", rng.integers(0, 3, SHAPE).astype(np.uint8))
    assert check_dataset(open_dataset(root), Expected(LABELS)).findings == ()
    write("imagesTr/c1_0001.nii", rng.normal(0, 1, SHAPE).astype(np.float32), AFFINE + np.eye(4, k=3) * 3)
    (found,) = check_dataset(open_dataset(root), Expected(LABELS)).findings
    assert (found.check, found.case) == ("affine", "c1") and "image file 2 and image file 1" in found.what
    assert check_dataset(open_dataset(root).resampling(), Expected(LABELS)).findings == ()
    (root / "imagesTr/c1_0001.nii").write_bytes((root / "imagesTr/c1_0000.nii").read_bytes())
    assert [f.check for f in check_dataset(open_dataset(root), Expected(LABELS)).findings] == ["duplicate_channel"]


def test_an_alpha_channel_is_one_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for n in range(5):
        image = rng.integers(0, 255, (20, 20, 4), dtype=np.uint8)
        image[..., 3] = 255
        tifffile.imwrite(tmp_path / "images" / f"{n}.tif", image, photometric="rgb", extrasamples=["unassalpha"])
        tifffile.imwrite(tmp_path / "labels" / f"{n}.tif", rng.integers(0, 3, (20, 20), dtype=np.uint8))
    (found,) = check_dataset(open_dataset(tmp_path), Expected(LABELS)).findings
    assert (found.check, found.case) == ("constant", None) and "channel 3" in found.what


def test_a_file_that_a_table_lists_and_is_missing(zoo: Zoo) -> None:
    rows = [f"{n},imagesTr/{n}.nii,labelsTr/{n}.nii" for n in [*NAMES, "gone"]]
    (zoo.root / "manifest.csv").write_text("\n".join(["case,image,label", *rows]))
    assert {(f.check, f.case) for f in zoo.check().findings} == {("missing_file", "gone")}


def test_only_the_cases_in_use_count(zoo: Zoo) -> None:
    zoo.change("image", NAMES[4], put(np.nan, 1, 2, 3))
    zoo.path("image", NAMES[5]).unlink()
    found = used_only(open_dataset(zoo.root), NAMES[:4])
    report = check_dataset(found, Expected(LABELS))
    assert report.findings == () and [case.name for case in report.cases] == NAMES[:4]


# --- splits


@given(
    patients=st.lists(st.integers(0, 3), min_size=1, max_size=8),
    parts=st.lists(st.sampled_from(["train", "validation", "test"]), min_size=8, max_size=8),
)
def test_a_leak_is_found_if_and_only_if_a_patient_is_in_two_parts(patients: list[int], parts: list[str]) -> None:
    cases = [CaseFacts(f"c{n}", f"p{patient}", (), None) for n, patient in enumerate(patients)]
    split = {part: [c.name for c, own in zip(cases, parts, strict=False) if own == part] for part in set(parts)}
    homes = {p: {own for q, own in zip(patients, parts, strict=False) if q == p} for p in patients}
    found = list(splits.find(cases, {"split.json": split}))
    assert len(found) == sum(len(home) > 1 for home in homes.values())
    assert {f.check for f in found} <= {"patient_in_parts"} and {f.severity for f in found} <= {"error"}


def test_folds_of_the_data_set_and_of_files_beside_it(tmp_path: Path) -> None:
    cases = [CaseFacts(name, "p", (), None, fold) for name, fold in (("a", "0"), ("b", "1"))]
    (found,) = splits.find(cases, {})
    assert "fold 0, fold 1" in found.what
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a"], "validation": ["a", "z"]}))
    (tmp_path / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["b"]}]))
    parts = splits.read_parts(tmp_path)
    assert list(parts) == ["split.json", "fold 0 of splits_final.json"]
    own = [CaseFacts(name, name, (), None) for name in "ab"]
    assert [f.check for f in splits.find(own, parts)] == ["case_in_parts", "unknown_case"]
    (tmp_path / "split.json").write_text('["a"]')
    with pytest.raises(MedsegError, match=r"split\.json: a split must be"):
        splits.read_parts(tmp_path)


# --- facts


ARRAYS = hnp.arrays(
    np.int16, hnp.array_shapes(min_dims=3, max_dims=3, min_side=2, max_side=6), elements=st.integers(0, 9)
)


@given(ARRAYS, st.sampled_from([np.uint8, np.int32, np.uint16, np.float32, np.float64]))
def test_a_digest_is_of_values_not_of_types(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, kind: type
) -> None:
    folder = tmp_path_factory.mktemp("digest")

    def digest(voxels: np.ndarray) -> str:
        nib.save(in_millimetres(voxels), folder / "a.nii")
        return facts_of(folder / "a.nii", "image").voxels

    other = array.copy()
    other.flat[-1] += 1
    assert digest(array) == digest(array.astype(kind)) != digest(other.astype(kind))
    assert digest(array.astype(np.float32) + 0.5) != digest(array)


@given(hnp.arrays(np.float32, (5, 4, 3), elements=st.floats(-1e6, 1e6, width=32)))
def test_ranges_and_percentiles_are_numpys(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("range") / "a.nii"
    nib.save(in_millimetres(array), path)
    (channel,) = facts_of(path, "image").channels
    assert (channel.low, channel.high) == (array.min(), array.max())
    exact = np.percentile(array, [1, 50, 99], method="lower")
    np.testing.assert_allclose(channel.percentiles, exact, rtol=1 / 128, atol=1e-37)


@given(hnp.arrays(np.int32, (4, 3, 3), elements=st.one_of(st.integers(-3, 3), st.integers(-(2**31), 2**31 - 1))))
def test_values_are_counted_as_numpy_counts(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("values") / "a.nii"
    nib.save(in_millimetres(array), path)
    facts = facts_of(path, "label")
    assert facts.values is not None
    values, counts = np.unique(array, return_counts=True)
    assert facts.values.counts == dict(zip(values.tolist(), counts.tolist(), strict=True))
    assert Facts.from_dict(json.loads(json.dumps(facts.to_dict()))) == facts


def test_facts_of_an_image_survive_json_and_do_not_depend_on_blocks(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo.change("image", NAMES[0], put(np.inf, 1, 2, 3))
    facts = facts_of(zoo.path("image", NAMES[0]), "image")
    assert Facts.from_dict(json.loads(json.dumps(facts.to_dict()))) == facts
    assert facts.channels[0].first == ((1, 2, 3), "inf") and facts.channels[0].nonfinite == 1
    monkeypatch.setattr("medseg.scans.blocks.blocks.__defaults__", (200,))
    assert facts_of(zoo.path("image", NAMES[0]), "image").channels == facts.channels


@given(hnp.arrays(np.float64, st.integers(5, 30), elements=st.floats(-100, 100)), st.floats(0.1, 10))
def test_what_is_unusual_is_so_by_the_mad(values: np.ndarray, least: float) -> None:
    limit = max(outliers.DEVIATIONS * 1.4826 * median_abs_deviation(values), least)
    np.testing.assert_array_equal(outliers.unusual(values, least), np.abs(values - np.median(values)) > limit)


# --- survey


def items_of(zoo: Zoo) -> list[Item]:
    roles: list[Role] = ["image", "label"]
    return [Item(zoo.path(role, name), role) for name in NAMES for role in roles]


def test_several_processes_find_what_one_finds_in_the_same_order(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "FEW_BYTES", 0)
    seen: list[tuple[int, int]] = []
    items = items_of(zoo)
    one = survey.survey(items, 1, fresh=True)
    two = survey.survey(items, 2, lambda done, total: seen.append((done, total)), fresh=True)
    assert list(one.items()) == list(two.items()) and list(two) == items
    assert seen == [(n, len(items)) for n in range(1, len(items) + 1)]


def deadly(path: Path, role: Role, dicom: DicomCase | None = None) -> Facts:
    """A reader that takes its process with it at one file."""
    if path.stem == NAMES[2] and role == "image":
        os._exit(1)
    return facts_of(path, role, dicom)


def test_a_file_that_kills_its_reader_is_named_and_the_rest_is_read(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "FEW_BYTES", 0)
    monkeypatch.setattr(survey, "facts_of", deadly)
    found = survey.survey(items_of(zoo), 2, fresh=True)
    assert [item.path.stem for item, facts in found.items() if facts.error == survey.CRASHED] == [NAMES[2]]
    assert sum(bool(facts.error) for facts in found.values()) == 1


def test_files_that_have_not_changed_are_not_read_again(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    items = items_of(zoo)
    read: list[Path] = []

    def watched(path: Path, role: Role, dicom: DicomCase | None = None) -> Facts:
        read.append(path)
        return facts_of(path, role, dicom)

    monkeypatch.setattr(survey, "facts_of", watched)
    first = survey.survey(items, 1)
    assert len(read) == len(items)
    assert survey.survey(items, 1) == first and len(read) == len(items)
    zoo.change("image", NAMES[1], lambda a: a + 1)
    assert survey.survey(items, 1) != first and read[len(items) :] == [zoo.path("image", NAMES[1])]
    survey.survey(items[:1], 1, fresh=True)
    assert len(read) == len(items) + 2


# --- reports


def test_a_report_is_one_page_that_needs_nothing_else_and_says_all(zoo: Zoo, tmp_path: Path) -> None:
    zoo.path("label", NAMES[1]).rename(zoo.folders["label"] / "<b>odd & ends.nii")
    zoo.change("image", NAMES[4], put(np.nan, 1, 2, 3))
    report = zoo.check()
    report.write(tmp_path / "out")
    content = json.loads((tmp_path / "out" / "check.json").read_text())
    assert [f["check"] for f in content["findings"]] == ["no_label", "no_image", "nonfinite"]
    assert content["errors"] == 3 and content["cases"] == len(NAMES) + 1
    page = (tmp_path / "out" / "check.html").read_text()
    assert "&lt;b&gt;odd &amp; ends" in page and "<b>odd" not in page
    assert not re.search(r"(src|href)=|https?:|@import|url\(", page)
    for name in (NAMES[1], NAMES[4]):
        assert name in page


def test_the_broken_cases_of_a_real_set_and_no_others(real_data: Path) -> None:
    report = check_dataset(open_dataset(real_data / "msd_hippocampus"))
    case = "hippocampus_{:03d}".format
    assert {(f.check, f.case, f.others) for f in report.errors} == {
        ("no_label", case(118), ()),
        ("no_image", case(10), ()),
        ("no_image", case(281), ()),
        ("another_kind", case(281), ()),
        ("duplicate_label", case(10), (case(11),)),
    }
    assert [(f.check, f.case) for f in report.warnings] == [("intensity_scale", None)]


def test_duplicates_ask_for_bytes_only_where_digests_agree(zoo: Zoo) -> None:
    cases = zoo.check().cases
    assert list(duplicates.find(cases, lambda *_: pytest.fail("asked"))) == []


@pytest.mark.parametrize("role", ["image", "label"])
def test_memory_does_not_grow_with_the_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: Role) -> None:
    monkeypatch.setattr("medseg.scans.blocks.blocks.__defaults__", (1 << 14,))

    def peak(depth: int) -> int:
        path = tmp_path / f"{depth}.nii"
        voxels = np.random.default_rng(0).integers(0, 9, (64, 64, depth)).astype(np.int16)
        nib.save(in_millimetres(voxels), path)
        del voxels
        tracemalloc.start()
        try:
            assert facts_of(path, role).error == ""
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(8)  # what is imported on the way is counted once
    assert peak(256) < 1.2 * peak(32)


def test_files_without_a_unit_are_one_warning_of_the_set(zoo: Zoo) -> None:
    for name in NAMES[:2]:
        nib.save(nib.Nifti1Image(zoo.read("image", name), AFFINE), zoo.path("image", name))
    (finding,) = zoo.check().findings
    assert (finding.check, finding.severity, finding.case) == ("unit", "warning", None)
    assert finding.what == "no unit is stated in 2 of 6 image files: spacings are read as mm"


def rotated(angle: float) -> np.ndarray:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine, 0, 3], [sine, cosine, 0, -5], [0, 0, 2, 7], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("change", "apart", "mirrored"),
    [
        (np.eye(4), None, False),
        (np.diag([1 + 1e-6, 1, 1, 1]), None, False),
        (nib.affines.from_matvec(np.eye(3), [0, 0, 10]), 10.0, False),
        (nib.affines.from_matvec(np.eye(3), [0, 0.1, 0]), 0.1, False),
        (nib.affines.from_matvec(np.diag([-1, 1, 1]), [0, 0, 0]), 17.0, True),
    ],
)
def test_a_second_place_in_a_header_is_told_beyond_rounding(
    zoo: Zoo, change: np.ndarray, apart: float | None, mirrored: bool
) -> None:
    affine = rotated(0.3)
    for role in ("image", "label"):
        image = in_millimetres(zoo.read(role, NAMES[0]), affine)
        image.set_sform(affine, 2)
        image.set_qform(change @ affine, 1)
        nib.save(image, zoo.path(role, NAMES[0]))
    found = [f for f in zoo.check().findings if f.check == "placed_twice"]
    assert [(f.severity, f.case, f.numbers["file"]) for f in found] == [
        ("warning", NAMES[0], role) for role in ("image", "label") if apart is not None
    ]
    for finding in found:
        ends = np.array([[i, j, k, 1] for i in (0, SHAPE[0] - 1) for j in (0, SHAPE[1] - 1) for k in (0, SHAPE[2] - 1)])
        moved = np.linalg.norm((ends @ (change @ affine - affine).T)[:, :3], axis=1).max()
        assert finding.numbers["apart_mm"] == pytest.approx(moved, rel=1e-4)
        assert finding.numbers["mirrored"] == mirrored == ("mirrored" in finding.what)


def test_the_account_counts_cases_and_names_each_once(zoo: Zoo) -> None:
    (zoo.path("label", NAMES[0])).unlink()
    found = open_dataset(zoo.root)
    strange = Problem(f"{zoo.root}: case elsewhere: its series is in two folders", "elsewhere")
    report = check_dataset(replace(found, problems=(strange,)), Expected(LABELS), workers=1)
    assert (report.errors[0].what, report.errors[0].remedy) == ("its series is in two folders", "mend the files")
    account = report.account("here")
    assert "2 errors in 1 of 6 cases and 1 more whose files make no case: elsewhere: its series" in account
    alone = check_dataset(replace(found, problems=(strange,), cases=found.cases[1:]), Expected(LABELS), workers=1)
    assert "1 error in 1 case: elsewhere: its series" in alone.account("here")
