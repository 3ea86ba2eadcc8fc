"""Which cases are trained on, which are validated on, and which are kept for the end.

Cases named explicitly are taken as named. Fractions draw whole patients, in an order that is a function of
the seed and the patient's name alone: adding a patient moves no other one. :mod:`medseg.datasets.folds` draws folds.

As JSON (``split.json``), the lists ``train``, ``validation`` and ``test``; of a cross-validation also ``folds``, a list
of lists, and ``fold``, the number of the one that is held out, from 0. Without ``fold`` it is a cross-validation's as a
whole, and has no ``train`` and ``validation``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from medseg.datasets.cases import Case, natural_key
from medseg.errors import ConfigError, nearest
from medseg.files import read_json

SPLIT = "split.json"
PARTS = ("train", "validation", "test")
T = TypeVar("T")


@dataclass(frozen=True)
class Split:
    """The names of the cases in each part, in natural order.

    Attributes:
        train: what is learned from.
        validation: what is judged by while it is learned.
        test: what is kept away from both.
        folds: of a cross-validation, all of them; empty elsewhere.
        fold: the number of the one that is held out.

    Raises:
        ConfigError: where train or validation is empty or a case is in two parts.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...] = ()
    folds: tuple[tuple[str, ...], ...] = ()
    fold: int | None = None

    def __post_init__(self) -> None:
        for part in PARTS:
            object.__setattr__(self, part, tuple(sorted(getattr(self, part), key=natural_key)))
        _check_once({part: getattr(self, part) for part in PARTS})
        for part in ("train", "validation"):
            if not getattr(self, part):
                raise ConfigError(f"split: no case is left for {part}; give more cases or smaller fractions")

    @property
    def parts(self) -> dict[str, list[str]]:
        """What must not share a patient: the folds and the test cases, or the three parts."""
        if self.fold is None:
            return {part: list(getattr(self, part)) for part in PARTS}
        return fold_parts(self.folds, self.test)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        parts: dict[str, Any] = {part: list(getattr(self, part)) for part in PARTS}
        if self.fold is None:
            return parts
        return parts | {"folds": [list(names) for names in self.folds], "fold": self.fold}

    @classmethod
    def from_dict(cls, content: Any) -> Split:
        """From JSON.

        Raises:
            ConfigError: where the content is not what ``to_dict`` writes.
        """
        _check_content(content)
        folds, fold = content.get("folds", ()), content.get("fold")
        if folds and fold is not None:
            return Folds(tuple(map(tuple, folds)), tuple(content.get("test", ()))).split(fold)
        train, validation, test = (tuple(content.get(part, ())) for part in PARTS)
        return cls(train, validation, test)


@dataclass(frozen=True)
class Folds:
    """A cross-validation's split as a whole.

    Attributes:
        folds: the names of each fold's cases, in natural order.
        test: cases that are in none.

    Raises:
        ConfigError: for fewer than two folds, an empty one, or a case in two.
    """

    folds: tuple[tuple[str, ...], ...]
    test: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        folds = tuple(tuple(sorted(names, key=natural_key)) for names in self.folds)
        object.__setattr__(self, "folds", folds)
        if len(folds) < 2:
            raise ConfigError(f"folds: a cross-validation has 2 or more, and here is {len(folds)}")
        for number, names in enumerate(folds):
            if not names:
                raise ConfigError(f"folds: fold {number} of {len(folds)} is empty: give fewer folds or more patients")
        _check_once(fold_parts(folds, self.test))

    @property
    def names(self) -> list[str]:
        """Every case's, the test cases' too."""
        return [name for names in (*self.folds, self.test) for name in names]

    def split(self, fold: int) -> Split:
        """What is trained on while a fold is held out.

        Raises:
            ConfigError: where there is no such fold.
        """
        if not (isinstance(fold, int) and 0 <= fold < len(self.folds)):
            raise ConfigError(f"fold {fold} is none of the {len(self.folds)} folds, which count from 0")
        train = tuple(name for number, names in enumerate(self.folds) if number != fold for name in names)
        return Split(train, self.folds[fold], self.test, self.folds, fold)

    def check_patients(self, patients: Mapping[str, str]) -> None:
        """Refuses a patient in two folds, or in a fold and among the test cases; takes case -> patient.

        Raises:
            ConfigError: with two of the patient's cases.
        """
        _check_patients(fold_parts(self.folds, self.test), patients)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"folds": [list(names) for names in self.folds], "test": list(self.test)}

    @classmethod
    def from_dict(cls, content: Any) -> Folds:
        """From JSON, whichever fold it holds out.

        Raises:
            ConfigError: where the content has no folds, or is no split.
        """
        _check_content(content)
        if not content.get("folds"):
            raise ConfigError("the split has no folds: it divides the cases once")
        return cls(tuple(map(tuple, content["folds"])), tuple(content.get("test", ())))


def fold_parts(folds: Sequence[Sequence[str]], test: Sequence[str] = ()) -> dict[str, list[str]]:
    """Folds and test cases by what they are called."""
    return {f"fold {number}": list(names) for number, names in enumerate(folds)} | (
        {"test": list(test)} if test else {}
    )


