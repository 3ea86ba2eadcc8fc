"""Fully convolutional networks (Long, Shelhamer and Darrell, CVPR 2015) on VGG16 or a ResNet: 32s, 16s and 8s.

    window ── stage, pool ── stage, pool ── stage, pool ── stage, pool ── stage, pool ── fc6 7x7 ── fc7 1x1 ── score
               w, 1/2         2w, 1/4        4w, 1/8        8w, 1/16       8w, 1/32      64w        64w         K  │
                                             │ score        │ score                                                │
    32s                                      │              │                  crop ←────────── 32 × ──────────────┤
    16s                                      │              + ←──── 2 × ───────────────────────────────────────────┤
                                             │              └─ 16 × ─→ crop                                        │
    8s                                       + ←── 2 × ──── + ←──── 2 × ───────────────────────────────────────────┘
                                             └─ 8 × ─→ crop

Up-sampling is a transposed convolution, bilinear to begin with. Where a skip is added, or the window's own size is cut
out, the crop follows from where the layers' voxels lie (:meth:`Field.shift`), as in Caffe's ``coord_map``: 5, 9 and 31
voxels for 8s as published. Poolings round up, and a window of any size can go in; tiling is exact at windows that every
pooling divides evenly.

On a ResNet the stages at strides 8, 16 and 32 are scored as pool3, pool4 and fc7 are on VGG16; it has no fully
connected layers but its classifier, whose place the scores take. VGG16's poolings put a voxel into the middle of those
that it stands for, a ResNet's strides upon the first of them: up-sampling has kernels of 2f voxels there and of 2f − 1
here. What torchvision calls ``fcn_resnet`` is another network (:mod:`medseg.networks.fcn_resnet`).

Legend: N batch, C input channels, K output channels, w width (64), f factor, n voxels along one axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from medseg.geometry import Field
from medseg.networks.blocks import initialise
from medseg.networks.network import (
    CONVOLUTION,
    MAX_POOLING,
    UP_CONVOLUTION,
    Network,
    check_choice,
    check_dropout,
    check_flags,
    check_odd,
    check_sizes,
    follow,
)
from medseg.networks.resnet import ResNet, ResNetName
from medseg.networks.vgg import VGG16Stages

Backbone = Literal["vgg16", ResNetName]
Padding = Literal["published", "same"]
PUBLISHED_PADDING = 100
"""Zeros around the window in the authors' release, so that fc6's 7^dims find something in every window."""
SCALES = (1e-2, 1e-4)
"""What pool4 and pool3 are multiplied with where all skips are trained at once (the release's ``voc-fcn8s-atonce``)."""


class FCN(Network):
    """What the three share; section 3 and figure 3.

    Where we differ, and why: ``padding="same"`` pads fc6 by 3 and the first convolution by 1, so that nothing is
    computed around the window, which is what became usual; a ResNet instead of VGG16; 2D or 3D.

    Args:
        in_channels: C.
        out_channels: K.
        dims: 2 or 3.
        backbone: the paper's VGG16, or which ResNet.
        width: channels of the first stage, 64 in the paper; everything scales with it.
        padding: of VGG16: ``published`` puts 100 zeros around the window, ``same`` pads each convolution, as a ResNet
            always does.
        fc_size: voxels that VGG16's fc6 sees along an axis, 7 in the paper; in 3D 7^3 are many, and 3 will do.
        dropout: probability after VGG16's fc6 and fc7.
        at_once: whether skips are scaled (0.01 and 0.0001), so that they can be trained with the rest from the start.

    Attributes:
        skips: how many stages are scored beside the last: 0, 1 (stride 16) or 2 (strides 16 and 8).

    Raises:
        ConfigError: for a value that no network can be built from.
    """

    paper = "Long et al. 2015, arXiv:1411.4038"
    any_size = True
    skips: ClassVar[int]

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 21,
        dims: int = 2,
        backbone: Backbone = "vgg16",
        width: int = 64,
        padding: Padding = "published",
        fc_size: int = 7,
        dropout: float = 0.5,
        at_once: bool = False,
    ) -> None:
        super().__init__(dims, in_channels, out_channels)
        check_sizes(dims, in_channels=in_channels, out_channels=out_channels, width=width)
        check_choice(Backbone, backbone=backbone)
        check_choice(Padding, padding=padding)
        check_odd(fc_size=fc_size)
        check_dropout(dropout=dropout)
        check_flags(at_once=at_once)
        same = padding == "same"
        self.stages = nn.ModuleList()
        self.fc = nn.Sequential()
        self.backbone: ResNet | None = None
        if backbone == "vgg16":
            self.stages.extend(pooled_stages(dims, in_channels, width, 1 if same else PUBLISHED_PADDING))
            self.fc.extend(fully_connected(dims, width, fc_size, fc_size // 2 if same else 0, dropout))
            channels: tuple[int, ...] = (4 * width, 8 * width, 64 * width)
        else:
            self.backbone = ResNet(backbone, dims, in_channels, width)
            channels = self.backbone.channels[1:]
        *finer, last = channels
        self.score = CONVOLUTION[dims](last, out_channels, 1)
        self.skip_scores = nn.ModuleList(
            CONVOLUTION[dims](inputs, out_channels, 1) for inputs in finer[::-1][: self.skips]
        )
        self.scales = SCALES[: self.skips] if at_once else (1.0,) * self.skips

        def kernel(factor: int) -> tuple[int, int]:
            """How large, and how much is taken off its ends."""
            return (2 * factor - 1, 0) if self.backbone else (2 * factor, factor // 2 if same else 0)

        size, cut = kernel(2)
        self.up = nn.ModuleList(
            UP_CONVOLUTION[dims](out_channels, out_channels, size, stride=2, padding=cut, bias=False)
            for _ in range(self.skips)
        )
        factor = 32 // 2**self.skips
        self.to_window = FixedUpsampling(dims, factor, *kernel(factor))
        self._initialise()
        self.shifts = self._follow(Field(rounds=True), 0)[0]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, \\*n) → (N, K, \\*n), logits; a window of any size.

        Raises:
            TileError: for a window of other axes.
        """
        window = x.shape[2:]
        self.check_window(window)
        features = self._features(x)
        x = self.score(self.fc(features.pop()))
        *shifts, last = self.shifts
        for up, score, scale, shift in zip(self.up, self.skip_scores, self.scales, shifts, strict=True):
            skip = features.pop()
            x = _overlay(up(x), score(skip if scale == 1 else scale * skip), shift)
        return _cut(self.to_window(x), last, window)

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through the same layers as :meth:`forward`."""
        return self._follow(field, axis)[1]

    def _features(self, x: Tensor) -> list[Tensor]:
        """(N, C, \\*n) → the features of all stages, the finest first."""
        if self.backbone is not None:
            return self.backbone(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features

    def _fields(self, field: Field, axis: int) -> list[Field]:
        """One axis through the same layers as :meth:`_features`."""
        if self.backbone is not None:
            return self.backbone.trace(field, axis)
        fields = []
        for stage in self.stages:
            field = follow(stage, field, axis)
            fields.append(field)
        return fields

    def _follow(self, field: Field, axis: int) -> tuple[list[int], Field]:
        """The shifts at each skip and at the end, and the output's field."""
        window, shifts, features = field, [], self._fields(field, axis)
        field = follow(self.score, follow(self.fc, features.pop(), axis), axis)
        for up, score in zip(self.up, self.skip_scores, strict=True):
            field, skip = follow(up, field, axis), follow(score, features.pop(), axis)
            shifts.append(field.shift(skip))
            field = field.overlay(skip)
        field = follow(self.to_window, field, axis)
        return [*shifts, field.shift(window)], field.crop(window)

    def _initialise(self) -> None:
        """VGG16's as He et al. 2015, scores zero, up-sampling bilinear (section 4.3)."""
        self.stages.apply(initialise)
        self.fc.apply(initialise)
        for parameter in (*self.score.parameters(), *self.skip_scores.parameters(), *self.up.parameters()):
            nn.init.zeros_(parameter)
        with torch.no_grad():
            for weight in self.up.parameters():
                for k in range(self.out_channels):
                    weight[k, k] = bilinear(2, weight.shape[-1], self.dims)


class FCN32s(FCN):
    """The coarsest: the last scores, 32 times up-sampled. For the arguments see :class:`FCN`."""

    skips = 0


class FCN16s(FCN):
    """With the scores of pool4 added at stride 16. For the arguments see :class:`FCN`."""

    skips = 1


class FCN8s(FCN):
    """With the scores of pool4 and pool3 added at strides 16 and 8. For the arguments see :class:`FCN`."""

    skips = 2


class FixedUpsampling(nn.Module):
    """Bilinear (trilinear) interpolation as a transposed convolution of each channel by itself, which is not learned.

    (N, K, \\*n) → (N, K, \\*(f·(n − 1) + kernel − 2·padding)). The last up-sampling is fixed (section 4.3); the
    released networks spend K times the work on it, with weights that are zero between different classes.
    """

    weight: Tensor

    def __init__(self, dims: int, factor: int, kernel: int, padding: int) -> None:
        super().__init__()
        self.factor = factor
        self.padding = padding
        self.register_buffer("weight", bilinear(factor, kernel, dims))

    def forward(self, x: Tensor) -> Tensor:
        """(N, K, \\*n) → (N, K, \\*m)."""
        up = functional.conv_transpose2d if x.ndim == 4 else functional.conv_transpose3d
        channels = x.shape[1]
        weight = self.weight.expand(channels, *self.weight.shape[1:])
        return up(x, weight, stride=self.factor, padding=self.padding, groups=channels)

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through the transposed convolution."""
        return field.up_convolve(self.weight.shape[-1], self.factor, self.padding)


def pooled_stages(dims: int, in_channels: int, width: int, padding: int) -> list[nn.Sequential]:
    """VGG16's stages, each with its pooling; the first convolution is padded with so many zeros."""
    stages = VGG16Stages(dims, in_channels, width)
    stages[0][0] = CONVOLUTION[dims](in_channels, width, 3, padding=padding)
    return [stage.append(MAX_POOLING[dims](2, ceil_mode=True)) for stage in stages]


def fully_connected(dims: int, width: int, size: int, padding: int, dropout: float) -> nn.Sequential:
    """fc6 and fc7 as convolutions, (N, 8w, \\*n) → (N, 64w, \\*m)."""
    convolution, fc = CONVOLUTION[dims], 64 * width
    return nn.Sequential(
        convolution(8 * width, fc, size, padding=padding),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        convolution(fc, fc, 1),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
    )


def bilinear(factor: int, kernel: int, dims: int) -> Tensor:
    """(1, 1, \\*kernel): the weights that interpolate linearly between voxels ``factor`` apart."""
    line = 1 - (torch.arange(kernel) - (kernel - 1) / 2).abs() / factor
    weights = line
    for _ in range(dims - 1):
        weights = weights[..., None] * line
    return weights[None, None]


def _overlay(x: Tensor, skip: Tensor, shift: int) -> Tensor:
    """Both cropped to where they overlap, and added: x's voxel ``shift`` lies upon the skip's voxel 0."""
    here, there = max(shift, 0), max(-shift, 0)
    size = [min(n - here, m - there) for n, m in zip(x.shape[2:], skip.shape[2:], strict=True)]
    return _cut(x, here, size) + _cut(skip, there, size)


def _cut(x: Tensor, start: int, size: Sequence[int]) -> Tensor:
    """(N, K, \\*size): a view of x from voxel ``start`` on."""
    for axis, n in enumerate(size, 2):
        x = x.narrow(axis, start, n)
    return x
