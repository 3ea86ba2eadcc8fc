"""BIDS: images of subjects and sessions, and labels in derivatives, matched by the entities of their names.

    SET/
      dataset_description.json                BIDSVersion
      sub-01/ses-1/anat/                      sub-01_ses-1_T1w.nii.gz  sub-01_ses-1_FLAIR.nii.gz
      derivatives/manual/dseg.tsv             the names of the values
      derivatives/manual/sub-01/ses-1/anat/   sub-01_ses-1_dseg.nii.gz, or sub-01_ses-1_label-lesion_mask.nii.gz

Labels may lie beside the images too. A derivative that is given for the set, ``SET/derivatives/manual``, stands for the
set with no labels but its own, and a label in it for those of the derivative that are called alike. Contrasts that
every label has are the channels, a file each; a label that names one contrast, ``sub-01_ses-1_T1w_label-lesion_mask``,
is of that alone. A subject is a patient.
Which image a label is of: :mod:`medseg.datasets.layouts.bids_match`; what its values mean:
:mod:`medseg.datasets.layouts.bids_lookup`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from medseg.datasets.cases import Case, natural_key
from medseg.datasets.channels import ChannelFiles
from medseg.datasets.check import check_grid, open_label
from medseg.datasets.layouts.bids_lookup import Lookup
from medseg.datasets.layouts.bids_match import Found, Matched, common_contrasts, grouped, match, single
from medseg.datasets.layouts.bids_names import BidsName
from medseg.datasets.layouts.bids_trees import DESCRIPTION, VERSION, is_bids, label_of, trees_of, whole_of
from medseg.datasets.layouts.dataset import DataSet, Layout, Problem
from medseg.datasets.layouts.description import DATASET, DatasetInfo, own_info, read_content
from medseg.errors import ConfigError, MedsegError
from medseg.scans.scan import open_scan, stem_of

COMPUTED = ("ct", "ncct", "cta")
"""The suffixes of computed tomography."""
_POINTER = b"/annex/objects/"


def recognised(root: Path) -> str | None:
    """Why: it holds subjects and a BIDSVersion in ``dataset_description.json``, or is a derivative or label there."""
    if root.is_file():
        like = label_of(root)
        return None if like is None else f"labels called *_{'_'.join(like.kind)} in {like.tree.name}"
    whole = whole_of(root)
    if whole is not None:
        return f"a derivative of {whole.name}, whose {DESCRIPTION} has {VERSION}"
    return f"{DESCRIPTION} has {VERSION}" if is_bids(root) else None


def read(root: Path) -> DataSet:
    """The data set; headers of one case are read, to see which contrast lies on the label's grid.

    Raises:
        ConfigError: where a table of labels is damaged, tables contradict each other, or ``dataset.json`` is wrong.
        MedsegError: where there is no subject, a path leads out of the root, or every image has several labels.
    """
    trees = trees_of(root)
    images, labels = trees.names()
    found = match(labels, images)
    pairs, doubles = single(found.pairs, trees.root)
    contrasts = _ordered(common_contrasts(pairs), pairs)
    labelled, lacking = _labelled(pairs, contrasts)
    cases, unfetched = _fetched([*labelled, *_unlabelled(found, contrasts)], trees.root)
    cases.sort(key=lambda case: natural_key(case.name))
    info = _info(trees.root, pairs, cases)
    return DataSet(
        "bids",
        trees.root,
        (info.name if info is not None else "") or trees.name,
        info,
        tuple(cases),
        found.orphans,
        (*found.problems, *doubles, *lacking, *unfetched),
        trees.trees[-1].relative_to(trees.root).as_posix(),
        ChannelFiles.of(cases),
        trees.chosen,
    )


def _ordered(contrasts: list[str], pairs: Iterable[Matched]) -> list[str]:
    """Contrasts with one first that lies on the grid of the first label: further channels may be resampled to it."""
    first = next((pair for pair in pairs if not pair.names_image), None)
    if first is None or len(contrasts) < 2:
        return contrasts
    return sorted(contrasts, key=lambda contrast: not _on_grid(first.label.path, first.images[contrast].path))


def _on_grid(label: Path, image: Path) -> bool:
    try:
        check_grid(open_label(label), open_scan(image))
    except MedsegError:
        return False
    return True


def _labelled(pairs: Iterable[Matched], contrasts: Sequence[str]) -> tuple[list[Case], list[Problem]]:
    cases, problems = [], []
    for pair in pairs:
        files = pair.files(contrasts)
        if files:
            cases.append(_case(files, pair.key, pair.label.path))
        else:
            there = ", ".join(pair.images)
            text = f"{pair.label.path}: no contrast is there for every label; this one has {there}: name the image's"
            problems.append(Problem(f"{text} in the label's name, or list both in a manifest", pair.key))
    return cases, problems


def _case(files: Sequence[BidsName], key: str, label: Path | None) -> Case:
    first, *further = [name.path for name in files]
    name = key if further else files[0].stem
    return Case(name, first, label, f"sub-{files[0].entities['sub']}", tuple(further))


def _unlabelled(found: Found, contrasts: Sequence[str]) -> Iterator[Case]:
    """Images of the kinds that have labels; all of them where there is no label at all."""
    single = {image.kind for pair in found.pairs if pair.names_image for image in pair.images.values()}
    yield from (_case([image], "", None) for image in found.left if not found.pairs or image.kind in single)
    shared = [pair for pair in found.pairs if not pair.names_image]
    kinds = {image.kind for pair in shared for image in pair.images.values()} - single
    keys = {"run", *(key for pair in shared for key in pair.label.source)}
    rest = [image for image in found.left if image.kind in kinds]
    for key, group in grouped(rest, keys).items() if contrasts else ():
        if group.keys() >= {*contrasts}:
            yield _case([group[contrast] for contrast in contrasts], key, None)


def _fetched(cases: Iterable[Case], root: Path) -> tuple[list[Case], list[Problem]]:
    """The cases whose files are there, or missing altogether, and those of which there is git-annex's word alone."""
    known, problems = [], []
    for case in cases:
        files = (*case.images, *([case.label] if case.label is not None else []))
        absent = next((path for path in files if _is_annexed(path)), None)
        if absent is None:
            known.append(case)
        else:
            place = absent.relative_to(root).as_posix()
            text = f"{absent} is a link of git-annex whose content is not here: in {root}, run: datalad get {place}"
            problems.append(Problem(f"{text}, or leave the case out with data.exclude: [{case.name}]", case.name))
    return known, problems


