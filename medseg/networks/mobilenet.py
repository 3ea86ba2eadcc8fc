"""MobileNetV2 (Sandler et al., CVPR 2018) as a backbone: depthwise separable, for small machines.

    1x1 to t·A, ReLU6 ── 3^dims of each channel, ReLU6 ── 1x1 to B (linear) ── + where the input has that shape

Modules carry torchvision's names: ``features.0`` … ``features.17`` of its ``mobilenet_v2`` load as they are.

Legend: N batch, C input channels, A and B channels, t expansion, n voxels along one axis of the window.
"""

from __future__ import annotations

from torch import Tensor, nn

from medseg.geometry import Field
from medseg.networks.blocks import ConvolutionNormReLU, initialise_outgoing
from medseg.networks.network import BATCH_NORM, CONVOLUTION, follow
from medseg.networks.resnet import check_output_stride

BOTTLENECKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels at full width, repetitions, stride of the first (table 2)."""


class MobileNetV2(nn.Module):
    """The bottlenecks of Sandler et al.'s table 2, without the last 1x1 convolution and the classifier.

    Where we differ: 2D or 3D; a stride may be replaced by dilation (as in their section 6.3).

    Args:
        dims: 2 or 3.
        in_channels: C.
        width: 64 for the paper's channels (32 in the first convolution); all scale with it.
        output_stride: 32 as in the paper, or 16 or 8.
    """

    def __init__(self, dims: int, in_channels: int, width: int = 64, output_stride: int = 32) -> None:
        super().__init__()
        check_output_stride(output_stride)
        inputs = max(32 * width // 64, 1)
        layers: list[nn.Module] = [ConvolutionNormReLU(dims, in_channels, inputs, 3, 2, activation=nn.ReLU6)]
        reached, rate = 2, 1
        for expansion, full, count, stride in BOTTLENECKS:
            outputs, before = max(full * width // 64, 1), rate
            if reached * stride > output_stride:
                rate, stride = rate * stride, 1
            for repetition in range(count):
                first = repetition == 0
                layers.append(
                    InvertedResidual(
                        dims, inputs, outputs, expansion, stride if first else 1, before if first else rate
                    )
                )
                inputs = outputs
            if full == 24:
                self.low = len(layers)
                low = outputs
            reached *= stride
        self.features = nn.Sequential(*layers)
        self.channels = (low, inputs)
        self.apply(initialise_outgoing)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, \\*n) → the features at stride 4 and at the output stride."""
        low = self.features[: self.low](x)
        return [low, self.features[self.low :](low)]

    def trace(self, field: Field, axis: int) -> list[Field]:
        """One axis through the same layers: two fields."""
        low = follow(self.features[: self.low], field, axis)
        return [low, follow(self.features[self.low :], low, axis)]


class InvertedResidual(nn.Module):
    """A bottleneck (figure 3b): (N, inputs, \\*n) → (N, outputs, \\*⌈n / stride⌉)."""

    def __init__(self, dims: int, inputs: int, outputs: int, expansion: int, stride: int, rate: int) -> None:
        super().__init__()
        inner = inputs * expansion
        wider = [ConvolutionNormReLU(dims, inputs, inner, 1, activation=nn.ReLU6)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *wider,
            ConvolutionNormReLU(dims, inner, inner, 3, stride, rate, groups=inner, activation=nn.ReLU6),
            CONVOLUTION[dims](inner, outputs, 1, bias=False),
            BATCH_NORM[dims](outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, \\*n) → (N, outputs, \\*⌈n / stride⌉)."""
        out: Tensor = self.conv(x)
        return out + x if self.residual else out

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through the bottleneck; the shortcut never sees farther."""
        return follow(self.conv, field, axis)
