"""What is found wrong, and the facts of a case in which it is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from medseg.datasets.checks.facts import Channel, Facts, Grid
from medseg.datasets.labels import Labels

Severity = Literal["error", "warning"]
LEAVE_OUT = "or leave the case out with data.exclude"

CHECKS = {
    "layout": "files that do not make a case",
    "no_label": "images without a label",
    "no_image": "labels without an image",
    "missing_file": "files that are listed and missing",
    "unreadable": "files that cannot be read",
    "dims": "another number of axes",
    "channels": "another number of channels",
    "shape": "image and label of different shapes",
    "spacing": "image and label of different spacings",
    "orientation": "image and label in different orientations",
    "affine": "image and label with different affines",
    "placed_twice": "headers that say two places",
    "unit": "files that state no unit",
    "undeclared": "label values that are not declared",
    "fractions": "label values that are no whole numbers",
    "interpolated": "masks that seem to be interpolated",
    "empty_label": "labels without foreground",
    "absent_class": "labels that no case has",
    "nonfinite": "NaN or infinite values",
    "constant": "constant images",
    "duplicate_image": "the same image twice",
    "duplicate_label": "the same label twice",
    "duplicate_case": "the same image and label twice",
    "label_is_image": "image and label are the same",
    "duplicate_channel": "the same channel twice",
    "another_kind": "scans of another kind",
    "field_of_view": "unusual fields of view",
    "unusual_spacing": "unusual spacings",
    "intensity_scale": "intensities on different scales",
    "intensity": "unusual intensities",
    "tiny": "tiny scans",
    "patient_in_parts": "patients in several parts of a split",
    "case_in_parts": "cases in several parts of a split",
    "unknown_case": "cases of a split that are not there",
}
"""Every check, and what it finds."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        check: which of :data:`CHECKS` found it.
        severity: an error is to be mended before training; a warning is to be looked at.
        what: what it is, with its numbers; it names no case.
        remedy: what to do.
        case: the case's name; None where it is about the set as a whole.
        others: further cases that it is about.
        numbers: for JSON.
    """

    check: str
    severity: Severity
    what: str
    remedy: str
    case: str | None = None
    others: tuple[str, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "check": self.check,
            "severity": self.severity,
            "case": self.case,
            "others": list(self.others),
            "what": self.what,
            "remedy": self.remedy,
            "numbers": dict(self.numbers),
        }


@dataclass(frozen=True)
class CaseFacts:
    """What is known of one case.

    Attributes:
        name: the case's.
        patient: whom it belongs to.
        images: of the image's files; empty for a label without an image.
        label: of the label, or None.
        fold: the fold that the data set puts it in, or None.
        resample_channels: whether channels on other grids are resampled to the first one's.
        held_out: whether it is a test image of the data set, which has no label here.
    """

    name: str
    patient: str
    images: tuple[Facts, ...]
    label: Facts | None
    fold: str | None = None
    resample_channels: bool = False
    held_out: bool = False

    @property
    def grid(self) -> Grid | None:
        """The image's, the label's where there is none, None where neither can be read."""
        known = [facts.grid for facts in (*self.images, self.label) if facts is not None and facts.grid is not None]
        return known[0] if known else None

    @property
    def channels(self) -> int | None:
        """Of the image; None where a file of it cannot be read."""
        grids = [facts.grid for facts in self.images]
        known = [grid.channels for grid in grids if grid is not None]
        return sum(known) if known and len(known) == len(grids) else None

    @property
    def values(self) -> tuple[Channel, ...]:
        """Those of each channel, as far as they were read."""
        return tuple(channel for facts in self.images for channel in facts.channels)

    @property
    def readable(self) -> bool:
        """Whether the image is there and every file of it can be read."""
        return bool(self.images) and not any(facts.error for facts in self.images)


@dataclass(frozen=True)
class Expected:
    """What the cases are held against; None is taken from most of them.

    Attributes:
        labels: what label files may hold.
        dims: axes.
        channels: of the images.
        normalised: whether each scan's intensities are scaled by themselves.
        resampled: whether all scans are resampled to one spacing.
    """

    labels: Labels | None = None
    dims: int | None = None
    channels: int | None = None
    normalised: bool = False
    resampled: bool = False


def plural(number: int, what: str) -> str:
    """«1 case», «2 cases»."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def most(numbers: Sequence[int]) -> int | None:
    """The most frequent number, the first of several; None of none."""
    counted = Counter(numbers).most_common(1)
    return counted[0][0] if counted else None
