"""The modified aligned Xception of DeepLab v3+ (Chen et al., ECCV 2018, figure 4) as a backbone: Xception-65.

    entry    3x3 w/2, stride 2 ── 3x3 w ── 2w, stride 2 ── 4w, stride 2 ── 728, stride 2
                                                 └ the decoder's feature, at stride 4
    middle   728, sixteen times
    exit     728, 1024, 1024, stride 2 ── 1536, 1536, 2048

Every number of channels behind the first two layers is a module of three separable convolutions with a shortcut (none
around the last); the third takes the stride. 65 layers count each separable convolution once. At output stride 16 and
8 the last strides are replaced by dilation.

Legend: N batch, C input channels, w width (64; 728 is 11.375 w), n voxels along one axis of the window.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from medseg.geometry import Field
from medseg.networks.blocks import ConvolutionNormReLU, SeparableConvolution, initialise_outgoing
from medseg.networks.network import BATCH_NORM, CONVOLUTION, follow
from medseg.networks.resnet import check_output_stride

MODULES = (
    ((128, 128, 128), 2),
    ((256, 256, 256), 2),
    ((728, 728, 728), 2),
    *[((728, 728, 728), 1)] * 16,
    ((728, 1024, 1024), 2),
)
"""Channels at full width and stride of the modules with a shortcut: entry, middle and exit flow."""
LAST = (1536, 1536, 2048)
"""Channels of the exit's last three, which have none."""


class Xception65(nn.Module):
    """Figure 4: max pooling replaced by strided separable convolutions, batch norm after each depthwise one.

    Where we differ, and why: section 3.2 puts ReLU after each depthwise convolution. The authors' released network has
    it before each separable convolution instead, and in the last module alone as the paper says; we follow the
    release. 2D or 3D.

    Args:
        dims: 2 or 3.
        in_channels: C.
        width: channels of the second convolution, 64; all scale with it.
        output_stride: 32, 16 or 8.
    """

    def __init__(self, dims: int, in_channels: int, width: int = 64, output_stride: int = 32) -> None:
        super().__init__()
        check_output_stride(output_stride)

        def scaled(full: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(max(channels * width // 64, 1) for channels in full)

        first, second = scaled((32, 64))
        self.stem = nn.Sequential(
            ConvolutionNormReLU(dims, in_channels, first, 3, stride=2), ConvolutionNormReLU(dims, first, second, 3)
        )
        modules: list[XceptionModule] = []
        inputs, reached, rate = second, 2, 1
        for full, step in MODULES:
            widths, stride, before = scaled(full), step, rate
            if reached * stride > output_stride:
                rate, stride = rate * stride, 1
            modules.append(XceptionModule(dims, (inputs, *widths), stride, before, changes=step > 1))
            inputs, reached = widths[-1], reached * stride
        self.first = modules[0]
        self.second = modules[1]
        self.rest = nn.Sequential(*modules[2:])
        self.last = nn.Sequential(
            *(SeparableConvolution(dims, a, b, rate) for a, b in pairwise((inputs, *scaled(LAST))))
        )
        self.channels = (scaled(MODULES[1][0])[1], scaled(LAST)[-1])
        self.apply(initialise_outgoing)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, \\*n) → the features at stride 4 and at the output stride."""
        x, low = self.second.with_low(self.first(self.stem(x)))
        return [low, self.last(self.rest(x))]

    def trace(self, field: Field, axis: int) -> list[Field]:
        """One axis through the same layers: two fields."""
        field = follow(self.first, follow(self.stem, field, axis), axis)
        low = follow(self.second.separable[1], follow(self.second.separable[0], field, axis), axis)
        field = follow(self.rest, follow(self.second, field, axis), axis)
        return [low, follow(self.last, field, axis)]


class XceptionModule(nn.Module):
    """ReLU and separable convolution, three times, plus a shortcut: (N, widths[0], \\*n) → (N, widths[3], \\*m).

    Args:
        dims: 2 or 3.
        widths: channels of the input and after each of the three.
        stride: of the third.
        rate: dilation of all three.
        changes: whether the shortcut is a 1x1 convolution; else it is the input itself.
    """

    def __init__(self, dims: int, widths: tuple[int, ...], stride: int, rate: int, changes: bool) -> None:
        super().__init__()
        strides = (1, 1, stride)
        self.separable = nn.ModuleList(_Separable(dims, widths[i], widths[i + 1], strides[i], rate) for i in range(3))
        self.shortcut = (
            nn.Sequential(
                CONVOLUTION[dims](widths[0], widths[-1], 1, stride=stride, bias=False), BATCH_NORM[dims](widths[-1])
            )
            if changes
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, widths[0], \\*n) → (N, widths[3], \\*⌈n / stride⌉)."""
        return self.with_low(x)[0]

    def with_low(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What :meth:`forward` gives, and the second separable convolution's output: before the stride."""
        first, second, third = self.separable
        low = second(first(x))
        out: Tensor = third(low)
        out += x if self.shortcut is None else self.shortcut(x)
        return out, low

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through the module; the shortcut never sees farther."""
        for separable in self.separable:
            field = follow(separable, field, axis)
        return field


class _Separable(nn.Sequential):
    """ReLU, a 3^dims convolution of each channel, batch norm, a 1x1 across them, batch norm."""

    def __init__(self, dims: int, inputs: int, outputs: int, stride: int, rate: int) -> None:
        super().__init__(
            nn.ReLU(),
            CONVOLUTION[dims](inputs, inputs, 3, stride=stride, padding=rate, dilation=rate, groups=inputs, bias=False),
            BATCH_NORM[dims](inputs),
            CONVOLUTION[dims](inputs, outputs, 1, bias=False),
            BATCH_NORM[dims](outputs),
        )
