"""DICOM SEG, read as labels (PS3.3 A.51, C.8.20): binary, fractional (from half of its maximum on), and label maps.

Frames that hold nothing may be left out of a SEG, so it is opened on its image's grid; alone it has the least one that
holds all of its planes. Its pixels must be the grid's: nothing is resampled.

Legend: n, m voxels along the two axes of a plane.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ScanError
from medseg.scans.contents import opened
from medseg.scans.dicom_format import UNCOMPRESSED, PixelFormat, check_decoder
from medseg.scans.dicom_frames import PER_FRAME, SHARED, Frame, Group, read_frame
from medseg.scans.dicom_geometry import LPS_TO_RAS
from medseg.scans.dicom_header import Instance, read_instance
from medseg.scans.dicom_labels import MEETS, Key, Layer, PlanarLabels, Planes, Table, check_world
from medseg.scans.dicom_pixels import StoredPixels, check_length
from medseg.scans.dicom_planes import Turn, frame_affine, turn_of
from medseg.scans.gz import GzipBytes
from medseg.scans.header import Header, as_scan_error
from medseg.scans.protocol import Scan
from medseg.scans.raw import Pread, pread_file

ELEMENTS = (
    "SegmentationType",
    "MaximumFractionalValue",
    "SegmentSequence",
    "SegmentsOverlap",
    "DimensionOrganizationType",
    "TotalPixelMatrixRows",
    "ReferencedSeriesSequence",
)
"""What is read of its header beside what is read of an image's."""


@dataclass(frozen=True)
class SegFrame:
    """A frame and the segment that it is of; None for a label map, whose pixels say it."""

    frame: Frame
    segment: int | None


class SegFile:
    """A SEG's header.

    Raises:
        ScanError: where it is damaged, of a slide, or its segments and frames contradict each other.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.instance = read_instance(path, name, ELEMENTS)
        self.name = name
        with as_scan_error(name, "its header is damaged"):
            self.kind = self.instance.attributes.word("SegmentationType")
            self.labels = _labels(self.instance)
            self.pixels = _pixels(self.instance)
            self.frames = self._frames()

    @property
    def overlaps(self) -> bool:
        """Whether segments may overlap, as far as it says."""
        return len(self.labels) > 1 and self.kind != "LABELMAP" and self._said != "NO"

    @property
    def _said(self) -> str:
        return self.instance.attributes.word("SegmentsOverlap")

    @property
    def placed(self) -> bool:
        """Whether its frames say where they lie."""
        return all(one.frame.place is not None for one in self.frames)

    def _frames(self) -> list[SegFrame]:
        attributes = self.instance.attributes
        if attributes.word("DimensionOrganizationType") == "TILED_FULL" or attributes.integer("TotalPixelMatrixRows"):
            raise ScanError(
                f"{self.name}: is a segmentation of a whole slide, which is not supported: convert it to TIFF"
            )
        shared = next(iter(attributes.items(SHARED)), None)
        groups = [Group(item, shared) for item in attributes.items(PER_FRAME)]
        if len(groups) != self.pixels.format.frames:
            raise ScanError(
                f"{self.name}: has {self.pixels.format.frames} frames and says of {len(groups)} what they are: it is "
                "damaged"
            )
        return [self._frame(number, group) for number, group in enumerate(groups)]

    def _frame(self, number: int, group: Group) -> SegFrame:
        frame = read_frame(self.pixels, number, group, {})
        if self.kind == "LABELMAP":
            return SegFrame(frame, None)
        item = group.of("SegmentIdentificationSequence")
        segment = None if item is None else item.integer("ReferencedSegmentNumber")
        if segment not in self.labels:
            raise ScanError(f"{self.name}: frame {number} is of segment {segment}, which it does not describe")
        return SegFrame(frame, segment)

    @cached_property
    def sources(self) -> set[str]:
        """The images that its frames say they are of."""
        return {
            image.word("ReferencedSOPInstanceUID")
            for frame in self.instance.attributes.items(PER_FRAME)
            for derivation in frame.items("DerivationImageSequence")
            for image in derivation.items("SourceImageSequence")
        }

    @cached_property
    def reader(self) -> Any:
        """(frame, rows, columns) → (rows, columns): the stored values."""
        if self.pixels.format.allocated == 1 and self.pixels.format.order is not None:
            return _Bits(self.pixels, self.name).read
        read = self.pixels.reader(self.name)
        return lambda frame, rows, columns: read(frame, rows, columns)[0]

    @cached_property
    def half(self) -> float:
        """From which stored value on a voxel is the segment's."""
        maximum = self.instance.attributes.integer("MaximumFractionalValue") or 255
        return maximum / 2 if self.kind == "FRACTIONAL" else 1

    def masks(self, one: SegFrame, turn: Turn) -> list[tuple[int, Any]]:
        """The segments of a frame, and the mask of each."""
        segments = [one.segment] if one.segment is not None else [number for number in self.labels if number != 0]
        return [(number, partial(self._mask, one, number, turn)) for number in segments]

    def _mask(self, one: SegFrame, number: int, turn: Turn, first: slice, second: slice) -> NDArray[np.bool_]:
        def read(rows: slice, columns: slice) -> NDArray[np.bool_]:
            with as_scan_error(self.name, f"frame {one.frame.number} cannot be read: the file is damaged or cut short"):
                values = self.reader(one.frame.number, rows, columns)
            return np.asarray(values == number if one.segment is None else values >= self.half)

        return turn.read(read, first, second)


