"""What every network offers, and how its footprint follows from its layers.

Legend: N batch, C input channels, K output channels, window the spatial shape that goes in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor, nn

from medseg.errors import ConfigError, TileError
from medseg.geometry import Field, Footprint
from medseg.geometry.footprint import inadmissible, least_congruent

CONVOLUTION: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
UP_CONVOLUTION: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
MAX_POOLING: dict[int, type[nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVERAGE_POOLING: dict[int, type[nn.Module]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
MAX_UNPOOLING: dict[int, type[nn.Module]] = {2: nn.MaxUnpool2d, 3: nn.MaxUnpool3d}
ADAPTIVE_AVERAGE_POOLING: dict[int, type[nn.Module]] = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
BATCH_NORM: dict[int, type[nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORM: dict[int, type[nn.Module]] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
CHANNEL_DROPOUT: dict[int, type[nn.Module]] = {2: nn.Dropout2d, 3: nn.Dropout3d}
MOST_LEVELS = 10
"""More halvings than any window has; a spec that asks for more is a mistake."""


class Network(nn.Module):
    """A segmentation network that knows its footprint.

    A network is built from plain arguments, follows one axis through its own layers in :meth:`trace` (the twin of its
    ``forward``), and leaves everything about tiles to the footprint that comes out.

    Attributes:
        paper: where the network was published.
        dims: spatial axes, 2 or 3.
        in_channels: channels of the window (C).
        out_channels: channels of the logits (K).
        any_size: whether windows that are not admissible go in too: poolings round, and the network ends with the
            window's own size. Only tiling wants windows at which it is exact.
        least: voxels along each axis of the least window, where any size goes in.
        over_instances: whether the coarsest maps are normalised each by itself, which one voxel cannot be.
        auxiliary_weights: what the loss of each auxiliary output counts beside that of the logits, which counts 1, in
            the order of :meth:`outputs`.
    """

    paper: ClassVar[str]
    any_size: ClassVar[bool] = False
    least: int = 1
    over_instances: bool = False
    auxiliary_weights: tuple[float, ...] = ()

    def __init__(self, dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.dims = dims
        self.in_channels = in_channels
        self.out_channels = out_channels

    def trace(self, field: Field, axis: int) -> Field:
        """The field of one axis after the network, given the field before it."""
        raise NotImplementedError

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The output's field, axis by axis."""
        return tuple(self.trace(Field(rounds=self.any_size), axis) for axis in range(self.dims))

    @cached_property
    def footprint(self) -> Footprint:
        """What the network must see around its core."""
        return Footprint.of(self.fields)

    def outputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, C, \\*window) → the logits, then those of auxiliary heads, maybe coarser, which only a loss looks at."""
        return (self(x),)

    def core(self, x: Tensor) -> Tensor:
        """(N, C, \\*window) → (N, K, \\*core): the logits that no border has touched.

        A valid network's output is its core already; of a padded one's the halo is trimmed off.

        Raises:
            TileError: where the window is not admissible.
        """
        core = self.footprint.core_shape(x.shape[2:])
        out: Tensor = self(x)
        for axis, (n, halo, field) in enumerate(zip(core, self.footprint.halo, self.fields, strict=True), 2):
            out = out.narrow(axis, halo - field.before, n)
        return out

    def check_window(self, window: Sequence[int]) -> None:
        """Refuses a window of other axes, that is too small, or whose sizes would not divide evenly on the way down.

        Raises:
            TileError: with the least size, or the nearest two, that would do.
        """
        if len(window) != self.dims:
            raise TileError(f"a window of {len(window)} axes for a network of {self.dims}: {tuple(window)}")
        if self.any_size:
            if min(window) < self.least:
                raise TileError(f"a window of {tuple(window)} voxels is too small: {self.least} an axis are the least")
            return
        for n, field in zip(window, self.fields, strict=True):
            least = least_congruent(max(field.trim, 0) + 1, field.step, field.offset)
            if n < least or n % field.step != field.offset:
                raise TileError(inadmissible(n, least, field.step, field.offset))
        if self._leaves_one_voxel(window):
            larger = self.trainable(window)
            raise TileError(f"a window of {tuple(window)} leaves instance norm one voxel: {larger} will do")

    def trainable(self, window: Sequence[int]) -> tuple[int, ...]:
        """An admissible window, with its longest axis doubled where instance norm would be left one voxel."""
        longest = max(range(self.dims), key=lambda axis: window[axis])
        twice = self._leaves_one_voxel(window)
        return tuple(2 * n if twice and axis == longest else n for axis, n in enumerate(window))

    def _leaves_one_voxel(self, window: Sequence[int]) -> bool:
        return self.over_instances and tuple(window) == self.footprint.step


def follow(layers: nn.Module, field: Field, axis: int) -> Field:
    """The field of one axis after a layer, or after layers in sequence.

    Raises:
        TypeError: for a layer that the table does not know; it must have a ``trace`` of its own.
    """
    trace: Callable[[Field, int], Field] | None = getattr(layers, "trace", None)
    if trace is not None:
        return trace(field, axis)
    if isinstance(layers, nn.Sequential):
        for layer in layers:
            field = follow(layer, field, axis)
        return field
    for types, rule in _RULES:
        if isinstance(layers, types):
            return rule(layers, field, axis)
    raise TypeError(f"{type(layers).__name__} has no rule for its footprint and no trace of its own")


def crop_and_concatenate(skip: Tensor, x: Tensor) -> Tensor:
    """(N, A, \\*large), (N, B, \\*small) → (N, A + B, \\*small): the skip's centre beside x.

    The tensor's side of :meth:`Field.crop_and_concatenate`.
    """
    for axis in range(2, x.ndim):
        n = x.shape[axis]
        skip = skip.narrow(axis, (skip.shape[axis] - n) // 2, n)
    return torch.cat([skip, x], dim=1)


def check_counts(least: int = 1, most: int | None = None, /, **counts: Any) -> None:
    """Refuses a network's argument that is not a whole number of ``least`` or more, and of ``most`` or less.

    Raises:
        ConfigError: with its name.
    """
    allowed = f"of {least} or more" if most is None else f"from {least} to {most}"
    for name, count in counts.items():
        if type(count) is not int or count < least or (most is not None and count > most):
            raise ConfigError(f"network.{name} is {count!r}: it must be a whole number {allowed}")


def check_sizes(dims: Any, **counts: Any) -> None:
    """Refuses a network of axes other than 2 or 3, or of channels that are not whole numbers of 1 or more.

    Raises:
        ConfigError: with the argument's name.
    """
    if type(dims) is not int or dims not in (2, 3):
        raise ConfigError(f"network.dims is {dims!r}: it must be 2 or 3")
    check_counts(**counts)


def check_odd(**sizes: Any) -> None:
    """Refuses a kernel that has no middle.

    Raises:
        ConfigError: with its name.
    """
    check_counts(**sizes)
    for name, size in sizes.items():
        if size % 2 == 0:
            raise ConfigError(f"network.{name} is {size}: it must be odd, so that it has a middle")


def check_lists(least: int = 1, /, **lists: Any) -> None:
    """Refuses a network's argument that is not a list of ``least`` or more whole numbers, each of 1 or more.

    Raises:
        ConfigError: with its name.
    """
    for name, numbers in lists.items():
        listed = isinstance(numbers, list | tuple) and len(numbers) >= least
        if not listed or not all(type(count) is int and count >= 1 for count in numbers):
            raise ConfigError(f"network.{name} is {numbers!r}: it must be a list of whole numbers of 1 or more")


def check_choice(allowed: Any, **values: Any) -> None:
    """Refuses a network's argument that is none of a ``Literal``.

    Raises:
        ConfigError: with its name, and what it may be.
    """
    for name, value in values.items():
        if not any(type(value) is type(choice) and value == choice for choice in get_args(allowed)):
            choices = ", ".join(map(str, get_args(allowed)))
            raise ConfigError(f"network.{name} is {value!r}: it must be one of {choices}")


def check_flags(**flags: Any) -> None:
    """Refuses what is neither true nor false.

    Raises:
        ConfigError: with the argument's name.
    """
    for name, flag in flags.items():
        if type(flag) is not bool:
            raise ConfigError(f"network.{name} is {flag!r}: it must be true or false")


def check_dropout(**probabilities: Any) -> None:
    """Refuses what is no probability under 1.

    Raises:
        ConfigError: with the argument's name.
    """
    for name, value in probabilities.items():
        if type(value) not in (int, float) or not 0 <= value < 1:
            raise ConfigError(f"network.{name} is {value!r}: it must be at least 0 and less than 1")


def _at(value: int | Sequence[int], axis: int) -> int:
    return value if isinstance(value, int) else value[axis]


def _kernel(layer: Any, field: Field, axis: int) -> Field:
    kernel, dilation = _at(layer.kernel_size, axis), _at(getattr(layer, "dilation", 1), axis)
    if layer.padding == "same":
        padding = dilation * (kernel - 1) // 2
    else:
        padding = 0 if layer.padding == "valid" else _at(layer.padding, axis)
    return field.convolve(kernel, _at(layer.stride, axis), padding, dilation)


def _transposed(layer: Any, field: Field, axis: int) -> Field:
    return field.up_convolve(_at(layer.kernel_size, axis), _at(layer.stride, axis), _at(layer.padding, axis))


def _pointwise(layer: Any, field: Field, axis: int) -> Field:
    return field


def _over_window(layer: Any, field: Field, axis: int) -> Field:
    return field.over_window()


_RULES: list[tuple[tuple[type[nn.Module], ...], Callable[[Any, Field, int], Field]]] = [
    ((nn.Conv2d, nn.Conv3d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool2d, nn.AvgPool3d), _kernel),
    ((nn.ConvTranspose2d, nn.ConvTranspose3d), _transposed),
    ((nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm), _over_window),
    ((nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ELU), _pointwise),
    ((nn.Identity, nn.Dropout, nn.Dropout2d, nn.Dropout3d, nn.BatchNorm2d, nn.BatchNorm3d), _pointwise),
]
"""How each layer moves a field. Batch norm is pointwise at inference, where its statistics are fixed."""
