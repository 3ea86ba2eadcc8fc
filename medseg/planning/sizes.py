"""Network, window and batch as choices, in words."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from medseg.inference.budget import format_size
from medseg.planning.choice import Choice
from medseg.planning.evidence import Evidence
from medseg.planning.levels import LEAST_MAP
from medseg.planning.network import (
    BATCH,
    ENOUGH_STEPS,
    GROWING_STEPS,
    LEAST_STEPS,
    VALID_DEPTH,
    Sized,
    Task,
    is_valid,
    on_meta,
    prefers_valid,
    wanted_core,
)


def by(numbers: tuple[int, ...]) -> str:
    """«40 x 56 x 40»."""
    return " x ".join(map(str, numbers))


def network(sized: Sized, task: Task, asked: str | None) -> Choice:
    """The network; its channels follow from data and loss."""
    spec = {key: value for key, value in sized.spec.items() if key not in ("in_channels", "out_channels")}
    why = "as asked for" if asked is not None else _kind(task)
    return Choice("network", spec, why + _width(sized) + _depth(sized))


def _kind(task: Task) -> str:
    halo = 6 * 2 ** VALID_DEPTH[task.dims] - 4
    if prefers_valid(task):
        return (
            f"scans (median {by(task.shape)}) are large against the halo of {halo} voxels that valid convolutions take "
            "off each side, and objects no thicker than the network sees: overlap tiles are exact, without seams"
        )
    large = f"objects are {task.thickness:.0f} voxels thick, more than a valid U-Net sees ({2 * halo})"
    small = (
        f"scans (median {by(task.shape)}) are small against the {halo} voxels a side that valid convolutions take off"
    )
    return (
        f"{small if task.thickness <= 2 * halo else large}: a padded network learns from its whole window; DynUNet is "
        "nnU-Net's"
    )


def _width(sized: Sized) -> str:
    width = sized.spec.get("width")
    if width is None:
        return ""
    if width >= 32:
        return "; width 32 as in nnU-Net: there is time for it"
    return f"; width {width}: a wider one would come to fewer than {ENOUGH_STEPS} steps in the time"


def _depth(sized: Sized) -> str:
    if sized.spec["name"] != "dynunet":
        return ""
    coarse = (
        "; kernels and strides leave the coarse axis alone until the others are as coarse"
        if "strides" in sized.spec
        else ""
    )
    return f"; depth {sized.spec['depth']}: halved while {LEAST_MAP} voxels an axis are left{coarse}"


def window(sized: Sized, task: Task, evidence: Evidence, whole: bool) -> Iterator[Choice]:
    """The window and the batch."""
    yield Choice("training.window", list(sized.window), _window(sized, task, evidence, whole))
    means = sized.means
    memory = (
        f"a step holds {format_size(sized.held)}, counted from the network's activations, beside "
        f"{format_size(means.beside)} of libraries and scans; {format_size(means.memory)} may be used"
    )
    if sized.batch < BATCH:
        why = "no more fit"
    elif sized.batch == BATCH:
        why = f"many small steps learn more than few large ones: with more there would be fewer than {GROWING_STEPS}"
    else:
        why = f"the largest that fits and leaves {GROWING_STEPS} steps"
    yield Choice("training.batch", sized.batch, f"{why}; {memory}")


def _window(sized: Sized, task: Task, evidence: Evidence, whole: bool) -> str:
    network = on_meta(sized.spec)
    steps = by(tuple(field.step for field in network.fields))
    rest = f" (steps of {steps})" + (f", after the halo: core {by(sized.core)}" if is_valid(network) else "")
    wanted = wanted_core(task, sized.spec["name"])
    if all(core >= n for core, n in zip(sized.core, wanted, strict=True)):
        of = "the median scan" if whole else f"as large as is useful of the median scan ({by(task.shape)})"
        return f"{of}, {by(wanted)}, rounded up to what the network can halve{rest}{_objects(sized, evidence)}"
    return (
        f"smaller than the median scan ({by(task.shape)}): shortened along its longest side in mm until it fits the "
        f"memory and leaves {LEAST_STEPS} steps, as far as it can be{rest}{_objects(sized, evidence)}"
    )


def _objects(sized: Sized, evidence: Evidence) -> str:
    """How many of the objects a core holds."""
    extents = evidence.extents_mm()
    if not len(extents):
        return ""
    unit = np.median(evidence.spacings, axis=0)
    held = (extents <= np.array(sized.core) * unit).all(axis=1).mean()
    return f"; it holds {held:.0%} of the objects whole"


def inference(sized: Sized) -> Choice:
    """The way through a scan."""
    network = on_meta(sized.spec)
    if is_valid(network) and network.footprint.exact:
        why = "valid convolutions: tiles that overlap by the halo give what one pass over the whole scan would"
        return Choice("inference", {"mode": "tile-overlap"}, why)
    why = "windows slide by half and count less towards their edges, where padding is seen (nnU-Net's)"
    return Choice("inference", {"mode": "sliding-window", "overlap": 0.5, "blend": "gaussian"}, why)
