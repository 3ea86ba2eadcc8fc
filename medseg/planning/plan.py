"""A plan: what is measured of a data set becomes a config, each number with its reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medseg.data_section import find_data, labels_of, told
from medseg.datasets.checks.finding import Expected, most
from medseg.datasets.checks.report import Report
from medseg.datasets.layouts import DataSet
from medseg.errors import ConfigError, MedsegError
from medseg.experiment import Data
from medseg.planning import learning
from medseg.planning.broken import Sound, checking, sound
from medseg.planning.choice import Choice, Item, to_yaml
from medseg.planning.evidence import Evidence, modality_of
from medseg.planning.measure import measure_cases
from medseg.planning.preprocess import preprocessing
from medseg.planning.values import labels_found

MINUTES = 20.0
"""Of training, where nobody says."""
WHOLE = 0.9
"""A window holds about all of a scan where it holds this part of each axis of the median one."""
THICK = 90
"""The percentile of the objects' thickness that a network must see."""
BYTES_A_VOXEL = 5
"""Of a scan on the model's grid, in memory: float32, and a byte of label."""
Watch = Callable[[int, int], None]


@dataclass(frozen=True)
class Request:
    """What a plan is asked for.

    Attributes:
        data: the config's data section, as far as the user gives it; its root counts.
        name: the experiment's.
        memory: bytes, or None for what the machine has.
        minutes: of training.
        network: its name, or None for what fits best.
        exclude_broken: whether however many broken cases are left out.
        workers: processes that read; 0 is one a processor.
    """

    data: Data
    name: str
    memory: int | None = None
    minutes: float = MINUTES
    network: str | None = None
    exclude_broken: bool = False
    workers: int = 0


@dataclass(frozen=True)
class Plan:
    """A config and what to say of it.

    Attributes:
        text: the YAML.
        summary: a few lines for the terminal.
    """

    text: str
    summary: tuple[str, ...]


def gather(request: Request, watch: Watch | None = None) -> tuple[Request, Evidence, dict[str, Any]]:
    """Checks and measures a data set.

    Returns:
        the request, with its cases called as others may know them; the evidence; and the keys of the data section that
        follow from what was found.

    Raises:
        MedsegError: for a data set that is broken as a whole, or labels that nothing tells the meaning of.
    """
    data = request.data
    found = find_data(data)
    info = found.info
    declared = data.labels is not None or info is not None
    labels = labels_of(data, info, found.root) if declared else None
    expected = Expected(
        labels, info.dims if info else None, info.channels if info else None, normalised=True, resampled=True
    )
    rest = sound(found, checking(expected, request.workers, watch), request.exclude_broken)
    keys: dict[str, Any] = {}
    if labels is None:
        keys, why = labels_found(_values(rest.report))
        keys["why"] = why
        labels = labels_of(data.model_copy(update=_fields(keys)), info, found.root)
    evidence = _measured(request, found, rest, labels, declared, watch)
    return replace(request, data=told(data, found)), evidence, keys


def _fields(keys: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if key != "why"}


def _values(report: Report) -> list[Any]:
    return [case.label.values for case in report.cases if case.label and case.label.values and not case.held_out]


def _measured(
    request: Request, found: DataSet, rest: Sound, labels: Any, declared: bool, watch: Watch | None
) -> Evidence:
    cases = [case for case in rest.found.cases if case.label is not None]
    facts = [case for case in rest.report.cases if not case.held_out and case.readable]
    grids = [case.grid for case in facts if case.grid is not None]
    oriented = all(grid.anatomical and len(grid.shape) == 3 for grid in grids)
    channels = most([case.channels or 1 for case in facts]) or 1
    names = found.info.channel_names if found.info is not None else None
    modality, why = modality_of(facts, len(grids[0].shape), channels, names)
    measured = measure_cases(cases, labels, "RAS" if oriented else None, request.workers, watch)
    return Evidence(
        name=found.name,
        path=str(found.path),
        layout=found.layout,
        cases=tuple(measured),
        labels=labels,
        declared=declared,
        channels=channels,
        dtypes=rest.report.kinds()["types"],
        modality=modality,
        told=why,
        oriented=oriented,
        millimetres=all(grid.unit != "pixel" for grid in grids),
        left_out=rest.left_out,
    )


