import gzip
import pickle
import warnings

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scan_laws import assert_reads, assert_threads_agree, boxes, numbers

from medseg.errors import ScanError
from medseg.geometry import Box
from medseg.scans.scan import create_mask, open_scan

OBLIQUE = nib.affines.from_matvec(np.array([[-2.0, 0.3, 0.0], [0.3, 1.9, 0.4], [0.0, -0.4, 3.0]]), [10, -20, 30])
TYPES = ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]


def save(path, array, affine=OBLIQUE, kind=nib.Nifti1Image, **header):
    image = kind(array, affine, dtype=array.dtype)
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, path)
    return path


def as_read_by_nibabel(path, scan):
    """nibabel's array as (C, *shape)."""
    array = np.asanyarray(nib.load(path).dataobj)
    if array.dtype.names:
        array = np.stack([array[name] for name in array.dtype.names], -1)
    return np.moveaxis(array.reshape(*scan.shape, scan.channels), -1, 0)


def assert_as_nibabel(path, *boxes_to_read, anatomical=True):
    scan = open_scan(path)
    assert_reads(scan, as_read_by_nibabel(path, scan), boxes_to_read)
    np.testing.assert_allclose(scan.affine, nib.load(path).affine)
    assert scan.anatomical == anatomical and scan.axes == "XYZ"[: len(scan.shape)]
    return scan


@given(
    st.data(),
    st.sampled_from(TYPES),
    st.sampled_from([".nii", ".nii.gz"]),
    st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]),
    st.sampled_from([(5, 6), (5, 6, 7), (5, 6, 1), (5, 6, 7, 3), (4, 3, 2, 1, 3), (5, 6, 7, 1, 1), (3, 1, 1, 1)]),
    st.sampled_from([None, (2.5, -7.0), (1.0, 3.0)]),
)
def test_boxes_are_nibabels_slices(tmp_path_factory, data, dtype, suffix, kind, shape, scaling):
    path = tmp_path_factory.mktemp("nifti") / f"a{suffix}"
    array = numbers(shape, dtype)
    image = kind(array, OBLIQUE, dtype=array.dtype)
    if scaling:
        image.header.set_slope_inter(*scaling)
    nib.save(image, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert_as_nibabel(path, data.draw(boxes(shape[:3])))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".img", ".hdr"])
def test_big_endian_and_pairs(tmp_path, suffix):
    kind = nib.Nifti1Image if "nii" in suffix else nib.Nifti1Pair
    image = kind(numbers((4, 5, 6), "i2"), OBLIQUE, kind.header_class(endianness=">"))
    image.set_data_dtype(">i2")
    nib.save(image, tmp_path / f"a{suffix}")
    assert_as_nibabel(tmp_path / f"a{suffix}", Box((1, 2, 3), (3, 4, 6)))


def test_colours_are_channels(tmp_path):
    rgb = np.zeros((4, 5, 6), [(c, "u1") for c in "RGB"])
    for n, name in enumerate("RGB"):
        rgb[name] = numbers((4, 5, 6), "u1", seed=n)
    scan = assert_as_nibabel(save(tmp_path / "a.nii", rgb), Box((1, 1, 1), (3, 3, 3)))
    assert (scan.channels, scan.dtype) == (3, np.uint8)


