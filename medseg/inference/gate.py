"""Whether a scan is like those that a model was trained on: docs/gate.md says which differences count, and why.

What counts depends on what the model does to a scan first. One that turns scans does not care how their axes run; one
that scales each scan by itself does not care for its unit of intensity, only for an image without contrast or with an
inverted one. Every training image passes, since each limit holds what the training images have.

Legend: C channels, d axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from medseg.datasets.checks.facts import QUANTILES, Channel
from medseg.datasets.fingerprint import Fingerprint, Image, Intensities, Span, middle_of
from medseg.scans.preprocessing import Normalization, Preprocessing

Check = Literal[
    "spacing", "orientation", "field_of_view", "modality", "pixel_type", "constant", "intensity", "contrast"
]

SPACING = 1.25
"""So many times the training's spacings, or so much less: 25 % more along each axis is twice the volume."""
RESAMPLED_SPACING = 1.5
"""The same for a model that resamples: sizes are right then, but a third of the detail is missing, or new to it."""
EXTENT = 2.0
"""So many times the training's fields of view, or so much less."""
SHIFT = 0.3
"""By how much of the training's range of intensities the ends of a scan's may lie beyond the training's ends."""
MIDDLE = 0.5
"""By how much of a scan's own range its median may lie beyond the training's; an inverted image's is far away."""
ROUNDING = 1e-3
"""The part of a spacing by which headers round."""
UNLIKE = "unlike the training images"
_DIRECTIONS = ("R-L", "A-P", "S-I")
_BYTES = {"uint8", "int8"}


@dataclass(frozen=True)
class Remark:
    """One way in which a scan is unlike the training images.

    Attributes:
        check: in what.
        what: a clause with its numbers: «spacing 5 mm along S-I (training: 0.9 to 1.2)».
        numbers: the scan's and the training's, for JSON.
    """

    check: Check
    what: str
    numbers: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"check": self.check, "what": self.what, **self.numbers}


def remarks(image: Image, known: Fingerprint, preprocessing: Preprocessing) -> list[Remark]:
    """In what a scan is unlike a model's training images; nothing where it is like them.

    Args:
        image: the scan's facts. Without channels, as from a header alone, its values are not looked at.
        known: of the training images.
        preprocessing: the model's.
    """
    if len(image.shape) != len(known.shape.least):
        return []  # the network cannot take it, which is told before
    found = [*_orientation(image, known, preprocessing), *_unit(image, known), *_modality(image, known)]
    if image.anatomical in {_is_anatomical(codes) for codes in known.orientations}:
        found += [*_spacing(image, known, preprocessing.spacing_mm is not None), *_field_of_view(image, known)]
    for number, (channel, its) in enumerate(zip(image.channels, known.intensities, strict=False)):
        if its is not None:
            which = f"channel {number}: " if len(image.channels) > 1 else ""
            found += _values(channel, its, _Scale.of(preprocessing.normalize, number), which)
    if not any(remark.check in ("intensity", "constant") for remark in found):
        found += _pixel_type(image, known)
    return found


def told(found: Sequence[Remark]) -> str:
    """All remarks as one line."""
    return f"{UNLIKE}: {'; '.join(remark.what for remark in found)}"


def _is_anatomical(orientation: str) -> bool:
    return set(orientation) <= set("RLAPSI?")


def _orientation(image: Image, known: Fingerprint, preprocessing: Preprocessing) -> Iterator[Remark]:
    if image.orientation in known.orientations:
        return
    turned = preprocessing.orientation is not None and len(image.shape) == 3
    seen = any(map(_is_anatomical, known.orientations))
    if turned and image.anatomical and seen:
        return
    training = ", ".join(known.orientations)
    if seen and not image.anatomical:
        what = f"does not say how the patient lies (training: axes {training})"
    else:
        what = f"axes {image.orientation} (training: {training})"
    yield Remark("orientation", what, {"orientation": image.orientation, "training": list(known.orientations)})


def _unit(image: Image, known: Fingerprint) -> Iterator[Remark]:
    """Millimetres that are taken for granted, where every training image stated its unit."""
    if image.unit_assumed and known.unit_assumed is False and "pixel" not in known.units:
        numbers = {"unit": None, "read_as": image.unit, "training": list(known.units)}
        yield Remark("spacing", f"states no unit: read as {image.unit} (training: {', '.join(known.units)})", numbers)


def _modality(image: Image, known: Fingerprint) -> Iterator[Remark]:
    if image.modality and known.modalities and image.modality not in known.modalities:
        numbers = {"modality": image.modality, "training": list(known.modalities)}
        yield Remark("modality", f"modality {image.modality} (training: {', '.join(known.modalities)})", numbers)


def _spacing(image: Image, known: Fingerprint, resampled: bool) -> Iterator[Remark]:
    if known.spacing_mm is None:
        return
    if image.spacing_mm is None:
        if "pixel" not in known.units:
            what = f"states no spacing (training: {_span(known.spacing_mm)} mm)"
            yield Remark("spacing", what, {"spacing_mm": None, "training": known.spacing_mm.model_dump()})
        return
    yield from _lengths("spacing", "spacing", image, image.spacing_mm, known.spacing_mm, _spacing_factor(resampled))


