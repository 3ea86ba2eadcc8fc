"""DICOM SEG, written and read: the same voxels, valid objects, nothing drawn."""

import pickle
import shutil
import subprocess

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_files import RADIOGRAPH, dataset, enhanced, placed, tilted, write, write_series, zipped
from highdicom.seg import SegmentDescription
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.sr.codedict import codes

from medseg import open_scan
from medseg.datasets.check import open_label
from medseg.errors import OutputError, ScanError
from medseg.geometry import Box
from medseg.scans.dicom_labels import sets_of
from medseg.scans.dicom_seg import SegFile, own_grid, planes_of
from medseg.scans.dicom_seg_looks import look_of
from medseg.scans.scan import create_mask
from medseg.scans.segments import Code, Segment, Segmentation, SegmentLook, short_names
from medseg.scans.views import Cropped

PLAIN = np.diag([0.7, 0.8, 2.5, 1.0])
LIVER = SegmentLook(code="SCT 10200004 Liver", color="#dd8265")
ABOUT = Segmentation(
    (Segment("liver", (5,), 0, LIVER), Segment("tumour", (7,), 1, SegmentLook())), "medseg unet", "1.2", "ab" * 32
)
NESTED = Segmentation(
    (Segment("whole", (1, 2), 0, SegmentLook()), Segment("core", (2, 3), 1, SegmentLook())), "medseg", "1", "cd" * 32
)
NESTED_TABLE = ((("whole",), 1), (("core", "whole"), 2), (("core",), 3))


@pytest.fixture
def series(tmp_path):
    """Eight slices of 12 columns and 10 rows, their gantry tilted."""
    volume = np.arange(12 * 10 * 8, dtype=np.int16).reshape(12, 10, 8)
    elements = {"PatientName": "Ünïcode^Ä", "SpecificCharacterSet": "ISO_IR 100", "FrameOfReferenceUID": "1.2.9"}
    return write_series(tmp_path / "series", volume, tilted(), StudyDate="20200102", **elements)


def whole(scan):
    return scan.read(Box.of(scan.shape))


def labels_like(scan, values, seed=0):
    """Values here and there, and no voxel in the first and the last slice."""
    found = np.random.default_rng(seed).choice([0, 0, *values], scan.shape).astype(np.uint8)
    if found.ndim == 3:
        found[..., 0] = found[..., -1] = 0
    return found


def save(path, scan, voxels, about=ABOUT, **how):
    sink = create_mask(path, scan, segmentation=about, overwrite=True, **how)
    sink.write(Box.of(scan.shape), voxels)
    sink.close()
    return path


def by_highdicom(path, scan):
    """(frames, rows, columns, segments) as highdicom reads them, in the order of the scan's slices."""
    seg = highdicom.seg.segread(path)
    how = {"assert_missing_frames_are_empty": True, "rescale_fractional": False}
    headers = {f: pydicom.dcmread(f, stop_before_pixels=True) for f in scan.files}
    if len(scan.files) < len(scan.frames):
        numbers = [frame.number + 1 for frame in scan.frames]
        return seg.get_pixels_by_source_frame(headers[scan.files[0]].SOPInstanceUID, numbers, **how)
    return seg.get_pixels_by_source_instance([headers[f].SOPInstanceUID for f in scan.files], **how)


def planes(voxels):
    """(X, Y, Z) → (Z, Y, X)."""
    return voxels.transpose(2, 1, 0) if voxels.ndim == 3 else voxels[None]


def test_what_is_written_is_what_highdicom_and_medseg_read(series, tmp_path):
    scan = open_scan(series)
    voxels = labels_like(scan, (5, 7))
    path = save(tmp_path / "mask.dcm", scan, voxels)
    read = by_highdicom(path, scan)
    np.testing.assert_array_equal(read[..., 0], planes(voxels) == 5)
    np.testing.assert_array_equal(read[..., 1], planes(voxels) == 7)
    table = ((("liver",), 5), (("tumour",), 7))
    again = open_label(path, scan, table)
    np.testing.assert_array_equal(whole(again)[0], voxels)
    np.testing.assert_array_equal(whole(pickle.loads(pickle.dumps(again)))[0], voxels)
    numbered = open_label(path, scan)
    np.testing.assert_array_equal(whole(numbered)[0], np.searchsorted([5, 7], voxels, "left") + 1 - (voxels == 0))


