import errno
import logging
import math
import multiprocessing
import os
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
import tifffile
from scan_laws import grid_boxes, numbers
from test_sinks import WRITTEN, digest, like, suits, write

from medseg.errors import OutputError
from medseg.geometry import Box
from medseg.scans import scratch, zarr_sink
from medseg.scans.scan import create_mask, mask_bytes, open_scan
from medseg.scans.sink import free_bytes

JOINED = [".nii", ".tif", ".png", ".ome.zarr"]
SHAPE = (21, 34)


def labels_of(box):
    """A label for each voxel, none of them 0."""
    rows, columns = np.indices(box.shape)
    return ((rows + box.start[0]) * 7 + columns + box.start[1]).astype(np.uint8) % 255 + 1


def write_third(folder, number, together):
    """What one of three processes does: every third box of each mask, of which many share a chunk."""
    for suffix in JOINED:
        sink = create_mask(folder / f"a{suffix}", like("array"), chunks=(16, 16), join=True)
        together.wait(timeout=100)
        for box in grid_boxes(SHAPE, (3, 5))[number::3]:
            sink.write(box, labels_of(box))
        sink.flush()
        sink.close()


def test_processes_write_one_mask_together(tmp_path):
    sinks = [create_mask(tmp_path / f"a{suffix}", like("array"), chunks=(16, 16)) for suffix in JOINED]
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(3)
    others = [context.Process(target=write_third, args=(tmp_path, number, together)) for number in (1, 2)]
    for other in others:
        other.start()
    write_third(tmp_path, 0, together)
    for other in others:
        other.join()
    assert [other.exitcode for other in others] == [0, 0]
    for suffix, sink in zip(JOINED, sinks, strict=True):
        assert not (tmp_path / f"a{suffix}").exists()
        sink.close()
        mask = open_scan(tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(mask.read(Box.of(SHAPE))[0], labels_of(Box.of(SHAPE)))


def entries(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("suffix", WRITTEN)
@pytest.mark.parametrize("options", [None, {"dtype": np.uint16}, {"like": like("flat")}], ids=["none", "dtype", "grid"])
def test_only_a_mask_of_the_same_layout_is_joined_and_nothing_is_changed(tmp_path, suffix, options):
    path = tmp_path / f"a{suffix}"
    if options is not None:
        sink = create_mask(path, like("array"))
        sink.write(Box.of(SHAPE), labels_of(Box.of(SHAPE)))
    before = entries(tmp_path)
    with pytest.raises(OutputError, match=r"no unfinished mask of this grid, dtype and layout to join"):
        create_mask(path, **{"like": like("array"), "join": True} | (options or {}))
    assert entries(tmp_path) == before


def test_joining_tidies_nothing_and_a_mask_in_memory_is_nobody_elses(tmp_path):
    create_mask(tmp_path / "a.zarr", like("array"))
    torn = tmp_path / ".a.zarr.partial" / "0.partial"
    torn.write_bytes(b"another process is writing this")
    joined = create_mask(tmp_path / "a.zarr", like("array"), join=True)
    joined.close()
    assert joined.resumed and torn.exists()
    with pytest.raises(OutputError, match="in memory cannot be joined"):
        create_mask(None, like("array"), join=True)


@pytest.mark.parametrize("suffix", [s for s in WRITTEN if s != ".png"])
@pytest.mark.parametrize("dtype", ["u1", "f2", "f4"])
@pytest.mark.parametrize("grid", ["array", "CT"])
def test_shares_are_stored_as_asked_for(tmp_path, suffix, dtype, grid):
    scan = like(grid)
    shares = np.random.default_rng(0).random((3, *scan.shape), dtype=np.float32)
    shares[:, 0], shares[:, -1] = 0, 1
    sink = create_mask(tmp_path / f"a{suffix}", scan, dtype=dtype, channels=3, unit_interval=True)
    sink.write(Box.of(scan.shape), shares)
    sink.close()
    mask = open_scan(tmp_path / f"a{suffix}")
    stored = mask.read(Box.of(scan.shape))
    if dtype == "u1" and ".nii" in suffix:
        np.testing.assert_allclose(stored, np.rint(255 * shares) / 255, atol=1e-6)
        other = np.moveaxis(np.squeeze(nib.load(tmp_path / f"a{suffix}").get_fdata()), -1, 0)
        np.testing.assert_allclose(other, stored, atol=1e-6)
    elif dtype == "u1":
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(stored, np.rint(255 * shares))
    elif dtype == "f2" and (".nii" in suffix or ".ome.tif" in suffix):
        assert mask.dtype == np.float32
        np.testing.assert_array_equal(stored, shares)
    else:
        assert mask.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(stored, shares.astype(dtype))


def on_disk(folder):
    """Files and folders in whole disk blocks."""
    return sum(max(1, -(-p.stat().st_size // 4096)) * 4096 if p.is_file() else 4096 for p in folder.rglob("*"))


@pytest.mark.parametrize("suffix", WRITTEN)
@pytest.mark.parametrize(("dtype", "channels"), [("u1", None), ("u2", None), ("f4", 3), ("f2", 2)])
def test_a_job_takes_no_more_disk_than_was_said_even_of_noise(tmp_path, monkeypatch, suffix, dtype, channels):
    if not suits(suffix, "array", dtype, channels):
        pytest.skip("a PNG holds no such mask")
    scan = open_scan(np.broadcast_to(np.zeros(1, np.uint8), (1, 530, 610)))
    voxels = numbers(((channels,) if channels else ()) + scan.shape, dtype)
    peak = []

    def watched(finished, final):
        peak.append(on_disk(tmp_path))
        publish(finished, final)

    publish = scratch.publish
    for module in (scratch, zarr_sink):
        monkeypatch.setattr(module, "publish", watched)
    path = tmp_path / f"a{suffix}"
    said = mask_bytes(path, scan, dtype, channels, (128, 128))
    assert not any(tmp_path.iterdir())
    write(path, scan, voxels, grid_boxes(scan.shape, (128, 128)), channels, chunks=(128, 128))
    widest = voxels.size * (4 if dtype == "f2" else voxels.itemsize)
    assert max(peak) <= said <= 4.5 * widest + 100_000


def test_a_mask_in_memory_takes_no_disk_and_the_disk_of_a_path_that_is_not_there_yet_is_found(tmp_path):
    assert mask_bytes(None, like("array")) == 0
    free = free_bytes(tmp_path / "new" / "folder" / "a.nii")
    assert free == pytest.approx(math.prod([os.statvfs(tmp_path).f_bavail, os.statvfs(tmp_path).f_frsize]), rel=0.1)
    with pytest.raises(OutputError, match="cannot write this format"):
        mask_bytes("a.jpg", like("array"))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".tif", ".ome.tif", ".png", ".zarr"])
def test_memory_does_not_grow_with_the_mask(tmp_path, suffix):
    scan = open_scan(np.broadcast_to(np.zeros(1, np.uint8), (1, 6000, 8000)))
    create_mask(tmp_path / f"first{suffix}", like("array")).close()
    tracemalloc.start()
    try:
        sink = create_mask(tmp_path / f"a{suffix}", scan)
        sink.write(Box((100, 200), (600, 700)), np.ones((500, 500), np.uint8))
        sink.close()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20e6 < 48e6 == math.prod(scan.shape)


@pytest.mark.parametrize("suffix", [".nii.gz", ".tif", ".png"])
def test_a_full_disk_while_closing_keeps_what_is_written(tmp_path, monkeypatch, suffix):
    scan, labels = like("array"), numbers(SHAPE, "u1")
    whole = write(tmp_path / f"whole{suffix}", scan, labels, [Box.of(SHAPE)])
    sink = create_mask(tmp_path / f"a{suffix}", scan)
    sink.write(Box.of(SHAPE), labels)

    def full(path):
        assert path.name.endswith(".closing") and path.stat().st_size
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(scratch, "sync", full)
        with pytest.raises(OutputError, match=r"No space left on device.*what is written is kept"):
            sink.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == [f".a{suffix}.partial", f"whole{suffix}"]
    resumed = create_mask(tmp_path / f"a{suffix}", scan, resume=True)
    assert resumed.resumed
    resumed.close()
    assert digest(tmp_path / f"a{suffix}") == digest(whole)


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif"])
def test_a_large_page_has_coarser_levels_that_viewers_find(tmp_path, caplog, suffix):
    scan = open_scan(np.broadcast_to(np.zeros(1, np.uint8), (1, 301, 5001)))
    labels = numbers(scan.shape, "u1")
    path = write(tmp_path / f"a{suffix}", scan, labels, grid_boxes(scan.shape, (200, 999)))
    with caplog.at_level(logging.WARNING), tifffile.TiffFile(path) as file:
        levels = file.series[0].levels
        assert len(file.series) == len(file.pages) == 1
        assert [level.shape for level in levels][:3] == [(301, 5001), (151, 2501), (76, 1251)]
        assert max(levels[-1].shape) <= 256
        for number, level in enumerate(levels):
            np.testing.assert_array_equal(level.asarray(), labels[:: 2**number, :: 2**number])
    assert not caplog.records
    np.testing.assert_array_equal(open_scan(path).read(Box.of(scan.shape))[0], labels)
