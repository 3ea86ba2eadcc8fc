"""The segments of a DICOM SEG: what they are called, what they mean, and which values of a mask are theirs.

A code is written as «SCHEME VALUE MEANING», such as ``SCT 10200004 Liver``: the three parts of a coded concept (PS3.3
section 8.8). SNOMED CT's scheme is SCT, DICOM's own DCM. Without a code a segment is an anatomical structure of the
label's name.
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator

STRUCTURE = "SCT 91723000 Anatomical Structure"
"""What a segment is where nobody says (PS3.16 CID 7150)."""
SEG = ".dcm"
"""The suffix that DICOM SEG is written with."""
MOST_LABEL = 64
"""The longest Segment Label (LO), in characters."""
_CODE = re.compile(r"(\S{1,16}) (\S{1,16}) (\S.{0,63})")
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")


class Code(NamedTuple):
    """A coded concept: the scheme's designator, the code's value, and its meaning in words."""

    scheme: str
    value: str
    meaning: str

    @classmethod
    def parse(cls, text: str) -> Code:
        """From «SCT 10200004 Liver».

        Raises:
            ValueError: where it is none.
        """
        match = _CODE.fullmatch(text.strip())
        if match is None or "\\" in text or not text.isprintable():
            raise ValueError(
                f"{text!r} is no code: give its scheme, its value (16 characters at most) and its meaning (64), as in "
                "SCT 10200004 Liver"
            )
        return cls(*match.groups())


class SegmentLook(BaseModel):
    """What a label is in a DICOM SEG."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str | None = Field(None, description="what it is, as SCHEME VALUE MEANING: SCT 10200004 Liver")
    category: str | None = Field(
        None, description=f"which kind of thing it is, written alike; null is {STRUCTURE} (PS3.16, CID 7150)"
    )
    color: str | None = Field(None, description="how viewers show it, as #rrggbb; null takes one of its own")

    @field_validator("code", "category")
    @classmethod
    def _coded(cls, value: str | None) -> str | None:
        if value is not None:
            Code.parse(value)
        return value

    @field_validator("color")
    @classmethod
    def _hexadecimal(cls, value: str | None) -> str | None:
        if value is not None and not _COLOR.fullmatch(value):
            raise ValueError(f"{value!r} is no colour: give #rrggbb, such as #dd8265")
        return None if value is None else value.lower()


@dataclass(frozen=True)
class Segment:
    """One segment that is written.

    Attributes:
        name: the label's.
        values: those of the mask that belong to it; several for a region.
        channel: of the probabilities.
        look: codes and colour.
    """

    name: str
    values: tuple[int, ...]
    channel: int
    look: SegmentLook

    @property
    def type(self) -> Code:
        """What it is."""
        return Code.parse(self.look.code or STRUCTURE)

    @property
    def category(self) -> Code:
        """Which kind of thing it is."""
        return Code.parse(self.look.category or STRUCTURE)


@dataclass(frozen=True)
class Segmentation:
    """What a mask's values mean to a DICOM SEG, and who made it.

    Attributes:
        segments: in the order of their numbers, from 1 on.
        algorithm: its name.
        version: the program's.
        model: a digest of the model that the labels come from; every object says it, and its UIDs are made of it.
    """

    segments: tuple[Segment, ...]
    algorithm: str
    version: str
    model: str


def color_of(segment: Segment, number: int) -> tuple[int, int, int]:
    """A segment's red, green and blue, 0 to 255; those without a colour of their own get one by their number."""
    if segment.look.color is not None:
        red, green, blue = (int(segment.look.color[i : i + 2], 16) for i in (1, 3, 5))
        return red, green, blue
    hue = (0.02 + 0.618034 * (number - 1)) % 1  # the golden section: neighbours are never alike
    red, green, blue = (round(255 * c) for c in colorsys.hls_to_rgb(hue, 0.55, 0.65))
    return red, green, blue


def short_names(segments: Sequence[Segment]) -> list[str]:
    """The segments' names as Segment Labels, which hold 64 characters and no backslash; still different ones."""
    found: list[str] = []
    for number, segment in enumerate(segments, 1):
        name = "".join(c if c.isprintable() and c != "\\" else " " for c in segment.name).strip()
        tag = f" {number}"
        found.append(name if len(name) <= MOST_LABEL and name not in found else name[: MOST_LABEL - len(tag)] + tag)
    return found
