"""RTSTRUCT, read as labels (PS3.3 A.19, C.8.8.6): the closed contours of each region of interest, filled.

A voxel is inside where its centre is, or where a contour goes through it. Several contours of a region in one plane are
laid over one another by exclusive or, so that one inside another is a hole; a keyhole contour has its hole already.
Contours lie in the image's planes: nothing is put in between.

Legend: p points, n, m voxels along the two axes of a plane.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ScanError
from medseg.scans.dicom_geometry import LPS_TO_RAS
from medseg.scans.dicom_header import read_instance
from medseg.scans.dicom_labels import MEETS, Key, Layer, PlanarLabels, Planes, Table, check_world
from medseg.scans.dicom_values import DECIMAL, Attributes
from medseg.scans.header import Header, as_scan_error
from medseg.scans.protocol import Scan

ELEMENTS = ("StructureSetROISequence", "ROIContourSequence", "ReferencedFrameOfReferenceSequence")
"""What is read of its header beside what is read of an image's."""
CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
"""The contours that enclose something; points and open lines are no labels (PS3.3 C.8.8.6.3)."""


class Structures:
    """The closed contours of a structure set.

    Attributes:
        names: of the regions that have any, by number.

    Raises:
        ScanError: where it is damaged.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.instance = read_instance(path, name, ELEMENTS)
        self.name = name
        with as_scan_error(name, "its contours are damaged"):
            self._contours = {number: list(_points(item, name)) for number, item in _drawn(self.instance.attributes)}
            named = dict(_named(self.instance.attributes))
        self.names = {n: named.get(n) or f"region {n}" for n, contours in self._contours.items() if contours}

    @property
    def world(self) -> str:
        """The UID of the frame of reference that its contours lie in, where it refers to a single one."""
        items = self.instance.attributes.items("ReferencedFrameOfReferenceSequence")
        stated = {item.word("FrameOfReferenceUID") for item in items}
        return stated.pop() if len(stated) == 1 else ""

    def series(self) -> set[str]:
        """The UIDs of the series that it refers to."""
        return {
            series.word("SeriesInstanceUID")
            for world in self.instance.attributes.items("ReferencedFrameOfReferenceSequence")
            for study in world.items("RTReferencedStudySequence")
            for series in study.items("RTReferencedSeriesSequence")
        }

    def instances(self) -> set[str]:
        """The images that its contours name."""
        return {
            image.word("ReferencedSOPInstanceUID")
            for _, item in _drawn(self.instance.attributes)
            for contour in item.items("ContourSequence")
            for image in contour.items("ContourImageSequence")
        }

    def planes(self, like: Scan, by_name: bool) -> Planes:
        """The contours in the planes of an image.

        Raises:
            ScanError: where one lies between two planes, in none, or across them.
        """
        layers: dict[int, list[Layer]] = {}
        to_voxels = np.linalg.inv(like.affine) @ LPS_TO_RAS
        for number, name in self.names.items():
            polygons: dict[int, list[NDArray[np.float64]]] = {}
            for points in self._contours[number]:
                there = points @ to_voxels[:3, :3].T + to_voxels[:3, 3]
                polygons.setdefault(self._plane(there, like, number), []).append(there[:, :2])
            for plane, some_polygons in polygons.items():
                layers.setdefault(plane, []).append(Layer(name if by_name else number, partial(fill, some_polygons)))
        keys: Sequence[Key] = list(self.names.values() if by_name else self.names)
        return Planes(2, layers, tuple(dict.fromkeys(keys)))

    def _plane(self, there: NDArray[np.float64], like: Scan, number: int) -> int:
        along = there[:, 2]
        plane = round(float(along.mean()))
        if np.abs(along - plane).max() > MEETS:
            low, high = float(along.min()), float(along.max())
            raise ScanError(
                f"{self.name}: a contour of region {number} lies at slice {low:.4g}"
                f"{f' to {high:.4g}' if high - low > MEETS else ''} of the image, in no plane of its own: it was drawn "
                "on another series"
            )
        if not 0 <= plane < like.shape[2]:
            raise ScanError(
                f"{self.name}: a contour of region {number} lies at slice {plane} of an image that has "
                f"{like.shape[2]}: slices of the series are missing, or it was drawn on another one"
            )
        return plane


def fill(polygons: Sequence[NDArray[np.float64]], first: slice, second: slice) -> NDArray[np.bool_]:
    """(n, m) the voxels of a part of a plane that are inside an odd number of polygons (p, 2), in voxels."""
    from skimage.draw import polygon

    out = np.zeros((first.stop - first.start, second.stop - second.start), bool)
    for points in polygons:
        rows, columns = polygon(points[:, 0] - first.start, points[:, 1] - second.start, out.shape)
        out[rows, columns] ^= True
    return out


def open_file(path: Path, name: str, like: Scan | None = None, table: Table = ()) -> PlanarLabels:
    """A structure set as labels on the grid of its image.

    Raises:
        ScanError: where it is damaged, has no closed contour, does not lie in the image's planes, or has no image.
    """
    if like is None or len(like.shape) != 3 or not like.anatomical:
        raise ScanError(
            f"{name}: a structure set (RTSTRUCT) has contours and no voxels: it is read with its image series, as a "
            "case of a data set"
        )
    found = Structures(path, name)
    if not found.names:
        raise ScanError(f"{name}: holds no closed contour, so no labels")
    check_world(found.instance, found.world, like)
    header = Header(name, like.shape, 1, np.dtype("u1"), like.axes, like.affine, like.unit, like.anatomical)
    return PlanarLabels(header, found.planes(like, bool(table)), table, (open_file, (path, name, like, table)))


def _named(attributes: Attributes) -> Iterator[tuple[int, str]]:
    for item in attributes.items("StructureSetROISequence"):
        yield item.needed("ROINumber"), item.word("ROIName")


def _drawn(attributes: Attributes) -> Iterator[tuple[int, Attributes]]:
    for item in attributes.items("ROIContourSequence"):
        yield item.needed("ReferencedROINumber"), item


def _points(item: Attributes, name: str) -> Iterator[NDArray[np.float64]]:
    """(p, 3) the points of each closed contour of a region, LPS+ millimetres."""
    for contour in item.items("ContourSequence"):
        if contour.word("ContourGeometricType") not in CLOSED:
            continue
        words = contour.words("ContourData")
        wrong = [word for word in words if not DECIMAL.fullmatch(word)]
        if wrong or len(words) % 3 or len(words) < 9:
            raise ScanError(
                f"{name}: a contour has {len(words)} coordinates, {len(wrong)} of them no numbers as DICOM writes "
                "them; three a point, and three points at least, are needed"
            )
        yield np.array(words, np.float64).reshape(-1, 3)
