import tempfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg import Box, open_scan
from medseg.errors import ScanError
from medseg.preparing import arrays
from medseg.preparing.arrays import CHUNK_BYTES, ChunkedScan, blocks_of, chunk_of, write_array
from medseg.scans.header import Header, HeaderScan

SHAPES = st.one_of(st.tuples(*[st.integers(1, 40)] * 2), st.tuples(*[st.integers(1, 24)] * 3))
DTYPES = st.sampled_from(["uint8", "int16", "float32", "float64"])


class Watched(HeaderScan):
    """A scan of any size that is computed; it remembers the boxes that were read."""

    def __init__(self, shape, spacing=(1.0, 1.0, 1.0), channels=1, axes="XYZ"):
        affine = np.diag([*spacing, *[1.0] * (4 - len(spacing))])
        super().__init__(Header("watched", shape, channels, np.dtype("float32"), axes, affine, "mm"))
        self.boxes = []

    def _read(self, box):
        self.boxes.append(box)
        return np.full((self.channels, *box.shape), sum(box.start), np.float32)


@settings(max_examples=15)
@given(shape=SHAPES, channels=st.integers(1, 3), dtype=DTYPES, side=st.integers(3, 16), data=st.data())
def test_any_box_of_what_was_written_is_the_scans_and_zarr_reads_the_same(shape, channels, dtype, side, data):
    voxels = np.random.default_rng(0).integers(0, 99, (channels, *shape)).astype(dtype)
    start = [data.draw(st.integers(0, n - 1)) for n in shape]
    box = Box(tuple(start), tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)))
    scan = open_scan(voxels)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "chunk_of", lambda scan, dtype: tuple(min(side, n) for n in scan.shape))
        chunk = write_array(scan, Path(folder) / "a")
        read = ChunkedScan(scan.header, Path(folder) / "a", chunk).read(box)
        np.testing.assert_array_equal(zarr.open_array(Path(folder) / "a", mode="r")[:], voxels)
    assert read.dtype == voxels.dtype
    np.testing.assert_array_equal(read, voxels[(slice(None), *box.slices)])


@settings(max_examples=40)
@given(
    shape=st.tuples(*[st.integers(1, 900)] * 3),
    spacing=st.tuples(*[st.sampled_from([0.4, 1.0, 5.0])] * 3),
    channels=st.integers(1, 5),
    axes=st.sampled_from(["XYZ", "ZYX"]),
)
def test_blocks_are_of_whole_chunks_partition_the_scan_and_are_bounded(shape, spacing, channels, axes):
    scan = Watched(shape, spacing, channels, axes)
    chunk = chunk_of(scan, scan.dtype)
    assert channels * np.prod(chunk) * 4 <= 2 * CHUNK_BYTES
    boxes = list(blocks_of(scan, chunk))
    assert sum(box.voxels for box in boxes) == np.prod(shape)
    for box in boxes:
        assert all(a % c == 0 for a, c in zip(box.start, chunk, strict=True))
        assert all(b % c == 0 or b == n for b, c, n in zip(box.stop, chunk, shape, strict=True))
        assert channels * box.voxels <= max(arrays.BLOCK_VOXELS, channels * np.prod(chunk))


def test_chunks_are_flat_where_slices_are_thick():
    thick = chunk_of(Watched((500, 500, 500), (0.7, 0.7, 5.0)), np.dtype("float32"))
    assert thick[2] < thick[0] == thick[1]
    assert len(set(chunk_of(Watched((500, 500, 500)), np.dtype("float32")))) == 1


def test_a_scan_of_any_size_is_written_in_blocks_of_the_same_size(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "BLOCK_VOXELS", 1 << 15)
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 1 << 14)
    small, large = Watched((64, 64, 32)), Watched((64, 64, 96))
    for name, scan in (("small", small), ("large", large)):
        write_array(scan, tmp_path / name)
    assert max(box.voxels for box in large.boxes) == max(box.voxels for box in small.boxes) <= 1 << 15
    assert sum(box.voxels for box in large.boxes) == 64 * 64 * 96


def test_only_the_chunks_of_a_box_are_read(tmp_path, monkeypatch):
    scan = open_scan(np.zeros((1, 40, 40, 40), np.uint8))
    monkeypatch.setattr(arrays, "chunk_of", lambda scan, dtype: (10, 10, 10))
    stored = ChunkedScan(scan.header, tmp_path / "a", write_array(scan, tmp_path / "a"))
    seen, decode = [], stored.decode
    monkeypatch.setattr(stored, "decode", lambda index, out: seen.append(index) or decode(index, out))
    stored.read(Box((5, 10, 0), (15, 20, 1)))
    assert seen == [(0, 1, 0), (1, 1, 0)]


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped", "empty"])
def test_a_chunk_that_is_gone_or_has_changed_is_an_error_and_never_zeros(tmp_path, damage):
    scan = open_scan(np.ones((1, 20, 20), np.float32))
    stored = ChunkedScan(scan.header, tmp_path / "a", write_array(scan, tmp_path / "a"))
    chunk = next(path for path in (tmp_path / "a" / "c").rglob("*") if path.is_file())
    held = bytearray(chunk.read_bytes())
    if damage == "gone":
        chunk.unlink()
    elif damage == "flipped":
        held[len(held) // 2] ^= 1
        chunk.write_bytes(held)
    else:
        chunk.write_bytes(held[: len(held) // 2 if damage == "cut" else 0])
    with pytest.raises(ScanError):
        stored.read(Box.of((20, 20)))