@settings(max_examples=12)
@given(st.data())
def test_any_box_of_overlapping_segments_on_any_grid(tmp_path_factory, data):
    shape = tuple(data.draw(st.integers(1 + (a == 2), 9)) for a in range(3))
    affine = data.draw(st.sampled_from([PLAIN, tilted(), np.diag([-1.0, -1, 3, 1])]))
    voxels = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 4, shape).astype(np.uint8)
    folder = tmp_path_factory.mktemp("any")
    scan = open_scan(write_series(folder / "s", np.zeros(shape, np.int16), affine))
    path = save(folder / "mask.dcm", scan, voxels, NESTED)
    labels = open_label(path, scan, NESTED_TABLE)
    start = [data.draw(st.integers(0, n)) for n in shape]
    box = Box(tuple(start), tuple(data.draw(st.integers(a, n)) for a, n in zip(start, shape, strict=True)))
    np.testing.assert_array_equal(labels.read(box)[0], voxels[box.slices])


def test_a_turned_grid_reads_the_same_voxels(series, tmp_path):
    scan = open_scan(series)
    voxels = labels_like(scan, (5, 7))
    path = save(tmp_path / "mask.dcm", scan, voxels)

    class Turned:
        """The same voxels, axes (Z, X, Y), the second one the other way round."""

        name, axes, unit, anatomical, channels = "turned", "ZXY", "mm", True, 1
        shape = (scan.shape[2], scan.shape[0], scan.shape[1])
        affine = scan.affine @ np.array([[0, -1, 0, scan.shape[0] - 1], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])

    read = whole(open_label(path, Turned(), ((("liver",), 5), (("tumour",), 7))))
    np.testing.assert_array_equal(read[0], voxels.transpose(2, 0, 1)[:, ::-1])


def test_the_same_input_gives_the_same_bytes_and_another_mask_another_object(series, tmp_path):
    scan = open_scan(series)
    paths = [save(tmp_path / f"{n}.dcm", scan, labels_like(scan, (5, 7), seed)) for n, seed in enumerate((0, 0, 1))]
    first, second, other = (path.read_bytes() for path in paths)
    assert first == second != other
    one, another = (pydicom.dcmread(path) for path in paths[1:])
    assert one.SOPInstanceUID != another.SOPInstanceUID
    assert one.SeriesInstanceUID == another.SeriesInstanceUID


def test_it_says_what_it_is_of_and_who_made_it(series, tmp_path):
    scan = open_scan(series)
    made = pydicom.dcmread(save(tmp_path / "mask.dcm", scan, labels_like(scan, (5, 7))))
    source = pydicom.dcmread(scan.files[0])
    assert str(made.PatientName) == "Ünïcode^Ä"
    assert (made.ContentDate, made.StudyInstanceUID) == ("20200102", source.StudyInstanceUID)
    (referred,) = made.ReferencedSeriesSequence
    assert referred.SeriesInstanceUID == source.SeriesInstanceUID
    uids = {pydicom.dcmread(f).SOPInstanceUID for f in scan.files}
    assert {item.ReferencedSOPInstanceUID for item in referred.ReferencedInstanceSequence} == uids
    assert {item.ReferencedSOPClassUID for item in referred.ReferencedInstanceSequence} == {source.SOPClassUID}
    liver, tumour = made.SegmentSequence
    assert (liver.SegmentLabel, liver.SegmentedPropertyTypeCodeSequence[0].CodeValue) == ("liver", "10200004")
    assert tumour.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Anatomical Structure"
    algorithm = liver.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("medseg unet", "1.2")
    assert (made.PatientID, made.PatientSex, made.AccessionNumber) == ("", "", "")
    assert all(element.value == "" for element in (made["PatientBirthDate"], made["StudyID"]))


