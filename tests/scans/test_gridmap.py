"""Tiles of a view own every voxel of the file once, and bring back what the whole would."""

from __future__ import annotations

import math
import warnings

import monai.transforms as mt
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from test_views import scan_of, scans

from medseg.errors import GridError
from medseg.geometry import Box, Footprint, Tiling
from medseg.scans.gridmap import GridMap, grid_map, own_scan
from medseg.scans.views import Normalized, Oriented, Resampled, Rescale


@st.composite
def views(draw):
    """A scan seen through some of the views, nested in any order."""
    scan = view = draw(scans(draw(st.sampled_from([2, 3]))))
    steps = draw(st.lists(st.sampled_from(["oriented", "resampled", "normalized"]), max_size=3))
    for step in steps:
        if step == "oriented" and len(scan.shape) == 3:
            view = Oriented(view, draw(st.sampled_from(["RAS", "LIP", "SPL"])))
        elif step == "resampled":
            view = Resampled(view, draw(st.tuples(*[st.floats(0.3, 5)] * len(scan.shape))))
        elif step == "normalized":
            view = Normalized(view, Rescale(None, None, (60,), (30,)))
    return view, scan


@st.composite
def tiled_views(draw):
    """A view and a tiling of it whose windows answer for one spare voxel."""
    view, scan = draw(views())
    dims = len(scan.shape)
    core = draw(st.tuples(*[st.integers(1, 6)] * dims))
    return view, scan, Tiling(view.shape, core, Footprint((0,) * dims, (1,) * dims, (0,) * dims), spare=1)


@given(tiled_views())
def test_owned_boxes_partition_the_file(case):
    view, scan, tiling = case
    grid = grid_map(view)
    count = np.zeros(scan.shape, int)
    for tile in tiling:
        owned = grid.owned(tile.write, view.shape, scan.shape)
        assert owned.within(scan.shape)
        count[owned.slices] += 1
    assert (count == 1).all()


@given(tiled_views(), st.integers(0, 99))
def test_tiles_bring_back_what_the_whole_does(case, seed):
    view, scan, tiling = case
    grid = grid_map(view)
    values = np.random.default_rng(seed).random((2, *view.shape), np.float32)
    at_once = grid.back(values, (0,) * values[0].ndim, Box.of(scan.shape), view.shape)
    assembled = np.full((2, *scan.shape), np.nan, np.float32)
    for tile in tiling:
        owned = grid.owned(tile.write, view.shape, scan.shape)
        core = values[(slice(None), *_with_spare(tile.write))]
        assembled[(slice(None), *owned.slices)] = grid.back(core, tile.write.start, owned, view.shape)
    np.testing.assert_array_equal(assembled, at_once)


def _with_spare(write):
    """The write box and one voxel beyond it, where there is one."""
    return tuple(slice(a, b + 1) for a, b in zip(write.start, write.stop, strict=True))


@given(views(), st.integers(0, 99))
def test_whole_equals_monai_back_to_the_files_affine(case, seed):
    view, scan = case
    dims = len(scan.shape)
    keep = [*range(dims), 3]
    values = np.random.default_rng(seed).random((2, *view.shape))
    ours = grid_map(view).back(values, (0,) * dims, Box.of(scan.shape), view.shape)
    seen = MetaTensor(torch.from_numpy(values), affine=torch.from_numpy(view.affine[np.ix_(keep, keep)]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        back = mt.SpatialResample(mode="bilinear", padding_mode="border", align_corners=False, dtype=torch.float64)
        wanted = back(seen, dst_affine=torch.from_numpy(scan.affine[np.ix_(keep, keep)]), spatial_size=scan.shape)
    np.testing.assert_allclose(ours, wanted.numpy(), atol=1e-5)


def test_equals_the_inverse_of_monais_transforms():
    scan = scan_of(np.zeros((1, 9, 8, 7), np.float32), np.diag([-1.0, 2.0, 1.5, 1.0]))
    view = Resampled(Oriented(scan, "RAS"), (0.8, 1.3, 2.0))
    volume = MetaTensor(torch.zeros(1, *scan.shape), affine=torch.tensor(scan.affine))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        orient, space = mt.Orientation("RAS"), mt.Spacing((0.8, 1.3, 2.0))
        seen = space(orient(volume))
        values = torch.rand(seen.shape)
        wanted = orient.inverse(space.inverse(MetaTensor(values).copy_meta_from(seen)))
    assert seen.shape[1:] == view.shape
    ours = grid_map(view).back(values.numpy(), (0, 0, 0), Box.of(scan.shape), view.shape)
    np.testing.assert_allclose(ours, wanted.numpy(), atol=1e-5)


@given(views())
def test_map_agrees_with_the_affines(case):
    view, scan = case
    grid = grid_map(view)
    np.testing.assert_allclose(scan.affine @ grid.matrix(), view.affine, atol=1e-9)
    assert own_scan(view) is scan


def test_identity():
    scan = scan_of(np.zeros((1, 3, 4, 5)), np.diag([-1.0, -1.0, 1.0, 1.0]))
    assert grid_map(scan).identity
    assert grid_map(Normalized(Resampled(scan, (1, 1, 1)), Rescale(None, None, (0,), (1,)))).identity
    assert not grid_map(Oriented(scan)).identity
    assert grid_map(Oriented(Oriented(scan), "LPS")).identity
    assert not grid_map(Resampled(scan, (1, 2, 1))).identity


def test_back_keeps_the_order_of_the_files_axes():
    grid = GridMap((2, 0, 1), (1.0, 1.0, -1.0), (0.0, 0.0, 2.0))
    own = np.arange(24.0).reshape(1, 2, 3, 4)
    view = own.transpose(0, 3, 1, 2)[..., ::-1]
    np.testing.assert_array_equal(grid.back(view, (0, 0, 0), Box.of((2, 3, 4)), view.shape[1:]), own)


def test_nothing_owned_gives_nothing():
    view = Resampled(scan_of(np.zeros((1, 4, 3))), (0.1, 1.0))
    grid = grid_map(view)
    owned = grid.owned(Box((1, 0), (5, 3)), view.shape, (4, 3))
    assert owned.voxels == 0
    assert grid.back(np.zeros((2, 5, 3)), (1, 0), owned, view.shape).size == 0


def test_a_core_that_is_too_small_is_refused():
    grid = grid_map(Resampled(scan_of(np.zeros((1, 8, 3))), (2.0, 1.0)))
    with pytest.raises(GridError, match="interpolated at"):
        grid.back(np.zeros((1, 2, 3)), (0, 0), Box((0, 0), (4, 3)), (4, 3))
    assert math.prod(grid.back(np.zeros((1, 3, 3)), (0, 0), Box((0, 0), (4, 3)), (4, 3)).shape) == 12
