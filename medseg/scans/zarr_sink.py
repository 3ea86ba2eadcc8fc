"""OME-Zarr 0.5 (Zarr 3) masks with a pyramid, and the exact grid as a note.

One file a chunk: no shards, since a shard that several tiles share would be written again for each of them, and by one
process at a time. A caller with many tiles gets as many files, less those that hold nothing but 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import OutputError
from medseg.geometry import Box
from medseg.scans import note as notes
from medseg.scans.blocks import boxes
from medseg.scans.header import diagonal
from medseg.scans.protocol import Scan, spacing_of
from medseg.scans.pyramid import Level, every_second, levels_of, mean, source_of, step_of
from medseg.scans.sink import Request, as_output_error, fitted, locked, not_there, publish, remove, sync
from medseg.scans.units import LONG_NAMES, MILLIMETRES

CHUNK = {2: 512, 3: 64}
"""The default chunk's sides."""

FILE_BYTES = 8192
"""What a chunk's file takes at most beyond its values: the codec's frame, and the rest of its last disk block."""


class ZarrSink:
    """A mask as OME-Zarr.

    Chunks are written whole or not at all (each is renamed into place), so that they outlive a killed process. Boxes
    that fill chunks need no lock; others take turns, in all threads and processes.

    Attributes:
        resumed: whether it goes on with what an interrupted sink left.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self._chunks = _chunks_of(request)
        self._open = True
        with as_output_error(request.path):
            found = self._found() if request.resume or request.join else None
            self.resumed = found is not None
            self._array = found if found is not None else self._created()

    @property
    def chunks(self) -> tuple[int, ...]:
        """The array's spatial chunks."""
        return self._chunks

    def write(self, box: Box, labels: NDArray) -> None:
        """Writes the labels of a box; chunks that it fills partly are read, changed and written again."""
        labels = fitted(self.request, box, labels)
        if box.voxels:
            with as_output_error(self.request.path), self._alone(box):
                self._array[(..., *box.slices)] = labels

    def _alone(self, box: Box) -> AbstractContextManager[None]:
        """Where the box shares a chunk with others: until no other thread or process changes such a chunk."""
        sides = zip(box.start, box.stop, self._chunks, self.request.shape, strict=True)
        aligned = all(a % c == 0 and (b % c == 0 or b == n) for a, b, c, n in sides)
        return nullcontext() if aligned else locked(self.request.partial / "zarr.json")

    def flush(self) -> None:
        """Every write has reached the operating system already, and so outlives this process."""

    def close(self) -> None:
        """Writes the coarser levels and gives the folder its final name; one that was joined is left to its creator."""
        if self._open and not self.request.join:
            with as_output_error(self.request.path):
                _tidy(self.request.partial)
                self._write_pyramid()
                sync(self.request.partial)
                publish(self.request.partial, self.request.path)
        self._open = False

    def _write_pyramid(self) -> None:
        """Every level anew, from the one before: what a kill has left of them is dropped."""
        levels = _levels(self.request)
        fine = self._array
        for number, (above, level) in enumerate(pairwise(levels), 1):
            coarse = self._create_level(number, level.shape, self._level_chunks(level))
            for box in boxes(level.shape, self._chunks):
                for channel in range(self.request.channels or 1):
                    self._coarsen(fine, coarse, box, step_of(above, level), channel)
            fine = coarse

    def _coarsen(self, fine: Any, coarse: Any, box: Box, step: tuple[int, ...], channel: int) -> None:
        """One chunk of a level, from the chunks above it one by one where they meet between its voxels."""
        lead = () if self.request.channels is None else (channel,)
        reduce = mean if _holds_shares(self.request) else every_second
        chunk = np.zeros(box.shape, self.request.dtype)
        parts = [c // 2 if c % 2 == 0 and s == 2 else c for c, s in zip(self._chunks, step, strict=True)]
        for part in boxes(box.shape, parts):
            source = source_of(part.shift(box.start), step, fine.shape[len(lead) :])
            chunk[part.slices] = reduce(fine[(*lead, *source.slices)], step)
        coarse[(*lead, *box.slices)] = chunk

    def _attributes(self) -> dict[str, Any]:
        return {"ome": _metadata(self.request), notes.KEY: notes.note_of(self.request.like)}

    def _found(self) -> Any:
        """The array of a sink with this layout that is not complete, or None.

        Raises:
            OutputError: where there is none and one is to be joined.
        """
        import zarr

        try:
            group = zarr.open_group(str(self.request.partial), mode="r+")
            array = group["0"]
            same = dict(group.attrs) == self._attributes() and isinstance(array, zarr.Array)
        except (OSError, KeyError, ValueError, TypeError):
            same = False
        layout = (self.request.array_shape, _lead(self.request, 1, self._chunks), self.request.dtype)
        if same and (array.shape, array.chunks, array.dtype) == layout:
            if not self.request.join:
                _tidy(self.request.partial)
            return array
        if self.request.join:
            raise not_there(self.request)
        return None

    def _created(self) -> Any:
        import zarr

        remove(self.request.partial)
        zarr.create_group(str(self.request.partial), zarr_format=3, attributes=self._attributes())
        return self._create_level(0, self.request.shape, self._chunks)

    def _level_chunks(self, level: Level) -> tuple[int, ...]:
        """A coarser level's: as many voxels, so that each chunk is made from whole chunks."""
        return tuple(min(c, n) for c, n in zip(self._chunks, level.shape, strict=True))

    def _create_level(self, number: int, shape: tuple[int, ...], chunks: tuple[int, ...]) -> Any:
        """An array of zeros, instead of what a kill may have left of it."""
        import zarr
        from zarr.codecs import ZstdCodec

        remove(self.request.partial / str(number))
        return zarr.open_group(str(self.request.partial), mode="r+").create_array(
            str(number),
            shape=_lead(self.request, self.request.channels or 1, shape),
            chunks=_lead(self.request, 1, chunks),
            dtype=self.request.dtype,
            fill_value=0,
            compressors=ZstdCodec(level=3),
            dimension_names=[axis["name"] for axis in _axis_entries(self.request)],
        )


def create(request: Request) -> ZarrSink:
    """A sink for an OME-Zarr."""
    if request.dtype.kind == "f" and request.dtype.itemsize > 8:
        raise OutputError(f"{request.path}: Zarr has no type {request.dtype}; use float32")
    return ZarrSink(request)


def peak_bytes(request: Request) -> int:
    """The most that its chunks take, of all levels; they are stored whole at the edge too."""
    chunks, levels = _chunks_of(request), _levels(request)
    files = (request.channels or 1) * sum(
        math.prod(-(-n // c) for n, c in zip(level.shape, chunks, strict=True)) for level in levels
    )
    chunk = math.prod(chunks) * request.dtype.itemsize
    return files * (chunk + chunk // 128 + FILE_BYTES) + len(levels) * FILE_BYTES


def _chunks_of(request: Request) -> tuple[int, ...]:
    side = CHUNK[len(request.shape)]
    return request.chunks or tuple(min(side, n) for n in request.shape)


def _levels(request: Request) -> list[Level]:
    return levels_of(request.shape, spacing_of(request.like.affine, len(request.shape)))


def _holds_shares(request: Request) -> bool:
    """Whether its values may be averaged, as labels may not."""
    return request.unit_interval or request.dtype.kind == "f"


def _lead(request: Request, channels: int, sides: tuple[int, ...]) -> tuple[int, ...]:
    """(channels, *sides) for a mask with channels, else the sides."""
    return sides if request.channels is None else (channels, *sides)


def _tidy(folder: Path) -> None:
    """Removes chunks that a killed process left half written."""
    for left in folder.rglob("*.partial"):
        left.unlink()


def _axis_entries(request: Request) -> list[dict[str, str]]:
    like = request.like
    unit = {"unit": LONG_NAMES[like.unit]} if like.unit in LONG_NAMES else {}
    spatial = [{"name": letter.lower(), "type": "space", **unit} for letter in like.axes]
    return spatial if request.channels is None else [{"name": "c", "type": "channel"}, *spatial]


def _metadata(request: Request) -> dict[str, Any]:
    """The «ome» attribute."""
    datasets = [
        {"path": str(number), "coordinateTransformations": _transformations(request, level.factor)}
        for number, level in enumerate(_levels(request))
    ]
    return {"version": "0.5", "multiscales": [{"axes": _axis_entries(request), "datasets": datasets}]}


def _transformations(request: Request, factor: Sequence[int]) -> list[dict[str, Any]]:
    """Scale and translation of a level, in the scan's unit.

    An origin is only stated where the axes are the world's: OME knows no rotation. Means lie between the voxels that
    they are of.
    """
    like, axes = request.like, len(request.shape)
    spacing = np.array(spacing_of(like.affine, axes)) / MILLIMETRES[like.unit]
    origin = like.affine[:axes, 3] / MILLIMETRES[like.unit] if _is_diagonal(like) else np.zeros(axes)
    if _holds_shares(request):
        origin = origin + (np.array(factor) - 1) / 2 * spacing
    lead = [] if request.channels is None else [1.0]
    steps: list[dict[str, Any]] = [{"type": "scale", "scale": lead + (spacing * factor).tolist()}]
    if _is_diagonal(like) or origin.any():
        steps.append({"type": "translation", "translation": [0.0] * len(lead) + origin.tolist()})
    return steps


def _is_diagonal(like: Scan) -> bool:
    affine = like.affine[:, [*range(len(like.shape)), 3]]
    linear = affine[:3, :-1]
    return bool(np.array_equal(linear, diagonal(spacing_of(like.affine, len(like.shape)))[:3, : len(like.shape)]))
