"""Views equal MONAI's transforms on whole arrays, at every box."""

from __future__ import annotations

import json
import math
import warnings

import monai.transforms as mt
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from monai.data import MetaTensor
from scan_laws import boxes
from scipy.spatial.transform import Rotation

from medseg.errors import ConfigError, GridError, ScanError
from medseg.geometry import Box
from medseg.scans.header import Header
from medseg.scans.memory import ArrayScan
from medseg.scans.scan import Scan
from medseg.scans.views import Normalized, Oriented, Resampled, Rescale


def scan_of(voxels, affine=None, anatomical=True, axes=None):
    """An array (C, *spatial) with an affine."""
    scan = ArrayScan(voxels, name="chest")
    axes = axes or {2: "YX", 3: "XYZ"}[voxels.ndim - 1]
    matrix = np.eye(4) if affine is None else affine
    scan.header = Header("chest", scan.shape, scan.channels, scan.dtype, axes, matrix, "mm", anatomical)
    return scan


@st.composite
def affines(draw, dims=3):
    """Axes permuted, flipped and perhaps turned; any origin; spacings from 0.3 to 5 mm."""
    spacing = [draw(st.floats(0.3, 5)) for _ in range(dims)]
    flips = [draw(st.sampled_from([-1, 1])) for _ in range(dims)]
    affine = np.eye(4)
    order = draw(st.permutations(range(dims)))
    affine[:dims, :dims] = np.eye(dims)[:, order] * np.array(spacing) * flips
    if draw(st.booleans()):
        angles = [draw(st.floats(-40, 40)) for _ in range(3)] if dims == 3 else [draw(st.floats(-180, 180)), 0, 0]
        affine[:3, :3] = Rotation.from_euler("zyx", angles, degrees=True).as_matrix() @ affine[:3, :3]
    affine[:dims, 3] = [draw(st.floats(-100, 100)) for _ in range(dims)]
    return affine


@st.composite
def scans(draw, dims=3, dtypes=(np.float32, np.int16, np.uint8)):
    """A small scan with random voxels."""
    shape = draw(st.tuples(st.integers(1, 2), *[st.integers(1, 9)] * dims))
    dtype = draw(st.sampled_from(dtypes))
    voxels = np.random.default_rng(draw(st.integers(0, 99))).normal(60, 30, shape).clip(0, 255).astype(dtype)
    return scan_of(voxels, draw(affines(dims)))


def meta(scan):
    """The whole scan as MONAI's."""
    dims = len(scan.shape)
    keep = [*range(dims), 3]
    voxels = torch.from_numpy(scan.read(Box.of(scan.shape)).astype(np.float64))
    return MetaTensor(voxels, affine=torch.from_numpy(scan.affine[np.ix_(keep, keep)]))


