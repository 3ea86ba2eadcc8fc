"""What no affine could describe, or cannot be read, is refused in one sentence that quotes nothing of the header."""

import re

import numpy as np
import pytest
from dicom_files import (
    AXIAL,
    CT,
    ENHANCED_MR,
    MR,
    RADIOGRAPH,
    dataset,
    ds,
    enhanced,
    placed,
    tilted,
    write,
    write_series,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless
from scan_laws import numbers

from medseg import open_scan
from medseg.errors import MAX_LENGTH, MedsegError, ScanError
from medseg.geometry import Box
from medseg.scans.dicom_geometry import tolerance_mm


def refusal(path, match):
    with pytest.raises(ScanError, match=match) as error:
        scan = open_scan(path)
        scan.read(Box.of(scan.shape))
    message = str(error.value)
    assert message.startswith(f"{path}: ") and len(message) <= MAX_LENGTH
    return message


def axial(folder, positions, edit=None, shape=(4, 5), **elements):
    """Axial slices at these z."""
    for n, z in enumerate(positions):
        pixels = numbers(shape, "i2", n)
        made = dataset(pixels, **{**placed((0, 0, z)), **elements})
        if edit is not None:
            edit(n, made)
        write(folder / f"{n}.dcm", made)
    return folder


def test_uneven_distances_are_told_with_the_positions(tmp_path):
    message = refusal(axial(tmp_path / "s", [0, 4, 8, 12, 13.5, 20.5, 27.5]), "not evenly spaced")
    assert "1.5 to 7 mm: 3 x 4, 2 x 7, 1 x 1.5" in message
    assert "1.5 mm after 12, 7 mm after 13.5, 7 mm after 20.5 mm along the normal" in message


def test_the_message_about_thousands_of_slices_has_a_limit(tmp_path):
    rng = np.random.default_rng(0)
    message = refusal(axial(tmp_path / "s", np.cumsum(rng.uniform(0.5, 9, 60)), shape=(1, 2)), "not evenly spaced")
    assert "..." in message and message.endswith("take the others out of the folder")


def test_what_tells_two_volumes_apart_is_proposed_and_works(tmp_path):
    from medseg.scans.dicom_facts import SeriesChoice

    def edit(n, made):
        made.SliceThickness = "4" if n < 4 else "7"

    folder = axial(tmp_path / "s", [0, 4, 8, 12, 13.5, 20.5, 27.5], edit)
    (key, value) = re.search(r"--series-filter '(\w+)=(\w+)'", refusal(folder, "not evenly")).groups()
    assert open_scan(folder, series=SeriesChoice.parse(None, f"{key}={value}")).shape == (5, 4, 4)


def test_missing_slices_are_counted_and_placed(tmp_path):
    message = refusal(axial(tmp_path / "s", [0, 2, 4, 10, 12, 16]), "3 slices are missing: they are 2 mm apart")
    assert "but 6 mm after 4, 4 mm after 12 mm" in message and message.endswith("fetch them again")
    assert "1 slice is missing" in refusal(axial(tmp_path / "one", [0, 2, 6, 8]), "fetch it again$")


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ((0, 0, 58), "1 of its 60 slices lies where another does: .* at 58 mm"),
        ((0, 0, 60.7), r"2.7 mm after 58, 1.3 mm after 60.7 mm along the normal"),
        ((5, 0, 60), "1 of its 60 slices lies up to 5 mm off an even step of 2 mm.*: 5 mm off at 60 mm"),
    ],
)
def test_the_one_slice_of_many_that_is_wrong_is_told(tmp_path, place, told):
    def edit(n, made):
        if n == 30:
            made.ImagePositionPatient = ds(place)

    refusal(axial(tmp_path / "s", range(0, 120, 2), edit, shape=(1, 2)), told)


def test_slices_at_one_place_are_told_with_what_tells_them_apart(tmp_path):
    def edit(n, made):
        made.EchoTime = "4.6" if n % 2 else "9.2"

    message = refusal(axial(tmp_path / "s", [0, 0, 2, 2, 4, 4], edit, sop=MR), "3 of its 6 slices lie where another")
    assert "'EchoTime=" in message
    refusal(axial(tmp_path / "still", [5, 5, 5]), "2 of its 3 slices lie where another does")