def _is_annexed(path: Path) -> bool:
    """Whether a file is git-annex's link to, or pointer at, a content that is not there."""
    if path.is_symlink():
        return ".git/annex/objects" in os.readlink(path) and not path.exists()
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_POINTER)) == _POINTER


def _info(root: Path, pairs: Sequence[Matched], cases: Sequence[Case]) -> DatasetInfo | None:
    """What ``dataset.json`` says, else what the labels' tables and names say; None where nothing does.

    Raises:
        ConfigError: where they contradict each other.
    """
    content = read_content(root)
    if content is not None:
        return own_info(content, root / DATASET)
    lookup, known = Lookup(root), None
    for pair in pairs:
        told = lookup.find(pair.label)
        if told is not None and known is not None and told[1].labels != known[1].labels:
            raise ConfigError(
                f"{known[0]} and {told[0]} name the labels' values otherwise ({_shown(known[1])}; {_shown(told[1])}): "
                f"keep one of them, give one derivative as the data set, or write {root / DATASET}"
            )
        known = known or told
    if known is None:
        return None
    channels = _channels(cases)
    names = _channel_names(cases)
    return known[1].model_copy(
        update={"channels": channels, "channel_names": names if names and len(names) == channels else None}
    )


def _shown(info: DatasetInfo) -> str:
    return ", ".join(f"{name} {value}" for name, value in list(info.labels.items())[:3])


def _channel_names(cases: Sequence[Case]) -> list[str] | None:
    """The suffixes of the images; None where cases have others."""
    found = {tuple(stem_of(path).split("_")[-1] for path in case.images) for case in cases}
    return ["CT" if name.lower() in COMPUTED else name for name in found.pop()] if len(found) == 1 else None


def _channels(cases: Sequence[Case]) -> int:
    """Of the first case, whose files may have several each; the number of files where they cannot be opened."""
    files = cases[0].images if cases else ()
    try:
        return sum(open_scan(path).channels for path in files) or 1
    except MedsegError:
        return len(files)


LAYOUT = Layout(recognised, read)