def make_plan(request: Request, watch: Watch | None = None) -> Plan:
    """The plan for a data set.

    Raises:
        MedsegError: for minutes, a network, memory or a data set that no plan can be made for.
    """
    from medseg.planning.network import check_name

    if not 0 < request.minutes < math.inf:
        raise ConfigError(f"--minutes {request.minutes:g} is no time to train for: give more than 0")
    if request.network is not None:
        check_name(request.network)
    request, evidence, keys = gather(request, watch)
    return planned(request, evidence, keys)


def planned(request: Request, evidence: Evidence, keys: dict[str, Any]) -> Plan:
    """The plan that follows from evidence.

    Raises:
        ConfigError: where nothing fits the memory, or the network cannot take such scans.
    """
    from medseg.planning.machine import means_of
    from medseg.planning.network import Task, size_network
    from medseg.planning.sizes import inference, network, window
    from medseg.planning.told import head, summary

    views, spacing, coarse = preprocessing(evidence)
    shapes = evidence.shapes_at(spacing)
    shape = tuple(int(n) for n in np.ceil(np.median(shapes, axis=0)))
    cache = int(shapes.prod(axis=1).sum()) * (BYTES_A_VOXEL + 4 * (evidence.channels - 1))
    means = means_of(request.memory, request.minutes, min(cache, CACHE_BYTES))
    units = tuple(spacing) if spacing is not None else (1.0,) * evidence.dims
    outputs = _outputs(evidence)
    thickness = float(np.percentile(evidence.thicknesses_mm() or [0.0], THICK)) / min(_unit(evidence, units))
    task = Task(shape, units, evidence.channels, outputs, thickness)
    sized = size_network(task, means, request.network)
    whole = all(core >= WHOLE * n for core, n in zip(sized.core, shape, strict=True))
    choices = [
        Choice("name", request.name, "what runs are called"),
        Choice("seed", 0, "every draw comes from it: another seed is another split, other weights to begin with"),
        *_data(request, evidence, keys),
        *views,
        network(sized, task, request.network),
        learning.loss(evidence, whole),
        learning.augmentation(evidence, coarse, sized.window),
        *window(sized, task, evidence, whole),
        *learning.training(evidence, sized, whole, float(np.median(shapes.prod(axis=1)))),
        _cache(cache),
        inference(sized),
    ]
    text = to_yaml(list(head(evidence)), choices)
    return Plan(text, tuple(summary(evidence, sized, choices)))


CACHE_BYTES = 4 << 30
"""Of scans, kept in memory at most; the rest is read from disk."""


def _cache(needed: int) -> Choice:
    mib = min(math.ceil(1.1 * needed / 2**20), CACHE_BYTES >> 20)
    words = "all scans" if needed <= CACHE_BYTES else "a part of the scans"
    return Choice("training.cache_mib", mib, f"{words} on the model's grid, {needed / 2**20:.0f} MiB, and a tenth more")


def _unit(evidence: Evidence, spacing: Sequence[float]) -> Sequence[float]:
    """Millimetres between voxels that objects were measured in: the files' where nothing is resampled."""
    return spacing if evidence.millimetres else [float(s) for s in np.median(evidence.spacings, axis=0)]


def _outputs(evidence: Evidence) -> int:
    targets = len(evidence.labels.targets)
    return targets if targets == 1 or evidence.labels.regions else targets + 1


def _data(request: Request, evidence: Evidence, keys: dict[str, Any]) -> Iterator[Choice]:
    data = request.data
    yield Choice("data.root", str(data.root), f"{evidence.layout} layout; relative to where the command runs")
    given = data.model_dump(mode="json", exclude_unset=True, exclude={"root", "exclude", "validation"})
    for key, value in given.items():
        yield Choice(f"data.{key}", value, "as asked for")
    for key, value in _fields(keys).items():
        yield Choice(f"data.{key}", value, keys["why"])
    left_out = [Item(name, why) for name, why in evidence.left_out.items()]
    asked = [Item(name, "as asked for") for name in data.exclude]
    if left_out or asked:
        broken = f"{len(left_out)} broken cases; mend them, and take them off here"
        yield Choice("data.exclude", [*asked, *left_out], broken if left_out else "as asked for")
    if "validation" in data.model_fields_set:
        yield Choice("data.validation", data.validation, "as asked for")
    else:
        why = "a fifth of the patients is never trained on, drawn by the seed; medseg train --fold K takes each in turn"
        yield Choice("data.validation", 0.2, why)


def default_name(path: Path) -> str:
    """An experiment's name for a config's file."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "_" for c in path.stem).lstrip("_.-")
    if not name:
        raise MedsegError(f"{path} gives the experiment no name: call the file by a letter or digit")
    return name[:100]
