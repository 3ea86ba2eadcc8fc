"""Which image a label is of, by the entities of their names.

    sub-01_ses-2_dseg           every image of sub-01 and ses-2 in a folder of the same name: a channel each
    sub-01_ses-2_T1w_dseg       sub-01_ses-2_T1w alone
    sub-01_ses-2_space-MNI_dseg none that lies in another space

A label has the entities of its image, so an image may have more of them, but none that the label has otherwise.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from medseg.datasets.cases import natural_key
from medseg.datasets.layouts.bids_names import NATIVE, BidsName
from medseg.datasets.layouts.dataset import Problem, listed
from medseg.errors import MedsegError

_PLACED = ("space", "res")


@dataclass(frozen=True, eq=False)
class Matched:
    """A label and the images that it is of.

    Attributes:
        label: its name.
        key: what the images have in common, as a name: ``sub-01_ses-2``.
        images: by contrast: the rest of their names, such as ``acq-3d_T1w``.
    """

    label: BidsName
    key: str
    images: Mapping[str, BidsName]

    @property
    def names_image(self) -> bool:
        """Whether the label names the one image that it is of."""
        return self.label.image_suffix is not None

    def files(self, contrasts: Sequence[str]) -> list[BidsName]:
        """The images: the one that is named, else those of the contrasts."""
        return list(self.images.values()) if self.names_image else [self.images[contrast] for contrast in contrasts]


class Found(NamedTuple):
    """The labels of a set with their images, and what has none.

    Attributes:
        pairs: the labels that are matched.
        orphans: those of no image.
        problems: what keeps others from being matched.
        left: the images that no label may be of.
    """

    pairs: list[Matched]
    orphans: dict[str, Path]
    problems: list[Problem]
    left: list[BidsName]


def match(labels: Iterable[BidsName], images: Sequence[BidsName]) -> Found:
    """Every label with its images; one that lies in another space is a problem, unless they have another in theirs."""
    of_subject: dict[str, list[BidsName]] = defaultdict(list)
    for image in images:
        of_subject[image.entities["sub"]].append(image)
    found = Found([], {}, [], [])
    elsewhere: list[tuple[BidsName, list[BidsName]]] = []
    used: set[BidsName] = set()
    for label in labels:
        fits = _fitting(label, of_subject[label.entities["sub"]])
        here = [image for image in fits if _shares_space(label, image)]
        used.update(here)
        if not fits:
            found.orphans[label.stem] = label.path
        elif not here:
            elsewhere.append((label, fits))
        elif isinstance(pair := _matched(label, here), Matched):
            found.pairs.append(pair)
        else:
            found.problems.append(Problem(pair, label.stem))
    far = [(label, fits) for label, fits in elsewhere if not used & {*fits}]
    found.problems.extend(Problem(_far(label, fits[0]), label.stem) for label, fits in far)
    found.left.extend(image for image in images if image not in used)
    return found


def single(pairs: Sequence[Matched], root: Path) -> tuple[list[Matched], list[Problem]]:
    """The labels whose images have no other, and a problem for each case that has several.

    Raises:
        MedsegError: where all have several.
    """
    of_image: dict[BidsName, list[Matched]] = defaultdict(list)
    for pair in pairs:
        for image in pair.images.values():
            of_image[image].append(pair)
    rivals = {image: several for image, several in of_image.items() if len(several) > 1}
    problems: dict[str, Problem] = {}
    for image, several in rivals.items():
        name = image.stem if several[0].names_image else several[0].key
        problems.setdefault(name, Problem(_several_labels(image, several, root), name))
    alone = [pair for pair in pairs if not rivals.keys() & {*pair.images.values()}]
    if problems and not alone:
        raise MedsegError(next(iter(problems.values())).text)
    return alone, list(problems.values())


def _fitting(label: BidsName, images: Iterable[BidsName]) -> list[BidsName]:
    """The images that a label may be of, wherever they lie in space."""
    wanted, suffix = label.source.items(), label.image_suffix
    found = [image for image in images if wanted <= image.entities.items()]
    if suffix is not None:
        return [image for image in found if image.suffix == suffix]
    return [image for image in found if label.place in ("", image.place)]


def _shares_space(label: BidsName, image: BidsName) -> bool:
    """Whether both lie in one space at one resolution, as far as their names say."""
    one, other = (name.entities.get("space") for name in (label, image))
    same = one == other or (other is None and one in (*NATIVE, image.suffix))
    return same and label.entities.get("res") == image.entities.get("res")


def _matched(label: BidsName, images: Sequence[BidsName]) -> Matched | str:
    """A label with its images, of which there is at least one; or why it cannot be said which they are."""
    if label.image_suffix is not None:
        named = [image for image in images if label.stem.startswith(f"{image.stem}_")] or images
        if len(named) > 1:
            return _several_images(label, named)
        return Matched(label, named[0].stem, {named[0].suffix: named[0]})
    groups = grouped(images, label.source)
    key, contrasts = next(iter(groups.items()))
    if len(contrasts) < len(images):
        return _several_images(label, images)
    return Matched(label, key, contrasts)


def grouped(images: Iterable[BidsName], keys: Collection[str]) -> dict[str, dict[str, BidsName]]:
    """Images by what they have of some entities, of session and space, then by contrast: the rest of the name but the
    number of the run."""
    own = {*keys, "ses", *_PLACED}
    groups: dict[str, dict[str, BidsName]] = {}
    for image in images:
        common = [f"{key}-{value}" for key, value in image.entities.items() if key in own]
        rest = [f"{key}-{value}" for key, value in image.entities.items() if key not in {*own, "run"}]
        groups.setdefault("_".join(common), {})["_".join([*rest, image.suffix])] = image
    return groups


def common_contrasts(found: Iterable[Matched]) -> list[str]:
    """The contrasts that every label has that names no image, in natural order."""
    sets = [set(one.images) for one in found if not one.names_image]
    return sorted(set.intersection(*sets), key=natural_key) if sets else []


def _several_images(label: BidsName, images: Sequence[BidsName]) -> str:
    return (
        f"{label.path} may be of {len(images)} images, {listed([image.path.name for image in images])}: give it the "
        "entities of one, such as run or ses, or list images and labels in a manifest"
    )


def _several_labels(image: BidsName, several: Sequence[Matched], root: Path) -> str:
    one, other = (pair.label for pair in several[:2])
    places = " and ".join(name.path.relative_to(root).as_posix() for name in (one, other))
    return (
        f"{root}: {image.path.name} has {len(several)} labels, {places}: give one of them, or a derivative, as the "
        "data set, and those called alike count"
    )


def _far(label: BidsName, image: BidsName) -> str:
    placed = " ".join(f"{key}-{label.entities[key]}" for key in _PLACED if key in label.entities)
    return (
        f"{label.path} does not lie in the space of {image.path.name} ({placed or 'its own'}): resample the label to "
        "the image, or list it in a manifest with the image of its space"
    )
