"""Files of one case: which belong together, and how they are opened."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.datasets.cases import Case
from medseg.datasets.channels import ChannelFiles
from medseg.datasets.check import open_image
from medseg.errors import GridError, MedsegError
from medseg.geometry import Box


def case(folder: Path, name: str, suffixes: list[str], affines: list[np.ndarray] | None = None) -> Case:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{name}{suffix}.nii.gz" for suffix in suffixes]
    for number, path in enumerate(paths):
        affine = np.eye(4) if affines is None else affines[number]
        nib.save(nib.Nifti1Image(np.full((4, 5, 6), number, np.int16), affine), path)
    return Case(name, paths[0], None, name, tuple(paths[1:]))


@pytest.mark.parametrize("suffixes", [["_0000", "_0001"], ["_t1", "_t1ce", "_flair"], ["", "-dwi"]])
def test_what_the_names_have_in_common_finds_the_files_again(tmp_path: Path, suffixes: list[str]) -> None:
    cases = [case(tmp_path, name, suffixes) for name in ("a", "b_0000", "c.1")]
    rule = ChannelFiles.of(cases)
    assert rule is not None and rule.suffixes == suffixes
    everything = [path for one in cases for path in one.images]
    assert rule.firsts(everything) == [one.image for one in cases] or suffixes[0] == ""
    if suffixes[0]:
        assert [rule.files(one.image) for one in cases] == [one.images for one in cases]
        assert [rule.case_of(one.image) for one in cases] == ["a", "b_0000", "c.1"]
        assert rule.open(cases[1].image).channels == len(suffixes)


def test_names_without_a_rule_have_none(tmp_path: Path) -> None:
    one, other = case(tmp_path, "a", ["_t1", "_t2"]), case(tmp_path, "b", ["_x", "_y"])
    assert ChannelFiles.of([one, other]) is None
    apart = case(tmp_path / "deep", "a", ["_t2"])
    assert ChannelFiles.of([Case("a", one.image, None, "a", apart.images)]) is None
    assert ChannelFiles.of([case(tmp_path, "plain", [""])]) is None


def test_a_missing_channel_is_named(tmp_path: Path) -> None:
    one = case(tmp_path, "a", ["_0000", "_0001"])
    one.images[1].unlink()
    with pytest.raises(MedsegError, match=r"its channel a_0001.nii.gz is missing; the model takes 2 files a case"):
        ChannelFiles(suffixes=["_0000", "_0001"]).open(one.image)


def test_grids_that_differ_are_refused_or_on_request_resampled(tmp_path: Path) -> None:
    one = case(tmp_path, "a", ["_0", "_1"], [np.eye(4), np.diag([1, 1, 1.5, 1])])
    with pytest.raises(
        GridError,
        match=r"a_1.nii.gz and .*a_0.nii.gz have different spacings, 1 x 1 x 1.5 .*"
        r"data.resample_channels: true",
    ):
        open_image(one)
    for seen in (
        open_image(Case("a", one.image, None, "a", one.further, resample_channels=True)),
        ChannelFiles(suffixes=["_0", "_1"], resample=True).open(one.image),
    ):
        np.testing.assert_array_equal(seen.read(Box.of(seen.shape)).mean((1, 2, 3)), [0, 1])