def test_a_localiser_within_a_series_is_told_with_its_place(tmp_path):
    def edit(n, made):
        if n == 3:
            made.ImageOrientationPatient = ["0", "1", "0", "0", "0", "-1"]
            made.ImagePositionPatient = ["7", "-8", "9"]

    message = refusal(axial(tmp_path / "s", range(6), edit), "2 orientations")
    assert "5 of (1, 0, 0, 0, 1, 0), 1 of (0, 1, 0, 0, 0, -1)" in message and "(7, -8, 9)" in message
    larger = axial(tmp_path / "sizes", range(4))
    write(larger / "scout.dcm", dataset(numbers((9, 9), "i2"), **placed((0, 0, 4))))
    assert "4 of 4 x 5, 1 of 9 x 9" in refusal(larger, "2 sizes")


@pytest.mark.parametrize(
    ("elements", "match"),
    [
        ({"PixelSpacing": ["1", "1.01"]}, "2 pixel spacings"),
        ({"FrameOfReferenceUID": "1.2.3.9"}, "2 frames of reference"),
        ({"ImagePositionPatient": ["0.5", "0", "2"]}, "off an even step"),
        ({"ImagePositionPatient": None}, "1 of its 5 slices do not say where they lie"),
        ({"ImageOrientationPatient": None}, "1 of its 5 slices do not say where they lie"),
        ({"PixelSpacing": None}, "1 of its 5 slices do not say where they lie"),
        ({"ImageOrientationPatient": ["1", "0", "0", "0.1", "1", "0"]}, "no pair of perpendicular unit vectors"),
    ],
)
def test_one_slice_that_differs_is_enough(tmp_path, elements, match):
    def edit(n, made):
        if n == 2:
            for keyword, value in elements.items():
                setattr(made, keyword, value)

    refusal(axial(tmp_path / "s", range(5), edit), match)


@settings(max_examples=12)
@given(st.floats(0.05, 20), st.integers(3, 7), st.data())
def test_rounding_is_tolerated_and_a_real_shift_is_not(tmp_path_factory, step, count, data):
    at = data.draw(st.integers(1, count - 2))
    for share, fits in ((0.9, True), (2.5, False)):
        z = np.arange(count) * step
        z[at] += share * tolerance_mm(step)
        folder = axial(tmp_path_factory.mktemp("s"), z, shape=(1, 2))
        if fits:
            assert open_scan(folder).spacing_mm[2] == pytest.approx(step)
        else:
            refusal(folder, "slices")


BAD_NUMBERS = ["1_0", "inf", "nan", "0x1", "1,5", "JONES", "1 2", "--1", "١"]


@pytest.mark.parametrize("text", BAD_NUMBERS)
@pytest.mark.parametrize("keyword", ["RescaleSlope", "PixelSpacing", "ImagePositionPatient"])
def test_numbers_that_are_none_are_refused_and_not_quoted(tmp_path, text, keyword):
    from pydicom.datadict import tag_for_keyword
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    count = {"RescaleSlope": 1, "PixelSpacing": 2, "ImagePositionPatient": 3}[keyword]
    made = dataset(numbers((4, 5), "i2"), RescaleSlope="1", RescaleIntercept="0", **placed((0, 0, 0)))
    value = "\\".join([text, *["1"] * (count - 1)]).encode("utf-8")
    value += b" " * (len(value) % 2)
    tag = Tag(tag_for_keyword(keyword))
    made[tag] = RawDataElement(tag, "DS", len(value), value, 0, False, True)
    made._dict[tag] = RawDataElement(tag, "DS", len(value), value, 0, False, True)
    message = refusal(write(tmp_path / "a.dcm", made), f"its {keyword} is not")
    assert text not in message.partition(": ")[2]


def test_half_a_scale_and_a_scale_of_nothing_are_refused(tmp_path):
    for elements in ({"RescaleSlope": "2"}, {"RescaleSlope": "0", "RescaleIntercept": "1"}):
        made = dataset(numbers((4, 5), "i2"), **placed((0, 0, 0)), **elements)
        refusal(write(tmp_path / "a.dcm", made), "RescaleSlope")


