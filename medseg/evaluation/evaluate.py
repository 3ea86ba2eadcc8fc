"""Matching predictions with references and scoring them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg.datasets.case_names import How, by_case, write_map
from medseg.datasets.cases import find_scans
from medseg.datasets.check import check_grid
from medseg.datasets.checks.digest import Digest
from medseg.datasets.checks.survey import Item, label_items, survey
from medseg.datasets.labels import Labels, one_channel
from medseg.datasets.layouts import read_dataset
from medseg.datasets.layouts.endings import by_image
from medseg.datasets.layouts.folders import PAIRS
from medseg.errors import GridError, MedsegError, OutputError, nearest, some
from medseg.evaluation.case import score_case
from medseg.evaluation.catalogue import Family, choose
from medseg.evaluation.opened import Reference, open_pair
from medseg.evaluation.pair import Options
from medseg.evaluation.references import data_set_of, labelled_cases, segment_labels, with_references
from medseg.evaluation.report import CSV, JSON, Report
from medseg.files import read_json
from medseg.inference.outputs import PROBABILITIES
from medseg.scans.blocks import blocks
from medseg.scans.scan import stem_of, suffix_of

INFERENCE = "inference.json"
"""What medseg infer leaves beside its masks; its key «labels» says what their values mean."""
MOST_VALUES = 255


@dataclass(frozen=True)
class Wanted:
    """What is to be computed.

    Attributes:
        metrics: names of metrics and families; None for the usual ones and those that the other options are about.
        tolerance: of nsd, for all labels or by label, in mm (in voxels where the scans state no unit); None for no nsd.
        overlap: the IoU above which lesions match one to one; 0 where any shared voxel does.
        instances: the files hold instance numbers, or masks whose components are the instances.
        objects: the segments of v_rand and v_info are a label's components; otherwise the label is the border.
        probabilities: the folder of probabilities, or one file.
    """

    metrics: Sequence[str] | None = None
    tolerance: float | Mapping[str, float] | None = None
    overlap: float = 0.0
    instances: bool = False
    objects: bool = False
    probabilities: Path | None = None

    def options(self, labels: Labels, numbered: bool) -> Options:
        """For a set of labels.

        Args:
            labels: of the data set.
            numbered: whether they are declared to be instances.

        Raises:
            MedsegError: for an unknown metric or label, or a number that is none.
        """
        about = {"instances": self.instances, "calibration": self.probabilities is not None}
        extra: list[Family] = [family for family, asked in about.items() if asked]  # type: ignore[misc]
        metrics = choose(self.metrics, extra, self.tolerance is not None)
        if not 0 <= self.overlap < 1:
            raise MedsegError(f"overlap {self.overlap} is no IoU: give a number from 0 (any voxel) to below 1")
        options = Options(metrics, self._tolerances(labels), self.overlap, numbered, self.objects)
        if options.wants("instances") and not self.instances:
            raise MedsegError("ap and pq compare instances: say that the files hold some with --instances")
        return options

    def _tolerances(self, labels: Labels) -> dict[str, float]:
        given = self.tolerance
        by_label = (
            given if isinstance(given, Mapping) else dict.fromkeys(labels.targets if given is not None else (), given)
        )
        for name, value in by_label.items():
            if name not in labels.targets:
                known = ", ".join(labels.targets)
                raise MedsegError(f"tolerance of {name!r}: the labels are {known}{nearest(name, labels.targets)}")
            if value is None or not (math.isfinite(value) and value >= 0):
                raise MedsegError(f"the tolerance of {name!r} is {value}: give a distance of 0 or more")
        return {name: float(value) for name, value in by_label.items() if value is not None}


@dataclass(frozen=True)
class Scored:
    """Scores, and what they are of.

    Attributes:
        report: the scores.
        masks: by case.
        references: by case.
    """

    report: Report
    masks: Mapping[str, Path]
    references: Mapping[str, Reference]


def evaluate(
    predictions: Path | Sequence[Path],
    references: Path,
    labels: Labels | None = None,
    out: Path | None = None,
    *,
    wanted: Wanted | None = None,
    predicted_only: bool = False,
    overwrite: bool = False,
    case_names: How = "stem",
) -> Report:
    """Scores predictions against the references of the same stem.

    Args:
        predictions: a folder of masks, or one mask; of several folders, as those of a cross-validation's folds, the
            cases are pooled.
        references: a folder of label files (or a data set's root, whose ``labels/`` or ``labelsTr/`` is meant), or one,
            or the root of a data set of another layout, whose cases that have labels are meant.
        labels: what the values mean. By default what ``inference.json`` beside the predictions says, else the
            references' data set or the ``dataset.json`` in or above them, else the names of the segments where all are
            SEG or RTSTRUCT, else every value but 0 that is found in the references is a class, named by its value.
        out: where ``metrics.csv`` and ``metrics.json`` go; nothing is written by default.
        wanted: what to compute; by default what is quick and says most.
        predicted_only: whether references without a prediction are left out; otherwise they score the worst.
        overwrite: whether to replace those that are there.
        case_names: what cases are called; see :mod:`medseg.datasets.case_names`.

    Raises:
        MedsegError: where nothing matches, pairs' grids or values don't belong together, a case is predicted twice, or
            an option is wrong.
        OutputError: where results are there already or cannot be written.
    """
    check_free(out, overwrite)
    scored = score_folders(
        predictions, references, labels, wanted=wanted, predicted_only=predicted_only, case_names=case_names
    )
    write_report(scored.report, out, scored.references)
    return scored.report


def score_folders(
    predictions: Path | Sequence[Path],
    references: Path,
    labels: Labels | None = None,
    *,
    wanted: Wanted | None = None,
    predicted_only: bool = False,
    case_names: How = "stem",
) -> Scored:
    """As :func:`evaluate`, which says what the arguments are, and writes nothing.

    Raises:
        MedsegError: likewise.
    """
    wanted = wanted or Wanted()
    folders = [predictions] if isinstance(predictions, Path) else list(predictions)
    predictions = folders[0]
    references = next((references / f for _, f in PAIRS if (references / f).is_dir()), references)
    predicted = _pooled("predictions", folders, case_names)
    _check_labels(folders, references)
    expected: dict[str, Reference] = {}
    found = data_set_of(references, case_names)
    if found is not None:
        expected |= labelled_cases(found)
        told = None if found.info is None else found.info.label_map
    else:
        told = _told(references)
        expected |= by_case(by_image(_scans("references", references), predicted), predicted, case_names)
    if _single(predictions) and _single(references):
        predicted = {next(iter(expected)): predictions}
    elif _single(predictions):
        expected = {name: path for name, path in expected.items() if name in predicted} or expected
    _check_matches(predictions, predicted, references, expected)
    if predicted_only:
        expected = {name: path for name, path in expected.items() if name in predicted}
    known = labels or find_labels(predictions, references) or told
    known = segment_labels(expected, predicted) if known is None else with_references(known, told, predictions)
    labels, numbered = scored_labels(known, expected, wanted.instances)
    options = wanted.options(labels, numbered)
    probabilities = find_probabilities(folders, predicted, expected, wanted) if options.wants("calibration") else {}
    report = score_all(predicted, expected, labels, wanted, options, probabilities)
    return Scored(report, {name: path for name, path in predicted.items() if name in expected}, expected)


def score_all(
    predicted: Mapping[str, Path],
    expected: Mapping[str, Reference],
    labels: Labels,
    wanted: Wanted,
    options: Options,
    probabilities: Mapping[str, Path] | None = None,
) -> Report:
    """Scores every reference, by the name of its case.

    Args:
        predicted: the masks; cases that lack one score the worst.
        expected: the references.
        labels: what the values of both mean.
        wanted: what was asked for.
        options: that, for these labels.
        probabilities: of the cases, where calibration is asked for.

    Raises:
        MedsegError: where grids or values don't belong together.
    """
    _check_grids(predicted, expected, labels)
    cases = tuple(
        score_case(name, predicted.get(name), path, labels, options, (probabilities or {}).get(name))
        for name, path in expected.items()
    )
    extra = tuple(name for name in predicted if name not in expected)
    return Report(labels, cases, extra, settings_of(wanted, options), reference_digests(expected))


def write_report(report: Report, out: Path | None, expected: Mapping[str, Reference]) -> None:
    """Writes a report, and who the cases are where their names are digests; nothing where no folder is given.

    Raises:
        OutputError: where the folder cannot be written.
    """
    if out is None:
        return
    try:
        report.write(out)
        write_map(out, [(name, _file(one)) for name, one in expected.items()])
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}") from error


def _pooled(what: str, folders: Sequence[Path], how: How) -> dict[str, Path]:
    """The masks of all folders by case.

    Raises:
        MedsegError: where a case is in two.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for name, path in by_case(_scans(what, folder), how=how).items():
            if name in found:
                raise MedsegError(
                    f"{what}: the case {name} is in {found[name].parent} and in {folder}: pool folders that share no "
                    "case, as those of a cross-validation's folds, or evaluate each by itself"
                )
            found[name] = path
    return found


def _check_labels(folders: Sequence[Path], references: Path) -> None:
    """Refuses to pool masks whose values mean something else."""
    first, *others = [find_labels(folder, references) for folder in folders]
    for folder, other in zip(folders[1:], others, strict=True):
        if other != first:
            raise MedsegError(f"the labels of {folders[0]} and {folder} differ: pool masks of one task")


def _file(reference: Reference) -> Path:
    return reference if isinstance(reference, Path) else reference.label or reference.image


def reference_digests(references: Mapping[str, Reference]) -> dict[str, Digest]:
    """Of each label file, by case; none of a file that cannot be read so. Kept in the cache folder."""
    items = {
        name: Item(one, "label") if isinstance(one, Path) else label_items(one)[0] for name, one in references.items()
    }
    found = survey(items.values(), workers=1)
    return {name: digest for name, item in items.items() if (digest := Digest.of(found[item])) is not None}


def find_labels(predictions: Path, references: Path) -> Labels | None:
    """The labels that ``inference.json`` beside the predictions or the references' ``dataset.json`` names.

    Raises:
        MedsegError: where such a file is damaged.
    """
    beside = (predictions.parent if _single(predictions) else predictions) / INFERENCE
    if beside.is_file():
        content = read_json(beside, "what medseg infer says of its masks")
        if isinstance(content, Mapping) and "labels" in content:
            try:
                return Labels.from_dict(content["labels"])
            except MedsegError as error:
                raise MedsegError(f"{beside}: {error}") from None
    return _told(references)


def _told(references: Path) -> Labels | None:
    """The labels that the ``dataset.json`` in or above references names."""
    folder = references.parent if _single(references) else references
    for root in (folder, folder.absolute().parent):
        info = read_dataset(root)
        if info is not None:
            return info.label_map
    return None


def scored_labels(known: Labels | None, references: Mapping[str, Reference], instances: bool) -> tuple[Labels, bool]:
    """The labels to score by, and whether they are declared to be instances.

    Raises:
        MedsegError: where instances are asked for and the labels are several, or none is known and none is found.
    """
    if not instances:
        return known or _labels_of(references), False
    if known is None:
        return Labels({"background": 0, "instance": 1}, instances=True), False
    if known.border is not None:
        raise MedsegError(
            f"instances are numbered objects, and here are the classes {', '.join(known.foreground)}: number the "
            "objects with medseg infer --instances or medseg postprocess --instances, and evaluate what it writes"
        )
    if known.classes != 1 or known.background_value != 0:
        names = ", ".join(known.foreground)
        raise MedsegError(
            f"instances need one foreground label and background 0; here are {names}: leave out --instances, and ask "
            "for the family lesions, which looks at each label's components"
        )
    return Labels(known.values, known.foreground, True, known.ignore, known.merged), known.instances


def find_probabilities(
    folders: Sequence[Path], predicted: Mapping[str, Path], expected: Mapping[str, Reference], wanted: Wanted
) -> dict[str, Path]:
    """The probabilities of each case that is predicted, of every folder of predictions or the one that is named.

    Raises:
        MedsegError: where a folder or a case's file is missing.
    """
    places = [(path.parent if _single(path) else path) / PROBABILITIES for path in folders]
    places = places if wanted.probabilities is None else [wanted.probabilities]
    for folder in places:
        if not folder.exists():
            raise MedsegError(f"{folder} does not exist: ece and brier need what medseg infer --probabilities writes")
    if _single(folder):
        return dict.fromkeys(expected, folder)
    found = {name: path for place in places for name, path in by_case(_scans("probabilities", place), expected).items()}
    wanting = [name for name in expected if name in predicted and name not in found]
    if wanting:
        raise MedsegError(f"{folder} lacks the probabilities of {some(wanting)}: make them again, or name their folder")
    return found


def _check_grids(predicted: Mapping[str, Path], expected: Mapping[str, Reference], labels: Labels) -> None:
    """Refuses predictions on other grids than their references, all of them at once, before anything is counted."""
    wrong: dict[str, str] = {}
    for name in expected:
        if name in predicted:
            try:
                found, truth = open_pair(predicted[name], expected[name], labels)
                check_grid(found or truth, truth)
            except GridError as error:
                wrong[name] = str(error)
    if len(wrong) == 1:
        raise GridError(next(iter(wrong.values())))
    if wrong:
        raise GridError(
            f"{len(wrong)} predictions lie on other grids than their references: {some(wrong)}; the first: "
            f"{next(iter(wrong.values()))}"
        )


def settings_of(wanted: Wanted, options: Options) -> dict[str, Any]:
    """What was asked for, as a report keeps it."""
    return {
        "metrics": [metric.name for metric in options.metrics],
        "tolerance": dict(options.tolerance),
        "overlap": wanted.overlap,
        "instances": wanted.instances,
        "segments": "objects" if wanted.objects else "borders",
    }


def _labels_of(references: Mapping[str, Reference]) -> Labels:
    found: set[int] = set()
    for path in references.values():
        _, scan = open_pair(None, path)
        for box in blocks(scan):
            values = np.unique(one_channel(scan.read(box), scan.name))
            if values.dtype.kind == "f" and not (np.isfinite(values) & (np.rint(values) == values)).all():
                raise MedsegError(f"{_file(path)} holds values that are no whole numbers: it is no label file")
            found.update(int(value) for value in values)
            if len(found) > MOST_VALUES:
                raise MedsegError(
                    f"{_file(path)}: the references hold more than {MOST_VALUES} values: name the labels, or mend them"
                )
    found.discard(0)
    if not found:
        raise MedsegError("the references hold nothing but 0: name the labels to evaluate")
    return Labels({"background": 0} | {str(value): value for value in sorted(found)})


def _scans(what: str, path: Path) -> dict[str, Path]:
    if not path.exists():
        raise MedsegError(f"{what} {path}: no such file or folder")
    if _single(path):
        return {stem_of(path): path}
    found = find_scans(path)
    if not found:
        raise MedsegError(f"{what} {path}: holds no file that medseg can read")
    return found


def _single(path: Path) -> bool:
    """Whether a path is one mask: a file, or a folder that is one scan (Zarr)."""
    return path.is_file() or bool(suffix_of(path))


def _check_matches(
    predictions: Path, predicted: Mapping[str, Path], references: Path, expected: Mapping[str, Reference]
) -> None:
    if any(name in predicted for name in expected):
        return
    first = next(iter(predicted))
    raise MedsegError(
        f"no prediction in {predictions} has the stem of a reference in {references}: {first!r} is predicted and "
        f"{next(iter(expected))!r} is expected{nearest(first, expected)}"
    )


def check_free(out: Path | None, overwrite: bool) -> None:
    """Refuses a folder that holds an evaluation already.

    Raises:
        OutputError: unless overwriting is asked for.
    """
    taken = [out / name for name in (CSV, JSON) if (out / name).exists()] if out is not None else []
    if taken and not overwrite:
        raise OutputError(f"{taken[0]} exists: choose another folder, or replace it with --overwrite")
    if out is not None and out.is_file():
        raise OutputError(f"{out} is a file: give a folder for {CSV} and {JSON}")
