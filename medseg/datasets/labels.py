"""What the values in a label file mean, and the way to the classes that a network predicts and back.

Files hold values (``membrane: 0, cell: 255``), networks predict classes: 0 for background, 1..K for the
foreground labels in their order. Masks carry a data set's own values, so they compare with its references as
they are. Voxels of a label that is to be ignored are :data:`IGNORED`: nothing is learned from them, nothing is scored
there, and no network predicts them.

Regions are labels that overlap, such as BraTS' whole tumour, core and enhancing tumour: every value is a class, a
region is a set of classes with an output channel of its own, and a mask holds one value a voxel all the same
(:mod:`medseg.datasets.declared` makes them).

Legend: C channels, K foreground classes, n voxels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import GridError, MedsegError, nearest
from medseg.geometry import Box
from medseg.scans.scan import Scan

BACKGROUND = "background"
IGNORE = "ignore"
IGNORED = -1
"""The class of voxels that don't count. Class maps are signed where there may be some: no count of classes meets it."""
LOWEST, HIGHEST = -(2**31), 2**32 - 1
"""The values that a label may have: whatever some integer type of at most 32 bits holds."""
_KEYS = ("values", "foreground", "instances", "ignore", "merged", "regions", "border")
_SHOWN = 6
_UNDECLARED = -2


