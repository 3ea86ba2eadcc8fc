"""FCN on a ResNet as torchvision has it: stride 8 by dilation, no skips.

    window ── dilated ResNet ── stride 8 ── 3x3 ── score, K ── × 8 ── window

Legend: C input channels, K output channels.
"""

from __future__ import annotations

from typing import Literal

from medseg.networks.blocks import AuxiliaryHead, initialise_outgoing
from medseg.networks.headed import HeadedNetwork
from medseg.networks.network import check_choice, check_flags, check_sizes
from medseg.networks.resnet import ResNet, ResNetName


class FCNResNet(HeadedNetwork):
    """torchvision's ``fcn_resnet50`` and ``101``, with its names, so that its weights load.

    No paper: a ResNet at stride 8 by dilation, a 3^dims convolution to a fourth of its channels and a score. With
    ``auxiliary=True`` and 21 classes 35 322 218 and 54 314 346 parameters.

    Args:
        in_channels: C.
        out_channels: K.
        dims: 2 or 3.
        backbone: which ResNet.
        output_stride: 8, or 16.
        auxiliary: a second head on the third stage for :meth:`outputs` (its loss counts 0.5 in torchvision).
        align_corners: how logits are resized.
        width: channels of the backbone's first convolution, 64; everything scales with it.

    Raises:
        ConfigError: for a value that no network can be built from.
    """

    paper = "after Long et al. 2015, arXiv:1411.4038"

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 21,
        dims: int = 2,
        backbone: ResNetName = "resnet101",
        output_stride: Literal[8, 16] = 8,
        auxiliary: bool = False,
        align_corners: bool = False,
        width: int = 64,
    ) -> None:
        check_sizes(dims, in_channels=in_channels, out_channels=out_channels, width=width)
        check_choice(ResNetName, backbone=backbone)
        check_choice(Literal[8, 16], output_stride=output_stride)
        check_flags(auxiliary=auxiliary, align_corners=align_corners)
        resnet = ResNet(backbone, dims, in_channels, width, output_stride)
        *_, third, last = resnet.channels
        head = AuxiliaryHead(dims, last, out_channels)
        second = AuxiliaryHead(dims, third, out_channels) if auxiliary else None
        super().__init__(dims, in_channels, out_channels, resnet, head, second, align_corners, 0.5)
        self.apply(initialise_outgoing)
