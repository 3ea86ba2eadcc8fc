import os
import shutil

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image
from scan_laws import numbers

from medseg.errors import OutputError, ScanError
from medseg.geometry import Box
from medseg.scans.scan import READERS, SUFFIXES, WRITERS, Scan, create_mask, open_scan, stem_of, suffix_of


@pytest.mark.parametrize(
    ("name", "stem", "suffix"),
    [
        ("a/ct_01.nii.gz", "ct_01", ".nii.gz"),
        ("CT.NII.GZ", "CT", ".nii.gz"),
        ("cells.v2.ome.zarr", "cells.v2", ".ome.zarr"),
        ("x.ome.tif", "x", ".ome.tif"),
        ("x.tif", "x", ".tif"),
        ("x.txt", "x", ""),
        (".nii", ".nii", ""),
        ("a.b.nii", "a.b", ".nii"),
    ],
)
def test_stems_and_suffixes(name, stem, suffix):
    assert (stem_of(name), suffix_of(name)) == (stem, suffix)


def test_whatever_can_be_written_can_be_read():
    assert set(WRITERS) <= set(READERS) == set(SUFFIXES)


@pytest.fixture
def good(tmp_path):
    """One good file of every kind, by what its contents are."""
    pixels = Image.fromarray(numbers((9, 9), "u1"))
    for suffix in ("png", "jpg", "gif", "bmp"):
        pixels.save(tmp_path / f"good.{suffix}")
    tifffile.imwrite(tmp_path / "good.tif", numbers((9, 9), "u1"))
    nib.save(nib.Nifti1Image(numbers((4, 5, 6), "u1"), np.eye(4)), tmp_path / "good.nii")
    nib.save(nib.Nifti1Image(numbers((4, 5, 6), "u1"), np.eye(4)), tmp_path / "good.nii.gz")
    (tmp_path / "good.txt").write_text("no image at all\n" * 99)
    (tmp_path / "good.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 400)
    (tmp_path / "good.bin").write_bytes(bytes(range(256)) * 4)
    return {path.name.partition(".")[2]: path for path in sorted(tmp_path.iterdir())}


def test_paths_may_be_strings_and_in_capitals(good, tmp_path):
    shutil.copy(good["nii.gz"], tmp_path / "CT.NII.GZ")
    shutil.copy(good["png"], tmp_path / "CT.PNG")
    shutil.copy(good["tif"], tmp_path / "CT.TIFF")
    for name in ("CT.NII.GZ", "CT.PNG", "CT.TIFF"):
        scan = open_scan(str(tmp_path / name))
        assert isinstance(scan, Scan) and scan.name == str(tmp_path / name)
        scan.read(Box.of(scan.shape))


@pytest.mark.parametrize("suffix", [s for s in SUFFIXES if "zarr" not in s])
def test_contents_of_another_kind_are_refused_by_name(good, tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    kinds = {"nii.gz": {"nii.gz"}, "nii": {"nii", "hdr", "img"}, "jpg": {"jpg", "jpeg"}}
    for kind, path in good.items():
        ours = {".tif", ".tiff", ".ome.tif", ".ome.tiff", ".svs", ".ndpi"} if kind == "tif" else set()
        if suffix in ours or suffix[1:] in kinds.get(kind, {kind}):
            continue
        wrong = f"wrong{suffix}"
        shutil.copy(path, wrong)
        with pytest.raises(ScanError, match=rf"^{wrong}: ") as error:
            scan = open_scan(wrong)
            scan.read(Box.of(scan.shape))
        assert len(str(error.value)) < 300


def test_the_sentence_says_what_the_contents_are(good, tmp_path):
    shutil.copy(good["png"], tmp_path / "a.nii")
    with pytest.raises(ScanError, match=r"is no NIfTI file, though named \.nii: its contents are PNG"):
        open_scan(tmp_path / "a.nii")
    shutil.copy(good["nii.gz"], tmp_path / "b.nii")
    with pytest.raises(ScanError, match="its contents are gzip"):
        open_scan(tmp_path / "b.nii")
    shutil.copy(good["txt"], tmp_path / "c.png")
    with pytest.raises(ScanError, match="its contents are text"):
        open_scan(tmp_path / "c.png")


@pytest.mark.parametrize("suffix", [s for s in SUFFIXES if "zarr" not in s])
def test_empty_and_missing_files(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    with pytest.raises(ScanError, match="no such file"):
        open_scan(path)
    path.touch()
    with pytest.raises(ScanError, match=r"is empty \(0 bytes\)"):
        open_scan(path)


@pytest.mark.parametrize("name", ["a.mgz", "a.mnc", "a.PAR", "a+orig.HEAD", "a.txt", "a", ".nii"])
def test_other_formats_are_refused_with_those_that_are_supported(tmp_path, name):
    (tmp_path / name).write_bytes(b"something")
    with pytest.raises(ScanError, match=r"not supported; supported are \.nii \.nii\.gz .*\.zarr"):
        open_scan(tmp_path / name)


@pytest.mark.parametrize("name", ["a.zarr", "a.ome.zarr", "folder", "a.nii"])
def test_a_folder_that_is_no_zarr(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(ScanError, match="is a folder, and no Zarr"):
        open_scan(tmp_path / name)


def test_a_file_that_is_named_as_a_folder(good, tmp_path):
    shutil.copy(good["png"], tmp_path / "a.zarr")
    with pytest.raises(ScanError, match=r"a\.zarr: "):
        open_scan(tmp_path / "a.zarr")


def test_a_file_that_may_not_be_read(good, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ScanError, match=r"cannot be opened \(Permission denied\)"):
        open_scan(good["png"])


def test_a_file_that_goes_away(good):
    scan = open_scan(good["nii"])
    os.unlink(good["nii"])
    with pytest.raises(ScanError, match="No such file"):
        scan.read(Box.of(scan.shape))


@pytest.mark.parametrize("name", ["a.jpg", "a.mgz", "a", "a.svs", "a.hdr"])
def test_a_mask_of_another_format_is_refused_with_those_that_are_written(tmp_path, name):
    with pytest.raises(OutputError, match=r"cannot write this format; masks are written as \.nii \.nii\.gz"):
        create_mask(tmp_path / name, open_scan(np.zeros((1, 4, 5))))
    assert not any(tmp_path.iterdir())
