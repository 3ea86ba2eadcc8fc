import errno
import hashlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scan_laws import boxes, grid_boxes, numbers

from medseg.errors import OutputError
from medseg.geometry import Box
from medseg.scans import scratch
from medseg.scans.header import Header, HeaderScan, diagonal
from medseg.scans.scan import WRITERS, create_mask, open_scan

ROTATED = nib.affines.from_matvec(np.array([[0.0, -2.0, 0.1], [1.5, 0.0, 0.3], [0.0, 0.2, 3.0]]), [1.25, -20, 30])
GRIDS = {
    "array": Header("array", (21, 34), 1, np.dtype("u1"), "YX", np.eye(4), "pixel"),
    "stack": Header("stack", (5, 21, 18), 1, np.dtype("u1"), "ZYX", np.eye(4), "pixel"),
    "slice": Header("slice", (1, 21, 18), 1, np.dtype("u1"), "ZYX", np.eye(4), "pixel"),
    "micrometres": Header("um", (5, 21, 18), 1, np.dtype("u1"), "ZYX", diagonal((2e-3, 5e-4, 3e-4), (1, 2, 3)), "um"),
    "nanometres": Header("nm", (21, 18), 1, np.dtype("u1"), "YX", diagonal((3e-6, 4e-6)), "nm"),
    "CT": Header("ct", (7, 9, 11), 1, np.dtype("i2"), "XYZ", ROTATED, "mm", anatomical=True),
    "column": Header("column", (9, 11, 1), 1, np.dtype("i2"), "XYZ", ROTATED, "mm", anatomical=True),
    "flat": Header("flat", (9, 11), 1, np.dtype("i2"), "XY", ROTATED, "mm", anatomical=True),
}
WRITTEN = sorted(set(WRITERS) - {".dcm"})  # which lies on DICOM series alone: test_dicom_seg.py


def like(grid):
    return HeaderScan(GRIDS[grid])


def digest(path):
    """Of a file, or of all files in a folder with their places in it."""
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    return hashlib.sha256(b"".join(str(f.relative_to(path)).encode() + f.read_bytes() for f in files)).hexdigest()


def write(path, scan, labels, places, channels=None, **options):
    sink = create_mask(path, scan, dtype=labels.dtype, channels=channels, **options)
    for box in places:
        sink.write(box, labels[(..., *box.slices)])
    sink.close()
    return path


def suits(suffix, grid, dtype="u1", channels=None):
    return suffix != ".png" or (len(GRIDS[grid].shape) == 2 and dtype in ("u1", "u2") and channels is None)


CASES = [
    (suffix, grid, dtype, channels)
    for n, suffix in enumerate(WRITTEN)
    for m, grid in enumerate(GRIDS)
    for dtype, channels in [
        ("u1", None),
        *([("u2", None), ("f4", 2), ("i4", None), ("u1", 3), ("u4", 1)][(n + m) % 5 :][:1]),
    ]
    if suits(suffix, grid, dtype, channels)
]


