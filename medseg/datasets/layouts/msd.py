"""The Medical Segmentation Decathlon's format: ``dataset.json`` lists the pairs.

    Task04_Hippocampus/
      dataset.json      modality {"0": "MRI"}, labels {"0": "background", "1": "Anterior"}, numTraining,
                        training [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}]
      imagesTr/  labelsTr/

Several modalities are the last axis of one 4D file, the channels. nnU-Net v1 wrote the same file for images that are a
file a channel (``a_0000.nii.gz``): those are taken where the listed one is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.datasets.cases import is_there
from medseg.datasets.channels import ChannelFiles
from medseg.datasets.layouts.dataset import DataSet, Layout, Problem, joined, missing
from medseg.datasets.layouts.description import DATASET, DatasetInfo, read_content, validated
from medseg.errors import ConfigError
from medseg.scans.scan import stem_of, suffix_of


def recognised(root: Path) -> str | None:
    """Why: ``dataset.json`` lists the training cases."""
    content = read_content(root) if root.is_dir() else None
    return f"{DATASET} has a training list" if content is not None and "training" in content else None


def read(root: Path) -> DataSet:
    """The data set.

    Raises:
        ConfigError: where ``dataset.json`` is missing, or lacks what it must have.
        MedsegError: where a path leads out of the root.
    """
    content = read_content(root)
    if content is None:
        raise ConfigError(f"{root / DATASET} is missing: the Decathlon's format has it")
    info = describe(content, root / DATASET)
    images: dict[str, list[Path]] = {}
    labels: dict[str, Path] = {}
    problems: list[Problem] = []
    for image, label in _pairs(content.get("training"), root):
        files, name = _files(image), _name(image, label)
        if name in images:
            raise ConfigError(f"{root / DATASET}: training lists the case {name!r} twice")
        images[name] = files
        labels |= {name: label} if label is not None else {}
        given = (*files, *([label] if label is not None else []))
        problems += missing(given, root, name, str(root / DATASET))
    announced = content.get("numTraining", len(images))
    if announced != len(images):
        problems.append(
            Problem(f"{root / DATASET} announces {announced} training cases (numTraining) and lists {len(images)}")
        )
    cases, orphans = joined(images, labels, {})
    name = info.name or root.resolve().name
    return DataSet("msd", root, name, info, cases, orphans, tuple(problems), "labelsTr", ChannelFiles.of(cases))


def describe(content: Mapping[str, Any], path: Path) -> DatasetInfo:
    """The Decathlon's ``dataset.json`` as a description.

    Raises:
        ConfigError: where modality or labels are missing or wrong.
    """
    for key in ("modality", "labels"):
        if not isinstance(content.get(key), Mapping) or not content[key]:
            raise ConfigError(f"{path}: key {key!r} is missing or no object: the Decathlon's format has it")
    labels: dict[str, int] = {}
    for value, label in content["labels"].items():
        if not str(value).isdigit() or not isinstance(label, str) or label in labels:
            raise ConfigError(f"{path}: labels.{value} is {label!r}: each value must have a name of its own")
        labels[label] = int(value)
    names = [str(name) for name in content["modality"].values()]
    about = {key: str(content[key]) for key in ("name", "description") if key in content}
    return validated({**about, "labels": labels, "channels": len(names), "channel_names": names}, path)


def _pairs(listing: Any, root: Path) -> list[tuple[Path, Path | None]]:
    if not isinstance(listing, list):
        raise ConfigError(f"{root / DATASET}: training is no list of images and labels")
    pairs: list[tuple[Path, Path | None]] = []
    for number, entry in enumerate(listing):
        image, label = (entry.get("image"), entry.get("label")) if isinstance(entry, Mapping) else (None, None)
        if not isinstance(image, str) or not isinstance(label, str | None):
            raise ConfigError(f"{root / DATASET}: training[{number}] must have the paths image and label")
        pairs.append((root / image, root / label if label is not None else None))
    return pairs


def _files(image: Path) -> list[Path]:
    """The listed file, or one a channel where only those are there."""
    if is_there(image):
        return [image]
    stem, suffix = stem_of(image), image.name[len(image.name) - len(suffix_of(image)) :]
    channels: list[Path] = []
    while (path := image.with_name(f"{stem}_{len(channels):04d}{suffix}")) and is_there(path):
        channels.append(path)
    return channels or [image]


def _name(image: Path, label: Path | None) -> str:
    return stem_of(image if label is None else label)


LAYOUT = Layout(recognised, read)
