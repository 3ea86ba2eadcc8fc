"""VGG16 (Simonyan and Zisserman, ICLR 2015) as a backbone: its 13 convolutions in five stages, without the classifier.

The paper drew weights with a deviation of 0.01, and could train its deeper configurations only from a shallower one's
(section 3.1); ours begin as He et al.'s (:func:`medseg.networks.blocks.initialise`).

stage        1      2        3         4         5
channels    w w   2w 2w   4w 4w 4w  8w 8w 8w  8w 8w 8w        between two stages the network that uses them pools
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from medseg.networks.network import BATCH_NORM, CONVOLUTION

Norm = Literal["none", "batch"]
STAGES = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
"""Channels, in widths, and convolutions of each stage: configuration D of table 1."""


def VGG16Stages(
    dims: int, in_channels: int, width: int = 64, norm: Norm = "none", rates: Sequence[int] = (1, 1, 1, 1, 1)
) -> list[nn.Sequential]:
    """The stages: padded 3^dims convolutions, each with ReLU, or with batch norm and ReLU. No poolings.

    Args:
        dims: 2 or 3.
        in_channels: of the first stage.
        width: channels of the first stage's convolutions.
        norm: ``batch`` for batch norm after each convolution.
        rates: dilation of each stage.
    """
    stages = []
    for (factor, count), rate in zip(STAGES, rates, strict=True):
        stage = nn.Sequential()
        for _ in range(count):
            stage.append(CONVOLUTION[dims](in_channels, factor * width, 3, padding=rate, dilation=rate))
            if norm == "batch":
                stage.append(BATCH_NORM[dims](factor * width))
            stage.append(nn.ReLU(inplace=True))
            in_channels = factor * width
        stages.append(stage)
    return stages
