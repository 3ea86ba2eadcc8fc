"""Layouts become cases, and what is wrong with one is said with its file and case."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, get_args

import pytest

from medseg.datasets.layouts import LAYOUTS, open_dataset, read_dataset, recognise
from medseg.datasets.layouts.dataset import DataSet
from medseg.errors import ConfigError, MedsegError
from medseg.experiment import Data

NNUNET: dict[str, Any] = {
    "channel_names": {"0": "T1", "1": "FLAIR"},
    "labels": {"background": 0, "lesion": 1, "ignore": 2},
    "numTraining": 2,
    "file_ending": ".nii.gz",
    "overwrite_image_reader_writer": "SimpleITKIO",
}
MSD: dict[str, Any] = {
    "name": "Hippocampus",
    "tensorImageSize": "3D",
    "modality": {"0": "MRI"},
    "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
    "numTraining": 2,
    "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in ("b10", "b2")],
    "test": [],
}


def lay(root: Path, files: list[str], content: Any = None) -> Path:
    """Empty files: a layout is told from names and JSON alone."""
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    if content is not None:
        (root / "dataset.json").write_text(json.dumps(content))
    return root


def nnunet(root: Path, content: Any = NNUNET, cases: tuple[str, ...] = ("a_10", "a_9"), channels: int = 2) -> Path:
    images = [f"imagesTr/{case}_{c:04d}.nii.gz" for case in cases for c in range(channels)]
    return lay(root, [*images, *(f"labelsTr/{case}.nii.gz" for case in cases)], content)


def msd(root: Path, content: Any = MSD) -> Path:
    return lay(root, [f"{folder}/{n}.nii.gz" for folder in ("imagesTr", "labelsTr") for n in ("b2", "b10")], content)


def names(found: DataSet) -> list[str]:
    return [case.name for case in found.cases]


def test_a_config_can_name_every_layout() -> None:
    assert set(get_args(get_args(Data.model_fields["layout"].annotation)[0])) == set(LAYOUTS)


def test_nnunet_s_channels_are_the_files_of_a_case(tmp_path: Path) -> None:
    root = nnunet(tmp_path)
    assert recognise(root) == ("nnunet", "dataset.json has channel_names")
    found = open_dataset(root)
    assert names(found) == ["a_9", "a_10"]
    case = found.labelled()["a_9"]
    assert [path.name for path in case.images] == ["a_9_0000.nii.gz", "a_9_0001.nii.gz"]
    assert case.label == root / "labelsTr" / "a_9.nii.gz"
    assert found.info is not None and found.info.channel_names == ["T1", "FLAIR"]
    assert found.info.label_map.foreground == ("lesion",) and found.info.label_map.ignore == ("ignore",)
    assert found.channel_files is not None and found.channel_files.suffixes == ["_0000", "_0001"]
    assert found.account() == f"{root}: nnunet layout (dataset.json has channel_names), 2 cases of 2 files each"


def test_nnunet_s_names_do_without_a_description(tmp_path: Path) -> None:
    root = nnunet(tmp_path, content=None)
    assert recognise(root)[0] == "nnunet" and names(open_dataset(root)) == ["a_9", "a_10"]
    assert [len(case.images) for case in open_dataset(root).cases] == [2, 2]


def test_numbered_files_whose_labels_are_numbered_too_are_no_channels(tmp_path: Path) -> None:
    files = [f"{folder}/slice_{n:04d}.png" for folder in ("imagesTr", "labelsTr") for n in range(3)]
    root = lay(tmp_path, files)
    assert recognise(root) == ("folders", "it has imagesTr/ and labelsTr/")
    assert names(open_dataset(root)) == ["slice_0000", "slice_0001", "slice_0002"]


def test_one_file_may_hold_all_of_nnunet_s_channels(tmp_path: Path) -> None:
    content = {**NNUNET, "channel_names": {"0": "R", "1": "G", "2": "B"}}
    assert len(open_dataset(nnunet(tmp_path, content, channels=1)).labelled()) == 2


def test_nnunet_may_list_its_files(tmp_path: Path) -> None:
    listing = {"x": {"images": ["deep/t1.nii.gz", "deep/fl.nii.gz"], "label": "deep/seg.nii.gz"}}
    root = lay(tmp_path, ["deep/t1.nii.gz", "deep/fl.nii.gz", "deep/seg.nii.gz"])
    (root / "dataset.json").write_text(json.dumps({**NNUNET, "numTraining": 1, "dataset": listing}))
    case = open_dataset(root).labelled()["x"]
    assert [path.name for path in (*case.images, case.label or root)] == ["t1.nii.gz", "fl.nii.gz", "seg.nii.gz"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"numTraining": 3}, r"dataset.json announces 3 training cases \(numTraining\) and there are 2 labels"),
        ({"channel_names": {"0": "T1"}}, r"case a_9 has the channels 0000, 0001 and 0000 are expected"),
        ({"channel_names": {"1": "T1", "2": "T2"}}, r"channel_names has the keys 1, 2; 0, 1, ... are expected"),
        ({"file_ending": ".b2nd"}, r"file_ending is '.b2nd'; medseg reads .nii "),
        ({"file_ending": ".png"}, r"holds no file that ends in .png"),
        ({"labels": ["a"]}, r"key 'labels' is missing or no object"),
        ({"labels": {"background": 0, "a": "1"}}, r"labels.a: "),
        ({"labels": {"a": [1, 2], "b": [1, 2]}}, r"region 'a' has no value .* no mask could show it"),
        ({"dataset": {"x": {"images": "one"}}}, r"dataset.x must have images, a list of paths"),
        ({"dataset": {"x": {"images": ["no.nii"], "label": "nor.nii"}}}, r"case x: .*no.nii does not exist"),
    ],
)
def test_what_is_wrong_with_nnunet_s_is_said(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(MedsegError, match=message) as error:
        open_dataset(nnunet(tmp_path, {**NNUNET, **change})).labelled()
    assert len(str(error.value)) <= 500


def test_a_missing_channel_names_its_case_which_can_be_left_out(tmp_path: Path) -> None:
    root = nnunet(tmp_path, {**NNUNET, "numTraining": 3}, ("a", "b", "c"))
    (root / "imagesTr" / "b_0000.nii.gz").unlink()
    with pytest.raises(MedsegError, match=r"case b has the channels 0001 and 0000, 0001 are expected"):
        open_dataset(root).labelled()
    assert list(open_dataset(root).without(["b"]).labelled()) == ["a", "c"]


def test_the_decathlon_s_pairs_are_those_that_it_lists(tmp_path: Path) -> None:
    root = lay(msd(tmp_path), ["imagesTr/._b2.nii.gz", "imagesTr/unlisted.nii.gz"])
    assert recognise(root) == ("msd", "dataset.json has a training list")
    found = open_dataset(root)
    assert names(found) == ["b2", "b10"] and found.name == "Hippocampus" and found.channel_files is None
    assert found.info is not None and found.info.label_map.values == {"background": 0, "Anterior": 1, "Posterior": 2}
    assert read_dataset(root) == found.info


def test_nnunet_1_lists_images_that_are_a_file_a_channel(tmp_path: Path) -> None:
    files = [f"imagesTr/{n}_{c:04d}.nii.gz" for n in ("b2", "b10") for c in (0, 1)]
    root = lay(tmp_path, [*files, "labelsTr/b2.nii.gz", "labelsTr/b10.nii.gz"], MSD)
    assert [path.name for path in open_dataset(root).labelled()["b2"].images] == ["b2_0000.nii.gz", "b2_0001.nii.gz"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": [{"image": "imagesTr/x.nii.gz", "label": "labelsTr/b2.nii.gz"}]}, r"x.nii.gz does not exist"),
        ({"training": [{"label": "labelsTr/b2.nii.gz"}]}, r"training\[0\] must have the paths image and label"),
        ({"training": ["imagesTr/b2.nii.gz"]}, r"training\[0\] must have"),
        ({"training": [*MSD["training"], MSD["training"][0]]}, r"training lists the case 'b10' twice"),
        ({"training": {}}, r"training is no list"),
        ({"numTraining": 260}, r"announces 260 training cases \(numTraining\) and lists 2"),
        ({"labels": {"zero": "background"}}, r"labels.zero is 'background'"),
        ({"labels": {"1": "a", "2": "a"}}, r"labels.2 is 'a': each value must have a name of its own"),
        ({"modality": None}, r"key 'modality' is missing"),
        ({"training": [{"image": "../out.nii.gz", "label": "labelsTr/b2.nii.gz"}]}, r"leads out of the data set"),
        ({"training": [{"image": "/etc/passwd", "label": "labelsTr/b2.nii.gz"}]}, r"leads out of the data set"),
    ],
)
def test_what_is_wrong_with_the_decathlon_s_is_said(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(MedsegError, match=message) as error:
        open_dataset(msd(tmp_path / "root", {**MSD, **change})).labelled()
    assert len(str(error.value)) <= 500 and "\n" not in str(error.value)


def test_links_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    root = msd(tmp_path)
    (root / "imagesTr" / "b2.nii.gz").unlink()
    os.symlink(root / "imagesTr" / "b2.nii.gz", root / "imagesTr" / "b2.nii.gz")
    with pytest.raises(MedsegError, match=r"leads nowhere|does not exist"):
        open_dataset(root).labelled()


@pytest.mark.parametrize("text", ["[" * 100000, '{"labels": ' + "9" * 5000 + "}", "nul", "\ud800"])
def test_json_that_is_none_is_said(tmp_path: Path, text: str) -> None:
    root = msd(tmp_path, content=None)
    (root / "dataset.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(MedsegError, match=r"dataset.json") as error:
        open_dataset(root)
    assert len(str(error.value)) <= 500


@pytest.mark.parametrize("make", [nnunet, msd])
@pytest.mark.parametrize("place", ["imagesTr", "labelsTr", "dataset.json"])
def test_no_link_leads_out_whatever_the_layout(tmp_path: Path, make: Any, place: str) -> None:
    root = make(tmp_path / "root")
    outside = tmp_path / "outside"
    (root / place).rename(outside)
    os.symlink(outside, root / place)
    with pytest.raises(MedsegError, match="leads out of the data set"):
        open_dataset(root)


def test_training_folders_do_without_a_description(tmp_path: Path) -> None:
    root = msd(tmp_path, content=None)
    assert recognise(root) == ("folders", "it has imagesTr/ and labelsTr/")
    assert open_dataset(root).info is None and list(open_dataset(root).labelled()) == ["b2", "b10"]


def test_files_without_counterpart_are_kept_to_be_told_or_left_out(tmp_path: Path) -> None:
    root = msd(tmp_path, content=None)
    lay(root, ["imagesTr/only_image.nii.gz", "labelsTr/only_label.nii.gz"])
    found = open_dataset(root)
    assert [case.name for case in found.cases if case.label is None] == ["only_image"]
    assert list(found.orphans) == ["only_label"]
    with pytest.raises(MedsegError, match=r"1 of 3 images have no label.*data.exclude: \[only_image\]"):
        found.labelled()
    with pytest.raises(MedsegError, match=r"1 of 3 labels have no image.*data.exclude: \[only_label\]"):
        found.without(["only_image"]).labelled()
    assert list(found.without(["only_image", "only_label"]).labelled()) == ["b2", "b10"]
    with pytest.raises(ConfigError, match=r"'b3' to leave out is not there; did you mean 'b2'"):
        found.without(["b3"])


def test_a_layout_that_is_named_is_taken(tmp_path: Path) -> None:
    root = nnunet(tmp_path, content=None)
    assert len(open_dataset(root, "folders").cases) == 4
    with pytest.raises(ConfigError, match=r"data.layout is 'nnunett'; did you mean 'nnunet'\?"):
        open_dataset(root, "nnunett")
    with pytest.raises(ConfigError, match=r"dataset.json is missing: the Decathlon's format has it"):
        open_dataset(root, "msd")


def test_the_real_hippocampus_has_its_known_traps(real_data: Path) -> None:
    found = open_dataset(real_data / "msd_hippocampus")
    assert found.layout == "folders"
    assert [case.name for case in found.cases if case.label is None] == ["hippocampus_118"]
    assert list(found.orphans) == ["hippocampus_010", "hippocampus_281"]
    assert len(found.without(["hippocampus_118", *found.orphans]).labelled()) == 195


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (("images", "masks"), "it has images/ and masks/"),
        (("images", "labels"), "it has images/ and labels/"),
        (("images", "labels", "masks"), "it has images/ and labels/; masks/ is left alone"),
        (("imgs", "masks"), "it has imgs/ and masks/"),
        (("image", "mask"), "it has image/ and mask/"),
        (("images",), "it has images/"),
    ],
)
def test_folders_of_images_and_masks_are_known_by_several_names(
    tmp_path: Path, folders: tuple[str, ...], said: str
) -> None:
    root = lay(tmp_path, [f"{folder}/{name}.png" for folder in folders for name in ("a", "b")])
    assert recognise(root) == ("folders", said)
    found = open_dataset(root)
    assert said in found.account()
    expected = root / folders[1] / "a.png" if folders[1:] else None
    assert found.cases[0].label == expected
