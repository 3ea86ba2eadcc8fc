"""A config's data section becomes a data set and its labels. It stands apart from the study, which needs PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from medseg.datasets.borders import bordered_labels, ignored_values
from medseg.datasets.case_names import named, named_as
from medseg.datasets.checks.finding import Expected
from medseg.datasets.declared import declared
from medseg.datasets.labels import Border, Labels
from medseg.datasets.layouts import DataSet, DatasetInfo, open_dataset
from medseg.errors import ConfigError, nearest
from medseg.experiment import BorderData, Data, Experiment
from medseg.files import absent
from medseg.scans.segments import SegmentLook

CASE_LISTS = ("exclude", "train", "validation", "test")
"""The keys that may list cases."""


def find_data(data: Data) -> DataSet:
    """The data set that a config names, without the cases that it leaves out; its layout is said.

    Raises:
        MedsegError: where there is none, or its description is damaged.
    """
    found = named(open_dataset(data_root(data), data.layout), data.case_names).without(data.exclude)
    print(found.account(), file=sys.stderr)
    if data.border is not None:
        labels = labels_of(data, found.info, found.root)
        found = found.bordered(learned_labels(data, labels).border)
    return found.resampling() if data.resample_channels else found


def learned_labels(data: Data, labels: Labels) -> Labels:
    """The labels as cases are opened, given those of the files: with the border's, where there is one.

    Raises:
        ConfigError: where a border does not go with the labels.
    """
    if data.border is None:
        return labels
    return bordered_labels(labels, data.border.name, _border(data.border, labels))


def _border(wanted: BorderData, labels: Labels) -> Border:
    width = wanted.width if isinstance(wanted.width, list) else [wanted.width]
    return Border(tuple(width), ignored_values(labels))


def told(data: Data, found: DataSet) -> Data:
    """The section with its cases called as ``found`` calls them: what a run keeps of it."""
    lists = {key: getattr(data, key) for key in CASE_LISTS}
    names = {key: named_as(names, found) for key, names in lists.items() if isinstance(names, list)}
    return data.model_copy(update=names)


def data_root(data: Data) -> Path:
    """The data set's folder or manifest; a phantom is made there where there is none yet.

    Raises:
        ConfigError: where neither a root nor a phantom is given, or the root does not exist.
    """
    if data.root is None and data.phantom is None:
        raise ConfigError("data.root is missing: give the folder that holds images/ and labels/, as data.root=FOLDER")
    root = data.root or Path("data") / f"phantom-{data.phantom.kind}"  # type: ignore[union-attr]
    if root.exists():
        return root
    if data.phantom is None:
        raise ConfigError(f"data.root {absent(root, folders=True)}")
    from medseg.datasets.phantom import write_phantom

    phantom = data.phantom
    print(f"making {phantom.cases} cases of the phantom {phantom.kind} in {root}", file=sys.stderr)
    return write_phantom(phantom.kind, root, phantom.cases, tuple(phantom.size), phantom.seed)


def expected_of(experiment: Experiment, labels: Labels | None, channels: int | None = None) -> Expected:
    """What an experiment's cases are held against."""
    wanted = experiment.preprocessing
    scaled, resampled = wanted.normalize.kind == "zscore", wanted.spacing_mm is not None
    return Expected(labels, experiment.network.dims, channels, scaled, resampled)


def segments_of(data: Data, info: DatasetInfo | None, labels: Labels) -> dict[str, SegmentLook]:
    """What labels are in a DICOM SEG: the config's word, else the data set's own.

    Raises:
        ConfigError: where the config's is of no label.
    """
    given = data.segments
    for name in given or ():
        if name not in labels.targets:
            known = ", ".join(labels.targets)
            raise ConfigError(f"data.segments: {name!r} is none of the labels {known}{nearest(name, labels.targets)}")
    looks = {**(info.segments if info is not None else {}), **(given or {})}
    return {name: looks[name] for name in labels.targets if name in looks}


def labels_of(data: Data, info: DatasetInfo | None, root: Path) -> Labels:
    """The config's labels where it names them, else the data set's own.

    Raises:
        ConfigError: where neither says what the values in the label files mean.
    """
    known: Mapping[str, int | Sequence[int]] | None = data.labels or (info.labels if info is not None else None)
    if known is None:
        raise ConfigError(
            f"{root} has no dataset.json and the config no data.labels: name the values in the label files, "
            "as in labels: {background: 0, lesion: 1}"
        )
    own = info if data.labels is None else None
    ignore = data.ignore or (own.ignore if own is not None else None) or ()
    foreground = data.foreground or [name for name in (own.foreground if own else None) or () if name not in ignore]
    instances = data.instances if data.instances is not None else bool(info is not None and info.instances)
    order = data.regions_class_order or (own.regions_class_order if own is not None else None)
    return declared(known, foreground, instances, ignore, order)
