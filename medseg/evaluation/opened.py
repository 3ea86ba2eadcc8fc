"""A prediction and its reference, opened on one grid: DICOM's labels have none of their own, or the least one."""

from __future__ import annotations

from pathlib import Path

from medseg.datasets.borders import Bordered
from medseg.datasets.cases import Case
from medseg.datasets.check import open_case_label, open_label
from medseg.datasets.labels import Labels
from medseg.scans.dicom_labels import Table, is_label_object, kind_of
from medseg.scans.dicom_seg import SegFile, own_grid
from medseg.scans.formats import READERS, suffix_of
from medseg.scans.header import HeaderScan
from medseg.scans.scan import Scan

Reference = Path | Case
"""A label file, or a case of a data set."""


def open_pair(prediction: Path | None, reference: Reference, labels: Labels | None = None) -> tuple[Scan | None, Scan]:
    """Both as scans.

    A SEG or RTSTRUCT is read on the grid of the other; two SEGs on the least grid that holds the planes of both, for
    what a SEG leaves out is background. Their segments are told by the names of the labels. Where labels are the
    insides and the border of instances, a reference that numbers instances becomes these; a SEG's segments are these.

    Args:
        prediction: a mask, or None.
        reference: its label.
        labels: what the values are to mean; None takes the segments' numbers.

    Raises:
        ScanError: where one cannot be read, or does not lie on the other's voxels.
    """
    found, truth = _opened(prediction, reference, table_of(labels))
    border = None if labels is None else labels.border
    file = reference.label if isinstance(reference, Case) else reference
    if border is None or isinstance(truth, Bordered) or (file is not None and is_dicom_label(file)):
        return found, truth
    return found, Bordered(truth, border)


def _opened(prediction: Path | None, reference: Reference, table: Table) -> tuple[Scan | None, Scan]:
    if isinstance(reference, Case):
        truth = open_case_label(reference)
        return None if prediction is None else open_label(prediction, truth, table), truth
    if prediction is None or not is_dicom_label(reference):
        truth = open_label(reference, None, table)
        return None if prediction is None else open_label(prediction, truth, table), truth
    if not is_dicom_label(prediction):
        found = open_label(prediction)
        return found, open_label(reference, found, table)
    files = [SegFile(path, str(path)) for path in (reference, prediction) if kind_of(path) == "SEG"]
    if not files:
        return open_label(prediction, None, table), open_label(reference, None, table)
    grid = HeaderScan(own_grid(files, str(reference)))
    return open_label(prediction, grid, table), open_label(reference, grid, table)


def table_of(labels: Labels | None) -> Table:
    """The value of each set of segments, as labels call them: of regions, the value of each class."""
    if labels is None:
        return ()
    if not labels.regions:
        return tuple(((name,), value) for name, value in labels.values.items())
    numbers = enumerate(labels.foreground, 1)
    regions = labels.targets.items()
    return tuple(
        (tuple(sorted(region for region, classes in regions if number in classes)), labels.values[name])
        for number, name in numbers
    )


def is_dicom_label(path: Path) -> bool:
    """Whether a label file is a SEG or RTSTRUCT."""
    return READERS.get(suffix_of(path), "dicom") == "dicom" and is_label_object(path)
