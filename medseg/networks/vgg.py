"""VGG16 (Simonyan and Zisserman, ICLR 2015) as a backbone: its 13 convolutions in five stages, without the classifier.

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


def initialise(layer: nn.Module) -> None:
    """Gaussian weights of variance 2 / (incoming nodes) (He et al. 2015), biases zero.

    The paper drew them with a deviation of 0.01 and could train its deeper configurations only from a shallower one's
    weights (section 3.1).
    """
    if isinstance(layer, nn.Conv2d | nn.Conv3d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
