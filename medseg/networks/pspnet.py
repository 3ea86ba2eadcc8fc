"""PSPNet (Zhao et al., CVPR 2017): a scene's context, pooled at four scales.

    window ── dilated ResNet ── stride 8 ──┬──────────────────────────────────┐
                                           ├ 1 bin  ── 1x1 ── 8w ── resized ──┤
                                           ├ 2 bins ── 1x1 ── 8w ── resized ──┤
                                           ├ 3 bins ── 1x1 ── 8w ── resized ──┼── 3x3, 8w ── score, K ── × 8 ── window
                                           └ 6 bins ── 1x1 ── 8w ── resized ──┘

The bins are parts of the window, so that every voxel looks at all of it: the footprint is not exact.

Legend: N batch, C input channels, K output channels, w width (64), A and B channels, n voxels along one axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from medseg.geometry import Field
from medseg.networks.blocks import AuxiliaryHead, ConvolutionNormReLU, PooledContext, initialise_outgoing, join
from medseg.networks.headed import HeadedNetwork
from medseg.networks.network import (
    CONVOLUTION,
    check_choice,
    check_dropout,
    check_flags,
    check_lists,
    check_sizes,
    follow,
)
from medseg.networks.resnet import ResNet, ResNetName

BINS = (1, 2, 3, 6)
"""Parts of the window, an axis (section 3.2)."""


class PSPNet(HeadedNetwork):
    """Sections 3.2, 3.3 and figure 3, with the auxiliary head of section 4.

    Where we differ, and why: the first convolution is 7^dims as in He et al.; the authors' release has three of 3x3
    there, which the paper does not mention and torchvision's weights do not have. A window's last features need not
    divide into six: bins then overlap by a voxel.

    Args:
        in_channels: C.
        out_channels: K.
        dims: 2 or 3.
        backbone: which ResNet, dilated (section 3.3).
        output_stride: 8 as in the paper, or 16.
        bins: parts of the window along each axis, one pooling each.
        dropout: before the score, 0.1 in the authors' release.
        auxiliary: a second head on the fourth stage for :meth:`outputs` (figure 4; its loss counts 0.4).
        align_corners: how features and logits are resized.
        width: channels of the backbone's first convolution, 64; everything scales with it.

    Raises:
        ConfigError: for a value that no network can be built from.
    """

    paper = "Zhao et al. 2017, arXiv:1612.01105"

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 21,
        dims: int = 2,
        backbone: ResNetName = "resnet101",
        output_stride: Literal[8, 16] = 8,
        bins: Sequence[int] = BINS,
        dropout: float = 0.1,
        auxiliary: bool = True,
        align_corners: bool = False,
        width: int = 64,
    ) -> None:
        check_sizes(dims, in_channels=in_channels, out_channels=out_channels, width=width)
        check_choice(ResNetName, backbone=backbone)
        check_choice(Literal[8, 16], output_stride=output_stride)
        check_lists(0, bins=bins)
        check_dropout(dropout=dropout)
        check_flags(auxiliary=auxiliary, align_corners=align_corners)
        resnet = ResNet(backbone, dims, in_channels, width, output_stride)
        *_, third, last = resnet.channels
        features = 8 * width
        pyramid = PyramidPooling(dims, last, features, bins, align_corners, last // max(len(bins), 1))
        classifier = nn.Sequential(pyramid, nn.Dropout(dropout), CONVOLUTION[dims](features, out_channels, 1))
        second = AuxiliaryHead(dims, third, out_channels) if auxiliary else None
        super().__init__(dims, in_channels, out_channels, resnet, classifier, second, align_corners, 0.4)
        self.apply(initialise_outgoing)


class PyramidPooling(nn.Module):
    """The pyramid pooling module and the convolution that joins it (figure 3c): (N, A, \\*n) → (N, B, \\*n)."""

    def __init__(
        self, dims: int, inputs: int, outputs: int, bins: Sequence[int], align_corners: bool, reduced: int
    ) -> None:
        super().__init__()
        self.contexts = nn.ModuleList(PooledContext(dims, inputs, reduced, bin, align_corners) for bin in bins)
        self.join = ConvolutionNormReLU(dims, inputs + len(bins) * reduced, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, A, \\*n) → (N, B, \\*n)."""
        out: Tensor = self.join(torch.cat([x, *(context(x) for context in self.contexts)], dim=1))
        return out

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through the poolings and the convolution."""
        pooled = join([field, *(follow(context, field, axis) for context in self.contexts)])
        return follow(self.join, pooled, axis)
