"""Network, window and batch: the largest that the objects ask for and memory and time allow.

    padded   DynUNet, nnU-Net's network: its window is learned from as a whole, and inference slides it
    valid    U-Net of valid convolutions: only the core of its window is learned from, and inference is seam-exact

What a training step costs is counted on the meta device (:mod:`medseg.training.step_cost`). How long it takes follows
from its operations at a nominal rate, so that a plan does not depend on what else the machine is doing.

Legend: d axes; w width.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from medseg.errors import ConfigError, nearest
from medseg.geometry.footprint import least_congruent
from medseg.inference.budget import format_size
from medseg.networks import NETWORKS, arguments_of, build_network
from medseg.networks.monai_transformers import UNETR
from medseg.networks.network import Network
from medseg.planning.levels import levels_of
from medseg.planning.machine import Means
from medseg.training.step_cost import StepCount, count_step

WIDTHS = (32, 16, 8)
"""Channels of the first level, the first that can be trained in time is taken; 32 is nnU-Net's."""
ENOUGH_STEPS, LEAST_STEPS = 2000, 600
"""A wider network is not worth fewer steps than the first, nor a larger window fewer than the second."""
GROWING_STEPS = 5000
"""A larger batch is not worth fewer steps than this."""
BATCH, MOST_BATCH = 2, 32
"""nnU-Net's least batch, and enough for any."""
LARGEST_CORE = {2: 1024, 3: 256}
"""Along each axis; of a larger scan, samples are taken."""
VALID_CORE = {2: 388, 3: 88}
"""Of networks that lose a border: the paper's in 2D; in 3D what leaves a third of the window at depth 2."""
LEAST_CORE = 32
SHRINK = 0.85
"""A window that is too large is tried again at so much of its longest side."""
VALID_DEPTH = {2: 4, 3: 2}
"""Of the U-Net of valid convolutions: the paper's in 2D, in 3D what a window has room for."""
HALO_ROOM = 4
"""A scan is large against a halo where it is so many times as long."""


@dataclass(frozen=True)
class Task:
    """What a network is sized for.

    Attributes:
        shape: voxels along each axis of the median scan, on the model's grid.
        spacing_mm: of that grid; ones where no unit is known.
        in_channels: of the scans.
        out_channels: that the loss wants.
        thickness: of the objects at their thickest, 90th percentile, in voxels of the finest axis.
    """

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    in_channels: int
    out_channels: int
    thickness: float

    @property
    def dims(self) -> int:
        """d."""
        return len(self.shape)


@dataclass(frozen=True)
class Sized:
    """A network with what it is trained on.

    Attributes:
        spec: as a config names it.
        window: what the network sees of a sample.
        core: what is learned from it.
        batch: samples a step.
        cost: of a step.
        means: what it was sized for.
        weights: bytes of the weights and their moving average.
    """

    spec: Mapping[str, Any]
    window: tuple[int, ...]
    core: tuple[int, ...]
    batch: int
    cost: StepCount
    means: Means
    weights: int

    @property
    def steps(self) -> float:
        """How many steps the time is about enough for."""
        return self.means.seconds / self.step_seconds

    @property
    def step_seconds(self) -> float:
        """What a step takes, at the nominal rate."""
        return self.cost.flops / self.means.flops_a_second

    @property
    def held(self) -> int:
        """Bytes of a step, the weights and their moving average."""
        return self.cost.bytes + self.weights

    @property
    def fits(self) -> bool:
        """Whether memory is enough."""
        return self.held <= self.means.step_bytes

    def good(self, steps: int) -> bool:
        """Whether memory is enough, and time for so many steps."""
        return self.fits and self.steps >= steps


def on_meta(spec: Mapping[str, Any]) -> Network:
    """A network without memory for its weights.

    Raises:
        ConfigError: for a name or an argument that there is not.
    """
    with torch.device("meta"):
        return build_network(spec)


def weight_bytes(network: Network) -> int:
    """Bytes of the weights."""
    return sum(p.numel() * torch.float32.itemsize for p in network.parameters())


def is_valid(network: Network) -> bool:
    """Whether its windows lose a border."""
    return any(field.trim > 0 for field in network.fields)


def prefers_valid(task: Task) -> bool:
    """Whether scans are large against the halo of a valid U-Net, and objects no thicker than it sees."""
    halo = 6 * 2 ** VALID_DEPTH[task.dims] - 4
    return min(task.shape) >= HALO_ROOM * halo and task.thickness <= 2 * halo


def size_network(task: Task, means: Means, name: str | None = None) -> Sized:
    """Network, window and batch for a task.

    Args:
        task: what is to be learned.
        means: memory and time.
        name: the network; by default the one that :func:`prefers_valid` says.

    Raises:
        ConfigError: for an unknown network, one that cannot take such scans, or where no batch of 1 fits the memory.
    """
    name = name or ("unet" if prefers_valid(task) else "dynunet")
    check_name(name)
    widths: Sequence[int | None] = WIDTHS if "width" in arguments_of(name) else (None,)
    wanted = wanted_core(task, name)
    for width in widths[:-1] or widths:
        largest = _sized(task, means, name, width, wanted)
        if largest.good(ENOUGH_STEPS):
            return _grown(largest)
    return _grown(_compromise(task, means, name, widths))


def check_name(name: str) -> None:
    """Refuses a network that there is not.

    Raises:
        ConfigError: with the nearest name.
    """
    if name not in NETWORKS:
        raise ConfigError(f"--network {name!r} is no network{nearest(name, NETWORKS)}; medseg networks lists them")


