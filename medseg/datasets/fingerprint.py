"""What the training images were like: what a model remembers of them, and no more than that.

A fingerprint holds numbers of the whole set, the least, the middle and the largest of its cases. It names no case and
no file. Lengths along axes are in the patient's order, R-L, A-P, S-I, where the files say how the patient lies, and in
the files' own order otherwise, so that a set whose files hold their axes in several orders is one set.

Legend: C channels, d axes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, FiniteFloat

from medseg.datasets.checks.facts import QUANTILES, Channel, Facts, Grid
from medseg.datasets.checks.finding import CaseFacts
from medseg.datasets.checks.grids import orientation_of

DIRECTIONS = ("LR", "PA", "IS")
_CODE = re.compile(r"[A-Z0-9]{1,16}(, [A-Z0-9]{1,16})*")
"""A modality as DICOM writes it; anything else may be a free text and is not kept."""


@dataclass(frozen=True)
class Image:
    """What is known of one image, whatever the number of its files.

    Attributes:
        shape: voxels along each axis (d).
        spacing_mm: between voxels (d); None where the files state no unit.
        extent_mm: what the voxels fill (d); None likewise.
        unit: that the spacing is stated in, or «pixel».
        orientation: where the axes of the file run, such as «LPS»; their letters, such as «YX», where it does not say.
        anatomical: whether it says.
        channels: the values of each (C).
        dtypes: of the files.
        modality: DICOM's, «» where it is not known.
        unit_assumed: whether the first file leaves the unit open, and millimetres are taken for it.
    """

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...] | None
    extent_mm: tuple[float, ...] | None
    unit: str
    orientation: str
    anatomical: bool
    channels: tuple[Channel, ...]
    dtypes: tuple[str, ...]
    modality: str
    unit_assumed: bool = False

    @classmethod
    def of(cls, files: Sequence[Facts]) -> Image | None:
        """From the facts of its files, the first of which says where it lies; None where that cannot be read."""
        grid = files[0].grid if files else None
        if grid is None:
            return None
        order = patient_order(grid)
        stated = grid.unit != "pixel"
        modality = ", ".join(sorted({f.modality for f in files if _CODE.fullmatch(f.modality)}))
        return cls(
            tuple(grid.shape[a] for a in order),
            tuple(grid.spacing_mm[a] for a in order) if stated else None,
            tuple(grid.extent_mm[a] for a in order) if stated else None,
            grid.unit,
            orientation_of(grid.affine, len(grid.shape)) if grid.anatomical else grid.axes,
            grid.anatomical,
            tuple(channel for facts in files for channel in facts.channels),
            tuple(sorted({facts.grid.dtype for facts in files if facts.grid is not None})),
            modality,
            files[0].unit_assumed,
        )


def patient_order(grid: Grid) -> tuple[int, ...]:
    """The axes of a grid in the order R-L, A-P, S-I; in its own where it does not say how the patient lies."""
    axes = tuple(range(len(grid.shape)))
    if not grid.anatomical or len(axes) != 3:
        return axes
    codes = orientation_of(grid.affine, 3)
    return tuple(next(a for a in axes if codes[a] in ends) for ends in DIRECTIONS)


class Span(BaseModel):
    """The least, the middle and the largest of each of several numbers, over the cases."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    least: tuple[FiniteFloat, ...]
    median: tuple[FiniteFloat, ...]
    largest: tuple[FiniteFloat, ...]

    @classmethod
    def of(cls, rows: Iterable[Sequence[float]]) -> Span | None:
        """Of one row a case; None of none."""
        table = np.array(list(rows), np.float64)
        if not table.size:
            return None
        return cls(
            least=tuple(map(float, table.min(0))),
            median=tuple(map(float, np.median(table, 0))),
            largest=tuple(map(float, table.max(0))),
        )

    @classmethod
    def joined(cls, spans: Sequence[Span | None]) -> Span | None:
        """Of several sets of cases that may overlap, from the widest of theirs; None where none has one."""
        known = [span for span in spans if span is not None]
        if not known or len({len(span.least) for span in known}) > 1:
            return None
        return cls(
            least=tuple(map(min, *(span.least for span in known), known[0].least)),
            median=tuple(float(np.median(values)) for values in zip(*(span.median for span in known), strict=True)),
            largest=tuple(map(max, *(span.largest for span in known), known[0].largest)),
        )


