"""What predictions are compared with, where it is no plain folder of label files: data sets, and what labels say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from medseg.datasets.case_names import How, named
from medseg.datasets.cases import find_scans
from medseg.datasets.check import open_label
from medseg.datasets.declared import declared
from medseg.datasets.labels import BACKGROUND, Labels
from medseg.datasets.layouts import DATASET, DataSet, dicom_tree, open_dataset, recognise
from medseg.datasets.layouts.dicom_tree import Together, numbered_segments, segments_in, valued
from medseg.errors import MedsegError
from medseg.evaluation.opened import Reference, is_dicom_label
from medseg.scans.dicom_labels import kind_of
from medseg.scans.dicom_seg import SegFile, own_grid
from medseg.scans.header import HeaderScan
from medseg.scans.scan import READERS, Scan, suffix_of


def data_set_of(references: Path, how: How) -> DataSet | None:
    """The data set that a folder of references is; None for a folder of label files, a file, and any other folder.

    Args:
        references: a folder that holds DICOM directly, or no scans.
        how: what cases are called.

    Raises:
        MedsegError: where a description of the data set is damaged.
    """
    if not references.is_dir() or suffix_of(references):
        return None
    scans = find_scans(references).values()
    if any(READERS[suffix_of(path)] != "dicom" for path in scans):
        return None
    found = dicom_tree.read(references) if dicom_tree.recognised(references) is not None else None
    if (found is None or not found.cases) and not scans:
        found = _recognised(references)
    return named(found, how) if found is not None and found.cases else None


def labelled_cases(found: DataSet) -> dict[str, Reference]:
    """The cases of a data set that have a label, by name.

    Raises:
        MedsegError: where there is none, or for what is wrong with the data set.
    """
    if found.layout == "dicom_tree":
        return dict(found.labelled())
    for problem in found.problems:
        raise MedsegError(problem.text)
    cases: dict[str, Reference] = {case.name: case for case in found.cases if case.label is not None}
    if not cases:
        raise MedsegError(f"references {found.path}: none of its {len(found.cases)} cases has a label")
    return cases


def with_references(known: Labels, told: Labels | None, masks: Path) -> Labels:
    """What masks' labels are to references that say of themselves what they hold.

    Args:
        known: of the masks.
        told: of the references, as their data set says; None where it does not.
        masks: for messages.

    Raises:
        MedsegError: where the masks' values are several classes, and the references number objects.
    """
    if told is None:
        return known
    if known.border is not None:
        return replace(known, border=None) if known.foreground[1] in told.values else known
    if told.instances and known.classes > 1:
        raise MedsegError(
            f"the references number objects, and the masks in {masks} hold the classes {', '.join(known.foreground)}, "
            "of which nobody says how they are drawn: number the masks with medseg infer --instances and compare them "
            "with medseg evaluate --instances, or evaluate the run: medseg evaluate RUN"
        )
    return known


def segment_labels(references: Mapping[str, Reference], predicted: Mapping[str, Path]) -> Labels | None:
    """The labels that the segments' own names are.

    Their values are 1, 2, ... in the order of the names; where masks hold values alone, the segments' numbers.

    Args:
        references: label files.
        predicted: masks by case.

    Returns:
        None where references are no SEG or RTSTRUCT.

    Raises:
        MedsegError: where one cannot be read, or masks hold values alone and the references' numbers differ.
    """
    files = {name: path for name, path in references.items() if isinstance(path, Path) and is_dicom_label(path)}
    if not files or len(files) < len(references):
        return None
    masks = [predicted[name] for name in files if name in predicted]
    if not all(is_dicom_label(path) for path in masks):
        return _by_number(files.values())
    names: set[str] = set()
    sets: set[Together] = set()
    for name, path in files.items():
        own, together, _ = segments_in(path, partial(_grid_of, predicted.get(name)))
        names |= own
        sets |= together
    values, _ = valued(names, sets)
    return declared(values)


def _recognised(root: Path) -> DataSet | None:
    """The data set of any layout that knows a root."""
    _, why = recognise(root)
    return open_dataset(root) if why else None


def _grid_of(mask: Path | None) -> Scan | None:
    """A mask's grid, on which contours are drawn; None where it has none of its own."""
    if mask is None or (is_dicom_label(mask) and kind_of(mask) != "SEG"):
        return None
    return HeaderScan(own_grid([SegFile(mask, str(mask))], str(mask))) if is_dicom_label(mask) else open_label(mask)


def _by_number(files: Iterable[Path]) -> Labels:
    """Each segment's number is its value."""
    values: dict[str, int | list[int]] = {BACKGROUND: 0}
    names: dict[int, str] = {}
    for path in files:
        for number, name in numbered_segments(path).items():
            if names.setdefault(number, name) != name or values.setdefault(name, number) not in (number, 0):
                raise MedsegError(
                    f"the references' segments are not numbered alike ({name!r} is segment {number} in {path}, and "
                    "either is another elsewhere), so nobody says what the masks' values mean: name them in "
                    f"{path.parent / DATASET}"
                )
    return declared(values)
