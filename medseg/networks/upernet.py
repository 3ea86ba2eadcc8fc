"""UPerNet (Xiao et al., ECCV 2018): a feature pyramid with pyramid pooling on top.

    window ── backbone ── C2 (stride 4)    C3 (8)        C4 (16)       C5 (32)
                            │ 1x1            │ 1x1         │ 1x1         │ pyramid pooling, 1, 2, 3, 6 bins
                            + ←── × 2 ────── + ←── × 2 ─── + ←── × 2 ─── P5     each 8w channels
                            │ 3x3            │ 3x3         │ 3x3         │
                            P2               P3            P4            │
                            └── all resized to stride 4, concatenated ───┘ ── 3x3, 8w ── score, K ── × 4 ── window

The bins are parts of the window, so that every voxel looks at all of it: the footprint is not exact.

Legend: N batch, C input channels, K output channels, w width (64), n voxels along one axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from medseg.geometry import Field
from medseg.networks.blocks import AuxiliaryHead, ConvolutionNormReLU, initialise_outgoing, join, resize
from medseg.networks.headed import HeadedNetwork
from medseg.networks.network import CONVOLUTION, check_choice, check_flags, check_lists, check_sizes, follow
from medseg.networks.pspnet import BINS, PyramidPooling
from medseg.networks.resnet import ResNet, ResNetName
from medseg.networks.swin import Swin, SwinName

Backbone = Literal[ResNetName, SwinName]


class UPerNet(HeadedNetwork):
    """The framework of figure 4, with one head: the segmentation of a feature map of all pyramid levels.

    Where we differ, and why: the paper's network has a head for each of five tasks (scene, object, part, material,
    texture) and fuses levels for objects alone; we segment, so that the object head is the network. The backbone's
    first convolution is 7^dims as in He et al. (the authors' release has three of 3x3).

    Args:
        in_channels: C.
        out_channels: K.
        dims: 2 or 3.
        backbone: which ResNet, or ``swin_tiny``, ``swin_small`` or ``swin_base`` (Liu et al. 2021), of MONAI's blocks.
        bins: parts of the window along each axis, one pooling each.
        auxiliary: a second head on the backbone's third stage for :meth:`outputs`, as Swin's authors and others train
            it with (its loss counts 0.4); the paper has none.
        align_corners: how features and logits are resized.
        width: channels of a ResNet's first convolution, 64; everything scales with it.

    Raises:
        ConfigError: for a value that no network can be built from.
    """

    paper = "Xiao et al. 2018, arXiv:1807.10221"

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 21,
        dims: int = 2,
        backbone: Backbone = "resnet101",
        bins: Sequence[int] = BINS,
        auxiliary: bool = False,
        align_corners: bool = False,
        width: int = 64,
    ) -> None:
        check_sizes(dims, in_channels=in_channels, out_channels=out_channels, width=width)
        check_choice(Backbone, backbone=backbone)
        check_lists(0, bins=bins)
        check_flags(auxiliary=auxiliary, align_corners=align_corners)
        encoder: ResNet | Swin = (
            Swin(backbone, dims, in_channels, width)
            if backbone in get_args(SwinName)
            else ResNet(backbone, dims, in_channels, width)
        )
        features = 8 * width
        *laterals, last = encoder.channels
        classifier = CONVOLUTION[dims](features, out_channels, 1)
        second = AuxiliaryHead(dims, laterals[-1], out_channels) if auxiliary else None
        super().__init__(dims, in_channels, out_channels, encoder, classifier, second, align_corners, 0.4)
        self.pyramid = PyramidPooling(dims, last, features, bins, align_corners, features)
        self.laterals = nn.ModuleList(ConvolutionNormReLU(dims, inputs, features, 1) for inputs in laterals)
        self.smooth = nn.ModuleList(ConvolutionNormReLU(dims, features, features, 3) for _ in laterals)
        self.fuse = ConvolutionNormReLU(dims, (len(laterals) + 1) * features, features, 3)
        for name, part in self.named_children():
            if name != "backbone":
                part.apply(initialise_outgoing)

    def decode(self, features: list[Tensor]) -> Tensor:
        """The backbone's four features → (N, K, \\*⌈n / 4⌉)."""
        *finer, last = features
        down = self.pyramid(last)
        levels = [down]
        for feature, lateral, smooth in zip(finer[::-1], self.laterals[::-1], self.smooth[::-1], strict=True):
            down = lateral(feature) + resize(down, feature.shape[2:], self.align_corners)
            levels.append(smooth(down))
        size = levels[-1].shape[2:]
        fused = self.fuse(torch.cat([resize(level, size, self.align_corners) for level in levels[::-1]], dim=1))
        out: Tensor = self.classifier(fused)
        return out

    def trace_decode(self, fields: list[Field], axis: int) -> Field:
        """One axis through the same layers as :meth:`decode`."""
        *finer, last = fields
        down = follow(self.pyramid, last, axis)
        levels = [down]
        for field, smooth in zip(finer[::-1], self.smooth[::-1], strict=True):
            down = join([field, down.resize(field, self.align_corners)])
            levels.append(follow(smooth, down, axis))
        finest = levels[-1]
        return follow(
            self.fuse, join([finest, *(level.resize(finest, self.align_corners) for level in levels[:-1])]), axis
        )
