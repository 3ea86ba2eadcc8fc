"""Which cases an experiment trains on and is judged by: named, drawn, of a file, or as a fold of a cross-validation."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medseg.datasets.case_names import named_as
from medseg.datasets.cases import Case, natural_key
from medseg.datasets.checks.facts import Facts
from medseg.datasets.checks.splits import FOLDS
from medseg.datasets.checks.survey import label_items, survey
from medseg.datasets.folds import Member, make_folds
from medseg.datasets.labels import Labels
from medseg.datasets.layouts import DataSet
from medseg.datasets.split import SPLIT, Folds, Split, draw_test, make_split
from medseg.errors import ConfigError, nearest, some
from medseg.experiment import Data
from medseg.files import read_json

DEFAULT_FOLDS = 5
"""How many folds are drawn where neither the config nor the data set says."""


def split_of(data: Data, seed: int, found: DataSet, cases: Mapping[str, Case], labels: Labels) -> Split:
    """The split that an experiment's data section asks for.

    Args:
        data: the section.
        seed: of what is drawn.
        found: the data set.
        cases: its labelled cases by name.
        labels: the experiment's.

    Raises:
        ConfigError: for names that are not there, contradicting keys, or a patient in two parts.
    """
    if data.fold is not None:
        return folds_of(data, seed, found, cases, labels).split(data.fold)
    if data.split is None:
        named = {"validation": data.validation, "test": data.test, "train": data.train}
        return make_split(cases.values(), **named, seed=seed)  # type: ignore[arg-type]
    split = Split.from_dict(_file_content(data.split, found))
    return check_split(split, cases, str(data.split))


def check_split(split: Split, cases: Mapping[str, Case], where: str) -> Split:
    """A split that was written down, once every case that it names is there and no patient is in two parts.

    Raises:
        ConfigError: for the first that is not.
    """
    parts = split.parts
    _check_named((name for names in parts.values() for name in names), cases, where)
    make_split(cases.values(), validation=split.validation, test=split.test, train=split.train)
    if split.folds:
        Folds(split.folds, split.test).check_patients({name: case.patient for name, case in cases.items()})
    return split


def folds_of(data: Data, seed: int, found: DataSet, cases: Mapping[str, Case], labels: Labels) -> Folds:
    """The folds of an experiment: those of ``data.split``, else ``data.folds`` drawn ones, else the data set's own (a
    manifest's column, nnU-Net's ``splits_final.json``, a ``split.json`` beside), else :data:`DEFAULT_FOLDS` drawn ones.

    Args, Raises: as :func:`split_of`.
    """
    _check_fractions(data)
    if data.split is not None:
        folds, where = Folds.from_dict(_file_content(data.split, found)), str(data.split)
    else:
        own = _own_folds(found, cases) if data.folds is None else None
        folds, where = own or (_drawn(data, seed, cases, labels), "data.folds")
    _check_named(folds.names, cases, where)
    folds.check_patients({name: case.patient for name, case in cases.items()})
    print(f"folds of {where}: {_account(folds, cases)}", file=sys.stderr)
    return folds


def _check_fractions(data: Data) -> None:
    """Refuses cases that are named one by one beside folds, which divide them otherwise."""
    for key in ("train", "validation"):
        if isinstance(getattr(data, key), list):
            raise ConfigError(
                f"data.{key} names cases, and a fold is held out: leave data.{key} out, or write folds into a file and "
                "name it as data.split"
            )


def _drawn(data: Data, seed: int, cases: Mapping[str, Case], labels: Labels) -> Folds:
    """Folds of what is not kept for the end, stratified by what is in the label files."""
    test = draw_test(cases.values(), data.test, seed)
    rest = {name: case for name, case in cases.items() if name not in test}
    facts = survey(item for case in rest.values() for item in label_items(case))
    members = [
        Member(name, case.patient, sizes_of(facts[item], labels))
        for name, case in rest.items()
        for item in label_items(case)
    ]
    return Folds(make_folds(members, data.folds or DEFAULT_FOLDS, seed), test)


def sizes_of(facts: Facts, labels: Labels) -> dict[str, float]:
    """How large each label (or region) of a case is, in mm³ (mm² in 2D); empty where its file cannot be read."""
    if facts.values is None or facts.grid is None:
        return {}
    voxel = 1.0
    for spacing in facts.grid.spacing_mm:
        voxel *= spacing
    counts = facts.values.counts
    if labels.instances:
        ignored = {labels.values[name] for name in labels.ignore}
        return {labels.foreground[0]: voxel * sum(n for v, n in counts.items() if v and v not in ignored)}
    values = {name: (labels.values[name], *labels.merged.get(name, ())) for name in labels.foreground}
    found = {name: voxel * sum(counts.get(value, 0) for value in own) for name, own in values.items()}
    return {
        target: sum(found[labels.foreground[number - 1]] for number in classes)
        for target, classes in labels.targets.items()
    }


def _own_folds(found: DataSet, cases: Mapping[str, Case]) -> tuple[Folds, str] | None:
    """The folds that the data set itself names, and where; None where it names none."""
    named = _of_column(cases, found)
    if named is not None:
        return named, f"{found.path}"
    path = found.root / FOLDS
    if path.is_file():
        return _of_nnunet(path, found), str(path)
    path = found.root / SPLIT
    if path.is_file():
        content = _file_content(path, found)
        if isinstance(content, Mapping) and content.get("folds"):
            return Folds.from_dict(content), str(path)
    return None


def _of_column(cases: Mapping[str, Case], found: DataSet) -> Folds | None:
    by_fold: dict[str, list[str]] = defaultdict(list)
    without = []
    for name, case in cases.items():
        without.append(name) if case.fold is None else by_fold[case.fold].append(name)
    if not by_fold:
        return None
    if without:
        raise ConfigError(
            f"{found.path} names folds, and for {len(without)} of {len(cases)} cases none: {some(without)}; name "
            "theirs, leave them out with data.exclude, or draw folds with data.folds"
        )
    return Folds(tuple(tuple(by_fold[fold]) for fold in sorted(by_fold, key=natural_key)))


def _of_nnunet(path: Path, found: DataSet) -> Folds:
    """nnU-Net's ``splits_final.json``, where its folds are a cross-validation's: each trains on all others."""
    content = read_json(path, "nnU-Net's folds", ConfigError)
    fit = isinstance(content, list) and all(isinstance(f, Mapping) and {"train", "val"} <= set(f) for f in content)
    if not fit or not all(isinstance(fold[part], list) for fold in content for part in ("train", "val")):
        raise ConfigError(f"{path} is no list of folds, each with the lists train and val")
    folds = Folds(tuple(tuple(named_as(map(str, fold["val"]), found)) for fold in content))
    everybody = set(folds.names)
    for number, fold in enumerate(content):
        trained = set(named_as(map(str, fold["train"]), found))
        differing = trained ^ (everybody - set(folds.folds[number]))
        if differing:
            raise ConfigError(
                f"{path}: fold {number} does not train on just the other folds' cases ({some(sorted(differing))} "
                "differ): draw folds with data.folds, or name the cases as data.train and data.validation"
            )
    return folds


def _file_content(path: Path, found: DataSet) -> Any:
    """A split's JSON, its cases called as the data set calls them."""
    content = read_json(path, "a split", ConfigError)
    if not isinstance(content, Mapping):
        return content
    return {key: _renamed(value, found) for key, value in content.items()}


def _renamed(value: Any, found: DataSet) -> Any:
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return named_as(value, found)
    return [_renamed(part, found) for part in value] if isinstance(value, list) else value


def _check_named(names: Iterable[str], cases: Mapping[str, Case], where: str) -> None:
    """Refuses names of no case; says which cases are named nowhere."""
    named = list(names)
    unknown = [name for name in named if name not in cases]
    if unknown:
        raise ConfigError(
            f"{where}: {len(unknown)} of {len(named)} cases are not in the data set: {some(unknown)}"
            f"{nearest(unknown[0], cases)}; add them, or mend the split"
        )
    left = [name for name in cases if name not in set(named)]
    if left:
        print(f"{where}: {len(left)} of {len(cases)} cases are in no part and left out: {some(left)}", file=sys.stderr)


def _account(folds: Folds, cases: Mapping[str, Case]) -> str:
    sizes = " + ".join(str(len(names)) for names in folds.folds)
    patients = len({cases[name].patient for names in folds.folds for name in names})
    kept = f", {len(folds.test)} test cases kept away" if folds.test else ""
    return f"{sizes} cases of {patients} patients{kept}"
