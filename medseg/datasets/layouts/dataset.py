"""What every layout becomes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

from medseg.datasets.cases import Case, check_inside, is_there, natural_key
from medseg.datasets.channels import ChannelFiles
from medseg.datasets.labels import Border
from medseg.datasets.layouts.description import DatasetInfo
from medseg.errors import ConfigError, MedsegError, nearest

SHOWN = 5
"""How many cases a message names."""


@dataclass(frozen=True)
class Problem:
    """What keeps a case, or the whole data set, from being used."""

    text: str
    case: str | None = None


@dataclass(frozen=True)
class DataSet:
    """A data set as it lies on the disk; its headers and voxels are not looked at.

    Attributes:
        layout: the name of its layout.
        root: its folder, which no file of it may lie out of.
        name: its own, or its folder's.
        info: what it says of itself, or None.
        cases: every image, in natural order of the names; ``label`` is None where it has none.
        orphans: labels without an image, by case.
        problems: what else is wrong.
        labels_folder: where its labels lie, for messages.
        channel_files: how a case's files are told apart where each holds some of its channels.
        table: the manifest, where the data set is one's.
        why: what its layout was recognised by; empty where it was named.
        note: what else of its files' names is to be said.
        case_names: «digest» where all cases are called by digests, «stem» where private ones alone are.
        left_out: the names of the cases that were taken out, by what they are called in their files.
    """

    layout: str
    root: Path
    name: str
    info: DatasetInfo | None
    cases: tuple[Case, ...]
    orphans: Mapping[str, Path] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    labels_folder: str = "labels"
    channel_files: ChannelFiles | None = None
    table: Path | None = None
    why: str = ""
    note: str = ""
    case_names: Literal["stem", "digest"] = "stem"
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """What opens it again: its manifest, else its folder."""
        return self.table or self.root

    def __post_init__(self) -> None:
        for case in self.cases:
            for path in (*case.images, *([case.label] if case.label is not None else [])):
                check_inside(path, self.root)

    @property
    def told(self) -> dict[str, str]:
        """The names of cases, those that were taken out too, that are called otherwise in their files; by those."""
        gone = {stem: name for stem, name in self.left_out.items() if stem != name}
        return gone | {case.stem: case.name for case in self.cases if case.stem}

    def without(self, names: Iterable[str]) -> DataSet:
        """Without some cases, and what is wrong with them.

        Raises:
            ConfigError: where one is not there.
        """
        told = self.told
        left_out = {told.get(name, name) for name in names}
        known = {case.name for case in self.cases} | {*self.orphans} | {p.case for p in self.problems if p.case}
        for name in left_out:
            if name not in known:
                raise ConfigError(f"{self.path}: the case {name!r} to leave out is not there{nearest(name, known)}")
        stems = {name: stem for stem, name in told.items()}
        return replace(
            self,
            cases=tuple(case for case in self.cases if case.name not in left_out),
            orphans={name: path for name, path in self.orphans.items() if name not in left_out},
            problems=tuple(problem for problem in self.problems if problem.case not in left_out),
            left_out={**self.left_out, **{stems.get(name, name): name for name in left_out}},
        )

    def resampling(self) -> DataSet:
        """With further channels resampled to the first one's grid, where they lie on others."""
        files = self.channel_files and self.channel_files.model_copy(update={"resample": True})
        cases = tuple(replace(case, resample_channels=True) for case in self.cases)
        return replace(self, cases=cases, channel_files=files)

    def bordered(self, border: Border | None) -> DataSet:
        """With a border drawn around the instances of every label."""
        return replace(self, cases=tuple(replace(case, border=border) for case in self.cases))

    def labelled(self) -> dict[str, Case]:
        """Every case by name, where all is well.

        Raises:
            MedsegError: where a file has no counterpart, or for the first other problem.
        """
        for problem in self.problems:
            raise MedsegError(problem.text)
        if not self.cases:
            raise MedsegError(f"{self.path} holds no case ({self.layout} layout)")
        unlabelled = {case.name: case.image for case in self.cases if case.label is None}
        labels = {case.name: case.label for case in self.cases if case.label is not None} | dict(self.orphans)
        images = {case.name: case.image for case in self.cases}
        place = self.root / self.labels_folder
        _check_counterparts("image", self.cases[0].image.parent, unlabelled, len(images), "label", labels, images)
        _check_counterparts("label", place, self.orphans, len(labels), "image", images, labels)
        return {case.name: case for case in self.cases}

    def account(self) -> str:
        """One line for the terminal: what was found."""
        several = max((len(case.images) for case in self.cases), default=1)
        files = f" of {several} files each" if several > 1 else ""
        why = f" ({self.why})" if self.why else ""
        note = f"; {self.note}" if self.note else ""
        return f"{self.path}: {self.layout} layout{why}, {len(self.cases)} cases{files}{note}"


class Layout(NamedTuple):
    """How one layout is known and read.

    Attributes:
        recognised: why a root is taken for one of this layout, or None.
        read: the data set at a root.
    """

    recognised: Callable[[Path], str | None]
    read: Callable[[Path], DataSet]


def joined(
    images: Mapping[str, Sequence[Path]], labels: Mapping[str, Path], patients: Mapping[str, str]
) -> tuple[tuple[Case, ...], dict[str, Path]]:
    """Images and labels by name → the cases, and the labels that have no image."""
    cases = tuple(
        Case(name, files[0], labels.get(name), patients.get(name, name), tuple(files[1:]))
        for name, files in sorted(images.items(), key=lambda item: natural_key(item[0]))
    )
    return cases, {name: path for name, path in labels.items() if name not in images}


def missing(files: Iterable[Path], root: Path, case: str, where: str) -> list[Problem]:
    """Of the files that a description lists for a case, those that aren't there.

    Raises:
        MedsegError: where one lies out of the root.
    """
    wanted = list(files)
    for path in wanted:
        check_inside(path, root)
    return [Problem(f"{where}: case {case}: {path} does not exist", case) for path in wanted if not is_there(path)]


def listed(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:SHOWN]) + (" ..." if len(names) > SHOWN else "")


def _shown(name: str, path: Path) -> str:
    """A file's own name, unless the case is called otherwise for the sake of it."""
    return path.name if name in path.name else name


def _check_counterparts(
    what: str,
    folder: Path,
    alone: Mapping[str, Path],
    of: int,
    other: str,
    those: Mapping[str, Path],
    these: Mapping[str, Path],
) -> None:
    if not alone:
        return
    first = next(iter(alone))
    hint = nearest(first, [name for name in those if name not in these] or list(those))
    raise MedsegError(
        f"{folder}: {len(alone)} of {of} {what}s have no {other} of the same stem: "
        f"{listed([_shown(name, path) for name, path in alone.items()])}{hint}; add the {other}s, take the {what}s out "
        f"or leave them out with data.exclude: [{listed(list(alone))}]"
    )
