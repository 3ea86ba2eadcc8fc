"""One slice: what a frame of a DICOM file says of its place and its values.

A file of one frame says it at its top; an enhanced multi-frame file says it in functional groups, for all frames
together or frame by frame (PS3.3 C.7.6.16).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ScanError
from medseg.scans.dicom_facts import Facts
from medseg.scans.dicom_pixels import StoredPixels
from medseg.scans.dicom_values import Attributes

SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"

FRAME_FACTS = {
    "ImageType": ("MRImageFrameTypeSequence", "FrameType"),
    "SliceThickness": ("PixelMeasuresSequence", "SliceThickness"),
    "SpacingBetweenSlices": ("PixelMeasuresSequence", "SpacingBetweenSlices"),
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "DiffusionBValue": ("MRDiffusionSequence", "DiffusionBValue"),
    "TemporalPositionIdentifier": ("FrameContentSequence", "TemporalPositionIndex"),
    "AcquisitionNumber": ("FrameContentSequence", "FrameAcquisitionNumber"),
    "StackID": ("FrameContentSequence", "StackID"),
}
"""Where a multi-frame file keeps what others say at their top."""


@dataclass(frozen=True)
class Frame:
    """One slice.

    Attributes:
        pixels: of its file.
        number: which of the file's frames it is, from 0.
        position_mm: of the centre of its first pixel in LPS+ millimetres, (3,), or None where it does not say.
        directions: (2, 3) unit vectors along a row and along a column, or None.
        spacing_mm: between rows and between columns, or None.
        slope, intercept: its values are slope · stored + intercept.
        facts: what may tell it from others.
    """

    pixels: StoredPixels
    number: int
    position_mm: NDArray[np.float64] | None
    directions: NDArray[np.float64] | None
    spacing_mm: tuple[float, float] | None
    slope: float
    intercept: float
    facts: Facts

    @property
    def place(self) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, float]] | None:
        """Position, directions and spacing, or None where one of them is not stated."""
        if self.position_mm is None or self.directions is None or self.spacing_mm is None:
            return None
        return self.position_mm, self.directions, self.spacing_mm


@dataclass(frozen=True)
class Group:
    """What is said of one frame: by itself, else by all frames together."""

    own: Attributes
    shared: Attributes | None

    def of(self, sequence: str) -> Attributes | None:
        """The item of a functional group."""
        if self.own is self.shared:
            return self.own
        for attributes in (self.own, self.shared):
            found = next(iter(attributes.items(sequence)), None) if attributes is not None else None
            if found is not None:
                return found
        return None


def frame_facts(group: Group) -> dict[str, tuple[str, ...]]:
    """What the functional groups of one frame say for ``--series-filter``."""
    found = {}
    for key, (sequence, keyword) in FRAME_FACTS.items():
        item = group.of(sequence)
        words = item.numbers_as_words(keyword) if item is not None else ()
        if words:
            found[key] = words
    return found


def read_frame(pixels: StoredPixels, number: int, group: Group, facts: Facts) -> Frame:
    """One frame, parsed strictly.

    Raises:
        ScanError: where a number is none.
    """
    slope, intercept = _rescaling(group.of("PixelValueTransformationSequence"))
    return Frame(
        pixels,
        number,
        _array(group.of("PlanePositionSequence"), "ImagePositionPatient", (3,)),
        _array(group.of("PlaneOrientationSequence"), "ImageOrientationPatient", (2, 3)),
        _spacing(group.of("PixelMeasuresSequence")),
        slope,
        intercept,
        facts,
    )


def _array(attributes: Attributes | None, keyword: str, shape: Sequence[int]) -> NDArray[np.float64] | None:
    found = None if attributes is None else attributes.decimals(keyword, int(np.prod(shape)))
    return None if found is None else np.reshape(np.array(found, np.float64), shape)


def _spacing(attributes: Attributes | None) -> tuple[float, float] | None:
    """Between the rows and between the columns: of the patient, else of the detector or the film."""
    if attributes is None:
        return None
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        found = attributes.decimals(keyword, 2)
        if found is not None:
            if min(found) <= 0:
                raise ScanError(f"{attributes.name}: its {keyword} is not above 0; mend the header")
            return found[0], found[1]
    return None


def _rescaling(attributes: Attributes | None) -> tuple[float, float]:
    if attributes is None:
        return 1.0, 0.0
    slope, intercept = attributes.decimal("RescaleSlope"), attributes.decimal("RescaleIntercept")
    if slope is None and intercept is None:
        return 1.0, 0.0
    if slope is None or intercept is None or slope == 0:
        raise ScanError(
            f"{attributes.name}: has only one of RescaleSlope and RescaleIntercept, or a slope of 0; mend the header"
        )
    return slope, intercept