@pytest.mark.parametrize(("code", "unit", "millimetres"), [(0, "mm", 1), (2, "mm", 1), (3, "um", 1e-3), (1, "m", 1e3)])
def test_the_affine_is_in_millimetres(tmp_path, code, unit, millimetres):
    affine = np.diag([0.5, 0.5, 2, 1])
    scan = open_scan(save(tmp_path / "a.nii", numbers((3, 4, 5), "u1"), affine, xyzt_units=code | 8))
    assert scan.unit == unit
    assert scan.assumes_unit == (code == 0)
    assert scan.spacing_mm == pytest.approx([0.5 * millimetres, 0.5 * millimetres, 2 * millimetres])


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 2), (1, 2)])
def test_sform_and_qform_by_nibabels_rules(tmp_path, codes):
    image = nib.Nifti1Image(numbers((3, 4, 5), "u1"), None)
    image.header["pixdim"][1:4] = 2, 3, 4
    image.set_sform(OBLIQUE, codes[0], update_affine=False)
    image.set_qform(np.diag([-2, 3, 4, 1]), codes[1], update_affine=False)
    nib.save(image, tmp_path / "a.nii")
    scan = assert_as_nibabel(tmp_path / "a.nii", anatomical=any(codes))
    assert (scan.second_affine is None) == (not all(codes))
    if all(codes):
        np.testing.assert_allclose(scan.second_affine, image.get_qform())


def test_a_mask_of_a_scan_that_does_not_say_how_the_patient_lies_says_as_little(tmp_path):
    path = save(tmp_path / "a.nii", numbers((3, 4, 5), "u1"), None)
    scan = open_scan(path)
    sink = create_mask(tmp_path / "b.nii", like=scan, dtype=np.uint8)
    sink.write(Box.of(scan.shape), np.zeros(scan.shape, np.uint8))
    sink.close()
    mask = open_scan(tmp_path / "b.nii")
    assert not mask.anatomical and mask.assumes_unit
    np.testing.assert_array_equal(mask.affine, scan.affine)
    assert not nib.load(tmp_path / "b.nii").header.extensions


def test_a_qform_that_is_no_rotation_is_no_second_place(tmp_path):
    for quaternion in (2.0, np.nan):
        path = save(tmp_path / "a.nii", numbers((3, 4, 5), "u1"), qform_code=1, quatern_b=quaternion)
        assert open_scan(path).second_affine is None


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_threads_and_processes(tmp_path, suffix):
    array = numbers((40, 50, 60), "i2")
    scan = open_scan(save(tmp_path / f"a{suffix}", array))
    assert_threads_agree(scan, array[None])
    assert_reads(pickle.loads(pickle.dumps(scan)), array[None], [])


def test_a_gzip_of_several_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("medseg.scans.gz.LEAST_BLOCK_BYTES", 40_000)
    monkeypatch.setattr("medseg.scans.cache.PIECES.budget", 90_000)
    array = numbers((40, 50, 60), "i2")
    scan = open_scan(save(tmp_path / "a.nii.gz", array))
    assert_reads(
        scan, array[None], [Box((3, 4, 50), (30, 9, 60)), Box((0, 0, 2), (40, 50, 3)), Box((9, 9, 9), (10, 10, 60))]
    )


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_file_that_is_cut_short(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}", numbers((30, 30, 30), "i2"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ScanError, match=r"cut short.* 54352 bytes") as error:
        open_scan(path).read(Box.of((30, 30, 30)))
    assert str(path) in str(error.value)


def test_a_stream_that_holds_less_than_its_header_says(tmp_path):
    path = save(tmp_path / "a.nii", numbers((30, 30, 30), "i2"))
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(path.read_bytes()[:-10]))
    scan = open_scan(tmp_path / "b.nii.gz")
    with pytest.raises(ScanError, match="cut short"):
        scan.read(Box((29, 29, 29), (30, 30, 30)))


