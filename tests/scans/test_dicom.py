"""Where DICOM scans lie and what they hold."""

import pickle

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import (
    AXIAL,
    CT,
    LPS,
    MR,
    RADIOGRAPH,
    dataset,
    ds,
    enhanced,
    functional,
    placed,
    tilted,
    write,
    write_series,
    zipped,
)
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian
from scan_laws import assert_reads, assert_threads_agree, grid_boxes, numbers
from scipy.spatial.transform import Rotation

from medseg import open_scan
from medseg.geometry import Box
from medseg.scans.dicom_facts import SeriesChoice
from medseg.scans.info import describe
from medseg.scans.views import Oriented, Resampled

OBLIQUE = np.array([[-0.9, 0.1, 0.2, 30], [0.2, -0.8, 0.6, 40], [0.1, 0.3, 2.4, -50], [0, 0, 0, 1]])


def whole(scan):
    return scan.read(Box.of(scan.shape))


def straight(affine):
    """The affine with perpendicular axes: the nearest rotation of its first two, and their normal."""
    made = affine.copy()
    x, y = (made[:3, a] / np.linalg.norm(made[:3, a]) for a in (0, 1))
    y = y - (x @ y) * x
    y /= np.linalg.norm(y)
    made[:3, :3] = np.stack([x * 0.9, y * 0.8, np.cross(x, y) * 2.4], axis=1)
    return made


@st.composite
def geometries(draw):
    """An affine of perpendicular rows and columns and of slices that may lean, and a shape."""
    turn = Rotation.random(random_state=draw(st.integers(0, 2**31))).as_matrix()
    x_mm, y_mm, z_mm = (draw(st.floats(0.2, 6)) for _ in range(3))
    lean = np.array([draw(st.floats(-0.7, 0.7)), draw(st.floats(-0.7, 0.7)), 1.0]) * z_mm
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = turn[:, 0] * x_mm, turn[:, 1] * y_mm, turn @ lean
    if np.linalg.det(LPS[:3, :3] @ affine[:3, :3]) < 0:
        affine[:3, 2] *= -1
    affine[:3, 3] = [draw(st.floats(-500, 500)) for _ in range(3)]
    return affine, tuple(draw(st.integers(2, 5)) for _ in range(3)), draw(st.integers(0, 2**31))


@given(geometries())
def test_any_orientation_spacing_and_lean_is_told_truly_whatever_the_names(tmp_path_factory, geometry):
    affine, shape, seed = geometry
    names = [f"{n}.dcm" for n in np.random.default_rng(seed).permutation(shape[2])]
    volume = numbers(shape, "i2", seed)
    scan = open_scan(write_series(tmp_path_factory.mktemp("series"), volume, affine, names=names))
    assert (scan.axes, scan.unit, scan.anatomical) == ("XYZ", "mm", True)
    np.testing.assert_allclose(scan.affine, affine, atol=1e-6)
    assert_reads(scan, volume[None], grid_boxes(shape, (2, 3, 2)))


def test_a_straight_series_lies_where_simpleitk_says(tmp_path):
    volume = numbers((7, 6, 5), "i2")
    folder = write_series(tmp_path / "s", volume, straight(OBLIQUE), RescaleSlope="2", RescaleIntercept="-7")
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    theirs = sitk.ReadImage(files)
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(theirs.GetDirection(), (3, 3)) * theirs.GetSpacing()
    lps[:3, 3] = theirs.GetOrigin()
    scan = open_scan(folder)
    np.testing.assert_allclose(scan.affine, LPS @ lps, atol=1e-4)
    np.testing.assert_array_equal(whole(scan)[0], sitk.GetArrayFromImage(theirs).T)


