"""Labels that are called as their images with an ending: ``a.jpg`` and ``a_segmentation.png``.

Images may have an ending too: ``21_training.tif`` and ``21_manual1.tif``, ``a_0000.nii.gz`` and ``a.nii.gz``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

FEWEST = 2
"""Pairs that it takes: what two names have in common is seen; of one, everything could be an ending."""
OF_IMAGES = re.compile(r"[-_. ][A-Za-z]+|_0000")
OF_LABELS = re.compile(r"[-_. ][-_. A-Za-z0-9]*[A-Za-z][-_. A-Za-z0-9]*")
"""Endings: words, since numbers tell cases apart; a label's may be counted, as ``_manual1``."""


class Endings(NamedTuple):
    """What all images and all labels of a folder are called behind what they share; empty for nothing."""

    image: str
    label: str

    def __str__(self) -> str:
        return f"labels are called CASE{self.label} for images CASE{self.image}"

    def image_of(self, label: str) -> str:
        """The stem of a label's image."""
        return label.removesuffix(self.label) + self.image


def endings_of(images: Collection[str], labels: Collection[str]) -> Endings | None:
    """How two folders' stems belong together where no stem is in both; None where that is not beyond doubt.

    Every label has its image then, or every image its label, and no other reading of the names pairs them otherwise.
    """
    known = set(images)
    if min(len(labels), len(known)) < FEWEST or not known.isdisjoint(labels):
        return None
    ways: dict[frozenset[tuple[str, str]], Endings] = {}
    for of_image in _common(images, OF_IMAGES):
        for of_label in _common(labels, OF_LABELS):
            endings = Endings(of_image, of_label)
            pairs = {label: endings.image_of(label) for label in labels}
            if known <= set(pairs.values()) or set(pairs.values()) <= known:
                ways.setdefault(frozenset(pairs.items()), endings)
    return next(iter(ways.values())) if len(ways) == 1 else None


def by_image(labels: Mapping[str, Path], images: Collection[str]) -> dict[str, Path]:
    """The labels by their images' stems, where their own have an ending more; else as they are."""
    endings = endings_of(images, labels)
    return dict(labels) if endings is None else {endings.image_of(stem): path for stem, path in labels.items()}


def _common(stems: Iterable[str], form: re.Pattern[str]) -> list[str]:
    """The endings of this form that all stems have, none among them, with something left before each."""
    first, *others = stems
    found = [first[at:] for at in range(1, len(first)) if form.fullmatch(first[at:])]
    return ["", *(ending for ending in found if all(one.endswith(ending) and one != ending for one in others))]
