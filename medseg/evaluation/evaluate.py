"""Matching predictions with references and scoring them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from medseg.datasets.cases import find_scans, read_dataset
from medseg.datasets.check import open_label
from medseg.datasets.labels import Labels, one_channel
from medseg.errors import MedsegError, OutputError, nearest
from medseg.evaluation.metrics import evaluate_pair
from medseg.evaluation.report import CSV, JSON, CaseResult, Report
from medseg.files import read_json
from medseg.scans.blocks import blocks
from medseg.scans.scan import stem_of, suffix_of

INFERENCE = "inference.json"
"""What medseg infer leaves beside its masks; its key «labels» says what their values mean."""
MOST_VALUES = 255


def evaluate(
    predictions: Path,
    references: Path,
    labels: Labels | None = None,
    out: Path | None = None,
    *,
    predicted_only: bool = False,
    overwrite: bool = False,
) -> Report:
    """Scores predictions against the references of the same stem.

    Args:
        predictions: a folder of masks, or one mask.
        references: a folder of label files (or a data set's root, whose ``labels/`` is meant), or one.
        labels: what the values mean. By default what ``inference.json`` beside the predictions says, else the
            ``dataset.json`` in or above the references, else every value but 0 that is found in the
            references is a class, named by its value.
        out: where ``metrics.csv`` and ``metrics.json`` go; nothing is written by default.
        predicted_only: whether references without a prediction are left out; otherwise they score 0.
        overwrite: whether to replace those that are there.

    Raises:
        MedsegError: where nothing matches, or a pair's grids or values don't belong together.
        OutputError: where results are there already or cannot be written.
    """
    references = references / "labels" if (references / "labels").is_dir() else references
    predicted, expected = _scans("predictions", predictions), _scans("references", references)
    if _single(predictions) and _single(references):
        predicted = {next(iter(expected)): predictions}
    elif _single(predictions):
        expected = {name: path for name, path in expected.items() if name in predicted} or expected
    _check_matches(predictions, predicted, references, expected)
    _check_free(out, overwrite)
    if predicted_only:
        expected = {name: path for name, path in expected.items() if name in predicted}
    if labels is None:
        labels = find_labels(predictions, references) or _labels_of(expected)
    cases = tuple(_case(name, predicted.get(name), path, labels) for name, path in expected.items())
    report = Report(labels, cases, tuple(name for name in predicted if name not in expected))
    if out is not None:
        try:
            report.write(out)
        except OSError as error:
            raise OutputError(f"{out} cannot be written: {error.strerror or error}") from error
    return report


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
    folder = references.parent if _single(references) else references
    for root in (folder, folder.absolute().parent):
        info = read_dataset(root)
        if info is not None:
            return info.label_map
    return None


def _case(name: str, prediction: Path | None, reference: Path, labels: Labels) -> CaseResult:
    if prediction is None:
        return CaseResult(name, None)
    return CaseResult(name, evaluate_pair(open_label(prediction), open_label(reference), labels))


def _labels_of(references: Mapping[str, Path]) -> Labels:
    found: set[int] = set()
    for path in references.values():
        scan = open_label(path)
        for box in blocks(scan):
            values = np.unique(one_channel(scan.read(box), scan.name))
            if values.dtype.kind == "f" and not (np.isfinite(values) & (np.rint(values) == values)).all():
                raise MedsegError(f"{path} holds values that are no whole numbers: it is no label file")
            found.update(int(value) for value in values)
            if len(found) > MOST_VALUES:
                raise MedsegError(
                    f"{path}: the references hold more than {MOST_VALUES} values: name the labels, or mend the files"
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
    predictions: Path, predicted: Mapping[str, Path], references: Path, expected: Mapping[str, Path]
) -> None:
    if any(name in predicted for name in expected):
        return
    first = next(iter(predicted))
    raise MedsegError(
        f"no prediction in {predictions} has the stem of a reference in {references}: {first!r} is predicted and "
        f"{next(iter(expected))!r} is expected{nearest(first, expected)}"
    )


def _check_free(out: Path | None, overwrite: bool) -> None:
    taken = [out / name for name in (CSV, JSON) if (out / name).exists()] if out is not None else []
    if taken and not overwrite:
        raise OutputError(f"{taken[0]} exists: choose another folder, or replace it with --overwrite")
    if out is not None and out.is_file():
        raise OutputError(f"{out} is a file: give a folder for {CSV} and {JSON}")
