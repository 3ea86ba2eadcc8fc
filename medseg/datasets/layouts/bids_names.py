"""Names of BIDS files.

    sub-01_ses-2_acq-3d_T1w.nii.gz                 an image: entities sub, ses and acq, the suffix T1w
    sub-01_ses-2_space-orig_label-L_mask.nii.gz    a label of the session's images
    sub-01_ses-2_T1w_label-L_dseg.nii.gz           a label that names its image: its suffix is a word before the last
    sub-01_T2w_seg-manual.nii.gz                   a label as older spinal cord sets call them

Source: Brain Imaging Data Structure 1.10, appendix «Entities», and «Derivatives: imaging data types».
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medseg.scans.scan import stem_of

SOURCE = {
    *("sub", "ses", "sample", "task", "tracksys", "acq", "nuc", "voi", "ce", "trc", "stain", "rec", "dir", "run"),
    *("mod", "echo", "flip", "inv", "mt", "part", "proc", "chunk", "recording"),
}
"""The entities that a label has from its image; others, such as ``label`` and ``desc``, are its own."""
WHOSE = {"sub", "ses", "sample", "run", "chunk"}
"""The entities that tell subjects and repetitions apart, and not what a file is."""
NATIVE = ("orig", None)
"""The values of ``space`` that are the image's own space."""
_ENTITY = re.compile(r"([A-Za-z0-9]+)-(.+)")
_LABEL = re.compile(r"dseg|mask|msk|seg|roi|.+-(manual|mask|msk|seg|dseg)")
_NO_IMAGE = re.compile(r".*(mask|msk|seg|xfm)")


@dataclass(frozen=True, eq=False)
class BidsName:
    """A scan, and what its name says.

    Attributes:
        path: the file.
        tree: the folder of its subject: the data set, or a derivative.
        place: the folder that it lies in, such as ``anat``; empty where that is its subject or session.
        entities: its keys and values, in their order.
        words: what is no entity and not the last, such as the suffix of the image that a label names.
        suffix: the last word.
    """

    path: Path
    tree: Path
    place: str
    entities: Mapping[str, str]
    words: tuple[str, ...]
    suffix: str

    @property
    def stem(self) -> str:
        """The file's name without what opens it."""
        return stem_of(self.path)

    @property
    def kind(self) -> tuple[str, ...]:
        """What the file is, whosever it is: its name without :data:`WHOSE`."""
        return (*(f"{k}-{v}" for k, v in self.entities.items() if k not in WHOSE), *self.words, self.suffix)

    @property
    def is_label(self) -> bool:
        """Whether it is called as labels are."""
        return _LABEL.fullmatch(self.suffix) is not None

    @property
    def is_image(self) -> bool:
        """Whether it may be an image: what is called as masks, segmentations and transforms are is none."""
        return not self.words and not self.is_label and _NO_IMAGE.fullmatch(self.suffix) is None

    @property
    def source(self) -> dict[str, str]:
        """The entities that a label has from its image; ``mod`` is the image's suffix."""
        return {key: value for key, value in self.entities.items() if key in SOURCE and key != "mod"}

    @property
    def image_suffix(self) -> str | None:
        """The suffix of the image that a label names, where it names one."""
        return self.words[0] if self.words else self.entities.get("mod")


def named(path: Path, tree: Path, place: str = "") -> BidsName | None:
    """A file's name; None where it is none of BIDS."""
    *parts, last = stem_of(path).split("_")
    match = [_ENTITY.fullmatch(part) for part in parts]
    entities = {found[1]: found[2] for found in match if found}
    if "sub" not in entities or (_ENTITY.fullmatch(last) and not _LABEL.fullmatch(last)):
        return None
    words = tuple(part for part, found in zip(parts, match, strict=True) if not found)
    return BidsName(path, tree, place, entities, words, last)