def test_a_look_survives_writing_and_reading(series, tmp_path):
    scan = open_scan(series)
    found = SegFile(save(tmp_path / "mask.dcm", scan, labels_like(scan, (5, 7))), "mask")
    look = look_of(found, 1)
    assert (look.code, look.category) == (LIVER.code, "SCT 91723000 Anatomical Structure")
    given, kept = (np.array([int(c[i : i + 2], 16) for i in (1, 3, 5)]) for c in (LIVER.color, look.color))
    assert np.abs(given - kept).max() <= 2  # CIELab in 16 bits and back


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools are not installed")
@pytest.mark.parametrize("kind", ["binary", "fractional", "picture", "enhanced"])
def test_the_standards_checker_finds_no_error(kind, tmp_path):
    if kind == "picture":
        pixels = np.zeros((9, 7), np.uint16)
        source = write(tmp_path / "dx.dcm", dataset(pixels, sop=RADIOGRAPH, PatientName="A^B"))
    elif kind == "enhanced":
        source = write(tmp_path / "emr.dcm", enhanced(np.zeros((7, 9, 4), np.uint16), PLAIN, order=(2, 0, 3, 1)))
    else:
        source = write_series(tmp_path / "s", np.zeros((7, 9, 4), np.int16), PLAIN)
    scan = open_scan(source)
    if kind == "fractional":
        shares = np.random.default_rng(0).random((2, *scan.shape)).astype(np.float32)
        path = save(tmp_path / "mask.dcm", scan, shares, dtype=np.uint8, channels=2, unit_interval=True)
    else:
        path = save(tmp_path / "mask.dcm", scan, labels_like(scan, (5, 7)))
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True)
    assert [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")] == []


def test_probabilities_are_a_fractional_one(series, tmp_path):
    scan = open_scan(series)
    shares = np.random.default_rng(0).random((3, *scan.shape)).astype(np.float32)
    about = Segmentation((Segment("b", (1,), 1, LIVER), Segment("c", (2,), 2, LIVER)), "medseg", "1", "ef")
    path = save(tmp_path / "p.dcm", scan, shares, about, dtype=np.uint8, channels=3, unit_interval=True)
    read = by_highdicom(path, scan)
    np.testing.assert_array_equal(read, np.rint(shares[1:] * 255).astype(np.uint8).transpose(3, 2, 1, 0))
    labels = whole(open_label(path, scan, ((("b",), 1), (("c",), 2), (("b", "c"), 3))))[0]
    half = np.rint(shares[1:] * 255) >= 127.5
    np.testing.assert_array_equal(labels, half[0] + 2 * half[1])


def test_frames_of_an_enhanced_image_are_told_by_their_number(tmp_path):
    file = write(tmp_path / "emr.dcm", enhanced(np.zeros((7, 9, 4), np.uint16), PLAIN, order=(2, 0, 3, 1)))
    scan = open_scan(file)
    voxels = labels_like(scan, (5, 7))
    voxels[2, 3, 0] = 5
    read = by_highdicom(save(tmp_path / "mask.dcm", scan, voxels), scan)
    np.testing.assert_array_equal(read[..., 0], planes(voxels) == 5)


def test_a_picture_has_one_too(tmp_path):
    file = write(tmp_path / "dx.dcm", dataset(np.zeros((9, 7), np.uint16), sop=RADIOGRAPH))
    scan = open_scan(file)
    voxels = labels_like(scan, (5, 7))
    path = save(tmp_path / "mask.dcm", scan, voxels)
    np.testing.assert_array_equal(by_highdicom(path, scan)[..., 1], planes(voxels) == 7)
    np.testing.assert_array_equal(whole(open_label(path, scan))[0] > 0, voxels > 0)
    assert open_label(path).shape == scan.shape


def test_a_mask_without_an_object_is_one_all_the_same(series, tmp_path):
    scan = open_scan(series)
    path = save(tmp_path / "mask.dcm", scan, np.zeros(scan.shape, np.uint8))
    assert not whole(open_label(path, scan)).any()


def test_it_goes_on_where_it_was_interrupted(series, tmp_path):
    scan = open_scan(series)
    voxels = labels_like(scan, (5, 7))
    path = tmp_path / "mask.dcm"
    first = create_mask(path, scan, segmentation=ABOUT)
    box = Box((0, 0, 0), (5, *scan.shape[1:]))
    first.write(box, voxels[box.slices])
    del first
    assert not path.exists()
    second = create_mask(path, scan, segmentation=ABOUT, resume=True)
    assert second.resumed
    rest = Box((5, 0, 0), scan.shape)
    second.write(rest, voxels[rest.slices])
    second.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mask.dcm", "series"]
    np.testing.assert_array_equal(whole(open_label(path, scan)) > 0, voxels[None] > 0)


def test_what_cannot_be_written_is_refused_in_one_sentence(series, tmp_path):
    scan = open_scan(series)
    array = open_scan(np.zeros((1, 4, 4, 4), np.uint8))
    path = tmp_path / "mask.dcm"
    for like, about, more, said in (
        (array, ABOUT, {}, "another format"),
        (Cropped(scan, Box((0, 0, 0), (2, 2, 2))), ABOUT, {}, "a part of one"),
        (scan, None, {}, "names its segments"),
        (scan, ABOUT, {"channels": 2, "dtype": np.float16, "unit_interval": True}, "as uint8 alone"),
    ):
        with pytest.raises(OutputError, match=said):
            create_mask(path, like, segmentation=about, **more)
    assert not list(tmp_path.glob(".*"))


def test_a_source_without_a_uid_leaves_no_trace(tmp_path):
    def edit(k, made):
        del made.SOPInstanceUID

    scan = open_scan(write_series(tmp_path / "s", np.zeros((4, 5, 3), np.int16), PLAIN, edit=edit))
    with pytest.raises(OutputError, match="lacks its SOPInstanceUID"):
        save(tmp_path / "mask.dcm", scan, np.full(scan.shape, 5, np.uint8))
    assert not (tmp_path / "mask.dcm").exists()


def written_by_highdicom(scan, path, array, kind, names=("a", "b"), **how):
    """A SEG of (frames, rows, columns[, segments]) by highdicom itself."""
    sources = [pydicom.dcmread(f) for f in scan.files]
    for source in sources:
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
            setattr(source, keyword, "")
        source.StudyDate = source.StudyTime = ""
        source.SliceThickness = "3"
        source.FrameOfReferenceUID = source.get("FrameOfReferenceUID", "1.2.9")
    described = [
        SegmentDescription(n, name, codes.SCT.Tissue, codes.SCT.Tissue, "MANUAL") for n, name in enumerate(names, 1)
    ]
    uid = highdicom.UID()
    made = highdicom.seg.Segmentation(
        sources, array, kind, described, uid, 1, highdicom.UID(), 1, "m", "m", "1", "1", **how
    )
    made.save_as(path)
    return path


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_what_highdicom_writes_is_read(kind, series, tmp_path):
    scan = open_scan(series)
    voxels = np.random.default_rng(0).integers(0, 3, scan.shape).astype(np.uint8)
    syntaxes = {"FRACTIONAL": "1.2.840.10008.1.2.5", "LABELMAP": "1.2.840.10008.1.2.5"}
    how = {"transfer_syntax_uid": syntaxes[kind]} if kind in syntaxes else {}
    path = written_by_highdicom(scan, tmp_path / "seg.dcm", planes(voxels), kind, **how)
    read = whole(open_label(path, scan))[0]
    np.testing.assert_array_equal(read, voxels)
    np.testing.assert_array_equal(whole(open_label(zipped(path), scan))[0], voxels)


def test_overlapping_segments_have_no_value_unless_one_is_declared(series, tmp_path):
    scan = open_scan(series)
    stack = np.random.default_rng(0).random((*planes(np.zeros(scan.shape)).shape, 2)) < 0.5
    path = written_by_highdicom(scan, tmp_path / "seg.dcm", stack.astype(np.uint8), "BINARY")
    with pytest.raises(ScanError, match="1 and 2 overlap"):
        whole(open_label(path, scan))
    declared = open_label(path, scan, ((("a",), 1), (("b",), 2), (("a", "b"), 3)))
    np.testing.assert_array_equal(planes(whole(declared)[0]), stack @ [1, 2])
    found = SegFile(path, "seg")
    grid = own_grid([found], "seg")
    together = {frozenset("a"), frozenset("b"), frozenset("ab")}
    assert found.overlaps and sets_of(planes_of(found, grid, by_name=True), grid.shape) == together
    with pytest.raises(ScanError, match="'b' are none of a"):
        open_label(path, scan, ((("a",), 1),))


def test_alone_it_lies_on_the_least_grid_of_its_planes(series, tmp_path):
    scan = open_scan(series)
    voxels = labels_like(scan, (5, 7))
    voxels[..., 3] = 0
    alone = open_label(save(tmp_path / "mask.dcm", scan, voxels))
    np.testing.assert_array_equal(whole(alone)[0] > 0, voxels[..., 1:-1] > 0)
    np.testing.assert_allclose(alone.affine @ [0, 0, 0, 1], scan.affine @ [0, 0, 1, 1], atol=1e-6)
    np.testing.assert_allclose(alone.affine[:3, :3], scan.affine[:3, :3], atol=1e-6)


def test_what_does_not_lie_on_the_images_voxels_is_refused(series, tmp_path):
    scan = open_scan(series)
    path = save(tmp_path / "mask.dcm", scan, np.full(scan.shape, 5, np.uint8))
    coarse = tilted(spacing=(2.0, 2.0, 3.0))
    shifted = tilted(origin=(-5.0, 7.0, 12.0))
    zeros = np.zeros(scan.shape, np.int16)
    for name, affine, world, said in (
        ("coarse", coarse, "1.2.9", "does not lie on the image's voxels"),
        ("shifted", shifted, "1.2.9", "does not lie on the image's voxels"),
        ("elsewhere", tilted(), "1.2.8", "another frame of reference"),
    ):
        other = open_scan(write_series(tmp_path / name, zeros, affine, FrameOfReferenceUID=world))
        with pytest.raises(ScanError, match=said):
            open_label(path, other)
    fewer = open_scan(write_series(tmp_path / "fewer", zeros[..., :5], tilted(), FrameOfReferenceUID="1.2.9"))
    with pytest.raises(ScanError, match="out of the image's"):
        open_label(path, fewer)


def test_damaged_ones_are_told(series, tmp_path):
    scan = open_scan(series)
    path = save(tmp_path / "mask.dcm", scan, np.full(scan.shape, 5, np.uint8))
    content = path.read_bytes()
    path.write_bytes(content[:-40])
    with pytest.raises(ScanError, match="cut short"):
        open_label(path, scan)
    made = pydicom.dcmread(save(path, scan, np.full(scan.shape, 5, np.uint8)))
    made.PerFrameFunctionalGroupsSequence[1].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 9
    made.save_as(path)
    with pytest.raises(ScanError, match="of segment 9, which it does not describe"):
        open_label(path, scan)
    del made.PerFrameFunctionalGroupsSequence[0]
    made.save_as(path)
    with pytest.raises(ScanError, match="it is damaged"):
        open_label(path, scan)


def test_codes_and_names_fit_what_dicom_holds():
    assert Code.parse("SCT 10200004 Liver and so on") == ("SCT", "10200004", "Liver and so on")
    for wrong in ("SCT 10200004", "Liver", "SCT 12345678901234567 x", "SCT 1 a\\b"):
        with pytest.raises(ValueError, match="is no code"):
            Code.parse(wrong)
    for wrong in ("red", "#12345", "#gggggg"):
        with pytest.raises(ValueError, match="is no colour"):
            SegmentLook(color=wrong)
    names = short_names([Segment(name, (1,), 0, LIVER) for name in ("x" * 80, "x" * 90, "a\\b", "a\\b")])
    assert len(set(names)) == 4 and max(map(len, names)) <= 64 and not any("\\" in name for name in names)


def test_real_ones_hold_what_their_authors_volumes_hold(real_data):
    import SimpleITK as sitk

    root = real_data / "dicom_seg_rt" / "dcmqi" / "segmentations"
    for seg, image, volume in (
        ("liver.dcm", "ct-3slice", "liver_seg.nrrd"),
        ("24x38x3/seg/label.seg", "24x38x3/image", "24x38x3/nrrd/label.nrrd"),
        ("23x38x3/seg/label.seg", "23x38x3/image", "23x38x3/nrrd/label.nrrd"),
        ("sparse-labelmap-noppv.dcm", "24x38x3/image", "sparse_labelmap_noppv_seg.nrrd"),
    ):
        theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(root / volume))).transpose(2, 1, 0)
        ours = whole(open_label(root / seg, open_scan(root / image)))[0]
        np.testing.assert_array_equal(ours > 0, theirs > 0)


def test_slices_need_a_place(tmp_path):
    """A series of one slice is a picture, whose SEG has a place where the picture has one."""
    file = write(tmp_path / "one.dcm", dataset(np.zeros((6, 5), np.int16), **placed((1.5, 2.5, 3.5))))
    scan = open_scan(file)
    path = save(tmp_path / "mask.dcm", scan, labels_like(scan, (5, 7)))
    made = pydicom.dcmread(path)
    place = made.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient
    assert list(place) == [1.5, 2.5, 3.5]
    np.testing.assert_array_equal(whole(open_label(path, scan))[0] > 0, labels_like(scan, (5, 7)) > 0)
