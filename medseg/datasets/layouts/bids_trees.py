"""Where the images and labels of a BIDS data set lie: its own tree of subjects, and those of its derivatives.

    SET/sub-01/ses-1/anat/                     or SET/rawdata/sub-01/...
    SET/derivatives/manual/sub-01/ses-1/anat/
    SET/derivatives/sub-01/ses-1/              a derivative without a name

Folders are gone through to a fixed depth, links within the data set followed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from medseg.datasets.cases import check_inside, find_scans, natural_key
from medseg.datasets.layouts.bids_names import BidsName, named
from medseg.errors import ConfigError, MedsegError
from medseg.files import read_json
from medseg.scans.scan import suffix_of

DESCRIPTION = "dataset_description.json"
VERSION = "BIDSVersion"
DERIVATIVES = "derivatives"
RAW = "rawdata"
_ABOVE = 3
_DEPTH = 2


class Trees(NamedTuple):
    """Where a data set's images and labels are.

    Attributes:
        root: the whole set.
        raw: the folder of the images' subjects.
        trees: those of the labels' subjects.
        chosen: the derivative or label that was given as the root, or None.
        like: the label, where it is one.
    """

    root: Path
    raw: Path
    trees: tuple[Path, ...]
    chosen: Path | None = None
    like: BidsName | None = None

    def names(self) -> tuple[list[BidsName], list[BidsName]]:
        """What may be an image; and what is called as labels are, or as the one that was given.

        Raises:
            MedsegError: as :func:`scans_of`.
        """
        scans = {tree: [*scans_of(tree, self.root)] for tree in {self.raw, *self.trees}}
        labels = [name for tree in self.trees for name in scans[tree] if name.is_label]
        chosen = [name for name in labels if self.like is None or name.kind == self.like.kind]
        return [name for name in scans[self.raw] if name.is_image], chosen

    @property
    def name(self) -> str:
        """What the set calls itself, else its folder's name."""
        told = [description(place) or {} for place in (self.raw, self.root)]
        return next((str(about["Name"]) for about in told if about.get("Name")), self.root.resolve().name)


def trees_of(root: Path) -> Trees:
    """The trees of a data set; of a derivative that has no images of its own, those of the set that it is one of.

    Raises:
        MedsegError: where there is no subject, a folder leads out of the root, or it is a file and no label.
    """
    if root.is_file():
        like = label_of(root)
        if like is None:
            raise MedsegError(f"{root} is no label of a BIDS data set: give one, a derivative, or the set's folder")
        return trees_of(like.tree)._replace(trees=(like.tree,), chosen=like.path, like=like)
    whole = whole_of(root)
    if whole is not None:
        chosen = root.absolute()
        if not any(name.is_image for name in scans_of(chosen, whole)):
            return Trees(whole, _raw(whole), (chosen,), chosen)
    raw = _raw(root)
    further = _derivatives(raw, root) if raw != root else ()
    return Trees(root, raw, (raw, *_derivatives(root, root), *further))


def is_bids(root: Path) -> bool:
    """Whether a folder holds subjects, and a description that has a BIDSVersion."""
    raw = next((raw for raw in (root, root / RAW) if raw.is_dir() and _subjects(raw, root)), None)
    return raw is not None and any(VERSION in (description(place) or {}) for place in (root, raw))


def whole_of(root: Path) -> Path | None:
    """The data set of which a folder is a derivative; None where it is none of one."""
    place = root.absolute()
    above = next((up for up in place.parents[:_ABOVE] if up.name == DERIVATIVES), None)
    return above.parent if above is not None and is_bids(above.parent) and _subjects(place, above.parent) else None


def label_of(path: Path) -> BidsName | None:
    """A file's name, where it is a label of a data set."""
    place = path.absolute()
    subject = next((up for up in place.parents if up.name.startswith("sub-")), None)
    name = named(place, subject.parent) if subject is not None and suffix_of(place) else None
    known = name is not None and name.is_label and (is_bids(name.tree) or whole_of(name.tree) is not None)
    return name if known else None


def description(root: Path) -> Mapping[str, Any] | None:
    """What a data set says of itself; None where it says nothing.

    Raises:
        ConfigError: where that is no JSON.
        MedsegError: where it is a link that leads out of the root.
    """
    path = root / DESCRIPTION
    if not path.is_file():
        return None
    check_inside(path, root)
    content = read_json(path, "what BIDS says of a data set", ConfigError)
    return content if isinstance(content, Mapping) else None


def scans_of(tree: Path, root: Path) -> Iterator[BidsName]:
    """The scans of a tree's subjects, in natural order.

    Raises:
        MedsegError: where a folder or scan leads out of the root, or two files of a folder share a stem.
    """
    for subject in _subjects(tree, root):
        for folder in _places(subject, root):
            place = "" if folder.name.startswith(("sub-", "ses-")) else folder.name
            for path in find_scans(folder).values():
                name = named(path, tree, place)
                if name is not None:
                    if path.is_symlink():
                        check_inside(path, root)
                    yield name


def _raw(root: Path) -> Path:
    for raw in (root, root / RAW):
        if raw.is_dir() and _subjects(raw, root):
            return raw
    raise MedsegError(f"{root} has no folder sub-...: BIDS has one for each subject")


def _subjects(tree: Path, root: Path) -> list[Path]:
    """The folders of a tree's subjects."""
    return _folders(tree, root, "sub-")


def _derivatives(tree: Path, root: Path) -> Iterator[Path]:
    """The folders of derivatives that hold subjects."""
    for folder in _folders(tree, root, DERIVATIVES):
        if folder.name == DERIVATIVES:
            yield from _holding(folder, root, _DEPTH)


def _folders(tree: Path, root: Path, start: str = "") -> list[Path]:
    """The folders in one whose names start so, in natural order; hidden ones and those that are scans are left out.

    Raises:
        MedsegError: where one leads out of the root.
    """
    named = [path for path in tree.iterdir() if path.name.startswith(start) and not path.name.startswith(".")]
    found = [path for path in named if path.is_dir() and not suffix_of(path)]
    for path in found:
        if path.is_symlink():
            check_inside(path, root)
    return sorted(found, key=lambda path: natural_key(path.name))


def _holding(folder: Path, root: Path, depth: int) -> Iterator[Path]:
    """A folder and those in it that hold subjects; what else a derivative links to, as to an atlas, is left alone."""
    if _subjects(folder, root):
        yield folder
    inner = [path for path in folder.iterdir() if depth == _DEPTH or not path.is_symlink()] if depth else []
    for path in sorted(inner, key=lambda path: natural_key(path.name)):
        if path.is_dir() and not path.name.startswith(("sub-", ".")) and not suffix_of(path):
            check_inside(path, root)
            yield from _holding(path, root, depth - 1)


def _places(subject: Path, root: Path) -> Iterator[Path]:
    """A subject's folder, its sessions', and those of their data."""
    yield subject
    for folder in _folders(subject, root):
        yield folder
        if folder.name.startswith("ses-"):
            yield from _folders(folder, root)
