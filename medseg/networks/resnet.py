"""ResNet (He et al., CVPR 2016) as a backbone: its stages' features, at the stride that a head asks for.

                     conv1  maxpool  layer1  layer2      layer3         layer4
    output stride 32   2       4       4       8           16             32
    output stride 16   2       4       4       8           16      16, dilated by 2
    output stride  8   2       4       4       8    8, dilated by 2    8, dilated by 4
    channels           w       w      4w      8w          16w            32w     (18 and 34: a fourth of these)

Where a stride is taken away, what follows is dilated instead (Chen et al. 2017, section 3.1), so that each weight
meets the voxels that it met before. Modules carry torchvision's names, and its state dicts load as they are (but for
``fc``).

Legend: N batch, C input channels, w width, n voxels along one axis of the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.geometry import Field
from medseg.networks.blocks import initialise_outgoing
from medseg.networks.network import BATCH_NORM, CONVOLUTION, MAX_POOLING, follow

ResNetName = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
OUTPUT_STRIDES = (8, 16, 32)


class ResNet(nn.Module):
    """The stages of He et al.'s table 1, without the classifier.

    Where we differ: a bottleneck's stride is in its 3^dims convolution, not in the first 1x1 one, as in all weights
    that are in use (torchvision's, from Facebook's re-implementation); 2D or 3D; a stride may be replaced by dilation.

    Args:
        name: resnet18, 34, 50, 101 or 152: how many layers it has.
        dims: 2 or 3.
        in_channels: C.
        width: channels of the first convolution, 64 in the paper.
        output_stride: 32 as in the paper, or 16 or 8: the stages beyond are dilated.
        multi_grid: the dilation of each unit of the last stage, in units of that stage's own (Chen et al. 2017,
            section 3.2.1). ``None`` keeps every weight's voxels: the first unit after a stride was taken away still
            has the dilation before it, as in torchvision.

    Raises:
        ConfigError: for a name, an output stride or a multi-grid that there is none of.
    """

    def __init__(
        self,
        name: str,
        dims: int,
        in_channels: int,
        width: int = 64,
        output_stride: int = 32,
        multi_grid: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if name not in RESNETS:
            raise ConfigError(f"network.backbone is {name!r}: it must be one of {', '.join(RESNETS)}")
        check_output_stride(output_stride)
        unit, units = RESNETS[name]
        check_multi_grid(multi_grid, units[-1])
        self.conv1 = CONVOLUTION[dims](in_channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = BATCH_NORM[dims](width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = MAX_POOLING[dims](3, stride=2, padding=1)
        self.channels = tuple(width * 2**stage * unit.expansion for stage in range(4))
        self.strides: tuple[int, ...] = ()
        stages: list[nn.Sequential] = []
        inputs, reached, rate = width, 4, 1
        for stage, count in enumerate(units):
            stride, before = 2 if stage else 1, rate
            if reached * stride > output_stride:
                rate, stride = rate * stride, 1
            reached *= stride
            rates = [(before, rate), *[(rate, rate)] * (count - 1)]
            if multi_grid is not None and stage == len(units) - 1:
                rates = [(rate * grid, rate * grid) for grid in multi_grid]
            outputs = self.channels[stage]
            first = unit(dims, inputs, outputs, stride, rates[0])
            stages.append(nn.Sequential(first, *[unit(dims, outputs, outputs, 1, both) for both in rates[1:]]))
            self.strides += (reached,)
            inputs = outputs
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.apply(initialise_outgoing)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, \\*n) → the four stages' features, (N, channels[i], \\*⌈n / strides[i]⌉)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        features = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            features.append(x)
        return features

    def trace(self, field: Field, axis: int) -> list[Field]:
        """One axis through the same layers: the four stages' fields."""
        field = follow(self.maxpool, follow(self.conv1, field, axis), axis)
        fields = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            field = follow(stage, field, axis)
            fields.append(field)
        return fields


class BasicBlock(nn.Module):
    """Two 3^dims convolutions and a shortcut (figure 5, left).

    Args:
        rates: the dilation of the convolution that may stride, and of what comes after it.
    """

    expansion = 1

    def __init__(self, dims: int, inputs: int, outputs: int, stride: int = 1, rates: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.conv1 = _convolution(dims, inputs, outputs, 3, stride, rates[0])
        self.bn1 = BATCH_NORM[dims](outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _convolution(dims, outputs, outputs, 3, 1, rates[1])
        self.bn2 = BATCH_NORM[dims](outputs)
        self.downsample = _shortcut(dims, inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, \\*n) → (N, outputs, \\*⌈n / stride⌉)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        x += shortcut
        out: Tensor = self.relu(x)
        return out

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through the block; the shortcut never sees farther."""
        return follow(self.conv2, follow(self.conv1, field, axis), axis)


class Bottleneck(nn.Module):
    """A 1x1, a 3^dims and a 1x1 convolution of a fourth of the channels, and a shortcut (figure 5, right).

    Args:
        rates: as for :class:`BasicBlock`; the 3^dims convolution has the first.
    """

    expansion = 4

    def __init__(self, dims: int, inputs: int, outputs: int, stride: int = 1, rates: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        inner = outputs // self.expansion
        self.conv1 = _convolution(dims, inputs, inner, 1)
        self.bn1 = BATCH_NORM[dims](inner)
        self.conv2 = _convolution(dims, inner, inner, 3, stride, rates[0])
        self.bn2 = BATCH_NORM[dims](inner)
        self.conv3 = _convolution(dims, inner, outputs, 1)
        self.bn3 = BATCH_NORM[dims](outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(dims, inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, \\*n) → (N, outputs, \\*⌈n / stride⌉)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        x += shortcut
        out: Tensor = self.relu(x)
        return out

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through the block; the shortcut never sees farther."""
        return follow(self.conv2, field, axis)


RESNETS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}
"""Name → the unit and how many of it each stage has (table 1)."""


def check_output_stride(output_stride: int) -> None:
    """Refuses a stride that a backbone cannot end with.

    Raises:
        ConfigError: with those that it can.
    """
    if output_stride not in OUTPUT_STRIDES:
        raise ConfigError(f"network.output_stride is {output_stride!r}: it must be 8, 16 or 32")


def check_multi_grid(multi_grid: Sequence[int] | None, units: int) -> None:
    """Refuses a multi-grid that is not one whole number of 1 or more for each unit of the last stage.

    Raises:
        ConfigError: with what it must be.
    """
    if multi_grid is None:
        return
    listed = isinstance(multi_grid, Sequence) and not isinstance(multi_grid, str)
    if not listed or len(multi_grid) != units or not all(type(grid) is int and grid >= 1 for grid in multi_grid):
        raise ConfigError(
            f"network.multi_grid is {multi_grid!r}: it must be {units} whole numbers of 1 or more, one for each unit "
            "of the last stage, or null"
        )


def _convolution(dims: int, inputs: int, outputs: int, kernel: int, stride: int = 1, rate: int = 1) -> nn.Module:
    padding = rate * (kernel // 2)
    return CONVOLUTION[dims](inputs, outputs, kernel, stride=stride, padding=padding, dilation=rate, bias=False)


def _shortcut(dims: int, inputs: int, outputs: int, stride: int) -> nn.Module | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(_convolution(dims, inputs, outputs, 1, stride), BATCH_NORM[dims](outputs))
