"""Channels in files of their own are one scan, on the grid of the first."""

from __future__ import annotations

import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import ResampleToMatch
from scipy.ndimage import map_coordinates

from medseg.errors import GridError
from medseg.geometry import Box
from medseg.scans.memory import ArrayScan
from medseg.scans.scan import open_scan
from medseg.scans.stacked import OnGrid, Stacked


def nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def oblique(angle: float, spacing: tuple[float, float, float], origin: tuple[float, float, float]) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag(spacing)
    affine[:3, 3] = origin
    return affine


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_a_box_of_a_stack_is_that_of_each(seed: int, channels: list[int]) -> None:
    rng = np.random.default_rng(seed)
    kinds = rng.choice([np.uint8, np.int16, np.float32], len(channels))
    arrays = [rng.integers(0, 200, (c, 5, 6, 7)).astype(k) for c, k in zip(channels, kinds, strict=True)]
    stack = Stacked([ArrayScan(array) for array in arrays])
    box = Box((1, 0, 3), (5, 4, 6))
    whole = np.concatenate(arrays)
    assert stack.channels == len(whole) and stack.dtype == whole.dtype
    np.testing.assert_array_equal(stack.read(box), whole[(slice(None), *box.slices)])


def test_a_stack_is_on_the_first_one_s_grid_and_knows_its_files(tmp_path: Path) -> None:
    affine = oblique(0.2, (1, 1, 2), (3, 4, 5))
    paths = [nifti(tmp_path / f"{n}.nii.gz", np.full((4, 5, 6), n, np.int16), affine) for n in range(3)]
    stack = Stacked([open_scan(path) for path in paths])
    assert stack.files == tuple(paths) and stack.name == str(paths[0])
    np.testing.assert_array_equal(stack.affine, open_scan(paths[0]).affine)
    again = pickle.loads(pickle.dumps(stack))
    np.testing.assert_array_equal(again.read(Box.of(stack.shape)), stack.read(Box.of(stack.shape)))


def test_other_shapes_do_not_stack() -> None:
    with pytest.raises(GridError, match=r"\(4, 5\) and array \(5, 4\)"):
        Stacked([ArrayScan(np.zeros((1, 5, 4))), ArrayScan(np.zeros((1, 4, 5)))])
    with pytest.raises(GridError, match="no scan to stack"):
        Stacked([])


GRIDS = {
    "finer": (oblique(0, (2, 2, 2), (0, 0, 0)), oblique(0, (0.7, 0.9, 1.1), (1.3, -2, 0.4))),
    "turned": (oblique(0.3, (2, 1.5, 2), (5, 0, 0)), oblique(-0.2, (1, 1, 1), (0, 2, 3))),
    "flipped": (oblique(0, (1, 1, 1), (0, 0, 0)), np.diag([-1.0, -1.0, 1.0, 1.0]) + np.eye(4, k=3) * 8),
}


@pytest.mark.parametrize("name", GRIDS)
def test_a_scan_on_another_grid_equals_monai_and_scipy(tmp_path: Path, name: str) -> None:
    theirs, ours = GRIDS[name]
    rng = np.random.default_rng(0)
    source = nifti(tmp_path / "source.nii", rng.normal(size=(9, 10, 8)).astype(np.float32), theirs)
    like = nifti(tmp_path / "like.nii", np.zeros((11, 9, 10), np.float32), ours)
    seen = OnGrid(open_scan(source), open_scan(like))
    whole = seen.read(Box.of(seen.shape))
    np.testing.assert_array_equal(seen.affine, open_scan(like).affine)

    index = np.stack(np.meshgrid(*map(np.arange, seen.shape), indexing="ij"), -1)
    there = (np.linalg.inv(theirs) @ ours @ np.concatenate([index, np.ones((*seen.shape, 1))], -1)[..., None])[
        ..., :3, 0
    ]
    voxels = open_scan(source).read(Box.of((9, 10, 8)))[0]
    scipy = map_coordinates(voxels, np.moveaxis(there, -1, 0), order=1, mode="nearest")
    np.testing.assert_allclose(whole[0], scipy, atol=1e-5)

    image, target = (
        MetaTensor(torch.from_numpy(v)[None], affine=torch.from_numpy(a))
        for v, a in ((voxels, theirs), (np.zeros((11, 9, 10), np.float32), ours))
    )
    monai = ResampleToMatch(mode="bilinear", padding_mode="border", dtype=np.float64)(image, target)
    np.testing.assert_allclose(whole, monai.numpy(), atol=1e-5)


@given(st.integers(0, 2**32 - 1))
def test_a_box_on_another_grid_is_that_of_the_whole(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("grid")
    affines = [
        oblique(a, tuple(s), tuple(o))
        for a, s, o in zip(rng.uniform(-1, 1, 2), rng.uniform(0.5, 2, (2, 3)), rng.uniform(-9, 9, (2, 3)), strict=True)
    ]
    source = nifti(folder / "a.nii", rng.integers(0, 99, (6, 5, 7)).astype(np.int16), affines[0])
    like = nifti(folder / "b.nii", np.zeros((7, 8, 6), np.uint8), affines[1])
    seen = OnGrid(open_scan(source), open_scan(like))
    start = rng.integers(0, 5, 3)
    box = Box(tuple(map(int, start)), tuple(map(int, np.minimum(start + rng.integers(1, 5, 3), seen.shape))))
    np.testing.assert_allclose(seen.read(box), seen.read(Box.of(seen.shape))[(slice(None), *box.slices)], atol=1e-4)


def test_a_scan_that_says_not_where_it_lies_is_not_resampled(tmp_path: Path) -> None:
    placed = open_scan(nifti(tmp_path / "a.nii", np.zeros((4, 4, 4), np.uint8), np.eye(4)))
    with pytest.raises(GridError, match="array does not say where its voxels lie"):
        OnGrid(ArrayScan(np.zeros((1, 4, 4, 4))), placed)
