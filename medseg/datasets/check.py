"""Opening the files of a case, and whether they lie on one grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medseg.datasets.borders import Bordered
from medseg.datasets.cases import Case, DicomCase
from medseg.datasets.checks.grids import Placed, differences
from medseg.errors import GridError, MedsegError
from medseg.scans import dicom_labels
from medseg.scans.dicom_facts import SeriesChoice
from medseg.scans.formats import READERS, suffix_of
from medseg.scans.scan import Scan, open_scan
from medseg.scans.stacked import OnGrid, OnVoxels, Stacked


def open_label(path: str | Path, like: Scan | None = None, table: dicom_labels.Table = ()) -> Scan:
    """A label file as a scan.

    Args:
        path: the file.
        like: the image, on whose grid a DICOM SEG or RTSTRUCT is read; other files have their own.
        table: the value of each set of segments of these; a segment's number by default.
    """
    place = Path(path)
    if READERS.get(suffix_of(place), "dicom") == "dicom" and dicom_labels.is_label_object(place):
        return dicom_labels.open_file(place, str(path), like, table)
    return open_scan(path, labels=True)


def open_case_label(case: Case) -> Scan:
    """A case's label.

    Raises:
        MedsegError: where it has none.
    """
    if case.label is None:
        raise MedsegError(f"case {case.name} has no label")
    label = open_label(case.label) if case.dicom is None else open_dicom_label(case.label, case.dicom)
    return label if case.border is None else Bordered(label, case.border)


def open_placed_label(case: Case, image: Scan) -> Scan:
    """A case's label, to be turned and resampled as its image is.

    Where either states no unit, or one alone says how the patient lies, their voxels match as they are stored: then the
    label lies where the image does.

    Raises:
        MedsegError: where it has none.
    """
    label = open_case_label(case)
    open_grid = "pixel" in (label.unit, image.unit) or label.anatomical != image.anatomical
    return OnVoxels(label, image) if open_grid and label.shape == image.shape else label


def open_dicom_label(path: Path, case: DicomCase) -> Scan:
    """A DICOM SEG or RTSTRUCT on the grid of its series."""
    return open_label(path, open_series(case.image, case), case.table)


def open_series(path: Path, case: DicomCase | None) -> Scan:
    """An image file or folder; of several DICOM series in it the case's."""
    return open_scan(path) if case is None else open_scan(path, series=SeriesChoice(case.series))


def open_image(case: Case) -> Scan:
    """A case's image, whose channels may lie in several files; see :func:`open_channels`."""
    if case.dicom is not None:
        return open_series(case.image, case.dicom)
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
