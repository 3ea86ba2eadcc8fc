"""DICOM: a file, or the one series of a folder that is meant.

Three axes are (X, Y, Z) as NIfTI's: along a row, along a column, and from slice to slice along their normal. A single
slice, which says nothing of the distance to a next one, is a picture of two axes (Y, X); so are radiographs and other
images that do not say how the patient lies. Headers are read when a scan is opened, and no file is held open:
:mod:`medseg.scans.dicom_header` says what is read, :mod:`medseg.scans.dicom_series` which series is meant,
:mod:`medseg.scans.dicom_geometry` where it lies, :mod:`medseg.scans.dicom_pixels` how its pixels are read.

Values are slope · stored + intercept of each slice: integers where all of these are whole, otherwise float32 (float64
where more than 24 bits are stored). Images of which the smallest value is white (MONOCHROME1) are turned round, unless
their values are measurements (CT, MR, PT, NM): those are quantities whichever way round they are displayed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ScanError
from medseg.geometry import Box
from medseg.scans.dicom_facts import SeriesChoice
from medseg.scans.dicom_frames import Frame
from medseg.scans.dicom_geometry import single, stacked
from medseg.scans.dicom_header import read_instance
from medseg.scans.dicom_pixels import StoredPixels
from medseg.scans.dicom_series import choose, read_folder
from medseg.scans.header import FileScan, Header, as_scan_error

EVERY_SERIES = SeriesChoice()


class DicomScan(FileScan):
    """A DICOM series. ``frames`` are its slices in the order of the last axis, or its one picture."""

    def __init__(self, header: Header, frames: Sequence[Frame], choice: SeriesChoice) -> None:
        super().__init__(header)
        self.frames = tuple(frames)
        self._choice = choice
        readers = {pixels: pixels.reader(header.name) for pixels in dict.fromkeys(f.pixels for f in frames)}
        self._readers = [readers[frame.pixels] for frame in frames]

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the series, in the order of slices."""
        return tuple(dict.fromkeys(frame.pixels.path for frame in self.frames))

    @property
    def modality(self) -> str:
        """Of its slices; one series has one."""
        return next(iter(self.frames[0].facts.get("Modality", ())), "")

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(open_file, choice=self._choice), (Path(self.name), self.name)

    def _read(self, box: Box) -> NDArray:
        if len(self.shape) == 2:
            return self._slice(0, *box.slices)
        columns, rows, slices = box.slices
        out = np.empty((self.channels, *box.shape[::-1]), self.dtype)
        for k in range(slices.start, slices.stop):
            with as_scan_error(self.name, f"slice {k} cannot be read: its file is damaged or cut short"):
                out[:, k - slices.start] = self._slice(k, rows, columns)
        return np.ascontiguousarray(out.transpose(0, 3, 2, 1))

    def _slice(self, k: int, rows: slice, columns: slice) -> NDArray:
        """(C, rows, columns) of one slice, rescaled."""
        frame = self.frames[k]
        stored = self._readers[k](frame.number, rows, columns)
        if (frame.slope, frame.intercept) == (1, 0):
            return stored.astype(self.dtype)
        if self.dtype.kind == "f":
            return (stored * frame.slope + frame.intercept).astype(self.dtype)
        return (stored.astype(np.int64) * int(frame.slope) + int(frame.intercept)).astype(self.dtype)


def open_file(path: Path, name: str, choice: SeriesChoice | None = None) -> DicomScan:
    """Opens one file, or the series of a folder that is meant; only headers are read.

    Raises:
        SeriesError: where a folder holds several series and the choice leaves others than one.
        ScanError: where there is no image, a header is damaged or contradicts itself, or the slices lie on no grid.
    """
    choice = choice or EVERY_SERIES
    if path.is_dir():
        frames = read_folder(path, name, choice)
    else:
        (instance,) = choose(name, [read_instance(path, name)], choice)
        frames = [frame for frame in instance.frames() if choice.holds(frame.facts)]
    with as_scan_error(name, "its headers contradict each other"):
        return DicomScan(*_laid_out(frames, name), choice)


def _laid_out(frames: list[Frame], name: str) -> tuple[Header, list[Frame]]:
    first = frames[0].pixels.format
    dtype = value_type(frames, name)
    if len(frames) == 1:
        affine, unit, anatomical = single(frames[0], name)
        shape: tuple[int, ...] = (first.rows, first.columns)
        return Header(name, shape, first.samples, dtype, "YX", affine, unit, anatomical), frames
    frames, affine = stacked(frames, name)
    shape = (first.columns, first.rows, len(frames))
    return Header(name, shape, first.samples, dtype, "XYZ", affine, "mm", anatomical=True), frames


def value_type(frames: Sequence[Frame], name: str) -> np.dtype:
    """The least type that holds what every slice's values can become.

    Raises:
        ScanError: where no type does.
    """
    formats: dict[StoredPixels, None] = dict.fromkeys(frame.pixels for frame in frames)
    scalings = {(frame.slope, frame.intercept) for frame in frames}
    if scalings == {(1, 0)}:
        return np.dtype(np.result_type(*(pixels.format.dtype for pixels in formats)))
    real = np.dtype("f8" if max(pixels.format.stored for pixels in formats) > 24 else "f4")
    if not all(slope.is_integer() and intercept.is_integer() for slope, intercept in scalings):
        return real
    ends = [end * f.slope + f.intercept for f in frames for end in f.pixels.format.limits]
    for kind in (np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32):
        limits = np.iinfo(kind)
        if limits.min <= min(ends) and max(ends) <= limits.max:
            return np.dtype(kind)
    if not np.isfinite(ends).all():
        raise ScanError(f"{name}: its RescaleSlope or RescaleIntercept is beyond all bounds; mend the header")
    return real