class _Bits:
    """One bit a pixel, frames without a gap, the first the lowest (PS3.5 8.1.1, D)."""

    def __init__(self, pixels: StoredPixels, name: str) -> None:
        self._pixels = pixels
        self._swapped = pixels.format.order == ">" and pixels.format.type == "OW"
        end = pixels.offset + -(-pixels.format.frames * pixels.format.rows * pixels.format.columns // 8)
        zipped = pixels.zipped
        self._pread: Pread = GzipBytes(pixels.path, name, end).pread if zipped else pread_file(pixels.path)

    def read(self, frame: int, rows: slice, columns: slice) -> NDArray[np.uint8]:
        found = self._pixels.format
        first = (frame * found.rows + rows.start) * found.columns
        last = first + (rows.stop - rows.start) * found.columns
        start, stop = first // 16 * 2, -(-last // 16) * 2
        data = np.frombuffer(self._pread(stop - start, self._pixels.offset + start), np.uint8)
        if self._swapped:
            data = data[: len(data) // 2 * 2].reshape(-1, 2)[:, ::-1].ravel()
        bits = np.unpackbits(data, bitorder="little")[first - 8 * start : last - 8 * start]
        return bits.reshape(-1, found.columns)[:, columns]


def open_file(path: Path, name: str, like: Scan | None = None, table: Table = ()) -> PlanarLabels:
    """A SEG as labels on the grid of its image, or on its own.

    Raises:
        ScanError: where it is damaged, or its pixels are not the image's voxels.
    """
    found = SegFile(path, name)
    header = own_grid([found], name) if like is None else _grid_of(like, name)
    planes = planes_of(found, header, by_name=bool(table))
    if like is not None:
        check_world(found.instance, found.instance.attributes.word("FrameOfReferenceUID"), like)
    return PlanarLabels(header, planes, table, (open_file, (path, name, like, table)))


def planes_of(found: SegFile, header: Header, by_name: bool) -> Planes:
    """The layers of a SEG on a grid.

    Raises:
        ScanError: where its pixels are not the grid's voxels.
    """
    layers: dict[int, list[Layer]] = {}
    axis = None
    for one in found.frames:
        turn = turn_of(one.frame, header, found.name)
        if len(header.shape) == 3:
            stacked = 3 - turn.rows.axis - turn.columns.axis
            if axis not in (None, stacked):
                raise ScanError(f"{found.name}: its frames lie in several directions: they are no volume")
            axis = stacked
        for number, mask in found.masks(one, turn):
            layers.setdefault(turn.plane, []).append(Layer(found.labels[number] if by_name else number, mask))
    keys: Sequence[Key] = [found.labels[n] if by_name else n for n in found.labels if n != 0]
    default = 2 if len(header.shape) == 3 else None
    return Planes(default if axis is None else axis, layers, tuple(dict.fromkeys(keys)))


def own_grid(files: Sequence[SegFile], name: str) -> Header:
    """The least grid that holds all planes of one or several SEGs, with axes XYZ; YX where they say no place.

    Raises:
        ScanError: where the planes lie on no even grid.
    """
    first = files[0].frames[0].frame
    rows, columns = first.pixels.format.rows, first.pixels.format.columns
    if not all(file.placed for file in files):
        return Header(name, (rows, columns), 1, np.dtype("u1"), "YX", np.eye(4), "pixel")
    affine = frame_affine(first)
    positions = np.array([one.frame.position_mm for file in files for one in file.frames])
    along = positions @ affine[:3, 2]
    order = np.argsort(along, kind="stable")
    places = along[order]
    step = _step(files, places)
    counts = (places - places[0]) / step
    if np.abs(counts - np.rint(counts)).max() > MEETS:
        raise ScanError(f"{name}: its planes lie on no even grid of {step:.6g} mm: it is read with its series alone")
    number = round(counts[-1])
    ends = positions[order[-1]] - positions[order[0]]
    affine[:3, 2] = ends / number if number else affine[:3, 2] * step
    affine[:3, 3] = positions[order[0]]
    return Header(name, (columns, rows, number + 1), 1, np.dtype("u1"), "XYZ", LPS_TO_RAS @ affine, "mm", True)


def _step(files: Sequence[SegFile], places: NDArray[np.float64]) -> float:
    """Millimetres between planes: the least distance of two, else what the first file states."""
    gaps = np.diff(places)
    gaps = gaps[gaps > 1e-3]
    if gaps.size:
        return float(gaps.min())
    attributes = files[0].instance.attributes
    groups = (*attributes.items(SHARED), *attributes.items(PER_FRAME))
    measures = [item for group in groups for item in group.items("PixelMeasuresSequence")]
    stated = [m.decimal(key) for key in ("SpacingBetweenSlices", "SliceThickness") for m in measures[:1]]
    return next((value for value in stated if value), 1.0)


def _grid_of(like: Scan, name: str) -> Header:
    return Header(name, like.shape, 1, np.dtype("u1"), like.axes, like.affine, like.unit, like.anatomical)


def _labels(instance: Instance) -> dict[int, str]:
    """The segments' names by their numbers."""
    found: dict[int, str] = {}
    for item in instance.attributes.items("SegmentSequence"):
        number = item.needed("SegmentNumber")
        found[number] = item.word("SegmentLabel") or f"segment {number}"
    if not found:
        raise ScanError(f"{instance.name}: describes no segment: it is damaged")
    return found


def _pixels(instance: Instance) -> StoredPixels:
    attributes, name = instance.attributes, instance.name
    if instance.element is None:
        raise ScanError(f"{name}: holds no pixels: it is cut short")
    offset, length, type = instance.element
    allocated = attributes.needed("BitsAllocated")
    if allocated not in (1, 8, 16):
        raise ScanError(f"{name}: stores {allocated} bits a pixel; a SEG has 1, 8 or 16")
    found = PixelFormat(
        attributes.needed("Rows"),
        attributes.needed("Columns"),
        1,
        "MONOCHROME2",
        allocated,
        allocated,
        allocated - 1,
        False,
        0,
        attributes.integer("NumberOfFrames") or 1,
        instance.syntax,
        type,
        False,
    )
    if min(found.rows, found.columns, found.frames) < 1:
        raise ScanError(f"{name}: has no pixels ({found.frames} frames of {found.rows} x {found.columns})")
    if found.syntax not in UNCOMPRESSED:
        check_decoder(found, name)
    pixels = StoredPixels(instance.path, found, offset, instance.zipped)
    with opened(instance.path, instance.zipped) as file:
        check_length(file, pixels, length, name)
    return pixels
