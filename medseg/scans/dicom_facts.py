"""What tells the series of a folder, and the slices of a series, apart; and the user's choice among them.

The keys are those of acquisition. None of them says who the patient is, but a description is a free text: it is shown
on a terminal, and never goes into a message.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from medseg.errors import ConfigError, nearest
from medseg.scans.dicom_values import DECIMAL

Facts = Mapping[str, tuple[str, ...]]
"""The values of each key that a file states."""

KEYS = (
    "Modality",
    "SeriesDescription",
    "ProtocolName",
    "SequenceName",
    "ImageType",
    "BodyPartExamined",
    "SeriesNumber",
    "AcquisitionNumber",
    "EchoNumbers",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "FlipAngle",
    "TriggerTime",
    "TemporalPositionIdentifier",
    "DiffusionBValue",
    "MagneticFieldStrength",
    "SliceThickness",
    "SpacingBetweenSlices",
    "GantryDetectorTilt",
    "ConvolutionKernel",
    "KVP",
    "Manufacturer",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "StackID",
)
"""What ``--series-filter`` may ask for."""

SPLITTING = (
    "ImageType",
    "SliceThickness",
    "EchoTime",
    "EchoNumbers",
    "TemporalPositionIdentifier",
    "DiffusionBValue",
    "TriggerTime",
    "AcquisitionNumber",
    "InversionTime",
    "StackID",
)
"""Keys that may tell several volumes in one series apart; numbers and codes, no free text."""

SIGNS = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}

CONDITION = re.compile(r"\s*(\w+)\s*(<=|>=|!=|=|<|>)\s*(.*?)\s*", re.DOTALL)


@dataclass(frozen=True)
class Condition:
    """One part of a filter: ``SliceThickness<=3``. ``*`` and ``?`` stand for any text, as in file names."""

    key: str
    sign: str
    value: str

    def holds(self, facts: Facts) -> bool:
        """Whether one of the key's values is so; for ``!=``, whether none is equal."""
        if self.sign == "!=":
            return not Condition(self.key, "=", self.value).holds(facts)
        return any(self._holds(found) for found in facts.get(self.key, ()))

    def _holds(self, found: str) -> bool:
        if DECIMAL.fullmatch(found) and DECIMAL.fullmatch(self.value):
            return bool(SIGNS[self.sign](float(found), float(self.value)))
        return self.sign == "=" and fnmatchcase(found.lower(), self.value.lower())


@dataclass(frozen=True)
class SeriesChoice:
    """Which of a folder's DICOM series is meant.

    Attributes:
        uid: its SeriesInstanceUID, or None.
        conditions: what its slices must fulfil.
    """

    uid: str | None = None
    conditions: tuple[Condition, ...] = ()

    @classmethod
    def parse(cls, uid: str | None = None, text: str | None = None) -> SeriesChoice:
        """From ``--series UID`` and ``--series-filter 'Modality=CT, SliceThickness<=3'``.

        Raises:
            ConfigError: where the filter is none, or has a key that is not in :data:`KEYS`.
        """
        parts = [] if text is None else text.split(",")
        return cls(uid, tuple(_condition(part) for part in parts))

    def holds(self, facts: Facts) -> bool:
        """Whether a slice fulfils all conditions."""
        return all(condition.holds(facts) for condition in self.conditions)


def _condition(text: str) -> Condition:
    match = CONDITION.fullmatch(text)
    if match is None or not match[3]:
        raise ConfigError(
            f"--series-filter {text.strip()!r} is no condition: give KEY=VALUE with =, !=, <, <=, > or >=, and commas "
            "between several, such as 'Modality=CT, SliceThickness<=3'"
        )
    key, sign, value = match.groups()
    if key not in KEYS:
        raise ConfigError(
            f"--series-filter: {key!r} is no key{nearest(key, KEYS)} (such are {', '.join(KEYS[:8])} ...; "
            "docs/dicom.md lists all)"
        )
    if sign not in ("=", "!=") and not DECIMAL.fullmatch(value):
        raise ConfigError(f"--series-filter {text.strip()!r}: {sign} needs a number")
    return Condition(key, sign, value)