def _check_content(content: Any) -> None:
    """Refuses JSON that is no split."""
    if not isinstance(content, Mapping):
        raise ConfigError(f"a split must be an object with the lists {', '.join(PARTS)}, or folds")
    keys = (*PARTS, "folds", "fold")
    for key, value in content.items():
        if key not in keys:
            raise ConfigError(f"a split has no part {key!r}{nearest(str(key), keys)}: it has {', '.join(keys)}")
        if key == "fold":
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise ConfigError(f"a split's fold must be the number of a fold, not {value!r}")
        elif key == "folds":
            if not isinstance(value, list) or not all(map(_is_names, value)):
                raise ConfigError("a split's folds must be a list of lists of case names")
        elif not _is_names(value):
            raise ConfigError(f"a split's {key} must be a list of case names")


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def read_split(path: Path) -> Split:
    """A split from its JSON file.

    Raises:
        ConfigError: where the file is missing, no JSON, or no split; it names the file.
    """
    return _read(path, Split.from_dict)


def read_folds(path: Path) -> Folds:
    """The folds of a split's JSON file.

    Raises:
        ConfigError: as :func:`read_split`, and where it has no folds.
    """
    return _read(path, Folds.from_dict)


def _read(path: Path, parse: Callable[[Any], T]) -> T:
    content = read_json(path, "a split", ConfigError)
    try:
        return parse(content)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def make_split(
    cases: Iterable[Case | str],
    *,
    validation: float | Sequence[str],
    test: float | Sequence[str] = (),
    train: Sequence[str] | None = None,
    seed: int = 0,
) -> Split:
    """Divides cases into parts.

    Args:
        cases: the cases, or names that are each their own patient.
        validation: the names, or the fraction of the cases (0 < fraction < 1; at least one patient is drawn).
        test: likewise; 0 and () are none.
        train: the names; by default every case that is left. A fraction draws from what train does not name.
        seed: of the draws.

    Raises:
        ConfigError: for an unknown name, a fraction out of range, a part that stays empty, or a patient in
            two parts.
    """
    patients = {
        case if isinstance(case, str) else case.name: case if isinstance(case, str) else case.patient for case in cases
    }
    named = {
        part: _named(part, wanted, patients)
        for part, wanted in (("train", train), ("validation", validation), ("test", test))
        if wanted is not None and not isinstance(wanted, int | float)
    }
    taken = {patients[name] for names in named.values() for name in names}
    order = _drawing_order((p for p in patients.values() if p not in taken), seed)
    for part, wanted in (("test", test), ("validation", validation)):
        if isinstance(wanted, int | float):
            named[part] = _draw(part, float(wanted), order, patients)
    rest = [name for name in patients if not any(name in names for names in named.values())]
    parts = {"train": rest} | named
    _check_patients(parts, patients)
    train_names, validation_names, test_names = (tuple(parts[part]) for part in PARTS)
    return Split(train_names, validation_names, test_names)


def draw_test(cases: Iterable[Case], test: float | Sequence[str], seed: int = 0) -> tuple[str, ...]:
    """The names of the cases that are kept for the end, as :func:`make_split` draws them.

    Raises:
        ConfigError: for an unknown name or a fraction out of range.
    """
    patients = {case.name: case.patient for case in cases}
    if isinstance(test, int | float):
        return tuple(_draw("test", float(test), _drawing_order(patients.values(), seed), patients))
    return tuple(_named("test", test, patients))


def _named(part: str, names: Sequence[str], patients: Mapping[str, str]) -> list[str]:
    if isinstance(names, str):
        raise ConfigError(f"split: {part} must be a fraction or a list of case names, not {names!r}")
    for name in names:
        if name not in patients:
            raise ConfigError(
                f"split: {part} names {name!r}, which is none of the {len(patients)} cases"
                f"{nearest(str(name), patients)}"
            )
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise ConfigError(f"split: {part} names {twice!r} twice")
    return list(names)


def _drawing_order(patients: Iterable[str], seed: int) -> list[str]:
    return sorted(set(patients), key=lambda p: hashlib.sha256(f"{seed}\0{p}".encode()).digest())


def _draw(part: str, fraction: float, order: list[str], patients: Mapping[str, str]) -> list[str]:
    """Takes patients off the front of ``order`` until they hold the fraction of all cases, rounded."""
    if not (0 < fraction < 1 or (part == "test" and fraction == 0)):
        raise ConfigError(
            f"split: {part} is the fraction {fraction:g}; it must lie between 0 and 1, or be a list of case names"
        )
    drawn: list[str] = []
    least = max(1, round(fraction * len(patients))) if fraction > 0 else 0
    while order and len(drawn) < least:
        owner = order.pop(0)
        drawn += [name for name, patient in patients.items() if patient == owner]
    return drawn


def _check_once(parts: Mapping[str, Sequence[str]]) -> None:
    seen: dict[str, str] = {}
    for part, names in parts.items():
        for name in names:
            if name in seen:
                raise ConfigError(f"split: case {name!r} is in {seen[name]} and in {part}; a case belongs to one part")
            seen[name] = part


def _check_patients(parts: Mapping[str, Sequence[str]], patients: Mapping[str, str]) -> None:
    home: dict[str, tuple[str, str]] = {}
    for part, names in parts.items():
        for name in names:
            other, first = home.setdefault(patients[name], (part, name))
            if other != part:
                raise ConfigError(
                    f"split: cases {first!r} ({other}) and {name!r} ({part}) are of one patient: "
                    "keep a patient's cases in one part"
                )
