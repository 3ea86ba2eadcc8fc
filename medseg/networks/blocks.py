"""What several papers share: convolution with batch norm, pooled context, resizing, how weights begin.

Legend: N batch, A and B channels, n voxels along one axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import prod, sqrt
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from medseg.geometry import Field
from medseg.networks.network import ADAPTIVE_AVERAGE_POOLING, BATCH_NORM, CONVOLUTION, follow

_LINEAR = {2: "bilinear", 3: "trilinear"}


class ConvolutionNormReLU(nn.Sequential):
    """A padded convolution without bias, batch norm, an activation: (N, A, \\*n) → (N, B, \\*⌈n / stride⌉)."""

    def __init__(
        self,
        dims: int,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        rate: int = 1,
        groups: int = 1,
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        padding = rate * (kernel // 2)
        super().__init__(
            CONVOLUTION[dims](
                inputs, outputs, kernel, stride=stride, padding=padding, dilation=rate, groups=groups, bias=False
            ),
            BATCH_NORM[dims](outputs),
            activation(inplace=True),
        )

    def trace(self, field: Field, axis: int) -> Field:
        """One axis: the convolution alone looks around."""
        return follow(self[0], field, axis)


class SeparableConvolution(nn.Sequential):
    """A 3^dims convolution of each channel by itself, then a 1x1 across them, each with batch norm and ReLU.

    Chen et al. 2018, figure 3; (N, A, \\*n) → (N, B, \\*n).
    """

    def __init__(self, dims: int, inputs: int, outputs: int, rate: int = 1) -> None:
        super().__init__(
            ConvolutionNormReLU(dims, inputs, inputs, 3, rate=rate, groups=inputs),
            ConvolutionNormReLU(dims, inputs, outputs, 1),
        )


class PooledContext(nn.Sequential):
    """What a window of ``bins`` parts holds on average, spread out over the window again.

    (N, A, \\*n) → (N, B, \\*n): pooling to ``bins`` voxels an axis, 1x1 convolution, batch norm, ReLU, linear
    interpolation.
    """

    def __init__(self, dims: int, inputs: int, outputs: int, bins: int, align_corners: bool) -> None:
        super().__init__(
            ADAPTIVE_AVERAGE_POOLING[dims](bins),
            CONVOLUTION[dims](inputs, outputs, 1, bias=False),
            BATCH_NORM[dims](outputs),
            nn.ReLU(inplace=True),
        )
        self.align_corners = align_corners

    def forward(self, x: Tensor) -> Tensor:
        """(N, A, \\*n) → (N, B, \\*n)."""
        pool, convolution, norm, relu = self
        pooled = relu(normalise(norm, convolution(pool(x))))
        return resize(pooled, x.shape[2:], self.align_corners)

    def trace(self, field: Field, axis: int) -> Field:
        """One axis: every voxel looks at the whole window."""
        return field.over_window()


def normalise(norm: Any, x: Tensor) -> Tensor:
    """Batch norm of few values: a single one a channel has no variance, and training keeps to running statistics."""
    if norm.training and x.numel() == x.shape[1]:
        return functional.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps
        )
    out: Tensor = norm(x)
    return out


class AuxiliaryHead(nn.Sequential):
    """A second score, on an earlier stage: (N, A, \\*n) → (N, K, \\*n).

    A 3^dims convolution to a fourth of the channels, batch norm, ReLU, dropout, 1x1 convolution.
    """

    def __init__(self, dims: int, inputs: int, outputs: int) -> None:
        inner = max(inputs // 4, 1)
        super().__init__(
            *ConvolutionNormReLU(dims, inputs, inner, 3), nn.Dropout(0.1), CONVOLUTION[dims](inner, outputs, 1)
        )


def resize(x: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """(N, A, \\*n) → (N, A, \\*size) by linear interpolation; itself where it has that size already."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return functional.interpolate(x, size=tuple(size), mode=_LINEAR[x.ndim - 2], align_corners=align_corners)


def join(fields: Sequence[Field]) -> Field:
    """The field of branches that are added or concatenated, all of one size."""
    return reduce(Field.crop_and_concatenate, fields)


def initialise(layer: nn.Module) -> None:
    """Gaussian weights of variance 2 / (values that an output voxel is summed from), biases zero (He et al. 2015)."""
    if isinstance(layer, nn.Conv2d | nn.Conv3d):
        _gaussian(layer, layer.weight[0].numel())
    elif isinstance(layer, nn.ConvTranspose2d | nn.ConvTranspose3d):
        # Its weights are (inputs, outputs, *kernel), and of the kernel an output voxel meets one value a stride.
        _gaussian(layer, layer.weight.numel() // layer.out_channels // prod(layer.stride))


def initialise_outgoing(layer: nn.Module) -> None:
    """Gaussian weights of variance 2 / (values that an input voxel is spread to), as ResNet's authors release them."""
    if isinstance(layer, nn.Conv2d | nn.Conv3d):
        _gaussian(layer, layer.out_channels * prod(layer.kernel_size))


def _gaussian(layer: Any, nodes: int) -> None:
    nn.init.normal_(layer.weight, std=sqrt(2 / nodes))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