@pytest.mark.parametrize(
    ("sop", "what"),
    [
        ("1.2.840.10008.5.1.4.1.1.66.4", "a segmentation"),
        ("1.2.840.10008.5.1.4.1.1.481.3", r"a structure set \(RTSTRUCT\)"),
        ("1.2.840.10008.5.1.4.1.1.11.1", r"a presentation state \(PR\)"),
        ("1.2.840.10008.5.1.4.1.1.88.33", r"a structured report \(SR\)"),
        ("1.2.840.10008.5.1.4.1.1.77.1.6", "a whole-slide image"),
        ("1.2.840.10008.5.1.4.1.1.30", "a parametric map"),
        ("1.2.840.10008.1.3.10", "a DICOMDIR"),
    ],
)
def test_objects_that_are_no_images_are_told_by_name(tmp_path, sop, what):
    refusal(write(tmp_path / "a.dcm", dataset(numbers((4, 5), "u1"), sop=sop)), f"is no image but {what}")
    write(tmp_path / "two" / "a", dataset(numbers((4, 5), "u1"), sop=sop))
    write(tmp_path / "two" / "b", dataset(numbers((4, 5), "u1"), sop=sop))
    refusal(tmp_path / "two", f"holds no image but 2 x {what}")


def test_mosaics_films_tables_and_palettes_are_refused_by_name(tmp_path):
    pixels = numbers((4, 5), "u2")
    mosaic = dataset(pixels, sop=MR, ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"], **placed((0, 0, 0)))
    refusal(write(tmp_path / "mosaic.dcm", mosaic), "Siemens mosaic")
    silent = dataset(pixels, sop=MR, **placed((0, 0, 0)))
    silent.private_block(0x19, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", 30)
    refusal(write(tmp_path / "silent.dcm", silent), "Siemens mosaic")
    film = dataset(numbers((3, 4, 5), "u2"), sop=ENHANCED_MR)
    refusal(write(tmp_path / "film.dcm", film), "has 3 frames and says the place of 1")
    table = dataset(pixels, sop=RADIOGRAPH)
    table.ModalityLUTSequence = Sequence([Dataset()])
    refusal(write(tmp_path / "table.dcm", table), "Modality LUT")
    refusal(write(tmp_path / "palette.dcm", dataset(pixels, photometric="PALETTE COLOR")), "a colour table")


@pytest.mark.parametrize(
    ("elements", "match"),
    [
        ({"BitsAllocated": 12}, "12 bits|only 8, 16 and 32"),
        ({"BitsStored": 17}, "17 bits a pixel in 16"),
        ({"HighBit": 3}, "HighBit 3 does not fit"),
        ({"Rows": 0}, "has no pixels"),
        ({"Rows": 400}, "announces"),
        ({"NumberOfFrames": "-1"}, "has no pixels"),
        ({"NumberOfFrames": "99999999"}, "announces|frames"),
        ({"PixelRepresentation": None}, "lacks PixelRepresentation"),
        ({"BitsStored": None}, "lacks BitsStored"),
        ({"SamplesPerPixel": 4}, "4 samples a pixel"),
    ],
)
def test_headers_that_contradict_themselves_or_the_pixels(tmp_path, elements, match):
    made = dataset(numbers((4, 5), "i2"), **placed((0, 0, 0)))
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    refusal(write(tmp_path / "a.dcm", made), match)


def test_a_missing_decoder_names_the_extra(tmp_path, monkeypatch):
    from pydicom.pixels.decoders import base

    made = dataset(numbers((4, 5), "u2"), **placed((0, 0, 0)))
    made.compress(RLELossless)
    path = write(tmp_path / "a.dcm", made)
    monkeypatch.setattr(base.get_decoder(RLELossless), "_available", {})
    refusal(
        path, r"is compressed \(RLE Lossless\), and no decoder for that is installed: pip install 'medseg\[dicom\]'"
    )


@pytest.mark.parametrize(
    ("syntax", "match"),
    [
        ("1.2.840.10008.1.2.4.102", "is stored as MPEG-4.*not supported"),
        ("1.2.3.4.5", "unknown transfer syntax"),
    ],
)
def test_other_transfer_syntaxes_are_refused_by_name(tmp_path, syntax, match):
    path = write(tmp_path / "a.dcm", dataset(numbers((4, 5), "u2"), **placed((0, 0, 0))))
    old = b"UI\x14\x001.2.840.10008.1.2.1\0"
    new = b"UI" + (len(syntax) + len(syntax) % 2).to_bytes(2, "little") + syntax.encode() + b"\0" * (len(syntax) % 2)
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    refusal(path, match)


def test_a_file_that_is_deflated_as_a_whole_is_refused_by_name(tmp_path):
    made = dataset(numbers((4, 5), "u2"), syntax=DeflatedExplicitVRLittleEndian, **placed((0, 0, 0)))
    refusal(write(tmp_path / "a.dcm", made), "deflated as a whole")


def _whole_or_refused(path, expected):
    try:
        scan = open_scan(path)
        voxels = scan.read(Box.of(scan.shape))
    except MedsegError as error:
        assert len(str(error)) <= MAX_LENGTH
        return False
    np.testing.assert_array_equal(voxels[0], expected)
    return True


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_that_is_cut_anywhere_is_refused_or_whole(tmp_path, compressed):
    volume = numbers((6, 5, 3), "i2")
    made = enhanced(volume, tilted())
    if compressed:
        made.compress(RLELossless)
    path = write(tmp_path / "a.dcm", made)
    content = path.read_bytes()
    for end in {*range(0, len(content), 61), *range(len(content) - 90, len(content))}:
        path.write_bytes(content[:end])
        if _whole_or_refused(path, volume):
            assert compressed and end >= len(content) - 8  # the sequence delimiter alone is missing
    path.write_bytes(content)
    assert _whole_or_refused(path, volume)


@given(st.data())
def test_a_damaged_header_never_ends_in_a_traceback(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("s") / "a.dcm"
    write(path, enhanced(numbers((6, 5, 3), "i2"), tilted()))
    content = bytearray(path.read_bytes())
    head = content.find(b"\xe0\x7f\x10\x00")
    for _ in range(data.draw(st.integers(1, 6))):
        # Identifiers are drawn, so that the header's length is not always the same.
        content[132 + data.draw(st.integers(0, 1 << 16)) % (head - 120)] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        scan = open_scan(path)
        if np.prod(scan.shape) < 1e6:
            scan.read(Box.of(scan.shape))
    except MedsegError as error:
        assert len(str(error)) <= MAX_LENGTH


def test_no_message_and_no_warning_holds_what_a_header_says_of_a_patient(tmp_path, recwarn, capsys, caplog):
    marked = {
        "PatientName": "MARKED^NAME",
        "PatientID": "MARKEDID",
        "PatientBirthDate": "19700101",
        "AccessionNumber": "MARKEDACC",
        "InstitutionName": "MARKED INSTITUTE",
        "SeriesDescription": "MARKED DESCRIPTION",
        "ProtocolName": "MARKED PROTOCOL",
        "StudyInstanceUID": "1.2.3.99999",
    }

    def refused(folder):
        message = refusal(folder, "")
        assert "MARKED" not in message and "19700101" not in message and "99999" not in message

    names = ["MARKED_0.dcm", "MARKED_1.dcm", "MARKED_2.dcm"]
    refused(axial(tmp_path / "gap", [0, 1, 5], **marked))
    refused(axial(tmp_path / "twice", [0, 0, 5], **marked))
    for n, name in enumerate(names):
        write(tmp_path / "series" / name, dataset(numbers((4, 5), "i2"), **marked, SeriesInstanceUID=f"1.2.9{n}"))
        made = dataset(numbers((4, 5), "i2"), **placed((0, 0, n)), **marked)
        write(tmp_path / "cut" / name, made)
    refused(tmp_path / "series")
    (tmp_path / "cut" / names[1]).write_bytes((tmp_path / "cut" / names[1]).read_bytes()[:-7])
    refused(tmp_path / "cut")
    said = capsys.readouterr()
    assert "MARKED" not in said.out + said.err + caplog.text + "".join(str(w.message) for w in recwarn)


def test_files_named_dcm_that_are_none(tmp_path):
    (tmp_path / "a.dcm").write_text("no image" * 99)
    refusal(tmp_path / "a.dcm", "is no DICOM file, though named .dcm: its contents are text")
    (tmp_path / "b.dcm").write_bytes(b"\0" * 128 + b"DICM")
    refusal(tmp_path / "b.dcm", "holds no pixels")


def test_the_directions_are_checked_for_a_single_slice_too(tmp_path):
    made = dataset(numbers((4, 5), "i2"), sop=CT, **placed((0, 0, 0), AXIAL * 1.1))
    refusal(write(tmp_path / "a.dcm", made), "no pair of perpendicular unit vectors")
    made = dataset(numbers((4, 5), "i2"), **placed((0, 0, 0), spacing=(0, 1)))
    refusal(write(tmp_path / "b.dcm", made), "PixelSpacing is not above 0")
    assert ds(1 / 3) == ["0.33333333333333"]


def test_a_folder_that_was_read_and_lost_a_file(tmp_path):
    folder = write_series(tmp_path / "s", numbers((4, 5, 3), "i2"), tilted())
    scan = open_scan(folder)
    (folder / "1.dcm").unlink()
    with pytest.raises(ScanError, match="slice 1 cannot be read"):
        scan.read(Box.of(scan.shape))
