"""Opening the files of a case, and whether they lie on one grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medseg.datasets.cases import Case
from medseg.datasets.checks.grids import Placed, differences
from medseg.errors import GridError
from medseg.scans.scan import Scan, open_scan
from medseg.scans.stacked import OnGrid, Stacked


def open_label(path: str | Path) -> Scan:
    """A label file as a scan."""
    return open_scan(path, labels=True)


def open_image(case: Case) -> Scan:
    """A case's image, whose channels may lie in several files; see :func:`open_channels`."""
    return open_channels(case.images, case.resample_channels)


def open_channels(paths: Sequence[Path], resample: bool = False) -> Scan:
    """Files as the channels of one scan, on the grid of the first.

    Args:
        paths: at least one.
        resample: whether files on other grids are resampled to the first one's, and not refused.

    Raises:
        GridError: where the grids differ, with the difference.
    """
    first, *others = [open_scan(path) for path in paths]
    if not others:
        return first
    return Stacked([first, *(_channel(scan, first, resample) for scan in others)])


def _channel(scan: Scan, first: Scan, resample: bool) -> Scan:
    try:
        check_grid(scan, first)
    except GridError as error:
        if resample:
            return OnGrid(scan, first)
        raise GridError(f"{error}, or let medseg do it with data.resample_channels: true") from None
    return scan


def check_grid(label: Placed, image: Placed) -> None:
    """Refuses two scans whose voxels do not lie in the same places, as far as both files say where they lie.

    Raises:
        GridError: with the two shapes, spacings, orientations, or the distance between the grids' corners.
    """
    for difference in differences(label, image):
        if difference.degree == "different":
            raise GridError(f"{label.name} and {image.name} have {difference.text}; {difference.remedy}")
