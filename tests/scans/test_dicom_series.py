"""Which series of a folder is meant."""

import numpy as np
import pytest
from dicom_files import MR, RADIOGRAPH, dataset, enhanced, functional, placed, tilted, write, write_series
from hypothesis import given
from hypothesis import strategies as st
from scan_laws import numbers

from medseg import open_scan
from medseg.errors import ConfigError, ScanError
from medseg.geometry import Box
from medseg.inference.outputs import find_sources, name_outputs
from medseg.scans.dicom_facts import KEYS, SeriesChoice
from medseg.scans.dicom_series import SeriesError

VOLUME = numbers((4, 5, 3), "i2")
SEG = "1.2.840.10008.5.1.4.1.1.66.4"


@pytest.fixture
def study(tmp_path):
    """Two series and a segmentation in one folder."""
    folder = tmp_path / "study"
    thin = {"SeriesInstanceUID": "1.2.1", "SeriesNumber": "2", "SliceThickness": "1.5", "SeriesDescription": "thin"}
    thick = {"SeriesInstanceUID": "1.2.2", "SeriesNumber": "10", "SliceThickness": "5", "SeriesDescription": "thick"}
    write_series(folder, VOLUME, tilted(), names=["b", "f", "d"], **thin)
    write_series(folder, VOLUME[..., :2], tilted(), names=["a", "e"], sop=MR, **thick)
    write(folder / "c", dataset(numbers((4, 5), "u1"), sop=SEG, SeriesInstanceUID="1.2.3"))
    return folder


def test_several_series_are_listed_by_number_and_one_is_asked_for(study):
    with pytest.raises(
        SeriesError, match="holds 2 DICOM series; choose one by --series UID or --series-filter"
    ) as error:
        open_scan(study)
    assert [(s.uid, s.number, s.slices, s.size) for s in error.value.series] == [
        ("1.2.1", "2", 3, "5 x 4"),
        ("1.2.2", "10", 2, "5 x 4"),
    ]
    assert [s.description for s in error.value.series] == ["thin", "thick"] and "thin" not in str(error.value)


@pytest.mark.parametrize(
    ("uid", "text", "slices"),
    [
        ("1.2.1", None, 3),
        ("1.2.2", None, 2),
        (None, "Modality=CT", 3),
        (None, "modality_is_no_key=1", None),
        (None, "Modality=mr", 2),
        (None, "Modality!=CT", 2),
        (None, "SliceThickness<=3", 3),
        (None, "SliceThickness>3", 2),
        (None, "SliceThickness=5.0", 2),
        (None, " SliceThickness < 5 , Modality = CT ", 3),
        (None, "SeriesDescription=*ICK", 2),
        (None, "Rows=5, SeriesDescription=thi?", 3),
        ("1.2.2", "Modality=MR", 2),
    ],
)
def test_one_series_is_chosen(study, uid, text, slices):
    if slices is None:
        with pytest.raises(ConfigError, match="is no key"):
            SeriesChoice.parse(uid, text)
        return
    assert open_scan(study, series=SeriesChoice.parse(uid, text)).shape == (4, 5, slices)


@pytest.mark.parametrize(("uid", "text"), [("1.2.9", None), (None, "Modality=PT"), ("1.2.1", "Modality=MR")])
def test_a_choice_that_leaves_none_is_told(study, uid, text):
    with pytest.raises(SeriesError, match="none of its 2 DICOM series fits --series") as error:
        open_scan(study, series=SeriesChoice.parse(uid, text))
    assert len(error.value.series) == 2


def test_a_filter_that_leaves_several_is_told(study):
    with pytest.raises(SeriesError, match=r"holds 2 DICOM series.*narrow --series-filter"):
        open_scan(study, series=SeriesChoice.parse(None, "Rows=5"))


@pytest.mark.parametrize("text", ["", "Modality", "Modality=", "=CT", "Modality=CT,", "SliceThickness<thin", "A B=1"])
def test_a_filter_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="--series-filter"):
        SeriesChoice.parse(None, text)


def test_a_key_that_is_nearly_one_is_proposed():
    with pytest.raises(ConfigError, match="did you mean 'SliceThickness'"):
        SeriesChoice.parse(None, "SliceThicknes<=3")


