"""Folders become cases, and what is missing is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from medseg.datasets.cases import digest, natural_key
from medseg.datasets.layouts import DatasetInfo, find_cases, open_dataset, read_dataset
from medseg.errors import MedsegError


def data_set(root: Path, images: list[str], labels: list[str]) -> Path:
    for folder, names in (("images", images), ("labels", labels)):
        (root / folder).mkdir(parents=True)
        for name in names:
            (root / folder / name).write_bytes(name.encode())
    return root


def described(root: Path, **changes: object) -> Path:
    (root / "dataset.json").write_text(json.dumps(info(**changes)))
    return root


def test_files_match_by_stem_in_natural_order(tmp_path: Path) -> None:
    root = data_set(
        tmp_path,
        ["c10.tif", "c2.PNG", "a.b.nii.gz", ".DS_Store", "notes.txt"],
        ["c2.tif", "c10.tif", "a.b.nii"],
    )
    (root / "images" / "z.ome.zarr").mkdir()
    (root / "labels" / "z.zarr").mkdir()
    described(root, patients={"c2": "p", "c10": "p"})
    cases = find_cases(root)
    assert [case.name for case in cases] == ["a.b", "c2", "c10", "z"]
    assert [case.patient for case in cases] == ["a.b", "p", "p", "z"]
    assert cases[3].image.name == "z.ome.zarr" and cases[3].label is not None and cases[3].label.name == "z.zarr"


def test_natural_order_is_total() -> None:
    names = ["a01", "a1", "a2", "a10", "b", "1", "01", "", "a1b2", "a1b10"]
    assert len({natural_key(name) for name in names}) == len(names)
    assert sorted(["a10", "a2", "a1"], key=natural_key) == ["a1", "a2", "a10"]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (["a.tif", "b.tif"], ["a.tif"], r"1 of 2 images have no label of the same stem: b.tif"),
        (["a.tif"], ["a.tif", "b.tif"], r"1 of 2 labels have no image of the same stem: b.tif"),
        (["case1.tif"], ["case_1.tif"], r"did you mean 'case_1'"),
        (["a.tif", "a.png"], ["a.tif"], r"two files of one stem"),
        (["a.txt"], ["a.tif"], r"no scan that medseg can read \(it holds a.txt\)"),
        ([], ["a.tif"], r"no scan that medseg can read \(it holds nothing\)"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, images: list[str], labels: list[str], message: str) -> None:
    with pytest.raises(MedsegError, match=message):
        find_cases(data_set(tmp_path, images, labels))


def test_images_alone_will_do_where_no_labels_are_needed(tmp_path: Path) -> None:
    root = data_set(tmp_path, ["a.tif", "b.tif"], ["a.tif"])
    assert [case.label is None for case in open_dataset(root).cases] == [False, True]
    shutil.rmtree(root / "labels")
    assert len(open_dataset(root).cases) == 2


def test_no_data_set_at_all(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="is no folder"):
        find_cases(tmp_path / "nothing")
    with pytest.raises(MedsegError, match="has no folder images/"):
        find_cases(tmp_path)
    with pytest.raises(MedsegError, match="'x', which is not there"):
        find_cases(described(data_set(tmp_path / "d", ["a.tif"], ["a.tif"]), patients={"x": "y"}))


def test_links_may_not_leave_the_root(tmp_path: Path) -> None:
    root = data_set(tmp_path / "data", ["a.tif"], ["a.tif"])
    (root / "images" / "b.tif").symlink_to(root / "images" / "a.tif")
    (root / "labels" / "b.tif").symlink_to(root / "labels" / "a.tif")
    assert len(find_cases(root)) == 2
    secret = tmp_path / "secret.tif"
    secret.write_bytes(b"")
    (root / "images" / "b.tif").unlink()
    (root / "images" / "b.tif").symlink_to(secret)
    with pytest.raises(MedsegError, match="leads out of the data set"):
        find_cases(root)


def test_the_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    root = data_set(tmp_path / "one", ["a.tif", "b.tif"], ["a.tif", "b.tif"])
    before = digest(find_cases(root))
    assert digest(reversed(find_cases(root))) == before
    assert digest(find_cases(Path(shutil.copytree(root, tmp_path / "two")))) == before
    (root / "labels" / "b.tif").write_bytes(b"else")
    changed = digest(find_cases(root))
    assert changed != before
    assert digest(find_cases(root)[:1]) not in (before, changed)


def test_the_digest_of_a_folder_is_that_of_its_files(tmp_path: Path) -> None:
    root = data_set(tmp_path, [], [])
    for kind in ("images", "labels"):
        (root / kind / "a.zarr" / "c").mkdir(parents=True)
        (root / kind / "a.zarr" / "c" / "0").write_bytes(b"1")
    before = digest(find_cases(root))
    (root / "images" / "a.zarr" / "c" / "0").write_bytes(b"2")
    assert digest(find_cases(root)) != before


def info(**changes: object) -> dict[str, object]:
    return {"dims": 2, "labels": {"membrane": 0, "cell": 255}, "foreground": ["membrane"], **changes}


def test_a_description_is_read(tmp_path: Path) -> None:
    assert read_dataset(tmp_path) is None
    (tmp_path / "dataset.json").write_text(json.dumps(info(spacing=[4.0, 4.0], unit="nm")))
    read = read_dataset(tmp_path)
    assert read is not None and read.label_map.background_value == 255
    assert read.spacing_mm == pytest.approx((4e-6, 4e-6))
    assert DatasetInfo.model_validate(read.model_dump(mode="json")) == read


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not readable as JSON"),
        ("[]", "no JSON object"),
        (info(format=2), "has format 2 and this medseg reads up to 1"),
        (info(chanels=2), "unknown key 'chanels'; did you mean 'channels'"),
        (info(dims=4), "dims: "),
        (info(channels=0), "channels: "),
        (info(labels={"a": "1"}), "labels.a: "),
        (info(spacing=[1]), "spacing has 1 numbers and dims is 2"),
        (info(foreground=["cel"]), "did you mean 'cell'"),
        ({"dims": 2}, "key 'labels' is missing"),
    ],
)
def test_a_damaged_description_is_refused(tmp_path: Path, content: object, message: str) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(MedsegError, match=message) as error:
        read_dataset(tmp_path)
    assert "dataset.json" in str(error.value)
