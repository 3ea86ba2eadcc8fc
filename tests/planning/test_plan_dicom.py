"""Plans of DICOM: the files say what made them, and cases are called as others may know them."""

import csv
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scans"))

from dicom_files import CT, MR, write_series

from medseg.data_section import find_data, told
from medseg.datasets.case_names import digest_name
from medseg.datasets.checks.facts import Channel, Facts, Grid
from medseg.datasets.checks.finding import CaseFacts
from medseg.experiment import Data, Experiment
from medseg.planning.evidence import modality_of
from medseg.planning.plan import Request, gather, make_plan

AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])
SHAPE = (20, 18, 12)
IN_HOUNSFIELD_UNITS, POSITIVE = (-1000.0, 900.0), (0.0, 900.0)
NAMES = ("Doe", "Poe", "Roe", "plain", "other")


def case(modality="", values=POSITIVE, files=1):
    grid = Grid("image", SHAPE, 1, "int16", "XYZ", tuple(map(tuple, AFFINE.tolist())), "mm", True)
    facts = Facts("", grid, "", (Channel(*values, None),), modality=modality)
    return lambda number: CaseFacts(f"case{number}", str(number), (facts,) * files, None)


@pytest.mark.parametrize(
    ("cases", "modality", "said"),
    [
        ([case("CT")] * 3, "CT", "CT by the DICOM files"),
        ([case("MR", IN_HOUNSFIELD_UNITS)] * 3, "other", "MR by the DICOM files"),
        ([case("CT", files=2)] * 2, "CT", "CT by the DICOM files"),
        ([case("CT"), case("PT")], "other", "CT and PT by the DICOM files"),
        ([case("CT"), case("", IN_HOUNSFIELD_UNITS)], "CT", "CT by the DICOM files of 1 of 2 cases"),
        ([case("CT"), case()], "other", "no CT by the values of the others"),
        ([case("MR"), *[case("", IN_HOUNSFIELD_UNITS)] * 9], "other", "MR by the DICOM files of 1 of 10 cases"),
        ([case("", IN_HOUNSFIELD_UNITS)] * 3, "CT", "values reach below"),
        ([case("Doe^Jane: a text", IN_HOUNSFIELD_UNITS)], "CT", "values reach below"),
    ],
)
def test_what_dicom_says_goes_before_what_values_look_like(cases, modality, said):
    facts = [made(number) for number, made in enumerate(cases)]
    found, why = modality_of(facts, 3, len(facts[0].images), None)
    assert found == modality
    assert said in why
    assert "Doe" not in why


def test_what_the_data_set_calls_its_channels_goes_first():
    facts = [case("MR")(number) for number in range(3)]
    assert modality_of(facts, 3, 1, ["CT"]) == ("CT", "its dataset.json says CT")
    assert modality_of(facts, 3, 1, ["T1"])[0] == "other"


def write_studies(root, sop):
    """A table of three series and two NIfTI files, whose values all look like those of a CT."""
    rng = np.random.default_rng(0)
    (root / "scans").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        label = np.zeros(SHAPE, np.uint8)
        label[4:12, 3:9, 2 : 5 + number] = 1
        image = np.where(label, 300, -1000) + rng.integers(0, 50, SHAPE)
        nib.save(nib.Nifti1Image(label, AFFINE), root / f"{name}.nii.gz")
        if name[0].isupper():
            write_series(root / "scans" / name, image.astype(np.int16), AFFINE, sop=sop)
        else:
            nib.save(nib.Nifti1Image(image.astype(np.int16), AFFINE), root / "scans" / f"{name}.nii.gz")
    files = {name: f"scans/{name}" + ("" if name[0].isupper() else ".nii.gz") for name in NAMES}
    with (root / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), *((path, f"{name}.nii.gz") for name, path in files.items())])
    return root


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    return write_studies(tmp_path_factory.mktemp("mr") / "set", MR)


LABELS = {"background": 0, "organ": 1}


def test_a_plan_says_what_made_the_images_and_names_nobody(studies, tmp_path):
    """Cases are asked for by what their files are called, and planned, loaded and found again by other names."""
    data = Data(root=studies, labels=LABELS, exclude=["Doe", "plain"], test=["Poe"])
    text = make_plan(Request(data, "tiny", memory=8 << 30, minutes=1, network="dynunet", workers=1)).text
    assert not any(name in text for name in ("Doe", "Poe", "Roe"))
    assert "MR by the DICOM files of 2 of 3 cases" in " ".join(text.replace("#", " ").split())
    (tmp_path / "tiny.yaml").write_text(text)
    experiment = Experiment.load(tmp_path / "tiny.yaml")
    assert experiment.preprocessing.normalize.kind == "zscore"
    assert experiment.data.exclude == [digest_name("Doe"), "plain"]
    assert experiment.data.test == [digest_name("Poe")]
    found = find_data(experiment.data)
    assert {one.name for one in found.cases} == {digest_name("Poe"), digest_name("Roe"), "other"}
    assert told(experiment.data, found) == experiment.data


@pytest.mark.parametrize("exclude", [["Doe", "other"], ["Doe", "Poe", "Roe"]])
@pytest.mark.parametrize("how", ["stem", "digest"])
def test_what_a_run_keeps_of_the_cases_that_are_left_out_leaves_them_out_again(studies, how, exclude):
    data = Data(root=studies, labels=LABELS, case_names=how, exclude=exclude)
    found = find_data(data)
    kept = told(data, found)
    assert not {"Doe", "Poe", "Roe"} & set(kept.exclude)
    again = find_data(kept)
    assert [one.name for one in again.cases] == [one.name for one in found.cases]
    assert told(kept, again) == kept


def test_broken_cases_are_left_out_by_their_public_names(studies, tmp_path):
    root = write_studies(tmp_path / "set", CT)
    next((root / "scans" / "Doe").iterdir()).write_bytes(b"\0" * 128 + b"DICM" + b"\x08\0")
    data = Data(root=root, labels=LABELS, case_names="digest")
    request, evidence, _ = gather(Request(data, "tiny", workers=1, exclude_broken=True))
    assert set(evidence.left_out) == {digest_name("Doe")}
    assert "CT by the DICOM files of 2 of 4 cases" in evidence.told
    assert evidence.modality == "CT"
    left = request.data.model_copy(update={"exclude": list(evidence.left_out)})
    assert len(find_data(left).cases) == 4
