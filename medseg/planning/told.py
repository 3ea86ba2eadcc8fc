"""What a plan says beside its choices: the fingerprint at the head of a config, and a few lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from medseg.inference.budget import format_size
from medseg.planning.choice import Choice
from medseg.planning.evidence import Evidence
from medseg.planning.learning import rounded_steps
from medseg.planning.network import Sized


def head(evidence: Evidence) -> Iterator[str]:
    """The comment that a config begins with."""
    yield f"medseg plan: {evidence.name}, {len(evidence.cases)} cases, {len(evidence.left_out)} left out"
    yield "Edit what you know better; every number has its reason above it."
    yield ""
    yield from _table(evidence)


def _table(evidence: Evidence) -> Iterator[str]:
    """The fingerprint: least, median and largest."""
    axes = ["right", "anterior", "superior"] if evidence.oriented else [f"axis {a}" for a in range(evidence.dims)]
    unit = "mm" if evidence.millimetres else "voxels"
    yield _row("", "least", "median", "largest")
    for axis, name in enumerate(axes):
        yield _spread(f"voxels, {name}", evidence.shapes[:, axis])
    if evidence.millimetres:
        for axis, name in enumerate(axes):
            yield _spread(f"spacing, {name}, mm", evidence.spacings[:, axis])
    for number, name in enumerate(evidence.names, 1):
        yield from _class_rows(evidence, number, name[:30], unit)
    for channel, values in enumerate(evidence.intensities):
        if values.size:
            low, median, high = np.percentile(values.astype(float), (0.5, 50, 99.5))
            yield _row(f"foreground, channel {channel}, 0.5/50/99.5 %", *(f"{v:.4g}" for v in (low, median, high)))
    kinds = ", ".join(f"{count} {dtype}" for dtype, count in evidence.dtypes.items())
    yield f"images: {kinds}; {evidence.channels} channel{'s' if evidence.channels > 1 else ''}; {evidence.modality}"


def _class_rows(evidence: Evidence, number: int, name: str, unit: str) -> Iterator[str]:
    parts = [100 * part for part in evidence.parts(number)]
    if not parts:
        yield _row(f"{name}: in no case")
        return
    if len(parts) < len(evidence.cases):
        yield _row(f"{name}: in {len(parts)} of {len(evidence.cases)} cases")
    yield _spread(f"{name}: % of a scan", parts)
    yield _spread(f"{name}: objects", evidence.objects(number))
    yield _spread(f"{name}: largest side, {unit}", evidence.extents_mm(number).max(axis=1))
    yield _spread(f"{name}: thickness, {unit}", evidence.thicknesses_mm(number))


def _spread(what: str, numbers: Any) -> str:
    found = np.asarray(numbers, float)
    return _row(what, *(f"{v:.4g}" for v in (found.min(), np.median(found), found.max())))


def _row(what: str, *numbers: str) -> str:
    return f"  {what:<44}" + "".join(f"{number:>12}" for number in numbers)


def summary(evidence: Evidence, sized: Sized, choices: Sequence[Choice]) -> Iterator[str]:
    """A few lines for the terminal."""
    value = {choice.key: choice.value for choice in choices}
    yield f"{evidence.path}: {len(evidence.cases)} cases, {evidence.dims}D, {evidence.modality}"
    if evidence.left_out:
        yield f"left out: {len(evidence.left_out)} broken cases, with the reasons in the config"
    if not evidence.declared:
        yield f"labels: {', '.join(evidence.labels.values)}: named by their values, since nothing says what they mean"
    spacing = value["preprocessing.spacing_mm"]
    grid = "as in the files" if spacing is None else " x ".join(f"{s:g}" for s in spacing) + " mm"
    yield f"grid: {grid}; intensities: {value['preprocessing.normalize']['kind']}"
    window = " x ".join(map(str, sized.window))
    yield (
        f"network: {sized.spec['name']}, width {sized.spec.get('width', 'its own')}; window {window}, batch "
        f"{sized.batch}: about {format_size(sized.held + sized.means.beside)} of {format_size(sized.means.memory)}"
    )
    steps = rounded_steps(sized.steps)
    yield f"time: {sized.means.minutes:g} minutes, about {steps} steps on {sized.means.words}"