def test_a_tilted_phantom_is_where_it_was_through_every_view(tmp_path):
    """The phantom is a plane wave in the world that linear interpolation reproduces: f = a + b · world."""
    affine, slope, shape = tilted(), 0.01, (20, 24, 9)
    gradient = np.array([0.7, -1.1, 0.9])
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) @ affine[:3, :3].T + affine[:3, 3]
    stored = np.rint((places @ gradient) / slope).astype(np.int16)
    folder = write_series(tmp_path / "tilted", stored, affine, RescaleSlope=str(slope), RescaleIntercept="0")
    scan = open_scan(folder)
    assert describe(scan)["tilt_deg"] == pytest.approx(18, abs=1e-3)
    for view in (scan, Oriented(scan, "RAS"), Resampled(Oriented(scan, "RAS"), (1.3, 0.8, 1.7))):
        voxels = np.stack(np.meshgrid(*map(np.arange, view.shape), indexing="ij"), -1)
        where = voxels @ view.affine[:3, :3].T + view.affine[:3, 3]
        in_scan = (where - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
        inside = (in_scan < np.array(shape) - 1 + 1e-6).all(-1) & (in_scan > -1e-6).all(-1)
        assert inside.mean() > 0.8
        np.testing.assert_allclose(whole(view)[0][inside], (where @ gradient)[inside], atol=slope)


def test_the_directions_of_rows_and_columns_are_not_mixed_up(tmp_path):
    volume = numbers((4, 3, 2), "u2")
    made = [
        dataset(volume[:, :, k].T.copy(), **placed((10, 20, 30 + 2 * k), AXIAL, spacing=(3.5, 2.5))) for k in range(2)
    ]
    for k, one in enumerate(made):
        write(tmp_path / "s" / f"{k}.dcm", one)
    scan = open_scan(tmp_path / "s")
    assert scan.shape == (4, 3, 2) and scan.spacing_mm == (2.5, 3.5, 2)  # PixelSpacing: between rows, between columns
    np.testing.assert_array_equal(scan.affine @ [1, 2, 1, 1], [-10 - 2.5, -20 - 7, 32, 1])


def test_each_slice_has_its_own_scale(tmp_path):
    volume = numbers((4, 3, 3), "u2")
    slopes, intercepts = np.array([0.5, 2.25, 1.0]), np.array([0.0, -3.5, 10.0])

    def edit(k, made):
        made.RescaleSlope, made.RescaleIntercept = ds(slopes[k], intercepts[k])

    scan = open_scan(write_series(tmp_path / "s", volume, tilted(), edit=edit, sop=MR))
    assert scan.dtype == np.float32
    assert_reads(scan, (volume * slopes + intercepts).astype(np.float32)[None], [])


@pytest.mark.parametrize(
    ("stored", "bits", "slope", "intercept", "dtype"),
    [
        ("u2", 12, "1", "-1024", "i2"),
        ("u2", 16, "1", "-1024", "i4"),
        ("i2", 16, "1", "0", "i2"),
        ("i2", 12, "1", "-1024", "i2"),
        ("u1", 8, "1", "0", "u1"),
        ("u1", 8, "2", "0", "i2"),
        ("u1", 8, "-1", "255", "u1"),
        ("u2", 16, "1", "-32768", "i2"),
        ("u2", 12, "-1", "0", "i2"),
        ("i4", 32, "1", "0", "i4"),
        ("u4", 32, "3", "1", "f8"),
        ("i2", 12, "0.25", "0", "f4"),
    ],
)
def test_whole_scales_give_the_least_integers_that_hold_all_values(tmp_path, stored, bits, slope, intercept, dtype):
    info = np.iinfo(stored)
    ends = [0, (1 << bits) - 1] if info.min == 0 else [-(1 << (bits - 1)), (1 << (bits - 1)) - 1]
    pixels = np.array([[*ends, 1], [2, 3, 5]], stored)
    made = dataset(pixels, bits=bits, RescaleSlope=slope, RescaleIntercept=intercept, **placed((0, 0, 0)))
    scan = open_scan(write(tmp_path / "a.dcm", made))
    assert scan.dtype == np.dtype(dtype)
    expected = pixels.astype(np.float64) * float(slope) + float(intercept)
    np.testing.assert_array_equal(whole(scan)[0], expected)


@pytest.mark.parametrize("stored", ["u2", "i2", "u1"])
def test_bits_that_are_not_stored_are_dropped_and_the_sign_is_extended(tmp_path, stored):
    bits = np.dtype(stored).itemsize * 8
    low = -(1 << (bits - 5)) if stored == "i2" else 0
    values = np.arange(low, low + 16).reshape(4, 4).astype(stored)
    kept = values & np.array((1 << (bits - 4)) - 1).astype(stored)
    rubbish = kept | np.array(0b101 << (bits - 4)).astype(stored)
    made = dataset(rubbish, bits=bits - 4, **placed((0, 0, 0)))
    np.testing.assert_array_equal(whole(open_scan(write(tmp_path / "a.dcm", made)))[0], values)


def test_the_stored_bits_need_not_be_the_lowest(tmp_path):
    values = np.arange(24, dtype=np.uint16).reshape(4, 6)
    made = dataset(values << 4, bits=12, **placed((0, 0, 0)))
    made.HighBit = 15
    np.testing.assert_array_equal(whole(open_scan(write(tmp_path / "a.dcm", made)))[0], values)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2"])
def test_a_radiograph_whose_smallest_value_is_white_is_turned_round_and_a_ct_is_not(tmp_path, dtype):
    pixels = numbers((5, 4), dtype)
    radiograph = write(tmp_path / "dx.dcm", dataset(pixels, sop=RADIOGRAPH, photometric="MONOCHROME1"))
    scan = open_scan(radiograph)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    np.testing.assert_array_equal(whole(scan)[0], (low + high - pixels.astype(np.int64)).astype(dtype))
    np.testing.assert_array_equal(whole(scan)[0], sitk.GetArrayFromImage(sitk.ReadImage(str(radiograph)))[0])
    ct = write(tmp_path / "ct.dcm", dataset(pixels, sop=CT, photometric="MONOCHROME1", **placed((0, 0, 0))))
    np.testing.assert_array_equal(whole(open_scan(ct))[0], pixels)


def test_a_single_slice_is_a_picture_that_lies_in_the_world(tmp_path):
    pixels = numbers((5, 4), "i2")
    scan = open_scan(write(tmp_path / "a.dcm", dataset(pixels, **placed((10, 20, 30), AXIAL[::-1], (2, 3)))))
    assert (scan.shape, scan.axes, scan.anatomical, scan.spacing_mm) == ((5, 4), "YX", True, (2, 3))
    np.testing.assert_array_equal(whole(scan)[0], pixels)
    np.testing.assert_array_equal(scan.affine @ [1, 0, 0, 1], [-10 - 2, -20, 30, 1])
    np.testing.assert_array_equal(scan.affine @ [0, 1, 0, 1], [-10, -20 - 3, 30, 1])


@pytest.mark.parametrize(
    ("elements", "unit", "spacing"),
    [
        ({}, "pixel", (1, 1)),
        ({"PixelSpacing": ["0.2", "0.3"]}, "mm", (0.2, 0.3)),
        ({"ImagerPixelSpacing": ["0.2", "0.3"]}, "mm", (0.2, 0.3)),
        ({"PixelSpacing": ["0.2", "0.3"], "ImagerPixelSpacing": ["9", "9"]}, "mm", (0.2, 0.3)),
    ],
)
def test_a_radiograph_does_not_say_how_the_patient_lies(tmp_path, elements, unit, spacing):
    pixels = numbers((5, 4), "u2")
    scan = open_scan(write(tmp_path / "a.dcm", dataset(pixels, sop=RADIOGRAPH, **elements)))
    assert (scan.axes, scan.anatomical, scan.unit, scan.spacing_mm) == ("YX", False, unit, spacing)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_an_enhanced_image_is_sorted_by_the_places_of_its_frames(tmp_path, order):
    volume = numbers((5, 4, 4), "u2")
    scan = open_scan(write(tmp_path / "a.dcm", enhanced(volume, tilted(), order)))
    np.testing.assert_allclose(scan.affine, tilted(), atol=1e-6)
    assert_reads(scan, volume[None], grid_boxes(volume.shape, (2, 2, 3)))


def test_frames_may_say_for_themselves_what_others_share(tmp_path):
    volume = numbers((5, 4, 3), "u2")
    made = enhanced(volume, tilted())
    (shared,) = made.SharedFunctionalGroupsSequence
    for n, frame in enumerate(made.PerFrameFunctionalGroupsSequence):
        frame.update(shared)
        frame.update(
            functional(PixelValueTransformationSequence={"RescaleSlope": str(n + 1), "RescaleIntercept": str(-n)})
        )
    del made.SharedFunctionalGroupsSequence
    scan = open_scan(write(tmp_path / "a.dcm", made))
    expected = volume.astype(np.int64) * [1, 2, 3] - [0, 1, 2]
    np.testing.assert_array_equal(whole(scan)[0], expected)
    np.testing.assert_allclose(scan.affine, tilted(), atol=1e-6)


def test_several_enhanced_files_of_one_series_are_one_volume(tmp_path):
    volume, affine = numbers((5, 4, 6), "u2"), tilted()
    further = affine.copy()
    further[:3, 3] += 3 * affine[:3, 2]
    write(tmp_path / "s" / "b", enhanced(volume[..., :3], affine))
    write(tmp_path / "s" / "a", enhanced(volume[..., 3:], further))
    scan = open_scan(tmp_path / "s")
    np.testing.assert_allclose(scan.affine, affine, atol=1e-6)
    np.testing.assert_array_equal(whole(scan)[0], volume)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_implicit_and_big_endian_files_are_read_alike(tmp_path, syntax):
    volume = numbers((5, 4, 3), "i2")
    scan = open_scan(write_series(tmp_path / "s", volume, tilted(), syntax=syntax))
    np.testing.assert_allclose(scan.affine, tilted(), atol=1e-6)
    assert_reads(scan, volume[None], grid_boxes(volume.shape, (2, 3, 2)))
    volume = numbers((5, 3, 3), "u1")
    scan = open_scan(write_series(tmp_path / "bytes", volume, tilted(), syntax=ImplicitVRLittleEndian))
    np.testing.assert_array_equal(whole(scan)[0], volume)


def test_gzipped_files_and_files_without_a_suffix_are_read(tmp_path):
    volume = numbers((5, 4, 3), "i2")
    folder = write_series(tmp_path / "s", volume, tilted(), names=["I10", "I20", "I30"])
    assert_reads(open_scan(folder), volume[None], [])
    assert open_scan(folder / "I20").shape == (4, 5)
    for path in list(folder.iterdir()):
        zipped(path)
    assert_reads(open_scan(folder), volume[None], [])
    many = zipped(write(tmp_path / "many.dcm", enhanced(volume, tilted())))
    assert_reads(open_scan(many), volume[None], grid_boxes(volume.shape, (2, 2, 2)))


def test_its_copy_in_another_process_is_the_same_choice(tmp_path):
    volume = numbers((5, 4, 6), "i2")
    edit = lambda k, made: setattr(made, "EchoTime", str(1 + k % 2))  # noqa: E731
    folder = write_series(tmp_path / "s", volume, tilted(), edit=edit)
    chosen = open_scan(folder, series=SeriesChoice.parse(None, "EchoTime=2"))
    copy = pickle.loads(pickle.dumps(chosen))
    assert copy.files == chosen.files and len(copy.files) == 3
    np.testing.assert_array_equal(whole(copy)[0], volume[..., 1::2])
    np.testing.assert_array_equal(copy.affine, chosen.affine)


def test_threads_may_read_at_once(tmp_path):
    volume = numbers((9, 8, 7), "i2")
    assert_threads_agree(open_scan(write_series(tmp_path / "s", volume, tilted())), volume[None])


def test_only_the_slices_of_a_box_are_opened(tmp_path):
    volume = numbers((5, 4, 6), "i2")
    folder = write_series(tmp_path / "s", volume, tilted())
    scan = open_scan(folder)
    for k in (0, 1, 4, 5):
        (folder / f"{k}.dcm").unlink()
    np.testing.assert_array_equal(scan.read(Box((1, 0, 2), (4, 3, 4)))[0], volume[1:4, 0:3, 2:4])


def test_real_series_lie_where_their_headers_say(real_data):
    import pydicom

    for folder in ("dicom_mr/Study1/13_HCropVolume", "dicom_awkward/torchio_ct", "dicom_seg_rt/rt_utils/oriented_data"):
        headers = [pydicom.dcmread(p) for p in sorted((real_data / folder).glob("*.dcm"))]
        row, column = np.reshape(headers[0].ImageOrientationPatient, (2, 3)).astype(float)
        headers.sort(key=lambda h: np.cross(row, column) @ np.array(h.ImagePositionPatient, float))
        scan = open_scan(real_data / folder)
        voxels = np.stack([pydicom.pixels.apply_modality_lut(h.pixel_array, h) for h in headers])
        np.testing.assert_allclose(whole(scan)[0], voxels.T, rtol=1e-6)
        between_rows, between_columns = map(float, headers[0].PixelSpacing)
        for i, j, k in [(0, 0, 0), (3, 2, len(headers) - 1)]:
            place = (
                np.array(headers[k].ImagePositionPatient, float) + i * row * between_columns + j * column * between_rows
            )
            np.testing.assert_allclose((scan.affine @ [i, j, k, 1])[:3], place * [-1, -1, 1], atol=1e-3)