@pytest.mark.parametrize(("suffix", "grid", "dtype", "channels"), CASES)
def test_what_is_written_is_read_back_with_its_grid(tmp_path, suffix, grid, dtype, channels):
    scan = like(grid)
    labels = numbers(((channels,) if channels else ()) + scan.shape, dtype)
    places = grid_boxes(scan.shape, [max(1, n // 2) for n in scan.shape])
    np.random.default_rng(0).shuffle(places)
    mask = open_scan(write(tmp_path / f"new folder/a{suffix}", scan, labels, places, channels))
    np.testing.assert_array_equal(mask.read(Box.of(mask.shape)), labels if channels else labels[None])
    assert mask.dtype == labels.dtype
    assert (mask.shape, mask.axes, mask.unit) == (scan.shape, scan.axes, scan.unit)
    assert mask.anatomical == scan.anatomical
    np.testing.assert_allclose(mask.affine, scan.affine, rtol=1e-6, atol=1e-9)
    assert [p.name for p in (tmp_path / "new folder").iterdir()] == [f"a{suffix}"]


@pytest.mark.parametrize("suffix", WRITTEN)
@given(st.data())
def test_the_same_labels_are_the_same_bytes_in_any_order(tmp_path_factory, suffix, data):
    folder = tmp_path_factory.mktemp("sinks")
    scan = like("array")
    labels = numbers(scan.shape, "u1") // 100
    labels[: data.draw(st.integers(0, 21))] = 0
    sides = data.draw(st.tuples(st.integers(4, 21), st.integers(4, 34)))
    places = data.draw(st.permutations(grid_boxes(scan.shape, sides)))
    again = data.draw(boxes(scan.shape))
    one = write(folder / f"one{suffix}", scan, labels, [Box.of(scan.shape)], chunks=(8, 8))
    two = write(folder / f"two{suffix}", scan, labels, [*places, again], chunks=(8, 8))
    assert digest(one) == digest(two)


@pytest.mark.parametrize("suffix", WRITTEN)
@given(st.data())
def test_interrupted_equals_uninterrupted(tmp_path_factory, suffix, data):
    folder = tmp_path_factory.mktemp("sinks")
    scan = like("array")
    labels = numbers(scan.shape, "u1")
    places = grid_boxes(scan.shape, (8, 8))
    cut = data.draw(st.integers(0, len(places)))
    one = write(folder / f"one{suffix}", scan, labels, places, chunks=(8, 8))
    sink = create_mask(folder / f"two{suffix}", scan, chunks=(8, 8))
    for box in places[:cut]:
        sink.write(box, labels[box.slices])
    sink.flush()
    del sink
    resumed = create_mask(folder / f"two{suffix}", scan, chunks=(8, 8), resume=True)
    assert resumed.resumed
    for box in places[cut:]:
        resumed.write(box, labels[box.slices])
    resumed.close()
    resumed.close()
    assert digest(one) == digest(folder / f"two{suffix}")
    assert sorted(p.name for p in folder.iterdir()) == [f"one{suffix}", f"two{suffix}"]


@pytest.mark.parametrize("suffix", WRITTEN)
def test_what_was_flushed_outlives_a_killed_process(tmp_path, suffix):
    script = f"""
import os, signal
import numpy as np
from medseg.scans.scan import create_mask, open_scan
from medseg.geometry import Box
sink = create_mask({str(tmp_path / ("a" + suffix))!r}, open_scan(np.zeros((1, 20, 30))))
sink.write(Box((3, 4), (9, 22)), np.full((6, 18), 7, np.uint8))
sink.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    )
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / f"a{suffix}").exists()
    create_mask(tmp_path / f"a{suffix}", open_scan(np.zeros((1, 20, 30))), resume=True).close()
    want = np.zeros((1, 20, 30))
    want[0, 3:9, 4:22] = 7
    np.testing.assert_array_equal(open_scan(tmp_path / f"a{suffix}").read(Box.of((20, 30))), want)


MOVED = replace(GRIDS["array"], affine=diagonal((1, 1), (5, 5)))


@pytest.mark.parametrize("suffix", WRITTEN)
@pytest.mark.parametrize(
    "other", [{"dtype": np.uint16}, {"like": HeaderScan(MOVED)}, {"resume": False}], ids=["dtype", "grid", "fresh"]
)
def test_another_layout_is_not_resumed(tmp_path, suffix, other):
    path = tmp_path / f"a{suffix}"
    left = create_mask(path, like("array"), chunks=(8, 8))
    left.write(Box.of((21, 34)), np.ones((21, 34), np.uint8))
    del left
    sink = create_mask(path, **{"like": like("array"), "chunks": (8, 8), "resume": True} | other)
    assert not sink.resumed
    sink.close()
    assert not open_scan(path).read(Box.of((21, 34))).any()


@pytest.mark.parametrize("suffix", WRITTEN)
def test_what_exists_is_replaced_only_when_told_and_only_when_complete(tmp_path, suffix):
    scan = like("array")
    path = write(tmp_path / f"a{suffix}", scan, np.ones((21, 34), np.uint8), [Box.of((21, 34))])
    with pytest.raises(OutputError, match=r"exists; use --overwrite"):
        create_mask(path, scan)
    before = digest(path)
    sink = create_mask(path, scan, overwrite=True)
    sink.write(Box.of((21, 34)), np.full((21, 34), 2, np.uint8))
    assert digest(path) == before
    sink.close()
    assert (open_scan(path).read(Box.of((21, 34))) == 2).all()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_mask_never_replaces_the_scan_that_it_is_made_from(tmp_path):
    path = write(tmp_path / "a.tif", like("array"), np.ones((21, 34), np.uint8), [])
    with pytest.raises(OutputError, match="is the scan itself"):
        create_mask(path, open_scan(path), overwrite=True)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".tif", ".png"])
def test_a_full_disk(tmp_path, monkeypatch, suffix):
    sink = create_mask(tmp_path / f"a{suffix}", like("array"))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(scratch.os, "pwrite", full)
    with pytest.raises(OutputError, match=rf"a\{suffix}: cannot be written \(No space left on device\); make room"):
        sink.write(Box.of((21, 34)), np.ones((21, 34), np.uint8))
    assert not (tmp_path / f"a{suffix}").exists()


def test_a_full_disk_under_a_zarr(tmp_path, monkeypatch):
    sink = create_mask(tmp_path / "a.zarr", like("array"))

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("zarr.storage._local._put", full)
    with pytest.raises(OutputError, match="No space left on device"):
        sink.write(Box.of((21, 34)), np.ones((21, 34), np.uint8))


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        create_mask(tmp_path / "file" / "a.nii", like("array"))


@pytest.mark.parametrize(
    ("name", "grid", "options", "words"),
    [
        ("a.png", "CT", {}, r"two axes, not uint8 of shape \(7, 9, 11\); use \.tif"),
        ("a.png", "array", {"channels": 2}, r"use \.tif"),
        ("a.png", "array", {"dtype": np.int32}, r"use \.tif"),
        ("a.ome.tif", "array", {"dtype": np.uint64}, "OME-TIFF has no type uint64"),
        ("a.nii", "array", {"dtype": np.dtype("O")}, "a mask of object cannot be written"),
        ("a.zarr", "array", {"dtype": np.int32, "unit_interval": True}, "stored as uint8, float16 or float32"),
        ("a.nii", "array", {"dtype": complex}, "complex128"),
        ("a.zarr", "array", {"chunks": (8,)}, "one length of 1 or more for each of 2 axes"),
        ("a.zarr", "array", {"chunks": (8, 0)}, "one length of 1 or more"),
        ("a.zarr", "array", {"channels": 0}, "at least one channel"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(tmp_path, name, grid, options, words):
    with pytest.raises(OutputError, match=words):
        create_mask(tmp_path / name, like(grid), **options)
    assert not any(tmp_path.iterdir())


def test_other_programs_read_the_same(tmp_path):
    scan, labels = like("micrometres"), numbers((5, 21, 18), "u2")
    whole = [Box.of(scan.shape)]
    np.testing.assert_array_equal(
        np.asarray(nib.load(write(tmp_path / "a.nii.gz", scan, labels, whole)).dataobj), labels
    )
    assert nib.load(tmp_path / "a.nii.gz").header.get_xyzt_units()[0] == "micron"
    np.testing.assert_allclose(nib.load(tmp_path / "a.nii.gz").header.get_zooms(), (2, 0.5, 0.3), rtol=1e-6)
    np.testing.assert_array_equal(tifffile.imread(write(tmp_path / "a.tif", scan, labels, whole)), labels)
    with tifffile.TiffFile(write(tmp_path / "a.ome.tif", scan, labels, whole)) as file:
        np.testing.assert_array_equal(file.asarray(), labels)
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
        assert [pixels[f"PhysicalSize{a}"] for a in "ZYX"] == pytest.approx([2, 0.5, 0.3])
        assert file.series[0].axes == "ZYX" and file.pages[0].is_tiled
    group = zarr.open(write(tmp_path / "a.ome.zarr", scan, labels, whole, chunks=(2, 8, 8)), mode="r")
    np.testing.assert_array_equal(group["0"][:], labels)
    assert group["0"].chunks == (2, 8, 8) and group.metadata.zarr_format == 3
    (image,) = group.attrs["ome"]["multiscales"]
    assert [axis["name"] for axis in image["axes"]] == ["z", "y", "x"]
    assert {axis["unit"] for axis in image["axes"]} == {"micrometer"}
    scale, translation = image["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == pytest.approx([2, 0.5, 0.3]) and translation["translation"] == pytest.approx(
        [1e3, 2e3, 3e3]
    )
    flat = write(tmp_path / "a.png", like("array"), labels[0, :21, :1].repeat(34, 1), [Box.of((21, 34))])
    np.testing.assert_array_equal(np.asarray(Image.open(flat)), labels[0, :21, :1].repeat(34, 1))


def test_a_mask_of_many_tiles_and_rows(tmp_path):
    scan = open_scan(np.broadcast_to(np.zeros(1, np.uint8), (1, 700, 900)))
    labels = numbers((700, 900), "u2")
    for suffix in (".tif", ".png", ".ome.tif"):
        path = write(tmp_path / f"a{suffix}", scan, labels, grid_boxes((700, 900), (300, 400)))
        read = tifffile.imread if "tif" in suffix else lambda p: np.asarray(Image.open(p))
        np.testing.assert_array_equal(read(path), labels)


def test_no_file_holds_the_time(tmp_path):
    scan, labels = like("stack"), numbers((5, 21, 18), "u1")
    path = write(tmp_path / "a.nii.gz", scan, labels, [Box.of(scan.shape)])
    assert path.read_bytes()[3:8] == bytes(5)
    with tifffile.TiffFile(write(tmp_path / "a.tif", scan, labels, [Box.of(scan.shape)])) as file:
        assert not {"DateTime", "Software"} & {tag.name for tag in file.pages[0].tags}


@pytest.mark.parametrize("suffix", [".nii", ".zarr"])
def test_chunks_that_are_cheap_to_write(tmp_path, suffix):
    assert create_mask(tmp_path / f"a{suffix}", like("CT")).chunks == ((1, 1, 1) if suffix == ".nii" else (7, 9, 11))
    wanted = create_mask(tmp_path / f"b{suffix}", like("CT"), chunks=(4, 4, 64))
    assert wanted.chunks == ((1, 1, 1) if suffix == ".nii" else (4, 4, 64))