@given(st.sampled_from(KEYS), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_numbers_are_compared_as_numbers(key, stated, asked):
    def holds(sign):
        return SeriesChoice.parse(None, f"{key}{sign}{asked!r}").holds({key: (repr(stated),)})

    assert holds("<") == (stated < asked) and holds(">=") == (stated >= asked)
    assert holds("=") == (stated == asked) != holds("!=")
    assert not SeriesChoice.parse(None, f"{key}<{asked!r}").holds({})


def test_frames_of_one_file_are_chosen_as_slices_are(tmp_path):
    """Two echoes in one enhanced image, frame by frame."""
    made = enhanced(VOLUME.repeat(2, axis=2), tilted())
    for n, frame in enumerate(made.PerFrameFunctionalGroupsSequence):
        position = enhanced(VOLUME, tilted()).PerFrameFunctionalGroupsSequence[n // 2]
        frame.update(position)
        frame.update(functional(MREchoSequence={"EffectiveEchoTime": 4.5 + n % 2}))
    path = write(tmp_path / "a.dcm", made)
    with pytest.raises(ScanError, match=r"3 of its 6 slices lie where another does.*--series-filter 'EchoTime="):
        open_scan(path)
    for echo in ("4.5", "5.5"):
        chosen = open_scan(path, series=SeriesChoice.parse(None, f"EchoTime={echo}"))
        np.testing.assert_array_equal(chosen.read(Box.of(chosen.shape))[0], VOLUME)


def test_a_folder_without_files_of_its_own_is_searched_below(tmp_path):
    write_series(tmp_path / "study" / "a" / "b", VOLUME, tilted(), names=["1", "2", "3"])
    (tmp_path / "study" / "note.txt").write_text("nothing")
    assert open_scan(tmp_path / "study").shape == VOLUME.shape
    (tmp_path / "study" / ".hidden").mkdir()
    write_series(tmp_path / "study" / ".hidden", VOLUME, tilted(), SeriesInstanceUID="9")
    assert open_scan(tmp_path / "study").shape == VOLUME.shape


def test_one_file_is_that_file_alone(study):
    assert open_scan(study / "f").shape == (5, 4)


def test_the_sources_of_a_tree_are_its_folders_of_slices(tmp_path):
    write_series(tmp_path / "in" / "p1" / "1.2.840.1", VOLUME, tilted(), PatientID="1")
    write_series(tmp_path / "in" / "p2" / "1.2.840.2", VOLUME, tilted(), names=["I1", "I2", "I3"], PatientID="2")
    write(tmp_path / "in" / "p2" / "seg" / "a.dcm", dataset(numbers((4, 5), "u1"), sop=SEG))
    sources = find_sources([tmp_path / "in"])
    assert [s.relative_to(tmp_path / "in").as_posix() for s in sources] == ["p1/1.2.840.1", "p2/1.2.840.2"]
    outputs = name_outputs(sources, tmp_path / "out", "auto")
    assert [o.name for o in outputs] == ["1.2.840.1.nii.gz", "1.2.840.2.nii.gz"]


def test_radiographs_in_one_folder_are_scans_of_their_own(tmp_path):
    for n in range(3):
        made = dataset(numbers((4, 5), "u2"), sop=RADIOGRAPH, SeriesInstanceUID=f"1.2.{n}")
        write(tmp_path / "in" / f"{n}.dcm", made)
    sources = find_sources([tmp_path / "in"])
    assert [s.name for s in sources] == ["0.dcm", "1.dcm", "2.dcm"]
    assert [o.name for o in name_outputs(sources, tmp_path, "auto")] == ["0.nii.gz", "1.nii.gz", "2.nii.gz"]


def test_a_folder_of_other_objects_is_told_by_what_they_are(tmp_path):
    for n in range(2):
        write(tmp_path / "in" / f"{n}.dcm", dataset(numbers((4, 5), "u1"), sop=SEG))
    (source,) = find_sources([tmp_path / "in"])
    with pytest.raises(ScanError, match="holds no image but 2 x a segmentation"):
        open_scan(source)


def test_a_slice_of_another_patient_space_in_the_folder_does_no_harm_to_the_chosen_series(study):
    write(study / "z", dataset(numbers((9, 9), "u2"), SeriesInstanceUID="1.2.7", **placed((0, 0, 0))))
    assert open_scan(study, series=SeriesChoice.parse("1.2.1")).shape == VOLUME.shape