class Intensities(BaseModel):
    """The values of one channel, as the files hold them.

    Attributes:
        percentiles: the 0.5th, 5th, 50th, 95th and 99.5th of each case.
        middle: where the median lies between the first and the last of these, 0 to 1; of the cases where they differ.
        flat: cases in which every voxel has one value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    percentiles: Span
    middle: Span | None
    flat: int

    @classmethod
    def of(cls, channels: Sequence[Channel]) -> Intensities | None:
        """Of one channel of every case; None where none holds a finite value."""
        percentiles = Span.of(c.quantiles for c in channels if c.quantiles is not None)
        if percentiles is None:
            return None
        middle = Span.of([place] for channel in channels if (place := middle_of(channel)) is not None)
        flat = sum(channel.low is not None and channel.low == channel.high for channel in channels)
        return cls(percentiles=percentiles, middle=middle, flat=flat)

    @classmethod
    def joined(cls, channels: Sequence[Intensities | None]) -> Intensities | None:
        """Of one channel in several sets of cases."""
        known = [channel for channel in channels if channel is not None]
        percentiles = Span.joined([channel.percentiles for channel in known])
        if percentiles is None:
            return None
        middle = Span.joined([channel.middle for channel in known])
        return cls(percentiles=percentiles, middle=middle, flat=max(channel.flat for channel in known))


def middle_of(channel: Channel) -> float | None:
    """Where a channel's median lies between its 0.5th and 99.5th percentile; None where these are one."""
    if channel.quantiles is None or channel.quantiles[0] == channel.quantiles[-1]:
        return None
    low, middle, high = (channel.quantiles[QUANTILES.index(q)] for q in (QUANTILES[0], 50.0, QUANTILES[-1]))
    return (middle - low) / (high - low)


class Fingerprint(BaseModel):
    """The training images, in a few numbers.

    Attributes:
        cases: how many.
        shape: voxels along each axis.
        spacing_mm: between voxels, of the cases that state a unit; None where none does.
        extent_mm: what the voxels fill along each axis, likewise.
        units: that the spacings are stated in.
        orientations: where the files' axes run, such as «LPS», or their letters where files do not say.
        intensities: of each channel; None of a channel without finite values.
        dtypes: of the files.
        modalities: DICOM's, of the cases that state one.
        unit_assumed: whether files of some cases leave the unit open, as NIfTI may; None where that is not known.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cases: int
    shape: Span
    spacing_mm: Span | None
    extent_mm: Span | None
    units: tuple[str, ...]
    orientations: tuple[str, ...]
    intensities: tuple[Intensities | None, ...]
    dtypes: tuple[str, ...]
    modalities: tuple[str, ...]
    unit_assumed: bool | None = None

    @classmethod
    def of(cls, cases: Iterable[CaseFacts]) -> Fingerprint | None:
        """Of those cases that have as many axes and channels as the first; None where no image can be read."""
        found = [image for case in cases if (image := Image.of(case.images)) is not None]
        found = [image for image in found if _kind(image) == _kind(found[0])]
        shape = Span.of(image.shape for image in found)
        if shape is None:
            return None
        return cls(
            cases=len(found),
            shape=shape,
            spacing_mm=Span.of(image.spacing_mm for image in found if image.spacing_mm is not None),
            extent_mm=Span.of(image.extent_mm for image in found if image.extent_mm is not None),
            units=_each(image.unit for image in found),
            orientations=_each(image.orientation for image in found),
            intensities=tuple(
                Intensities.of([image.channels[number] for image in found]) for number in range(len(found[0].channels))
            ),
            dtypes=_each(dtype for image in found for dtype in image.dtypes),
            modalities=_each(image.modality for image in found if image.modality),
            unit_assumed=any(image.unit_assumed for image in found),
        )

    @classmethod
    def joined(cls, fingerprints: Sequence[Fingerprint]) -> Fingerprint | None:
        """Of several models' training images, such as those of a cross-validation's folds: what any of them has seen.

        None where they have different axes, or there are none.
        """
        shape = Span.joined([own.shape for own in fingerprints])
        if shape is None:
            return None
        channels = zip(*(own.intensities for own in fingerprints), strict=False)
        return cls(
            cases=max(own.cases for own in fingerprints),
            shape=shape,
            spacing_mm=Span.joined([own.spacing_mm for own in fingerprints]),
            extent_mm=Span.joined([own.extent_mm for own in fingerprints]),
            units=_each(unit for own in fingerprints for unit in own.units),
            orientations=_each(codes for own in fingerprints for codes in own.orientations),
            intensities=tuple(map(Intensities.joined, channels)),
            dtypes=_each(dtype for own in fingerprints for dtype in own.dtypes),
            modalities=_each(modality for own in fingerprints for modality in own.modalities),
            unit_assumed=_any_known([own.unit_assumed for own in fingerprints]),
        )


def _kind(image: Image) -> tuple[int, int]:
    return len(image.shape), len(image.channels)


def _any_known(answers: Sequence[bool | None]) -> bool | None:
    """Whether any is true; None where none is, and one is not known."""
    return True if True in answers else None if None in answers else False


def _each(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(words)))