def monai_of(transform, scan):
    """What MONAI makes of the whole scan, and its affine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = transform(meta(scan))
    return out.numpy(), out.affine.numpy()


class TestOriented:
    @given(scan=scans(), codes=st.sampled_from(["RAS", "LPS", "SAR", "PIL"]), data=st.data())
    def test_equals_monai(self, scan, codes, data):
        view = Oriented(scan, codes)
        whole, affine = monai_of(mt.Orientation(axcodes=codes), scan)
        assert view.shape == whole.shape[1:] and view.dtype == scan.dtype and isinstance(view, Scan)
        np.testing.assert_allclose(view.affine, affine, atol=1e-9)
        for box in [Box.of(view.shape), data.draw(boxes(view.shape))]:
            np.testing.assert_array_equal(view.read(box), whole[(slice(None), *box.slices)])

    @given(scan=scans())
    def test_a_voxel_keeps_its_place(self, scan):
        view = Oriented(scan)
        places = np.array([[*np.unravel_index(i, view.shape), 1] for i in range(math.prod(view.shape))]).T
        own = (np.linalg.inv(scan.affine) @ view.affine @ places).round().astype(int)[:3]
        values = scan.read(Box.of(scan.shape))[(slice(None), *own)]
        np.testing.assert_array_equal(view.read(Box.of(view.shape)).reshape(scan.channels, -1), values)

    def test_names_the_axes_in_their_new_order(self):
        affine = np.array([[0, 0, 2.0, 0], [1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
        view = Oriented(scan_of(np.zeros((1, 2, 3, 4)), affine))
        assert (view.axes, view.shape, view.spacing_mm) == ("ZXY", (4, 2, 3), (2.0, 1.0, 1.0))

    @pytest.mark.parametrize(
        ("scan", "codes", "message"),
        [
            (scan_of(np.zeros((1, 2, 3, 4)), anatomical=False), "RAS", "does not say how a patient lies"),
            (scan_of(np.zeros((1, 2, 3))), "RAS", "2 axes"),
            (scan_of(np.zeros((1, 2, 3, 4))), "RAR", "three directions"),
            (scan_of(np.zeros((1, 2, 3, 4))), "RASL", "three directions"),
            (scan_of(np.zeros((1, 2, 3, 4))), "XYZ", "three directions"),
        ],
    )
    def test_refuses(self, scan, codes, message):
        with pytest.raises(GridError, match=message):
            Oriented(scan, codes)


def off_ties(scan, spacing, order):
    """Assumes that no rounding is decided by noise: not of the shape, not of the nearest voxel."""
    for n, old, new in zip(scan.shape, scan.spacing_mm, spacing, strict=True):
        assume(abs(new / old - 1) > 2e-3)
        last = (n - 1) * old / new
        assume(abs(last % 1 - 0.5) > 1e-6)
        x = np.arange(round(last) + 1) * new / old
        assume(order == "linear" or (abs(x % 1 - 0.5) > 1e-6).all())


class TestResampled:
    @pytest.mark.parametrize("order", ["linear", "nearest"])
    @pytest.mark.parametrize("dims", [2, 3])
    @given(data=st.data())
    def test_equals_monai(self, dims, order, data):
        scan = data.draw(scans(dims))
        spacing = data.draw(st.tuples(*[st.floats(0.3, 5)] * dims))
        off_ties(scan, spacing, order)
        view = Resampled(scan, spacing, order)
        mode = {"linear": "bilinear", "nearest": "nearest"}[order]
        whole, affine = monai_of(mt.Spacing(pixdim=spacing, mode=mode), scan)
        assert view.shape == whole.shape[1:] and isinstance(view, Scan)
        keep = [*range(dims), 3]
        np.testing.assert_allclose(view.affine[np.ix_(keep, keep)], affine, atol=1e-9)
        np.testing.assert_allclose(view.spacing_mm, spacing, rtol=1e-12)
        for box in [Box.of(view.shape), data.draw(boxes(view.shape))]:
            got, wanted = view.read(box), whole[(slice(None), *box.slices)]
            if order == "nearest":
                assert got.dtype == scan.dtype
                np.testing.assert_array_equal(got, wanted.astype(scan.dtype))
            else:
                assert got.dtype == np.float32
                np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-3)

    @given(data=st.data(), order=st.sampled_from(["linear", "nearest"]))
    def test_a_box_is_the_same_bytes_as_the_whole_there(self, data, order):
        scan = data.draw(scans(data.draw(st.sampled_from([2, 3]))))
        view = Resampled(scan, data.draw(st.tuples(*[st.floats(0.2, 6)] * len(scan.shape))), order)
        box = data.draw(boxes(view.shape))
        np.testing.assert_array_equal(view.read(box), view.read(Box.of(view.shape))[(slice(None), *box.slices)])

    def test_reads_no_more_than_it_needs(self):
        scan = scan_of(np.zeros((1, 100, 100), np.uint8))
        read = []
        scan._read = lambda box: read.append(box) or np.zeros((1, *box.shape), np.uint8)
        Resampled(scan, (0.5, 2.0)).read(Box((20, 10), (41, 20)))
        assert read == [Box((10, 20), (21, 39))]

    def test_of_two_equally_near_the_even_one(self):
        scan = scan_of(np.arange(5, dtype=np.uint8)[None, :, None])
        assert Resampled(scan, (0.5, 1), "nearest").read(Box((0, 0), (9, 1))).ravel().tolist() == [
            *[0, 0, 1, 2, 2, 2, 3, 4, 4]
        ]

    @given(scans(2), st.floats(-9e-4, 9e-4))
    def test_leaves_a_spacing_that_is_there(self, scan, error):
        view = Resampled(scan, [s * (1 + error) for s in scan.spacing_mm])
        assert view.grid.identity and view.shape == scan.shape
        np.testing.assert_allclose(view.affine, scan.affine, atol=1e-12)
        np.testing.assert_array_equal(view.read(Box.of(view.shape)), scan.read(Box.of(scan.shape)).astype(np.float32))

    @pytest.mark.parametrize("spacing", [(1,), (1, 0), (1, -1), (1, math.nan), (1, math.inf)])
    def test_refuses(self, spacing):
        with pytest.raises(GridError, match="does not fit it"):
            Resampled(scan_of(np.zeros((1, 2, 3))), spacing)


def whole_of(view):
    return view.read(Box.of(view.shape))


class TestNormalized:
    @given(scan=scans(), data=st.data())
    def test_equals_monai(self, scan, data):
        voxels = whole_of(scan).astype(np.float32)
        shift = voxels.mean(axis=(1, 2, 3))
        scale = voxels.std(axis=(1, 2, 3))
        view = Normalized(scan, Rescale(None, None, tuple(shift), tuple(np.where(scale == 0, 1, scale))))
        oracle = mt.NormalizeIntensity(subtrahend=shift, divisor=scale, channel_wise=True)(voxels)
        box = data.draw(boxes(scan.shape))
        got = view.read(box)
        assert got.dtype == view.dtype == np.float32 and isinstance(view, Scan)
        np.testing.assert_allclose(got, np.asarray(oracle)[(slice(None), *box.slices)], rtol=1e-4, atol=1e-5)

    def test_clips_each_channel(self):
        scan = scan_of(np.array([[[0, 5, 10]], [[0, 5, 10]]], np.int16))
        rescale = Rescale((2, 0), (8, 4), (2, 0), (6, 2))
        np.testing.assert_allclose(whole_of(Normalized(scan, rescale)), [[[0, 0.5, 1]], [[0, 2, 2]]])

    def test_large_whole_numbers_are_shifted_before_they_are_rounded(self):
        scan = scan_of(np.array([[[2**30, 2**30 + 1]]], np.int32))
        np.testing.assert_array_equal(whole_of(Normalized(scan, Rescale(None, None, (2**30,), (1,)))), [[[0, 1]]])

    def test_source_is_not_changed(self):
        voxels = np.full((1, 2, 2), 3, np.float32)
        whole_of(Normalized(scan_of(voxels), Rescale((0,), (1,), (1,), (1,))))
        assert (voxels == 3).all()

    def test_refuses_another_number_of_channels(self):
        with pytest.raises(GridError, match="1 channels; the normalization is for 2"):
            Normalized(scan_of(np.zeros((1, 2, 2))), Rescale(None, None, (0, 0), (1, 1)))

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_names_the_voxel_that_is_not_finite(self, value):
        voxels = np.zeros((2, 4, 5, 6), np.float32)
        voxels[1, 3, 0, 2] = value
        scan = scan_of(voxels, np.diag([-1.0, 2.0, 1.0, 1.0]))
        unit = Rescale(None, None, (0,), (1,))
        for view in (scan, Oriented(scan, "PIL"), Resampled(Oriented(scan), (0.7, 1.1, 1.0))):
            with pytest.raises(ScanError, match=rf"chest has {value} at \(1, 3, 0, 2\)"):
                whole_of(Normalized(view, unit))
        Normalized(scan, unit).read(Box((0, 0, 0), (3, 5, 6)))


class TestRescale:
    @given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=3), st.booleans())
    def test_comes_back_from_json(self, numbers, clipped):
        low = tuple(numbers) if clipped else None
        rescale = Rescale(low, low, tuple(numbers), tuple(1 + n * n for n in numbers))
        assert Rescale.from_dict(json.loads(json.dumps(rescale.to_dict()))) == rescale

    @pytest.mark.parametrize(
        "content",
        [
            {},
            [],
            {"low": None, "high": None, "shift": [0], "scale": [0]},
            {"low": None, "high": None, "shift": [0], "scale": [math.nan]},
            {"low": None, "high": None, "shift": [0], "scale": [1, 1]},
            {"low": None, "high": [], "shift": [0], "scale": [1]},
            {"low": None, "high": None, "shift": 0, "scale": ["x"]},
            {"low": None, "high": None, "shift": [0], "scale": [1], "more": 1},
        ],
    )
    def test_refuses_what_is_none(self, content):
        with pytest.raises(ConfigError):
            Rescale.from_dict(content)
