"""Which files of folders are the slices of a series: none is dropped unsaid, and none of another patient is taken."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from dicom_files import RADIOGRAPH, dataset, tilted, write, write_series, zipped
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from scan_laws import numbers

from medseg import open_scan
from medseg.errors import ScanError
from medseg.geometry import Box
from medseg.inference.outputs import find_sources
from medseg.scans.contents import is_dicom, kind_of
from medseg.scans.dicom_facts import SeriesChoice
from medseg.scans.dicom_series import SeriesError, files_below

VOLUME = numbers((4, 5, 6), "i2")
PARTS = ["a/0", "a/1", "b/2", "b/3", "c/d/4", "c/d/5"]
SEG = "1.2.840.10008.5.1.4.1.1.66.4"


def voxels(path, **choice):
    scan = open_scan(path, **choice)
    return scan.read(Box.of(scan.shape))[0]


def without_preamble(path):
    header = dcmread(path)
    del header.file_meta
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, True
    write_dataset(stream, header)
    path.write_bytes(stream.getvalue())


def test_a_series_in_several_folders_is_one_scan_wherever_it_is_asked_for(tmp_path):
    study = write_series(tmp_path / "in" / "study", VOLUME, tilted(), names=PARTS)
    (study / "a" / "note.txt").write_text("nothing")
    for path in (tmp_path / "in", study):
        assert find_sources([path]) == [study]
    np.testing.assert_array_equal(voxels(study), VOLUME)
    assert find_sources([study / "a"]) == [study / "a"]


def test_slices_beside_folders_of_the_same_series_are_taken_together(tmp_path):
    names = ["0", "1", "more/2", "more/3", "more/4", "more/5"]
    study = write_series(tmp_path / "study", VOLUME, tilted(), names=names)
    write_series(tmp_path / "study" / "z", VOLUME[..., :3], tilted(), SeriesInstanceUID="1.2.9")
    assert find_sources([study]) == [study, study / "z"]
    np.testing.assert_array_equal(voxels(study), VOLUME)


def test_copies_below_a_series_are_no_slices_of_it(tmp_path):
    study = write_series(tmp_path / "study", VOLUME, tilted())
    shutil.copytree(study, study / "copy")
    np.testing.assert_array_equal(voxels(study), VOLUME)
    assert find_sources([study]) == [study, study / "copy"]


def test_several_series_in_several_folders_are_chosen_from(tmp_path):
    study = write_series(tmp_path / "study", VOLUME, tilted(), names=PARTS)
    write_series(tmp_path / "study" / "other", VOLUME[..., :3], tilted(), SeriesInstanceUID="1.2.9")
    (source,) = find_sources([study])
    with pytest.raises(SeriesError, match="holds 2 DICOM series, 1 of them in several folders; choose one"):
        open_scan(source)
    np.testing.assert_array_equal(voxels(source, series=SeriesChoice("1.2.3.4")), VOLUME)


def test_two_patients_whose_series_have_one_uid_are_two_scans(tmp_path):
    for patient in ("A", "B"):
        write_series(tmp_path / patient, VOLUME, tilted(), PatientID=patient)
    assert find_sources([tmp_path]) == [tmp_path / "A", tmp_path / "B"]


def test_radiographs_of_one_series_stay_scans_of_their_own(tmp_path):
    paths = [write(tmp_path / name / "1.dcm", dataset(numbers((4, 5), "u2"), sop=RADIOGRAPH)) for name in "ab"]
    assert find_sources([tmp_path]) == paths


def test_a_folder_whose_own_files_are_no_images_is_searched_below(tmp_path):
    write_series(tmp_path / "disc" / "images", VOLUME, tilted())
    write(tmp_path / "disc" / "seg.dcm", dataset(numbers((4, 5), "u1"), sop=SEG))
    np.testing.assert_array_equal(voxels(tmp_path / "disc"), VOLUME)
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "here").symlink_to(tmp_path / "disc" / "images")
    (linked / "again").symlink_to(linked)
    assert len(files_below(linked)) == 6


BROKEN = {
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(900)),
    "text": lambda path: path.write_text("no image"),
    "link": lambda path: (path.unlink(), path.symlink_to("gone")),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_last_slice_that_is_none_is_told(tmp_path, how):
    folder = write_series(tmp_path / "s", VOLUME, tilted())
    BROKEN[how](folder / "5.dcm")
    with pytest.raises(ScanError, match=r"1 of its 6 files that should be DICOM is not: file 6 \(.*fetch it again"):
        open_scan(folder)
    assert find_sources([tmp_path]) == [folder]


@pytest.mark.parametrize("names", ["IM{}", "1.2.840.{}", "I{}.MR", "{}.ima"])
@pytest.mark.parametrize("how", ["empty", "zeros", "link"])
def test_names_of_no_suffix_of_dicom_count_where_the_others_end_so(tmp_path, names, how):
    folder = write_series(tmp_path / "s", VOLUME, tilted(), names=[names.format(k) for k in range(6)])
    (folder / "README").write_text("Über diese CD\n" * 90, encoding="utf-8")
    for other in ("a.txt", "b.csv", "thumbs.db", ".hidden.dcm", "c.nii.gz", "report.pdf"):
        (folder / other).write_bytes(b"")
    np.testing.assert_array_equal(voxels(folder), VOLUME)
    BROKEN[how](folder / names.format(5))
    with pytest.raises(ScanError, match=r"1 of its [67] files that should be DICOM is not"):
        open_scan(folder)


def test_a_zipped_slice_that_is_damaged_is_told(tmp_path):
    folder = write_series(tmp_path / "s", VOLUME, tilted())
    for path in sorted(folder.iterdir()):
        last = zipped(path)
    np.testing.assert_array_equal(voxels(folder), VOLUME)
    last.write_bytes(last.read_bytes()[:10] + b"\xff" * 40)
    with pytest.raises(ScanError, match="1 of its 6 files that should be DICOM is not"):
        open_scan(folder)


def test_a_folder_of_empty_files_is_told_in_a_tree(tmp_path):
    good = write_series(tmp_path / "a", VOLUME, tilted())
    bad = write_series(tmp_path / "b", VOLUME, tilted(), SeriesInstanceUID="1.2.9")
    for path in bad.iterdir():
        path.write_bytes(b"")
    assert find_sources([tmp_path]) == [good, bad]
    with pytest.raises(ScanError, match=r"6 of its 6 files that should be DICOM are not: .*\.\.\. in the order"):
        open_scan(bad)


def test_files_without_a_preamble_are_slices(tmp_path):
    folder = write_series(tmp_path / "s", VOLUME, tilted())
    for path in [folder / "5.dcm", *folder.iterdir()]:
        if is_dicom(path) and path.read_bytes()[128:132] == b"DICM":
            without_preamble(path)
        np.testing.assert_array_equal(voxels(folder), VOLUME)
    raw = tmp_path / "raw.img"
    raw.write_bytes(np.array([8, 5, 7, 0] * 99, "<i2").tobytes())
    assert not is_dicom(raw)


def test_dicom_whose_preamble_is_a_tiff_header_is_dicom_and_tiff(tmp_path):
    path = write(tmp_path / "a.dcm", dataset(numbers((4, 5), "u2")))
    path.write_bytes(b"II*\0\x08\0\0\0" + path.read_bytes()[8:])
    assert kind_of(path.read_bytes()[:540]) == "DICOM" and open_scan(path).shape == (4, 5)
    renamed = Path(shutil.copy(path, tmp_path / "a.tif"))
    with pytest.raises(ScanError) as error:  # its one directory is pixels
        open_scan(renamed)
    assert "is no TIFF file" not in str(error.value)


@pytest.mark.parametrize(("keyword", "what"), [("PatientID", "2 patients"), ("StudyInstanceUID", "2 studies")])
def test_slices_of_two_patients_or_studies_are_no_volume_and_nobody_is_named(tmp_path, keyword, what):
    folder = write_series(tmp_path / "s", VOLUME, tilted(), edit=lambda k, d: setattr(d, keyword, f"1.2.77{k // 3}"))
    with pytest.raises(ScanError, match=f"the 6 images of its series are of {what}") as error:
        open_scan(folder)
    assert "1.2.77" not in str(error.value)


def test_a_study_for_each_file_is_a_writers_fault_alone(tmp_path):
    folder = write_series(tmp_path / "s", VOLUME, tilted(), edit=lambda k, d: setattr(d, "StudyInstanceUID", f"1.{k}"))
    np.testing.assert_array_equal(voxels(folder), VOLUME)
