"""An array on the disk of which patches are read: Zarr 3, chunks of blosc (zstd), each with a checksum.

    scan ── blocks of whole chunks ──> FOLDER/zarr.json, FOLDER/c/0/2/1/0 ... ── the chunks of a box ──> patch

zarr writes it, and anything that reads Zarr 3 reads it. Patches are read without zarr, whose own work on a chunk takes
ten times as long as decoding it does; what zarr would leave out of sight here comes to light: a chunk that is missing,
where zarr reads zeros, and one whose bytes have changed.

Legend: C channels, all of them in every chunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ScanError
from medseg.geometry import Box
from medseg.scans.blocks import BLOCK_VOXELS, boxes
from medseg.scans.header import Header, HeaderScan
from medseg.scans.protocol import Scan

CHUNK_BYTES = 1 << 19
"""About what a chunk holds, decoded: less and its file costs more than its values, more and patches read too much."""
STEP = 8
"""Chunks' sides are multiples of it, as long as the scan is."""
CHECKSUM_BYTES = 4


def chunk_of(scan: Scan, dtype: np.dtype) -> tuple[int, ...]:
    """The sides of chunks, about equal in millimetres, since patches are: flat ones where slices are thick."""
    spacing = np.array(scan.spacing_mm)
    side: float = (CHUNK_BYTES / (scan.channels * dtype.itemsize)) ** (1 / len(scan.shape))
    wanted = side * math.prod(spacing) ** (1 / len(spacing)) / spacing
    return tuple(min(max(int(w) // STEP * STEP, STEP), n) for w, n in zip(wanted, scan.shape, strict=True))


def blocks_of(scan: Scan, chunk: Sequence[int]) -> Iterator[Box]:
    """Boxes of whole chunks that partition a scan, long along the axes that its file runs fastest; of at most
    :data:`BLOCK_VOXELS` values, or of one chunk where that is more.
    """
    sides = list(chunk)
    axes = range(len(sides))
    for axis in axes if scan.axes.startswith("X") else reversed(axes):
        fitting = max(BLOCK_VOXELS // (scan.channels * math.prod(sides)), 1)
        sides[axis] = min(sides[axis] * fitting, -(-scan.shape[axis] // chunk[axis]) * chunk[axis])
    return boxes(scan.shape, sides)


def write_array(scan: Scan, folder: Path) -> tuple[int, ...]:
    """Writes a scan's voxels block by block; returns the chunks' sides.

    Raises:
        OSError: where the disk refuses.
        ScanError: where the scan cannot be read.
    """
    import zarr
    from zarr.codecs import BloscCodec, Crc32cCodec

    chunk = chunk_of(scan, scan.dtype)
    with zarr.config.set({"threading.max_workers": 1}):  # cases are the parallel unit
        array = zarr.create_array(
            folder,
            shape=(scan.channels, *scan.shape),
            chunks=(scan.channels, *chunk),
            dtype=scan.dtype,
            compressors=[
                BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=scan.dtype.itemsize),
                Crc32cCodec(),
            ],
            config={"write_empty_chunks": True},
        )
        for box in blocks_of(scan, chunk):
            array[(slice(None), *box.slices)] = scan.read(box)
    return chunk


class ChunkedScan(HeaderScan):
    """What :func:`write_array` wrote, as a scan.

    Args:
        header: the scan's.
        folder: of the Zarr array.
        chunk: the chunks' sides.
    """

    def __init__(self, header: Header, folder: Path, chunk: Sequence[int]) -> None:
        super().__init__(header)
        self.folder = folder
        self.chunk = tuple(chunk)

    def _read(self, box: Box) -> NDArray:
        out = np.empty((self.channels, *box.shape), self.dtype)
        decoded = np.empty((self.channels, *self.chunk), self.dtype)
        touched = [range(a // n, -(-b // n)) for a, b, n in zip(box.start, box.stop, self.chunk, strict=True)]
        for index in product(*touched):
            self.decode(index, decoded)
            offset = tuple(i * n - a for i, n, a in zip(index, self.chunk, box.start, strict=True))
            target = Box.of(self.chunk).shift(offset).clip(box.shape)
            out[(slice(None), *target.slices)] = decoded[(slice(None), *target.shift([-n for n in offset]).slices)]
        return out

    def decode(self, index: Sequence[int], out: NDArray) -> None:
        """Fills ``out`` (C, \\*chunk) with a chunk.

        Raises:
            OSError: where its file is missing.
            ScanError: where its bytes have changed.
        """
        from numcodecs import blosc

        stored = memoryview(self.folder.joinpath("c", "0", *map(str, index)).read_bytes())
        if not _sound(stored):
            raise ScanError(f"{self.name}: a chunk of its prepared array has changed on the disk")
        blosc.decompress(stored[:-CHECKSUM_BYTES], out)


def _sound(stored: memoryview) -> bool:
    """Whether a chunk's file ends in the checksum of what is before."""
    import google_crc32c

    content, checksum = stored[:-CHECKSUM_BYTES], stored[-CHECKSUM_BYTES:]
    return google_crc32c.value(bytes(content)) == int.from_bytes(checksum, "little")
