"""Labels that are called as their images with an ending: paired where that is beyond doubt, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.datasets.layouts import open_dataset
from medseg.datasets.layouts.dataset import DataSet
from medseg.datasets.layouts.endings import endings_of
from medseg.errors import MedsegError

PAIRED = [
    (["a", "b", "c"], ["a_segmentation", "b_segmentation"], ("", "_segmentation")),
    (["21_training", "22_training"], ["21_manual1", "22_manual1"], ("_training", "_manual1")),
    (["a_0000", "b_0000"], ["a", "b"], ("_0000", "")),
    (["x_y_img", "z_y_img"], ["x_y-GT", "z_y-GT"], ("_img", "-GT")),
    (["a", "b"], ["a_mask", "b_mask", "c_mask"], ("", "_mask")),
]
UNPAIRED = [
    (["a"], ["a_mask"]),  # one name has no ending
    (["a_1", "b_1"], ["a_2", "b_2"]),  # numbers tell cases apart
    (["a", "b"], ["a_mask", "c_mask"]),  # an image of no label, and a label of no image
    (["a", "b", "a_mask"], ["a_mask", "b_mask"]),  # an image of a label's own name
    (["a_mask", "a", "b_mask", "b"], ["a_mask_mask", "b_mask_mask"]),  # of a, or of a_mask?
]
STEMS = st.lists(st.from_regex(r"[a-z0-9]{1,4}(_[0-9]{1,3})?", fullmatch=True), min_size=2, max_size=6, unique=True)


def laid(root: Path, images: list[str], labels: list[str]) -> DataSet:
    for folder, stems in (("images", images), ("masks", labels)):
        (root / folder).mkdir()
        for stem in stems:
            (root / folder / f"{stem}.png").touch()
    return open_dataset(root)


@pytest.mark.parametrize(("images", "labels", "endings"), PAIRED)
def test_labels_have_an_ending_that_images_lack(tmp_path, images, labels, endings):
    found = laid(tmp_path, images, labels)
    pairs = {case.image.stem.removesuffix(endings[0]): case.label.stem for case in found.cases if case.label}
    for label in found.orphans.values():
        pairs[label.stem.removesuffix(endings[1])] = label.stem
    assert pairs == {label.removesuffix(endings[1]): label for label in labels}
    assert found.account().endswith(f"; labels are called CASE{endings[1]} for images CASE{endings[0]}")


@pytest.mark.parametrize(("images", "labels"), UNPAIRED)
def test_endings_are_not_guessed(tmp_path, images, labels):
    found = laid(tmp_path, images, labels)
    same = set(images) & set(labels)
    assert {case.name for case in found.cases if case.label} == same
    assert set(found.orphans) == set(labels) - same
    assert not found.note


@given(STEMS, st.sampled_from(["_seg", "-mask", "_manual1", "_GT 2"]), st.randoms())
def test_every_label_comes_to_its_own_image(stems, ending, random):
    labels = [stem + ending for stem in stems]
    random.shuffle(labels)
    endings = endings_of(stems, labels)
    assert endings is not None
    assert [endings.image_of(label) for label in labels] == [label.removesuffix(ending) for label in labels]


def test_a_folder_of_data_sets_says_which(tmp_path):
    for folder in ("train/images", "train/masks", "papers"):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(MedsegError, match=r"it holds papers, train\).*; \S+/train has: take that folder"):
        open_dataset(tmp_path)
