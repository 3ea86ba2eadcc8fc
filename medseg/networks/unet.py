"""U-Net (Ronneberger et al., MICCAI 2015) and its 3D successor (Çiçek et al., MICCAI 2016).

    572 → 570 → 568 ------------------ crop and concatenate ------------------→ 392 → 390 → 388 → 388
     1     w     w  ↓ 284 → 282 → 280 -------------------------→ 200 → 198 → 196 ↑ w     w     w     K
                           2w    2w  ↓ ...                ... ↑ 2w    2w
                                       28 at 16w, the bottom

Legend: N batch, C input channels, K output channels, w width; sizes along one axis of the paper's 572 window.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from medseg.geometry import Field
from medseg.networks.blocks import initialise
from medseg.networks.network import (
    BATCH_NORM,
    CONVOLUTION,
    INSTANCE_NORM,
    MAX_POOLING,
    MOST_LEVELS,
    UP_CONVOLUTION,
    Network,
    check_choice,
    check_counts,
    check_dropout,
    check_sizes,
    crop_and_concatenate,
    follow,
)

Padding = Literal["valid", "same"]
Norm = Literal["none", "batch", "instance", "group"]
Up = Literal["transposed", "interpolated"]


class UNet(Network):
    """The network of figure 1: with the defaults the paper's own, 23 convolutional layers, 31 030 658 parameters.

    Where we differ, and why: ``padding="same"`` is what most of today's U-Nets do, kept to compare with; norm layers
    came later (batch norm with Çiçek et al.). Section 3.1 puts dropout «at the end of the contracting path»; as in the
    authors' released network that is after its last level and after the bottom.

    Args:
        in_channels: C.
        out_channels: K.
        dims: 2 or 3.
        depth: poolings on the way down, 4 in the paper.
        width: channels of the first level, 64 in the paper; every level doubles them.
        padding: ``valid`` takes 3^dims convolutions as in the paper, ``same`` pads each with zeros.
        norm: between convolution and ReLU; instance and group norm look at the whole window, so their
            footprint is not exact.
        up: a transposed 2^dims convolution, or linear interpolation after a 1x1 convolution.
        dropout: probability at the end of the contracting path.

    Raises:
        ConfigError: for a value that no network can be built from.
    """

    paper = "Ronneberger et al. 2015, arXiv:1505.04597"

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        dims: int = 2,
        depth: int = 4,
        width: int = 64,
        padding: Padding = "valid",
        norm: Norm = "none",
        up: Up = "transposed",
        dropout: float = 0.5,
    ) -> None:
        super().__init__(dims, in_channels, out_channels)
        check_sizes(dims, in_channels=in_channels, out_channels=out_channels, width=width)
        check_counts(1, MOST_LEVELS, depth=depth)
        check_choice(Padding, padding=padding)
        check_choice(Norm, norm=norm)
        check_choice(Up, up=up)
        check_dropout(dropout=dropout)
        self.over_instances = norm == "instance"
        levels = [width * 2**level for level in range(depth + 1)]
        self.contracting = nn.ModuleList()
        self.expanding = nn.ModuleList()
        self.up = nn.ModuleList()
        channels = in_channels
        for level, out in enumerate(levels):
            drop = dropout if level >= depth - 1 else 0.0
            first = self.first_width(out)
            self.contracting.append(Convolutions(dims, (channels, first, out), padding, norm, drop))
            channels = out
        for out in reversed(levels[:-1]):
            raised = self.raised_width(channels)
            self.up.append(UpConvolution(dims, channels, raised, up, padding, self.up_bias))
            self.expanding.append(Convolutions(dims, (out + raised, out, out), padding, norm, 0.0))
            channels = out
        self.pool = MAX_POOLING[dims](2)
        self.score = CONVOLUTION[dims](channels, out_channels, 1)
        self.apply(initialise)

    up_bias = True

    def first_width(self, out: int) -> int:
        """Channels after the first of a contracting level's two convolutions that end with ``out``."""
        return out

    def raised_width(self, channels: int) -> int:
        """Channels after an up-convolution of ``channels``: the paper halves them."""
        return channels // 2

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, \\*window) → (N, K, \\*out), logits; valid: out = window − 2·halo, same: out = window.

        Raises:
            TileError: for a window that does not divide evenly on its way down.
        """
        self.check_window(x.shape[2:])
        skips = []
        for convolutions in self.contracting[:-1]:
            x = convolutions(x)
            skips.append(x)
            x = self.pool(x)
        x = self.contracting[-1](x)
        for up, convolutions in zip(self.up, self.expanding, strict=True):
            x = convolutions(crop_and_concatenate(skips.pop(), up(x)))
        out: Tensor = self.score(x)
        return out

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through the same layers as :meth:`forward`."""
        skips = []
        for convolutions in self.contracting[:-1]:
            field = follow(convolutions, field, axis)
            skips.append(field)
            field = follow(self.pool, field, axis)
        field = follow(self.contracting[-1], field, axis)
        for up, convolutions in zip(self.up, self.expanding, strict=True):
            field = follow(up, field, axis).crop_and_concatenate(skips.pop())
            field = follow(convolutions, field, axis)
        return follow(self.score, field, axis)