def wanted_core(task: Task, name: str) -> tuple[int, ...]:
    """The median scan, up to :data:`LARGEST_CORE`, or :data:`VALID_CORE` where the network loses a border."""
    largest = _up_to(LARGEST_CORE, task)
    valid = is_valid(on_meta(_spec(task, name, None, largest)))
    return _up_to(VALID_CORE, task) if valid else largest


def _up_to(most: Mapping[int, int], task: Task) -> tuple[int, ...]:
    return tuple(min(n, most[task.dims]) for n in task.shape)


def _compromise(task: Task, means: Means, name: str, widths: Sequence[int | None]) -> Sized:
    """Where not all can be had: the window shrinks before the network does."""
    cores = _cores(task, wanted_core(task, name))
    for width in widths[1:] or widths:
        smallest = _sized(task, means, name, width, cores[-1])
        if smallest.good(LEAST_STEPS):
            # Cores become smaller and their windows cheaper, so that the first that will do is found by halving.
            first = bisect_left(cores, True, key=lambda core: _sized(task, means, name, width, core).good(LEAST_STEPS))
            return _sized(task, means, name, width, cores[min(first, len(cores) - 1)])
    return smallest if smallest.fits else _alone(smallest)


def _alone(least: Sized) -> Sized:
    """The least window with a batch of 1.

    Raises:
        ConfigError: where not even that fits, with what would do.
    """
    alone = _counted(least.spec, on_meta(least.spec), least.window, 1, least.means)
    if not alone.fits:
        window = " x ".join(map(str, alone.window))
        raise ConfigError(
            f"{format_size(least.means.memory)} of memory are too few: {alone.spec['name']} on the least window, "
            f"{window}, with a batch of 1, needs {format_size(alone.held + least.means.beside)}, "
            f"{format_size(least.means.beside)} of them for libraries and scans: give --memory so much, or --network a "
            "smaller one"
        )
    return alone


def _cores(task: Task, wanted: tuple[int, ...]) -> list[tuple[int, ...]]:
    """From the wanted core downwards."""
    cores = [wanted]
    while (smaller := _shrunk(cores[-1], task.spacing_mm)) != cores[-1]:
        cores.append(smaller)
    return cores


def _sized(task: Task, means: Means, name: str, width: int | None, core: Sequence[int]) -> Sized:
    """With :data:`BATCH` samples of so large a core."""
    spec = _spec(task, name, width, core)
    network = on_meta(spec)
    return _counted(spec, network, window_of(network, core), BATCH, means)


def _counted(spec: Mapping[str, Any], network: Network, window: tuple[int, ...], batch: int, means: Means) -> Sized:
    cost = count_step(network, window, batch, half=means.half)
    core = tuple(n - field.trim for n, field in zip(window, network.fields, strict=True))
    return Sized(spec, window, core, batch, cost, means, 2 * weight_bytes(network))


def _shrunk(core: tuple[int, ...], spacing_mm: Sequence[float]) -> tuple[int, ...]:
    """Less along the axis that is longest in millimetres, so that what is seen tends to a cube."""
    able = [axis for axis, n in enumerate(core) if n > LEAST_CORE]
    if not able:
        return core
    longest = max(able, key=lambda axis: core[axis] * spacing_mm[axis])
    return tuple(max(int(n * SHRINK), LEAST_CORE) if axis == longest else n for axis, n in enumerate(core))


def window_of(network: Network, core: Sequence[int]) -> tuple[int, ...]:
    """The least window that the network can be trained on whose core is no less."""
    trims = [max(field.trim, 0) for field in network.fields]
    steps = [(field.step, field.offset) for field in network.fields]
    admissible = tuple(
        least_congruent(max(n + trim, network.least), step, offset)
        for n, trim, (step, offset) in zip(core, trims, steps, strict=True)
    )
    return network.trainable(admissible)


def _spec(task: Task, name: str, width: int | None, core: Sequence[int]) -> dict[str, Any]:
    """As a config names it, with the channels."""
    spec: dict[str, Any] = {"name": name, "dims": task.dims}
    if width is not None:
        spec["width"] = width
    if "image_size" in arguments_of(name):
        spec["image_size"] = max(least_congruent(n, UNETR.PATCH, 0) for n in core)
    if name == "dynunet":
        spec |= _dynunet(task, core)
    elif name == "unet":
        spec |= {"depth": VALID_DEPTH[task.dims], "padding": "valid", "norm": "batch", "dropout": 0.0}
    return {**spec, "in_channels": task.in_channels, "out_channels": task.out_channels}


def _dynunet(task: Task, core: Sequence[int]) -> dict[str, Any]:
    """Instance norm, since batches are small; kernels and strides where they are not the usual ones."""
    strides, kernels = levels_of(core, task.spacing_mm)
    spec: dict[str, Any] = {"depth": len(strides), "norm": "instance"}
    uniform = all(value == 3 for kernel in kernels for value in kernel)
    if not uniform or any(value == 1 for stride in strides for value in stride):
        spec |= {"kernels": kernels, "strides": strides}
    return spec


def _grown(sized: Sized) -> Sized:
    """With the largest batch, a power of two times the first, that fits and leaves :data:`GROWING_STEPS`."""
    while 2 * sized.batch <= MOST_BATCH:
        larger = _counted(sized.spec, on_meta(sized.spec), sized.window, 2 * sized.batch, sized.means)
        if not larger.fits or larger.steps < GROWING_STEPS:
            return sized
        sized = larger
    return sized
