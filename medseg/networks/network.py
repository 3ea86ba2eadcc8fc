"""What every network offers, and how its footprint follows from its layers.

Legend: N batch, C input channels, K output channels, window the spatial shape that goes in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from medseg.errors import TileError
from medseg.geometry import Field, Footprint
from medseg.geometry.footprint import least_congruent

CONVOLUTION: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
UP_CONVOLUTION: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
MAX_POOLING: dict[int, type[nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
BATCH_NORM: dict[int, type[nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORM: dict[int, type[nn.Module]] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


class Network(nn.Module):
    """A segmentation network that knows its footprint.

    A network is built from plain arguments, follows one axis through its own layers in :meth:`trace` (the twin of its
    ``forward``), and leaves everything about tiles to the footprint that comes out.

    Attributes:
        paper: where the network was published.
        dims: spatial axes, 2 or 3.
        in_channels: channels of the window (C).
        out_channels: channels of the logits (K).
    """

    paper: ClassVar[str]

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
        return tuple(self.trace(Field(), axis) for axis in range(self.dims))

    @cached_property
    def footprint(self) -> Footprint:
        """What the network must see around its core."""
        return Footprint.of(self.fields)

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
        """Refuses a window whose sizes would not divide evenly on the way down.

        Raises:
            TileError: with the nearest two sizes that would do.
        """
        if len(window) != self.dims:
            raise TileError(f"a window of {len(window)} axes for a network of {self.dims}: {tuple(window)}")
        for n, field in zip(window, self.fields, strict=True):
            if n % field.step != field.offset or n <= field.trim:
                above = least_congruent(max(n, field.trim + 1), field.step, field.offset)
                below = above - field.step
                sizes = (below, above) if below > max(field.trim, 0) else (above, above + field.step)
                raise TileError(
                    f"tile {n} is not admissible: n ≡ {field.offset} (mod {field.step}); try {sizes[0]} or {sizes[1]}"
                )


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
    ((nn.ReLU, nn.Identity, nn.Dropout, nn.BatchNorm2d, nn.BatchNorm3d), _pointwise),
]
"""How each layer moves a field. Batch norm is pointwise at inference, where its statistics are fixed."""