class UNet3D(UNet):
    """Çiçek et al.'s network (figure 2): 132x132x116 → 44x44x28, 19 069 955 parameters as the paper counts.

    It differs from U-Net in where channels double: in the first convolution of a level by a half step, so that no
    pooling is a bottleneck (section 2), and its up-convolutions keep their channels. The paper counts convolutions'
    weights and biases, up-convolutions without bias, and leaves batch norm out.
    """

    paper = "Çiçek et al. 2016, arXiv:1606.06650"
    up_bias = False

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        dims: int = 3,
        depth: int = 3,
        width: int = 64,
        padding: Padding = "valid",
        norm: Norm = "batch",
        up: Up = "transposed",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_channels, out_channels, dims, depth, width, padding, norm, up, dropout)

    def first_width(self, out: int) -> int:
        """Half of the level's channels."""
        return max(out // 2, 1)

    def raised_width(self, channels: int) -> int:
        """An up-convolution keeps its channels."""
        return channels


class Convolutions(nn.Sequential):
    """Two 3^dims convolutions, each with norm and ReLU, then dropout: one level of the U.

    (N, widths[0], \\*n) → (N, widths[2], \\*m), m = n − 4 where valid, n where padded.
    """

    def __init__(self, dims: int, widths: tuple[int, int, int], padding: Padding, norm: Norm, dropout: float) -> None:
        super().__init__()
        for inputs, outputs in pairwise(widths):
            pad = 1 if padding == "same" else 0
            self.append(CONVOLUTION[dims](inputs, outputs, 3, padding=pad))
            if norm != "none":
                self.append(_norm(norm, dims, outputs))
            self.append(nn.ReLU(inplace=True))
        if dropout:
            self.append(nn.Dropout(dropout))


class UpConvolution(nn.Module):
    """Twice the size: (N, A, \\*n) → (N, B, \\*2n), or \\*(2n − 2) where interpolated and valid.

    Interpolated means a 1x1 convolution and then linear interpolation (they commute; this order computes a quarter or
    an eighth). Interpolation clamps at the edges; a valid network crops the one voxel at each edge that leans on the
    clamp, so that tiles agree.
    """

    def __init__(self, dims: int, in_channels: int, out_channels: int, up: Up, padding: Padding, bias: bool) -> None:
        super().__init__()
        self.interpolated = up == "interpolated"
        self.crop = 1 if self.interpolated and padding == "valid" else 0
        self.mode = {2: "bilinear", 3: "trilinear"}[dims]
        self.convolution: nn.Module = (
            CONVOLUTION[dims](in_channels, out_channels, 1, bias=bias)
            if self.interpolated
            else UP_CONVOLUTION[dims](in_channels, out_channels, 2, stride=2, bias=bias)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, A, \\*n) → (N, B, \\*m)."""
        x = self.convolution(x)
        if not self.interpolated:
            return x
        x = functional.interpolate(x, scale_factor=2, mode=self.mode, align_corners=False)
        for axis in range(2, x.ndim):
            x = x.narrow(axis, self.crop, x.shape[axis] - 2 * self.crop)
        return x

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through the up-convolution."""
        field = follow(self.convolution, field, axis)
        return field.interpolate(2, self.crop) if self.interpolated else field


def _norm(norm: Norm, dims: int, channels: int) -> nn.Module:
    if norm == "batch":
        return BATCH_NORM[dims](channels)
    if norm == "instance":
        return INSTANCE_NORM[dims](channels, affine=True)
    return nn.GroupNorm(math.gcd(8, channels), channels)