@dataclass(frozen=True)
class Border:
    """What is drawn around instances.

    Attributes:
        width: in voxels of the label file, for each axis or one number for all; 0 draws none along an axis.
        ignored: values of the label files that are no instances and don't count.
    """

    width: tuple[int, ...]
    ignored: tuple[int, ...] = ()

    def widths(self, axes: int, name: str) -> tuple[int, ...]:
        """For each of so many axes.

        Raises:
            GridError: where there is another number of them.
        """
        if len(self.width) not in (1, axes):
            raise GridError(f"data.border.width has {len(self.width)} numbers and {name} has {axes} axes")
        return self.width * (axes // len(self.width))


@dataclass(frozen=True)
class Labels:
    """The labels of a data set.

    Attributes:
        values: the value in the files of each label.
        foreground: the labels that are classes 1..K, in this order. By default all but the one called
            «background», or, where none is called so, all but the one whose value is 0.
        instances: the files hold instance numbers: every voxel that is not 0 belongs to the one foreground
            class.
        ignore: the labels whose voxels don't count. By default the one called «ignore», as nnU-Net has it, unless it is
            foreground.
        merged: further values in the files of labels, read as their own and never written.
        regions: the foreground labels of each region, the one that is written first; empty where labels don't overlap.
        border: how label files that number instances become the insides and the border that these labels are, the
            foreground's first and second; None for other labels.

    Raises:
        MedsegError: where labels share a value, a name or value is not fit, the foreground is empty or unknown, or
            what is to be ignored is unknown, foreground, or the background, a region is empty or of unknown labels, or
            a border goes with other labels than an inside and a border.
    """

    values: Mapping[str, int]
    foreground: tuple[str, ...] = field(default=())
    instances: bool = False
    ignore: tuple[str, ...] = field(default=())
    merged: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    regions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    border: Border | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", dict(self.values))
        object.__setattr__(self, "merged", {name: tuple(more) for name, more in self.merged.items() if more})
        object.__setattr__(self, "regions", {name: tuple(parts) for name, parts in self.regions.items()})
        self._check_values()
        object.__setattr__(self, "ignore", tuple(self.ignore) or self._default_ignore())
        self._check_ignore()
        object.__setattr__(self, "foreground", tuple(self.foreground) or self._default_foreground())
        self._check_foreground()
        self._check_regions()
        if self.border is not None and (self.classes != 2 or self.instances or self.regions):
            raise MedsegError("labels with a border are two: the insides of objects and their border")

    @property
    def classes(self) -> int:
        """The number of foreground classes, K."""
        return len(self.foreground)

    @cached_property
    def targets(self) -> dict[str, tuple[int, ...]]:
        """What is segmented and scored, with its classes: the foreground labels, one class each, or the regions."""
        numbers = {name: number for number, name in enumerate(self.foreground, 1)}
        if not self.regions:
            return {name: (number,) for name, number in numbers.items()}
        return {name: tuple(numbers[part] for part in parts) for name, parts in self.regions.items()}

    @cached_property
    def written(self) -> tuple[int, ...]:
        """The class that each region's channel is written as, a later one over an earlier one; () without regions."""
        return tuple(classes[0] for classes in self.targets.values()) if self.regions else ()

    def region(self, name: str) -> Labels:
        """A region alone, against all else: the one foreground label of the same files."""
        parts = self.regions[name]
        first, *more = (self.values[part] for part in parts)
        rest = [self.values[part] for part in self.values if part not in (*parts, *self.ignore)]
        rest = [value for value in rest if value != self.background_value]
        values = {BACKGROUND: self.background_value, name: first} | {part: self.values[part] for part in self.ignore}
        further = {part: some for part, some in self.merged.items() if part in self.ignore}
        behind = [value for part, some in self.merged.items() if part not in (*parts, *self.ignore) for value in some]
        merged = {BACKGROUND: (*rest, *behind), name: tuple(more), **further}
        return Labels(values, (name,), False, self.ignore, merged)

    @cached_property
    def background_value(self) -> int:
        """The value written where no foreground class is, and read as background even where no label declares it."""
        taken = {*self.foreground, *self.ignore}
        rest = {name: value for name, value in self.values.items() if name not in taken}
        if rest:
            return rest.get(BACKGROUND, min(rest.values()))
        used = {*self.values.values(), *(value for more in self.merged.values() for value in more)}
        return next(value for value in range(len(used) + 1) if value not in used)

    @cached_property
    def file_values(self) -> NDArray[np.int64]:
        """(K + 1,): the value in the files of classes 0..K."""
        return np.array([self.background_value, *(self.values[name] for name in self.foreground)], np.int64)

    @cached_property
    def class_dtype(self) -> np.dtype:
        """Of class maps: the smallest that holds 0..K and, where there are labels to ignore, :data:`IGNORED`."""
        kinds = "bhi" if self.ignore else "BH"
        return next(np.dtype(kind) for kind in kinds if self.classes <= np.iinfo(kind).max)

    @cached_property
    def dtype(self) -> np.dtype:
        """The smallest integer type that holds every value: unsigned, or signed where one is negative."""
        known = [*self.values.values(), self.background_value]
        kinds = "bhiq" if min(known) < 0 else "BHI"
        fits = (np.dtype(k) for k in kinds if np.iinfo(k).min <= min(known) and max(known) <= np.iinfo(k).max)
        return next(fits)

    def encode(self, raw: NDArray, name: str = "array") -> NDArray:
        """(*n) values of a file → (*n) classes: uint8, or int8 where labels are ignored; wider for more classes.

        Args:
            raw: of any shape; integers, booleans, or floats that are whole numbers.
            name: what messages call the file.

        Raises:
            MedsegError: for a value that no label has or that is no whole number.
        """
        whole = _whole(raw, name)
        if self.instances:
            ignored = np.isin(whole, [value for value, code in self._codes.items() if code == IGNORED])
            return np.where(ignored, IGNORED, whole != 0).astype(self.class_dtype)
        codes = (
            self._table(whole.dtype)[whole.view(_unsigned(whole.dtype))] if whole.itemsize <= 2 else self._search(whole)
        )
        if codes.size and codes.min() <= _UNDECLARED:
            raise MedsegError(self._undeclared(whole[codes <= _UNDECLARED], name))
        return codes.astype(self.class_dtype)

    def decode(self, classes: NDArray) -> NDArray:
        """(*n) classes 0..K → (*n) values for a file, of ``dtype``."""
        return self.file_values.astype(self.dtype)[classes]

    def read(self, scan: Scan, box: Box) -> NDArray:
        """The classes in a box of a label scan: (*box.shape).

        Raises:
            MedsegError: as ``encode``.
            GridError: where the scan is in colour.
        """
        return self.encode(one_channel(scan.read(box), scan.name), scan.name)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        border = self.border
        drawn = {} if border is None else {"border": {"width": [*border.width], "ignored": [*border.ignored]}}
        return {
            "values": dict(self.values),
            "foreground": list(self.foreground),
            "instances": self.instances,
            "ignore": list(self.ignore),
            "merged": {name: list(more) for name, more in self.merged.items()},
            "regions": {name: list(parts) for name, parts in self.regions.items()},
            **drawn,
        }

    @classmethod
    def from_dict(cls, content: Any) -> Labels:
        """From JSON.

        Raises:
            MedsegError: where the content is not what ``to_dict`` writes.
        """
        if not isinstance(content, Mapping) or not isinstance(content.get("values"), Mapping):
            raise MedsegError("labels must be an object with values: {name: number}")
        for key in content:
            if key not in _KEYS:
                raise MedsegError(f"labels have no key {key!r}: {', '.join(_KEYS)} are allowed")
        foreground, ignore = content.get("foreground") or (), content.get("ignore") or ()
        instances = content.get("instances", False)
        lists = isinstance(foreground, list | tuple) and isinstance(ignore, list | tuple)
        if not lists or not isinstance(instances, bool):
            raise MedsegError("labels: foreground and ignore must be lists of names and instances true or false")
        merged, regions = (_lists(content, key) for key in ("merged", "regions"))
        border = _border(content.get("border"))
        return cls(content["values"], tuple(foreground), instances, tuple(ignore), merged, regions, border)

    def _check_values(self) -> None:
        if not self.values:
            raise MedsegError("labels are empty: name at least one, as in labels: {background: 0, lesion: 1}")
        seen: dict[int, str] = {}
        further = [(name, value) for name, more in self.merged.items() for value in more]
        self._check_names("merged label", tuple(self.merged))
        for name, value in [*self.values.items(), *further]:
            if not isinstance(name, str) or not name.strip():
                raise MedsegError(f"label {name!r} (value {value}) has no name: labels are {{name: value}}")
            if isinstance(value, bool) or not isinstance(value, int) or not LOWEST <= value <= HIGHEST:
                raise MedsegError(f"label {name!r} has value {value!r}: use an integer from {LOWEST} to {HIGHEST}")
            if value in seen:
                raise MedsegError(f"labels {seen[value]!r} and {name!r} share the value {value}: give each its own")
            seen[value] = name

    def _default_ignore(self) -> tuple[str, ...]:
        return (IGNORE,) if IGNORE in self.values and IGNORE not in self.foreground else ()

    def _default_foreground(self) -> tuple[str, ...]:
        counted = {name: value for name, value in self.values.items() if name not in self.ignore}
        if BACKGROUND in counted:
            return tuple(name for name in counted if name != BACKGROUND)
        return tuple(name for name, value in counted.items() if value != 0)

    def _check_names(self, what: str, names: tuple[str, ...]) -> None:
        for name in names:
            if name not in self.values:
                known = ", ".join(self.values)
                raise MedsegError(f"{what} {name!r} is not among the labels {known}{nearest(str(name), self.values)}")
        if len(set(names)) < len(names):
            raise MedsegError(f"{what}s: {', '.join(names)} names a label twice")

    def _check_ignore(self) -> None:
        self._check_names("ignored label", self.ignore)
        for name in self.ignore:
            if name in self.foreground:
                raise MedsegError(f"label {name!r} is to be ignored and foreground: it can be one of them")
            if name == BACKGROUND or (self.instances and self.values[name] == 0):
                raise MedsegError(f"label {name!r} is the background, which cannot be ignored: ignore another label")

    def _check_foreground(self) -> None:
        self._check_names("foreground label", self.foreground)
        if not self.foreground:
            raise MedsegError(
                f"none of the labels {', '.join(self.values)} is foreground: name it in foreground: [...]"
            )
        if self.instances and (self.classes != 1 or self.background_value != 0):
            raise MedsegError(
                f"instances: true needs one foreground label and background 0; here: {', '.join(self.foreground)}, "
                f"background {self.background_value}"
            )

    def _check_regions(self) -> None:
        for name, parts in self.regions.items():
            if not parts:
                raise MedsegError(f"region {name!r} has no label: name those that it is made of")
            for part in parts:
                if part not in self.foreground:
                    known = ", ".join(self.foreground)
                    raise MedsegError(f"region {name!r} has the label {part!r}, which is none of {known}")
        if self.regions and self.instances:
            raise MedsegError("instances: true goes with one label, not with regions")

    @cached_property
    def _codes(self) -> dict[int, int]:
        codes = dict.fromkeys([*self.values.values(), self.background_value], 0)
        codes |= {self.values[name]: number for number, name in enumerate(self.foreground, 1)}
        codes |= {self.values[name]: IGNORED for name in self.ignore}
        return codes | {value: codes[self.values[name]] for name, more in self.merged.items() for value in more}

    @cached_property
    def _tables(self) -> dict[np.dtype, NDArray]:
        return {}

    def _table(self, dtype: np.dtype) -> NDArray:
        """The class of every value of an 8 or 16 bit type, in the order of its bits."""
        if dtype not in self._tables:
            table = np.full(2 ** (8 * dtype.itemsize), _UNDECLARED, np.int32)
            limits = np.iinfo(dtype)
            for value, code in self._codes.items():
                if limits.min <= value <= limits.max:
                    table[value % table.size] = code
            self._tables[dtype] = table
        return self._tables[dtype]

    def _search(self, whole: NDArray) -> NDArray:
        values = np.array(sorted(self._codes), np.int64)
        codes = np.array([self._codes[int(v)] for v in values], np.int32)
        place = np.searchsorted(values, whole).clip(max=len(values) - 1)
        return np.where(values[place] == whole, codes[place], _UNDECLARED)

    def _undeclared(self, wrong: NDArray, name: str) -> str:
        found = np.unique(wrong)
        shown = ", ".join(str(v) for v in found[:_SHOWN]) + (" ..." if len(found) > _SHOWN else "")
        known = list(self.values.items())
        values = {n: [v, *self.merged[n]] if n in self.merged else v for n, v in known[:20]}
        declared = ", ".join(f"{n}: {v}" for n, v in values.items()) + (" ..." if len(known) > 20 else "")
        plural = "values" if len(found) > 1 else "value"
        return f"{name} holds the undeclared label {plural} {shown}: labels are {declared}; declare it or mend the file"


def _lists(content: Mapping[str, Any], key: str) -> dict[str, tuple[Any, ...]]:
    given = content.get(key) or {}
    if not isinstance(given, Mapping) or not all(isinstance(some, list | tuple) for some in given.values()):
        raise MedsegError(f"labels: {key} must be an object of lists")
    return {name: tuple(some) for name, some in given.items()}


def _border(content: Any) -> Border | None:
    if content is None:
        return None
    lists = [content.get(key, []) for key in ("width", "ignored")] if isinstance(content, Mapping) else []
    if not lists or not all(isinstance(some, list | tuple) and all(type(n) is int for n in some) for some in lists):
        raise MedsegError("labels: border must be an object of lists of whole numbers, width and ignored")
    width, ignored = lists
    if not width or min(width) < 0:
        raise MedsegError(f"labels: border has the width {list(width)}: give whole numbers of voxels, 0 or more")
    return Border(tuple(width), tuple(ignored))


def one_channel(raw: NDArray, name: str) -> NDArray:
    """(C, *n) → (*n): the one channel, or that of a label saved as grey in RGB; an alpha channel is left out.

    Raises:
        GridError: where the colour channels differ.
    """
    colours = raw.shape[0] - 1 if raw.shape[0] in (2, 4) else raw.shape[0]
    for other in range(1, colours):
        if not np.array_equal(raw[0], raw[other]):
            raise GridError(
                f"{name} has {raw.shape[0]} channels that differ: a label file must have one value a voxel, not colours"
            )
    return raw[0]


def _unsigned(dtype: np.dtype) -> np.dtype:
    return np.dtype(f"u{dtype.itemsize}")


def _whole(raw: NDArray, name: str) -> NDArray:
    """As integers in native byte order."""
    if raw.dtype.kind == "b":
        return raw.astype(np.uint8)
    if raw.dtype.kind in "iu":
        return np.ascontiguousarray(raw, raw.dtype.newbyteorder("="))
    if raw.dtype.kind != "f":
        raise MedsegError(f"{name} has values of type {raw.dtype}: labels must be whole numbers")
    with np.errstate(invalid="ignore"):
        wrong = ~((np.rint(raw) == raw) & (np.abs(raw) <= HIGHEST))
    if wrong.any():
        raise MedsegError(f"{name} holds {raw[wrong][0]}, which is no label value: labels must be whole numbers")
    return raw.astype(np.int64)
