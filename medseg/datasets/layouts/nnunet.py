"""nnU-Net's raw format: a file a channel, and what its ``dataset.json`` says of them.

    Dataset004_Name/
      dataset.json                          channel_names, labels, numTraining, file_ending
      imagesTr/  CASE_0000.nii.gz  CASE_0001.nii.gz
      labelsTr/  CASE.nii.gz

Source: nnU-Net v2, documentation/dataset_format.md, region_based_training.md and ignore_label.md. Where ``dataset``
lists the files of each case they are taken from there, relative to the folder. Without a ``dataset.json`` the format is
known by its names: every image ends in four digits that its label doesn't have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.datasets.cases import find_scans, natural_key
from medseg.datasets.channels import ChannelFiles
from medseg.datasets.layouts.dataset import DataSet, Layout, Problem, joined, listed, missing
from medseg.datasets.layouts.description import DATASET, DatasetInfo, read_content, validated
from medseg.datasets.layouts.folders import scans_in
from medseg.errors import ConfigError, MedsegError
from medseg.scans.scan import SUFFIXES, stem_of, suffix_of

IMAGES, LABELS = "imagesTr", "labelsTr"
_CHANNEL = re.compile(r"(.+)_([0-9]{4})")
_KEPT = ("name", "description", "regions_class_order")


def recognised(root: Path) -> str | None:
    """Why: by ``dataset.json``, or by the names of the files."""
    content = read_content(root) if root.is_dir() else None
    if content is not None:
        return f"{DATASET} has channel_names" if wrote(content) else None
    if not (root / IMAGES).is_dir() or not (root / LABELS).is_dir():
        return None
    images, labels = find_scans(root / IMAGES), find_scans(root / LABELS)
    split = [_CHANNEL.fullmatch(stem) for stem in images]
    named = {match[1] for match in split if match}
    known = bool(images) and all(split) and bool(named & set(labels)) and not set(images) & set(labels)
    return f"files in {IMAGES}/ end in _0000" if known else None


def wrote(content: Mapping[str, Any]) -> bool:
    """Whether a ``dataset.json`` is of this format."""
    return isinstance(content.get("channel_names"), Mapping)


def read(root: Path) -> DataSet:
    """The data set.

    Raises:
        ConfigError: where ``dataset.json`` lacks what it must have, or has what it must not.
        MedsegError: where a folder is missing or holds no scan.
    """
    content = read_content(root)
    info = describe(content, root / DATASET) if content is not None else None
    if content is not None and "dataset" in content:
        images, labels, problems = _of_list(root, content["dataset"])
    else:
        images, labels, problems = _of_folders(root, content or {})
    problems += _counted(root, content or {}, labels) + _channels(images, info)
    cases, orphans = joined(images, labels, {})
    name = (info.name if info is not None else "") or root.resolve().name
    return DataSet("nnunet", root, name, info, cases, orphans, tuple(problems), LABELS, ChannelFiles.of(cases))


def describe(content: Mapping[str, Any], path: Path) -> DatasetInfo:
    """nnU-Net's ``dataset.json`` as a description; keys that say nothing about the data are left alone.

    Raises:
        ConfigError: with the key that is missing or wrong.
    """
    for key in ("channel_names", "labels"):
        if not isinstance(content.get(key), Mapping) or not content[key]:
            raise ConfigError(f"{path}: key {key!r} is missing or no object: nnU-Net's format has it")
    names = content["channel_names"]
    numbers = [str(n) for n in range(len(names))]
    if sorted(map(str, names), key=natural_key) != numbers:
        raise ConfigError(
            f"{path}: channel_names has the keys {listed([str(n) for n in names])}; 0, 1, ... are expected"
        )
    own = {key: content[key] for key in _KEPT if key in content}
    channels = [str(names[number]) for number in numbers]
    return validated(
        {**own, "labels": dict(content["labels"]), "channels": len(channels), "channel_names": channels}, path
    )


def _of_folders(root: Path, content: Mapping[str, Any]) -> tuple[dict[str, list[Path]], dict[str, Path], list[Problem]]:
    if not (root / IMAGES).is_dir():
        raise MedsegError(f"{root} has no folder {IMAGES}/: nnU-Net's format has {IMAGES}/ and {LABELS}/")
    ending = _ending(root, content)
    found = {s: p for s, p in scans_in(root / IMAGES).items() if ending is None or p.name.endswith(ending)}
    labels = find_scans(root / LABELS) if (root / LABELS).is_dir() else {}
    problems = []
    if not found:
        problems.append(Problem(f"{root / IMAGES} holds no file that ends in {ending}, the file_ending of {DATASET}"))
    images: dict[str, list[Path]] = {}
    for stem, path in found.items():
        match = _CHANNEL.fullmatch(stem)
        if match is None:
            problems.append(Problem(f"{path} has no channel in its name: nnU-Net's format has {stem}_0000", stem))
        else:
            images.setdefault(match[1], []).append(path)
    return images, {s: p for s, p in labels.items() if ending is None or p.name.endswith(ending)}, problems


def _ending(root: Path, content: Mapping[str, Any]) -> str | None:
    ending = content.get("file_ending")
    if ending is None:
        return None
    if not isinstance(ending, str) or suffix_of(f"x{ending}") != ending.lower():
        raise ConfigError(f"{root / DATASET}: file_ending is {ending!r}; medseg reads {' '.join(SUFFIXES)}")
    return ending


def _of_list(root: Path, listing: Any) -> tuple[dict[str, list[Path]], dict[str, Path], list[Problem]]:
    images: dict[str, list[Path]] = {}
    labels: dict[str, Path] = {}
    problems: list[Problem] = []
    if not isinstance(listing, Mapping):
        raise ConfigError(f"{root / DATASET}: dataset is no object of cases, each with images and a label")
    for name, files in listing.items():
        given = files.get("images") if isinstance(files, Mapping) else None
        if (
            not isinstance(given, list)
            or not given
            or not all(isinstance(f, str) for f in [*given, files.get("label")])
        ):
            raise ConfigError(f"{root / DATASET}: dataset.{name} must have images, a list of paths, and a label")
        images[name], labels[name] = [root / f for f in given], root / files["label"]
        problems += missing((*images[name], labels[name]), root, name, str(root / DATASET))
    return images, labels, problems


def _counted(root: Path, content: Mapping[str, Any], labels: Mapping[str, Path]) -> list[Problem]:
    announced = content.get("numTraining")
    if announced is None or announced == len(labels):
        return []
    return [
        Problem(
            f"{root / DATASET} announces {announced} training cases (numTraining) and there are {len(labels)} labels: "
            "add what is missing, or mend the number"
        )
    ]


def _channels(images: Mapping[str, list[Path]], info: DatasetInfo | None) -> list[Problem]:
    """Cases that lack channels; one file may hold them all, as RGB does."""
    wanted = info.channels if info is not None else max((len(files) for files in images.values()), default=1)
    problems = []
    for name, files in images.items():
        found = [stem_of(path)[-4:] for path in files]
        expected = [f"{n:04d}" for n in range(wanted)]
        if _CHANNEL.fullmatch(stem_of(files[0])) and found not in (expected, ["0000"]):
            problems.append(
                Problem(
                    f"{files[0].parent}: case {name} has the channels {listed(found)} and {listed(expected)} are "
                    "expected: add the files or leave the case out with data.exclude",
                    name,
                )
            )
        elif len(files) not in (wanted, 1):
            problems.append(Problem(f"case {name} has {len(files)} image files and {wanted} channels are named", name))
    return problems


LAYOUT = Layout(recognised, read)
