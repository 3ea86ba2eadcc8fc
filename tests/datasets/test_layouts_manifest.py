"""Tables of cases: CSV and JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medseg.datasets.layouts import open_dataset, recognise
from medseg.datasets.split import make_split
from medseg.errors import ConfigError, MedsegError

CSV = """case,image_t1,image_flair,label,patient,fold,age
a,t1/a.nii.gz,fl/a.nii.gz,seg/a.nii.gz,P1,0,63
b,t1/b.nii.gz,fl/b.nii.gz,seg/b.nii.gz,P1,1,64
c,t1/c.nii.gz,fl/c.nii.gz,seg/c.nii.gz,P2,1,41
"""


def table(root: Path, text: str = CSV, name: str = "cases.csv") -> Path:
    for folder in ("t1", "fl", "seg"):
        (root / folder).mkdir(parents=True)
        for case in "abc":
            (root / folder / f"{case}.nii.gz").touch()
    (root / name).write_text(text)
    return root / name


def test_rows_become_cases(tmp_path: Path) -> None:
    path = table(tmp_path)
    assert recognise(path) == ("manifest", "it is a table of cases")
    found = open_dataset(path)
    cases = found.labelled()
    assert [(case.name, case.patient, case.fold) for case in cases.values()] == [
        ("a", "P1", "0"),
        ("b", "P1", "1"),
        ("c", "P2", "1"),
    ]
    assert cases["b"].images == (tmp_path / "t1" / "b.nii.gz", tmp_path / "fl" / "b.nii.gz")
    assert cases["b"].label == tmp_path / "seg" / "b.nii.gz" and found.name == "cases" and found.root == tmp_path


def test_the_patient_reaches_the_split(tmp_path: Path) -> None:
    cases = open_dataset(table(tmp_path)).labelled().values()
    split = make_split(cases, validation=0.3)
    assert {"a", "b"} in (set(split.train), set(split.validation))
    with pytest.raises(ConfigError, match=r"'b' .train. and 'a' .validation. are of one patient: keep"):
        make_split(cases, validation=["a"])


@pytest.mark.parametrize(
    "text",
    [
        CSV,
        "\ufeff" + CSV,
        CSV.replace("\n", "\r\n"),
        CSV.replace(",", "\t"),
        CSV.replace(",", ";"),
        CSV.replace("image_t1,image_flair", "channel_0,channel_1"),
        CSV.replace("image_t1,image_flair", "image").replace("gz,fl", "gz;fl"),
        CSV.replace(",", " , "),
    ],
)
def test_tables_are_written_in_many_ways(tmp_path: Path, text: str) -> None:
    (tmp_path / "plain").mkdir()
    plain = open_dataset(table(tmp_path / "plain")).labelled()
    found = open_dataset(table(tmp_path / "other", text)).labelled()

    def told(cases: Any, root: Path) -> list[Any]:
        return [
            (c.name, [p.relative_to(root) for p in (*c.images, c.label)], c.patient, c.fold) for c in cases.values()
        ]

    assert told(found, tmp_path / "other") == told(plain, tmp_path / "plain")


def test_json_says_the_same_and_what_its_labels_are(tmp_path: Path) -> None:
    rows = [{"case": c, "image": [f"t1/{c}.nii.gz", f"fl/{c}.nii.gz"], "label": f"seg/{c}.nii.gz"} for c in "abc"]
    path = table(tmp_path, json.dumps({"cases": rows, "labels": {"background": 0, "lesion": 1}}), "list.json")
    found = open_dataset(path)
    assert [len(case.images) for case in found.labelled().values()] == [2, 2, 2]
    assert found.info is not None and found.info.label_map.foreground == ("lesion",)
    path.write_text(json.dumps(rows))
    assert open_dataset(path).info is None and list(open_dataset(path).labelled()) == ["a", "b", "c"]


def test_a_folder_is_known_by_its_manifest(tmp_path: Path) -> None:
    path = table(tmp_path / "study", name="manifest.csv")
    assert recognise(path.parent) == ("manifest", "it holds manifest.csv")
    assert open_dataset(path.parent).name == "study"


def test_names_are_the_files_own_where_no_column_gives_some(tmp_path: Path) -> None:
    path = table(tmp_path, "image,label\nt1/a.nii.gz,seg/a.nii.gz\nt1/b.nii.gz,\n")
    found = open_dataset(path)
    assert [(case.name, case.patient, case.label is None) for case in found.cases] == [
        ("a", "a", False),
        ("b", "b", True),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CSV.replace("label", "lable"), r"the column 'lable' is none of case, image, .*; did you mean 'label'\?"),
        (CSV.replace("patient", "patiant"), r"did you mean 'patient'"),
        (CSV.replace("image_t1", "t1").replace("image_flair", "fl"), r"image, or one image_NAME a channel, is missing"),
        (CSV.replace("image_flair", "image_t1"), r"the column 'image_t1' is there twice"),
        (CSV.replace("fl/b.nii.gz", ""), r"cases.csv:3: an image is missing"),
        (CSV.replace("\nb,", "\na,"), r"cases.csv:3: case 'a' is there before"),
        (CSV.replace("t1/c", "t1/d"), r"cases.csv:4: case c: .*t1/d.nii.gz does not exist"),
        (CSV.replace(",P2,1,41", ""), r"cases.csv:4: this row has another number of cells than the first, which has 7"),
        (CSV.replace("\nb,", "\n../b,"), r"case '../b' is no name for files"),
        (CSV.replace("t1/b", "../b"), r"b.nii.gz leads out of the data set"),
        (CSV.replace("t1/b.nii.gz", "/etc/hostname"), r"leads out of the data set, to /etc/hostname"),
        (CSV.replace("t1/b", "t1/\0b"), r"cases.csv|leads nowhere"),
        ('image,label\n"t1/a.nii.gz,x', r"not readable as CSV"),
        ("", r"image, or one image_NAME a channel, is missing"),
        ("image,label\n", r"holds no case"),
    ],
)
def test_what_is_wrong_is_said_with_its_row(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(MedsegError, match=message) as error:
        open_dataset(table(tmp_path, text)).labelled()
    assert len(str(error.value)) <= 500 and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"cases": {}}, r"is no list of cases"),
        ([1], r"is no list of cases"),
        ([{"label": "seg/a.nii.gz"}], r"cases\[0\]: there is no image"),
        ([{"image": 3}], r"cases\[0\]: image must be a path or a list of paths"),
        ([{"image": "t1/a.nii.gz", "label": ["x"]}], r"cases\[0\]: label is \[\"x\"\]; it must be text"),
        ([{"image": "t1/a.nii.gz", "lable": "x"}], r"did you mean 'label'"),
        ({"cases": [], "lables": {}}, r"unknown key 'lables'; did you mean 'labels'"),
        (
            [{"image": ["t1/a.nii.gz", "fl/a.nii.gz"]}, {"image": "t1/b.nii.gz"}],
            r"case b has 1 image files and a has 2",
        ),
        ([{"case": "x", "image": "t1/a\0.nii.gz"}], r"leads nowhere: mend the path"),
        ([{"image": "t1/" + 9999 * "a"}], r"case a+.*"),
    ],
)
def test_what_is_wrong_with_json_is_said(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(MedsegError, match=message):
        open_dataset(table(tmp_path, json.dumps(content), "list.json")).labelled()


def test_other_files_are_no_manifests(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").touch()
    with pytest.raises(MedsegError, match=r"a.nii.gz is no data set: give a folder, or a manifest"):
        open_dataset(tmp_path / "a.nii.gz")
