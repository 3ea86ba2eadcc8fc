"""``--series`` and ``--series-filter``, and the list of a folder's DICOM series that one chooses from."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medseg.scans.dicom_facts import SeriesChoice
    from medseg.scans.dicom_series import Series

SERIES = "The SeriesInstanceUID of the DICOM series that is meant, where a folder holds several."
SERIES_FILTER = "The DICOM series or slices that are meant, such as 'Modality=CT, SliceThickness<=3'."


def chosen(uid: str | None, text: str | None) -> SeriesChoice | None:
    """What the two options say; None where neither is given.

    Raises:
        ConfigError: for a filter that is none.
    """
    if uid is None and text is None:
        return None
    from medseg.scans.dicom_facts import SeriesChoice

    return SeriesChoice.parse(uid, text)


@contextmanager
def listing_series() -> Iterator[None]:
    """Lists a folder's series on stderr where one of them should have been chosen; the error goes on."""
    from medseg.scans.dicom_series import SeriesError

    try:
        yield
    except SeriesError as error:
        _show(error.series)
        raise


HEAD = ("number", "modality", "images", "rows x columns", "thickness", "--series UID", "description")


def _show(series: Sequence[Series]) -> None:
    """Prints a table on stderr. Descriptions are free texts, which may name a patient: they go to a terminal alone."""
    shown = len(HEAD) if sys.stderr.isatty() else len(HEAD) - 1
    rows = [HEAD[:shown], *(_row(one)[:shown] for one in series)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), file=sys.stderr)


def _row(one: Series) -> tuple[str, ...]:
    return one.number, one.modality, str(one.slices), one.size, one.thickness_mm, one.uid, one.description
