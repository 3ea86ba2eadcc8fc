"""Patients and cases in several parts of a split: what is learned from must not be judged by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.datasets.checks.finding import CaseFacts, Finding, plural
from medseg.datasets.split import SPLIT
from medseg.errors import ConfigError
from medseg.files import read_json

FOLDS = "splits_final.json"
"""Where nnU-Net keeps the folds of a data set."""

Parts = Mapping[str, Sequence[str]]
"""The names of the cases in each part: «train», «validation», or the folds of a cross-validation."""

_SHOWN = 4


def find(cases: Sequence[CaseFacts], splits: Mapping[str, Parts]) -> Iterator[Finding]:
    """Over all splits, by where each is written down, and the folds that the data set itself names."""
    patients = {case.name: case.patient for case in cases}
    folds = _folds(cases)
    named = {"the data set": folds} if folds else {}
    for where, parts in [*named.items(), *splits.items()]:
        yield from _split(where, parts, patients)


def _folds(cases: Sequence[CaseFacts]) -> dict[str, list[str]]:
    folds: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        if case.fold is not None:
            folds[f"fold {case.fold}"].append(case.name)
    return dict(folds)


def _split(where: str, parts: Parts, patients: Mapping[str, str]) -> Iterator[Finding]:
    homes: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for part, names in parts.items():
        for name in names:
            homes[patients.get(name, name)][part].append(name)
    for home in homes.values():
        if len(home) > 1:
            yield _leak(where, home)
    unknown = [name for names in parts.values() for name in names if name not in patients]
    if unknown:
        first, *others = unknown
        what = f"{where} names {plural(len(unknown), 'case')} that the data set does not have"
        yield Finding("unknown_case", "warning", what, "mend the split, or add the cases", first, tuple(others))


def _leak(where: str, home: Mapping[str, Sequence[str]]) -> Finding:
    names = list(dict.fromkeys(name for part in home.values() for name in part))
    within = f"{', '.join(list(home)[:_SHOWN])} of {where}"
    numbers = {part: len(own) for part, own in home.items()}
    if len(names) == 1:
        return Finding(
            "case_in_parts", "error", f"the case is in {within}", "keep it in one of them", names[0], (), numbers
        )
    what = f"one patient's {len(names)} cases are in {within}"
    remedy = "keep a patient's cases in one part"
    return Finding("patient_in_parts", "error", what, remedy, names[0], tuple(names[1:]), numbers)


def read_parts(root: Path) -> dict[str, Parts]:
    """The splits beside a data set: ``split.json``, and nnU-Net's ``splits_final.json``, a split for each fold.

    Raises:
        ConfigError: where one is no JSON, or holds no lists of names.
    """
    found: dict[str, Parts] = {}
    own, folds = root / SPLIT, root / FOLDS
    if own.is_file():
        found |= _own(read_json(own, "a split", ConfigError), own)
    if folds.is_file():
        content = read_json(folds, "nnU-Net's folds", ConfigError)
        if not isinstance(content, list):
            raise ConfigError(f"{folds} is no list of folds, each with the lists train and val")
        found |= {f"fold {number} of {FOLDS}": _lists(fold, folds) for number, fold in enumerate(content)}
    return found


def _own(content: Any, path: Path) -> dict[str, Parts]:
    """A split's parts, and its folds, which divide the same cases once more."""
    if not isinstance(content, Mapping) or "folds" not in content:
        return {SPLIT: _lists(content, path)}
    parts = {name: names for name, names in content.items() if name not in ("folds", "fold")}
    numbered = dict(enumerate(content["folds"] if isinstance(content["folds"], list) else ["no list"]))
    folds = _lists({f"fold {number}": names for number, names in numbered.items()}, path)
    return {SPLIT: _lists(parts, path), f"the folds of {SPLIT}": folds}


def _lists(content: Any, path: Path) -> dict[str, list[str]]:
    fit = isinstance(content, Mapping) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in content.values()
    )
    if not fit:
        raise ConfigError(f"{path}: a split must be an object of lists of case names")
    return {str(part): list(names) for part, names in content.items()}
