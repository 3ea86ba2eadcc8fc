"""The cases that a page shows: opened, cut to bounded parts, and closed again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medseg.datasets.case_names import by_case
from medseg.datasets.cases import find_scans
from medseg.datasets.labels import Labels
from medseg.datasets.layouts.folders import PAIRS
from medseg.errors import MedsegError, nearest
from medseg.evaluation.evaluate import Scored
from medseg.evaluation.opened import open_pair
from medseg.evaluation.report import Report
from medseg.scans.scan import open_scan, stem_of, suffix_of
from medseg.tracking.html.display import CaseScans, Display
from medseg.tracking.html.parts import Part, parts_of
from medseg.tracking.html.ranking import Ranked, chosen, ranked

OpenCase = Callable[[str], CaseScans]
"""From a case's name to its scans."""
FIRST_CHANNEL = "_0000"
"""What ends the stem of a case's first channel where each channel is a file (nnU-Net)."""


@dataclass(frozen=True)
class Limits:
    """How much a page holds. Other cases are in its table alone.

    Attributes:
        cases: that can be looked at.
        voxels: of all of them together; about 2 bytes each in the file, at most 3.
        case_voxels: of one.
    """

    cases: int = 9
    voxels: int = 12 << 20
    case_voxels: int = 3 << 20


@dataclass(frozen=True)
class ShownCase:
    """A case that can be looked at.

    Attributes:
        ranked: its name, and where it stands.
        parts: what of it is kept.
        anatomical: whether the axes run to the patient's left, back and head.
        notes: what to know of what is shown.
    """

    ranked: Ranked
    parts: list[Part]
    anatomical: bool
    notes: tuple[str, ...]


def show_cases(report: Report, open_case: OpenCase, limits: Limits | None = None) -> list[ShownCase]:
    """The worst, middle and best cases of a report, worst first, in bounded memory.

    Raises:
        MedsegError: where one cannot be read.
    """
    limits = limits or Limits()
    cases = chosen(ranked(report), limits.cases)
    voxels = min(limits.case_voxels, limits.voxels // max(len(cases), 1))
    return [_show(case, open_case(case.name), report.labels, voxels) for case in cases]


def files_opener(scored: Scored, images: Path | None) -> OpenCase:
    """Opens the cases of an evaluation from what was evaluated.

    Args:
        scored: the evaluation.
        images: the folder of images, or one; None for none. Matched by stem, or by stem and ``_0000``.

    Raises:
        MedsegError: where there is no image for any case, or the folder is missing.
    """
    pictures = {} if images is None else _images(images, scored.report)

    def open_case(name: str) -> CaseScans:
        mask, truth = open_pair(scored.masks.get(name), scored.references[name], scored.report.labels)
        return CaseScans(name, truth, mask, open_scan(pictures[name]) if name in pictures else None)

    return open_case


def images_beside(references: Path) -> Path | None:
    """The folder of images of the data set whose root, or folder of labels, this is; None where it is neither."""
    for images, labels in PAIRS:
        root = references if (references / labels).is_dir() else references.absolute().parent
        if (root / images).is_dir() and (root / labels).is_dir():
            return root / images
    return None


def _images(path: Path, report: Report) -> dict[str, Path]:
    if not path.exists():
        raise MedsegError(f"images {path}: no such file or folder")
    cases = [case.name for case in report.cases]
    if path.is_file() or suffix_of(path):
        found = {name: path for name in cases if name == stem_of(path) or len(cases) == 1}
    else:
        found = by_case(find_scans(path), cases)
    names = {name: next((n for n in (name, name + FIRST_CHANNEL) if n in found), None) for name in cases}
    matched = {name: found[stem] for name, stem in names.items() if stem is not None}
    if not matched:
        first = report.cases[0].name
        raise MedsegError(
            f"images {path}: holds no image of the stem of a case, such as {first!r}{nearest(first, found)}"
        )
    return matched


def _show(case: Ranked, scans: CaseScans, labels: Labels, voxels: int) -> ShownCase:
    display = Display(scans, labels)
    parts = parts_of(display, voxels)
    return ShownCase(case, parts, display.anatomical, tuple(_notes(display, parts)))


def _notes(display: Display, parts: list[Part]) -> list[str]:
    scans, shape = display.scans, " x ".join(map(str, display.shape[display.flat :]))
    notes = []
    if len(parts) > 1:
        notes.append(
            f"The case has {shape} voxels, more than a page holds. All of it is shown coarsely: the mean of each cell, "
            "and the label of the voxel in its middle, so that small objects can be missing. A part of it, where most "
            "voxels are wrong, is shown at full resolution."
        )
    if scans.prediction is None:
        notes.append("There is no prediction: the case scores the worst of everything.")
    if scans.image is None:
        notes.append("No image was given: the masks are shown alone.")
    elif not display.colour and scans.image.channels > 1:
        notes.append(f"Of the image's {scans.image.channels} channels the first is shown.")
    if all(part.image is None or part.image.step == 1.0 for part in parts):
        return notes
    steps = {part.image.step for part in parts if part.image is not None}
    return [*notes, f"Grey values are rounded to steps of {max(steps):.3g}."]
