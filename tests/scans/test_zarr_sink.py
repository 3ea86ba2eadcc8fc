import errno
import os
from itertools import count

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from scan_laws import grid_boxes, numbers
from test_sinks import digest, like, write

from medseg.errors import OutputError
from medseg.geometry import Box
from medseg.scans import pyramid, zarr_sink
from medseg.scans.scan import create_mask, open_scan
from medseg.scans.zarr_sink import ZarrSink


@pytest.fixture(autouse=True)
def small_levels(monkeypatch):
    """So that a mask of a few voxels has several levels."""
    monkeypatch.setattr(pyramid, "LARGEST", {2: 4, 3: 4})


def steps(image, number):
    """Scale and translation of a level, 0 where none is stated."""
    said = {t["type"]: np.array(t[t["type"]]) for t in image["datasets"][number]["coordinateTransformations"]}
    return said["scale"], said.get("translation", np.zeros(len(said["scale"])))


@given(st.data())
def test_every_level_of_labels_holds_every_second_voxel_at_its_place(tmp_path_factory, data):
    grid = data.draw(st.sampled_from(["array", "stack", "micrometres", "CT", "column"]))
    scan = like(grid)
    chunks = data.draw(st.tuples(*[st.integers(3, 12)] * len(scan.shape)))
    labels = numbers(scan.shape, "u2")
    path = write(tmp_path_factory.mktemp("z") / "a.ome.zarr", scan, labels, [Box.of(scan.shape)], chunks=chunks)
    group = zarr.open(path, mode="r")
    (image,) = group.attrs["ome"]["multiscales"]
    names = [entry["path"] for entry in image["datasets"]]
    assert names == [str(n) for n in range(len(names))] and set(names) == set(group.array_keys()) and len(names) > 1
    spacing, origin = steps(image, 0)
    for number, name in enumerate(names):
        scale, translation = steps(image, number)
        factor = np.rint(scale / spacing).astype(int)
        np.testing.assert_allclose(scale, spacing * factor)
        np.testing.assert_array_equal(translation, origin)
        np.testing.assert_array_equal(group[name][:], labels[tuple(slice(None, None, f) for f in factor)])
    np.testing.assert_array_equal(open_scan(path).read(Box.of(scan.shape))[0], labels)


@pytest.mark.parametrize(("dtype", "shares"), [("f4", False), ("f2", True), ("u1", True)])
@pytest.mark.parametrize("grid", ["nanometres", "CT"])
def test_every_level_of_shares_holds_the_means_of_the_one_before_between_its_voxels(tmp_path, grid, dtype, shares):
    scan = like(grid)
    values = np.random.default_rng(0).random((2, *scan.shape), dtype=np.float32)
    sink = create_mask(
        tmp_path / "a.zarr", scan, dtype=dtype, channels=2, chunks=(4,) * len(scan.shape), unit_interval=shares
    )
    sink.write(Box.of(scan.shape), values if shares else values.astype(dtype))
    sink.close()
    group = zarr.open(tmp_path / "a.zarr", mode="r")
    (image,) = group.attrs["ome"]["multiscales"]
    assert len(image["datasets"]) > 2
    for number in range(1, len(image["datasets"])):
        fine, coarse = group[str(number - 1)][:], group[str(number)]
        (scale, translation), (before, shift) = steps(image, number), steps(image, number - 1)
        step = np.rint(scale / before).astype(int)
        np.testing.assert_allclose(translation, shift + (step - 1) / 2 * before)
        np.testing.assert_array_equal(coarse[:], pyramid.mean(fine, tuple(step[1:])))
        assert coarse.chunks[0] == 1


@pytest.mark.parametrize("calls", [0, 1, 7, 20])
def test_a_full_disk_or_a_kill_while_the_levels_are_written_loses_nothing(tmp_path, monkeypatch, calls):
    scan, labels = like("array"), numbers((21, 34), "u1")
    whole = write(tmp_path / "whole.zarr", scan, labels, [Box.of(scan.shape)], chunks=(3, 3))
    sink = create_mask(tmp_path / "torn.zarr", scan, chunks=(3, 3))
    sink.write(Box.of(scan.shape), labels)
    coarsen, called = ZarrSink._coarsen, count()

    def full(self, *arguments):
        if next(called) == calls:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        coarsen(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ZarrSink, "_coarsen", full)
        with pytest.raises(OutputError, match="make room and start again: what is written is kept"):
            sink.close()
    assert not (tmp_path / "torn.zarr").exists()
    resumed = create_mask(tmp_path / "torn.zarr", scan, chunks=(3, 3), resume=True)
    assert resumed.resumed
    resumed.close()
    assert digest(whole) == digest(tmp_path / "torn.zarr")


@given(st.tuples(st.integers(3, 8), st.integers(3, 8)))
def test_no_more_than_a_few_chunks_are_held(tmp_path_factory, chunks):
    read = []

    def watched(values, step):
        read.append(values.size)
        return pyramid.every_second(values, step)

    scan = like("array")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zarr_sink, "every_second", watched)
        write(tmp_path_factory.mktemp("z") / "a.zarr", scan, np.ones((21, 34), "u1"), [], chunks=chunks)
    odd = sum(c % 2 for c in chunks)
    assert 0 < max(read) <= np.prod(chunks) * 2**odd


@pytest.mark.parametrize(
    ("box", "locks"),
    [
        (Box((0, 0), (8, 16)), 0),
        (Box((16, 24), (21, 34)), 0),
        (Box((0, 0), (21, 34)), 0),
        (Box((0, 0), (7, 8)), 1),
        (Box((4, 0), (8, 8)), 1),
    ],
)
def test_only_boxes_that_share_a_chunk_take_turns(tmp_path, monkeypatch, box, locks):
    taken = []

    def watched(path):
        taken.append(path)
        return lock(path)

    lock = zarr_sink.locked
    monkeypatch.setattr(zarr_sink, "locked", watched)
    sink = create_mask(tmp_path / "a.zarr", like("array"), chunks=(8, 8))
    sink.write(box, np.ones(box.shape, np.uint8))
    assert len(taken) == locks


def test_chunks_without_labels_take_no_file(tmp_path):
    path = write(tmp_path / "a.zarr", like("array"), np.zeros((21, 34), "u1"), grid_boxes((21, 34), (8, 8)))
    assert {file.name for file in path.rglob("*") if file.is_file()} == {"zarr.json"}
