"""PNG masks, 8 or 16 bit grey, streamed row by row: no library writes a PNG without holding the whole picture."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medseg.errors import OutputError
from medseg.geometry import Box
from medseg.scans import note as notes
from medseg.scans.header import Header
from medseg.scans.raw import BLOCK_BYTES
from medseg.scans.scratch import HEAD_BYTES, Scratch, ScratchSink, deflated_bytes
from medseg.scans.sink import Request

CHUNK_BYTES = 12
"""A chunk's length, kind and checksum."""

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def create(request: Request) -> ScratchSink:
    """A sink for a grey PNG.

    Raises:
        OutputError: for more than two axes, channels, or another type than uint8 and uint16.
    """
    if len(request.shape) != 2 or request.channels is not None or request.dtype not in (np.uint8, np.uint16):
        kind = f"{request.dtype} of shape {request.array_shape}"
        raise OutputError(f"{request.path}: a PNG holds uint8 or uint16 labels of two axes, not {kind}; use .tif")
    plain = Header(str(request.path), request.shape, 1, request.dtype, "YX", np.eye(4), "pixel")
    note = b"" if notes.says_all(plain, request.like) else notes.dumps(request.like).encode("ascii")
    head = (b"medseg scratch for PNG " + note).ljust(1024, b" ")

    def encode(scratch: Scratch, path: Path) -> None:
        with open(path, "wb") as file:
            file.write(SIGNATURE)
            for chunk in _chunks(scratch, note):
                file.write(chunk)

    return ScratchSink(request, head, request.dtype.newbyteorder(">"), (0, 1), encode)


def peak_bytes(request: Request) -> int:
    """The scratch file's bytes and the most that the picture takes."""
    rows = request.nbytes + request.shape[0]
    blocks = rows // BLOCK_BYTES + 2
    return request.nbytes + deflated_bytes(rows) + blocks * CHUNK_BYTES + 2 * HEAD_BYTES


def _chunks(scratch: Scratch, note: bytes) -> Iterator[bytes]:
    height, width = scratch.layout.shape
    depth = 8 * scratch.layout.dtype.itemsize
    yield _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0))
    if note:
        yield _chunk(b"tEXt", notes.KEY.encode() + b"\0" + note)
    deflate = zlib.compressobj(6)
    step = max(1, BLOCK_BYTES // (width * depth // 8))
    for top in range(0, height, step):
        rows = scratch.read(Box((top, 0), (min(top + step, height), width)))
        data = deflate.compress(b"".join(b"\0" + row.tobytes() for row in rows))
        if data:
            yield _chunk(b"IDAT", data)
    yield _chunk(b"IDAT", deflate.flush())
    yield _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
