"""DICOM SEG, written: labels as binary segments, probabilities as fractional ones (PS3.3 C.8.20).

    labels (X, Y, Z)  ->  .NAME.partial, a raw array  ->  header, then frame by frame its bits  ->  NAME.dcm

Labels come in any order and go to a raw file, which an interrupted job takes up again. When it is complete it is gone
through twice, frame by frame: which segments each frame holds, then the frames of those. What grows with the series is
the header: about two kilobytes for each frame of each segment.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError, OutputError
from medseg.geometry import Box
from medseg.scans.dicom import DicomScan
from medseg.scans.dicom_seg_header import Contents, Kind, check_installed, make_header
from medseg.scans.header import reason
from medseg.scans.protocol import Scan
from medseg.scans.scratch import HEAD_BYTES, Scratch, ScratchSink
from medseg.scans.segments import Segmentation
from medseg.scans.sink import Request
from medseg.scans.stacked import Stacked

FRAME_HEAD_BYTES = 2048
"""What the header has of one frame, about."""
MOST_BYTES = 2**32 - 2
"""Of pixels that a DICOM file holds as they are (PS3.5 7.1.1)."""
_TAG = struct.pack("<HH2sH", 0x7FE0, 0x0010, b"OB", 0)


def create(request: Request) -> ScratchSink:
    """A sink for .dcm; labels make a binary SEG, shares from 0 to 1 as uint8 a fractional one.

    Raises:
        OutputError: where the mask is not one of a DICOM series' own grid, nobody says what its values mean, it holds
            instances or other shares than bytes, or highdicom is missing.
    """
    scan = series_of(request.like, request.path)
    about = request.segmentation
    if about is None:
        raise OutputError(f"{request.path}: a DICOM SEG names its segments, and nobody says what the values mean")
    if request.channels is not None and not request.counts_255:
        raise OutputError(f"{request.path}: a DICOM SEG holds shares from 0 to 1 as uint8 alone, not {request.dtype}")
    check_installed(str(request.path))
    lead = 0 if request.channels is None else 1
    axes = range(lead, len(request.array_shape))
    order = [*range(lead), *(axes if len(request.shape) == 2 else reversed(axes))]
    head = f"medseg scratch for DICOM SEG {request.dtype} {request.array_shape}".encode().ljust(512)

    def encode(scratch: Scratch, path: Path) -> None:
        _write(path, _Frames(scratch, about, request.channels is not None), scan, request.path)

    return ScratchSink(request, head, request.dtype.newbyteorder("<"), order, encode)


def peak_bytes(request: Request) -> int:
    """The scratch file's bytes, and those of every frame of every segment."""
    voxels = int(np.prod(request.shape))
    segments = len(request.segmentation.segments) if request.segmentation is not None else request.channels or 1
    frames = segments * (request.shape[2] if len(request.shape) == 3 else 1)
    pixels = segments * (voxels if request.channels is not None else voxels // 8 + 1)
    return request.nbytes + pixels + frames * FRAME_HEAD_BYTES + 2 * HEAD_BYTES


def series_of(like: Scan, path: Path) -> DicomScan:
    """The DICOM series whose frames a mask lies on.

    Raises:
        OutputError: where it is none.
    """
    scan = like.scans[0] if isinstance(like, Stacked) else like
    if isinstance(scan, DicomScan):
        return scan
    raise OutputError(
        f"{path}: a DICOM SEG is written for a whole DICOM series alone, whose frames it refers to, and {like.name} is "
        "another format or a part of one: give --format nii.gz"
    )


class _Frames:
    """A scratch file as frames of segments."""

    def __init__(self, scratch: Scratch, about: Segmentation, fractional: bool) -> None:
        self._scratch, self.about = scratch, about
        self.kind: Kind = "FRACTIONAL" if fractional else "BINARY"
        shape = scratch.layout.shape[1:] if fractional else scratch.layout.shape
        self.planes = 1 if len(shape) == 2 else shape[0]
        self._flat = len(shape) == 2
        self.pixels = shape[-2] * shape[-1]

    def segment(self, plane: int, number: int) -> NDArray[np.uint8]:
        """(pixels,) of a segment: 0 and 1, or 0 to 255."""
        segment = self.about.segments[number]
        if self.kind == "FRACTIONAL":
            return self._read(plane, segment.channel)
        labels = self._read(plane)
        first, *more = (labels == value for value in segment.values)
        return np.logical_or.reduce([first, *more]).view(np.uint8)

    def contents(self) -> Contents:
        """One pass: which frames hold anything, and the digest of all."""
        filled = np.zeros((self.planes, len(self.about.segments)), bool)
        digest = hashlib.sha256(repr((self._scratch.layout.shape, self.kind)).encode())
        overlap = False
        for plane in range(self.planes):
            there = np.zeros(self.pixels, np.uint8)
            for number in range(len(self.about.segments)):
                voxels = self.segment(plane, number)
                digest.update(voxels.data)
                filled[plane, number] = voxels.any()
                overlap |= self.kind == "BINARY" and bool((there & voxels).any())
                there |= voxels
        return Contents(self.kind, filled, digest.hexdigest(), overlap)

    def _read(self, plane: int, channel: int | None = None) -> NDArray:
        lead = [] if channel is None else [channel]
        stack = [] if self._flat else [plane]
        start = (*lead, *stack, 0, 0)
        stop = (*(i + 1 for i in (*lead, *stack)), *self._scratch.layout.shape[-2:])
        return self._scratch.read(Box(start, stop)).ravel()


def _write(path: Path, frames: _Frames, scan: DicomScan, final: Path) -> None:
    contents = frames.contents()
    try:
        header, places = make_header(scan, frames.about, contents)
    except (MedsegError, OSError):
        raise
    except Exception as error:  # highdicom quotes headers, which name patients
        raise OutputError(
            f"{final}: the headers of {scan.name} do not make a DICOM SEG ({reason(error)}): give --format nii.gz"
        ) from error
    bits = frames.pixels * (8 if frames.kind == "FRACTIONAL" else 1)
    length = -(-len(places) * bits // 8)
    if length > MOST_BYTES:
        raise OutputError(f"{final}: {length} bytes of pixels are more than a DICOM file holds: give --format nii.gz")
    with open(path, "wb") as file:
        _save(header, file)
        file.write(_TAG + struct.pack("<I", length + length % 2))
        for piece in _pieces(frames, places):
            file.write(piece)
        file.write(b"\0" * (length % 2))


def _save(header: Any, file: BinaryIO) -> None:
    from pydicom import dcmwrite

    dcmwrite(file, header, enforce_file_format=True)


def _pieces(frames: _Frames, places: list[tuple[int, int]]) -> Iterator[bytes]:
    """The pixel data: bytes, or bits of which the first is the lowest, frames without a gap (PS3.5 8.1.1)."""
    left = np.zeros(0, np.uint8)
    for plane, number in places:
        voxels = frames.segment(plane, number)
        if frames.kind == "FRACTIONAL":
            yield voxels.tobytes()
            continue
        voxels = np.concatenate([left, voxels])
        whole = len(voxels) // 8 * 8
        yield np.packbits(voxels[:whole], bitorder="little").tobytes()
        left = voxels[whole:]
    yield np.packbits(left, bitorder="little").tobytes()
