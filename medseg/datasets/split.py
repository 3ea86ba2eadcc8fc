"""Which cases are trained on, which are validated on, and which are kept for the end.

Cases named explicitly are taken as named. Fractions draw whole patients, in an order that is a function of
the seed and the patient's name alone: adding a patient moves no other one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.datasets.cases import Case, natural_key
from medseg.errors import ConfigError, nearest
from medseg.files import read_json

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """The names of the cases in each part, in natural order.

    Raises:
        ConfigError: where train or validation is empty or a case is in two parts.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for part in PARTS:
            names = tuple(sorted(getattr(self, part), key=natural_key))
            object.__setattr__(self, part, names)
            for name in names:
                if name in seen:
                    raise ConfigError(
                        f"split: case {name!r} is in {seen[name]} and in {part}; a case belongs to one part"
                    )
                seen[name] = part
        for part in ("train", "validation"):
            if not getattr(self, part):
                raise ConfigError(f"split: no case is left for {part}; give more cases or smaller fractions")

    def to_dict(self) -> dict[str, list[str]]:
        """As JSON."""
        return {part: list(getattr(self, part)) for part in PARTS}

    @classmethod
    def from_dict(cls, content: Any) -> Split:
        """From JSON.

        Raises:
            ConfigError: where the content is not what ``to_dict`` writes.
        """
        if not isinstance(content, Mapping):
            raise ConfigError(f"a split must be an object with the lists {', '.join(PARTS)}")
        for key, names in content.items():
            if key not in PARTS:
                raise ConfigError(f"a split has no part {key!r}{nearest(str(key), PARTS)}: it has {', '.join(PARTS)}")
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ConfigError(f"a split's {key} must be a list of case names")
        return cls(**{part: tuple(content.get(part, ())) for part in PARTS})


def read_split(path: Path) -> Split:
    """A split from its JSON file.

    Raises:
        ConfigError: where the file is missing, no JSON, or no split; it names the file.
    """
    content = read_json(path, "a split", ConfigError)
    try:
        return Split.from_dict(content)
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
    return Split(**{part: tuple(parts[part]) for part in PARTS})


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


def _check_patients(parts: Mapping[str, Sequence[str]], patients: Mapping[str, str]) -> None:
    home: dict[str, tuple[str, str]] = {}
    for part, names in parts.items():
        for name in names:
            other, first = home.setdefault(patients[name], (part, name))
            if other != part:
                raise ConfigError(
                    f"split: cases {first!r} ({other}) and {name!r} ({part}) are of one patient, {patients[name]!r}: "
                    "keep a patient's cases in one part"
                )