BAD = {
    "complex": (lambda p: save(p, numbers((3, 4, 5), "f4").astype(complex)), "complex"),
    "two long axes": (lambda p: save(p, numbers((3, 4, 5, 2, 2), "u1")), "at most one axis"),
    "one axis": (lambda p: save(p, numbers((9,), "u1")), "two or three axes"),
    "nan spacing": (lambda p: save(p, numbers((3, 4, 5), "u1"), None, pixdim=[1, np.nan, 1, 1, 1, 1, 1, 1]), "finite"),
    "singular": (lambda p: save(p, numbers((3, 4, 5), "u1"), None, sform_code=1, srow_x=[1, 1, 0, 0]), "singular"),
    "nan affine": (lambda p: save(p, numbers((3, 4, 5), "u1"), None, sform_code=1, srow_x=[np.nan] * 4), "finite"),
    "ANALYZE": (
        lambda p: nib.save(nib.AnalyzeImage(numbers((3, 4, 5), "u1"), np.eye(4)), p.with_suffix(".img")),
        "Analyze",
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", BAD)
def test_what_is_no_image_is_refused(tmp_path, capfd, case):
    make, words = BAD[case]
    path = tmp_path / "a.nii"
    make(path)
    path = path if path.exists() else path.with_suffix(".hdr")
    with pytest.raises(ScanError, match=words) as error:
        open_scan(path)
    assert str(path) in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_half_a_pair_is_refused(tmp_path):
    nib.save(nib.Nifti1Pair(numbers((3, 4, 5), "u1"), OBLIQUE), tmp_path / "a.img")
    (tmp_path / "a.img").unlink()
    with pytest.raises(ScanError, match=r"a\.hdr: its other half a\.img is missing"):
        open_scan(tmp_path / "a.hdr")


def test_names_of_patients_stay_in_the_file(tmp_path):
    source = save(
        tmp_path / "a.nii", numbers((3, 4, 5), "u1"), descrip=b"DOE^JANE", aux_file=b"DOE^JANE", db_name=b"DOE^JANE"
    )
    sink = create_mask(tmp_path / "mask.nii", open_scan(source))
    sink.close()
    assert b"DOE" in source.read_bytes()
    assert b"DOE" not in (tmp_path / "mask.nii").read_bytes()


def test_a_mask_keeps_what_the_header_says_of_the_grid(tmp_path):
    image = nib.Nifti1Image(numbers((3, 4, 5, 2), "i2"), OBLIQUE)
    image.set_sform(OBLIQUE, 4)
    image.set_qform(nib.affines.from_matvec(np.diag([-2, 3, 4]), [1, 2, 3]), 1)
    image.header.set_xyzt_units("micron", "sec")
    image.header.set_slope_inter(2, 1)
    nib.save(image, tmp_path / "a.nii.gz")
    create_mask(tmp_path / "mask.nii.gz", open_scan(tmp_path / "a.nii.gz"), dtype=np.uint16).close()
    mask, source = nib.load(tmp_path / "mask.nii.gz"), nib.load(tmp_path / "a.nii.gz")
    assert mask.shape == (3, 4, 5) and mask.get_data_dtype() == np.uint16
    np.testing.assert_array_equal(mask.affine, source.affine)
    for form in ("get_sform", "get_qform"):
        for a, b in zip(getattr(mask, form)(coded=True), getattr(source, form)(coded=True), strict=True):
            np.testing.assert_array_equal(a, b)
    assert mask.header.get_xyzt_units()[0] == "micron"
    assert mask.dataobj.slope == 1 and mask.dataobj.inter == 0


@pytest.mark.filterwarnings("ignore")
def test_awkward_files_open_truly_or_are_refused(real_data, capfd):
    opened = set()
    for path in sorted((real_data / "nifti_awkward" / "nibabel").iterdir()):
        try:
            assert_as_nibabel(path)
            opened.add(path.name)
        except ScanError as error:
            assert str(error).startswith(str(path)) and len(str(error)) < 500
    assert {
        "anatomical.nii",
        "functional.nii",
        "example4d.nii.gz",
        "example_nifti2.nii.gz",
        "standard.nii.gz",
    } <= opened
    assert len(opened) == 7
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "name", ["totalseg_reference/*.nii.gz", "ivadomed_testing/**/*.nii.gz", "sct_testing/**/*.nii.gz"]
)
def test_real_files(real_data, name):
    for path in sorted(real_data.glob(name)):
        assert_as_nibabel(path, Box((1, 2, 0), (9, 7, 1)))