def _spacing_factor(resampled: bool) -> float:
    return (RESAMPLED_SPACING if resampled else SPACING) * (1 + ROUNDING)


def _field_of_view(image: Image, known: Fingerprint) -> Iterator[Remark]:
    # A microscope's field is what somebody chose to look at, and a mosaic of many is what tiles are for.
    if known.extent_mm is not None and image.extent_mm is not None and (image.anatomical or image.unit == "mm"):
        yield from _lengths("field_of_view", "field of view", image, image.extent_mm, known.extent_mm, EXTENT)


def _lengths(
    check: Check, name: str, image: Image, found: Sequence[float], known: Span, factor: float
) -> Iterator[Remark]:
    axes = _DIRECTIONS if image.anatomical and len(image.shape) == 3 else tuple(image.orientation)
    clauses = [
        f"{length:.3g} mm along {axis} (training: {_from_to(low, high)})"
        for length, axis, low, high in zip(found, axes, known.least, known.largest, strict=True)
        if not low / factor <= length <= high * factor
    ]
    if clauses:
        numbers = {f"{check}_mm": list(found), "training": known.model_dump(), "factor": round(factor, 2)}
        yield Remark(check, f"{name} {', '.join(clauses)}", numbers)


@dataclass(frozen=True)
class _Scale:
    """What a model does to the values of one channel.

    Attributes:
        relative: each scan is scaled by itself.
        low, high: what it clips to.
    """

    relative: bool
    low: float = -np.inf
    high: float = np.inf

    @classmethod
    def of(cls, normalize: Normalization, number: int) -> _Scale:
        """Of a channel, by its number."""
        if normalize.kind == "range" and normalize.range is not None:
            return cls(False, *normalize.range)
        limits = normalize.rescale if normalize.kind == "dataset" and normalize.rescale is not None else {}
        ends = {
            end: float(limits[end][min(number, len(limits[end]) - 1)]) for end in ("low", "high") if limits.get(end)
        }
        return cls(normalize.kind == "zscore", **ends)

    def __call__(self, value: float) -> float:
        return float(np.clip(value, self.low, self.high))


def _values(channel: Channel, known: Intensities, scale: _Scale, which: str) -> Iterator[Remark]:
    if channel.low is None or channel.quantiles is None:
        return  # nothing finite: the view refuses it
    if channel.low == channel.high and not known.flat:
        yield Remark("constant", f"{which}every voxel is {channel.low:.4g}", {"value": channel.low})
        return
    if not scale.relative:
        yield from _range(channel, known.percentiles, scale, which)
    yield from _contrast(channel, known, which)


def _range(channel: Channel, known: Span, scale: _Scale, which: str) -> Iterator[Remark]:
    """The ends of the range that the network sees, since what is clipped alike is alike to it."""
    quantiles = channel.quantiles or ()
    ends = quantiles[:1] + quantiles[-1:]
    least, largest = ([scale(row[0]), scale(row[-1])] for row in (known.least, known.largest))
    margin = SHIFT * (largest[1] - least[0])
    if margin > 0 and not all(
        low - margin <= scale(end) <= high + margin for end, low, high in zip(ends, least, largest, strict=True)
    ):
        seen = f"[{_dots(known, 0)}, {_dots(known, -1)}]"
        what = f"{which}intensities [{ends[0]:.4g}, {ends[1]:.4g}] (training: {seen})"
        numbers = {"percentiles": list(quantiles), "of": list(QUANTILES), "training": known.model_dump()}
        yield Remark("intensity", what, numbers)


def _contrast(channel: Channel, known: Intensities, which: str) -> Iterator[Remark]:
    middle = middle_of(channel)
    if middle is None or known.middle is None:
        return
    low, high = known.middle.least[0], known.middle.largest[0]
    if not low - MIDDLE <= middle <= high + MIDDLE:
        what = (
            f"{which}the median lies at {middle:.0%} of the range of intensities (training: "
            f"{_from_to(low, high, '.0%')}), as where light and dark are exchanged"
        )
        yield Remark("contrast", what, {"middle": middle, "training": known.middle.model_dump()})


def _pixel_type(image: Image, known: Fingerprint) -> Iterator[Remark]:
    """Values that have been windowed into 256 greys, or have not, whatever scale they get afterwards."""
    if not image.channels or not known.dtypes:
        return
    ours, theirs = set(image.dtypes) <= _BYTES, [dtype in _BYTES for dtype in known.dtypes]
    negative = any(channel.low is not None and channel.low < 0 for channel in image.channels)
    if (ours and not any(theirs)) or (all(theirs) and not ours and negative):
        numbers = {"dtypes": list(image.dtypes), "training": list(known.dtypes)}
        sign = "" if ours else " with values below 0"
        what = f"voxels of type {', '.join(image.dtypes)}{sign} (training: {', '.join(known.dtypes)})"
        yield Remark("pixel_type", what, numbers)


def _from_to(low: float, high: float, form: str = ".3g") -> str:
    first, last = format(low, form), format(high, form)
    return first if first == last else f"{first} to {last}"


def _dots(known: Span, number: int) -> str:
    return _from_to(known.least[number], known.largest[number], ".4g")


def _span(known: Span) -> str:
    return " x ".join(_from_to(low, high) for low, high in zip(known.least, known.largest, strict=True))
