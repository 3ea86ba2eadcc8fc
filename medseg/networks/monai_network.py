"""What networks of MONAI's share: one door to MONAI, norms by name, and how its blocks move a field.

Legend: N batch, C input channels, K output channels, n voxels along one axis of the window.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from medseg.geometry import Field
from medseg.networks.network import Network, follow
from medseg.quiet import quiet_mlflow

Norm = Literal["instance", "batch"]
NORMS: dict[str, tuple[str, dict[str, Any]]] = {"instance": ("instance", {"affine": True}), "batch": ("batch", {})}
"""Name → what MONAI's layers call it."""


class MonaiNetwork(Network):
    """A network of MONAI's, as ``network``, behind the check of its window."""

    network: Any

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, \\*n) → (N, K, \\*n), logits.

        Raises:
            TileError: for a window that the network cannot take.
        """
        self.check_window(x.shape[2:])
        out: Tensor = self.network(x)
        return out


def monai_nets() -> Any:
    """MONAI's networks, imported when the first of them is built; MONAI imports MLflow where it finds it."""
    quiet_mlflow()
    import monai.networks.nets as nets

    return nets


class ScalarsOnCPU(TorchFunctionMode):
    """Keeps ``linspace`` on the CPU: MONAI's Swin reads its rates from it, which on the meta device has no values."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch.linspace:
            kwargs["device"] = "cpu"
        return function(*args, **kwargs)


def halved(layer: Any, field: Field, axis: int) -> Field:
    """A padded convolution that strides (or not), of even windows: they leave the last voxel of padding unused."""
    stride = layer.conv.stride[axis]
    sized = field.convolve(stride, stride)
    return _reaching(sized, follow(layer, replace(field, rounds=True), axis))


def doubled(layer: Any, field: Field, axis: int) -> Field:
    """A transposed convolution that is padded at the end to give twice the size."""
    stride = layer.conv.stride[axis]
    return _reaching(field.up_convolve(stride, stride), follow(layer, field, axis))


def _reaching(sized: Field, through: Field) -> Field:
    return replace(sized, first=through.first, last=through.last, padded=True, exact=through.exact)


def two_convolutions(block: Any, field: Field, axis: int) -> Field:
    """A block of two convolutions, each with its norm after it, the first of which may stride."""
    field = follow(block.norm1, halved(block.conv1, field, axis), axis)
    return follow(block.norm2, follow(block.conv2, field, axis), axis)
