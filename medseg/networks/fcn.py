"""Fully convolutional networks (Long, Shelhamer and Darrell, CVPR 2015) on VGG16: 32s, 16s and 8s.

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

On a ResNet there is one more, which is not the paper's: stride 8 by dilation, no skips, as torchvision has it.

Legend: N batch, C input channels, K output channels, w width (64), n voxels along one axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from medseg.errors import ConfigError
from medseg.geometry import Field
from medseg.networks.blocks import AuxiliaryHead
from medseg.networks.headed import HeadedNetwork
from medseg.networks.network import (
    CONVOLUTION,
    MAX_POOLING,
    UP_CONVOLUTION,
    Network,
    check_choice,
    check_counts,
    check_dims,
    check_dropout,
    follow,
)
from medseg.networks.resnet import ResNet, ResNetName
from medseg.networks.resnet import initialise as initialise_resnet
from medseg.networks.vgg import VGG16Stages, initialise

Padding = Literal["published", "same"]
PUBLISHED_PADDING = 100
"""Zeros around the window in the authors' release, so that fc6's 7^dims find something in every window."""
SCALES = (1e-2, 1e-4)
"""What pool4 and pool3 are multiplied with where all skips are trained at once (the release's ``voc-fcn8s-atonce``)."""


class FCN(Network):
    """What the three share; section 3 and figure 3.

    Where we differ, and why: ``padding="same"`` pads fc6 by 3 and the first convolution by 1, so that nothing is
    computed around the window, which is what became usual; 2D or 3D.

    Args:
        skips: how many poolings are scored beside fc7: 0, 1 (pool4) or 2 (pool4 and pool3).
        in_channels: C.
        out_channels: K.
        dims: 2 or 3.
        width: channels of the first stage, 64 in the paper; fc6 and fc7 have 64 times as many.
        padding: ``published`` puts 100 zeros around the window, ``same`` pads each convolution.
        fc_size: voxels that fc6 sees along an axis, 7 in the paper; in 3D 7^3 are many, and 3 will do.
        dropout: probability after fc6 and fc7.
        at_once: whether skips are scaled (0.01 and 0.0001), so that they can be trained with the rest from the start.

    Raises:
        ConfigError: for a value that no network can be built from.
    """

    paper = "Long et al. 2015, arXiv:1411.4038"
    any_size = True

    def __init__(
        self,
        skips: int,
        in_channels: int,
        out_channels: int,
        dims: int,
        width: int,
        padding: Padding,
        fc_size: int,
        dropout: float,
        at_once: bool = False,
    ) -> None:
        super().__init__(dims, in_channels, out_channels)
        check_dims(dims)
        check_counts(in_channels=in_channels, out_channels=out_channels, width=width, fc_size=fc_size)
        check_choice(Padding, padding=padding)
        check_dropout(dropout=dropout)
        if fc_size % 2 == 0:
            raise ConfigError(f"network.fc_size is {fc_size}: it must be odd, so that it has a middle")
        same = padding == "same"
        convolution, fc = CONVOLUTION[dims], 64 * width
        stages = VGG16Stages(dims, in_channels, width)
        if not same:
            stages[0][0] = convolution(in_channels, width, 3, padding=PUBLISHED_PADDING)
        self.stages = nn.ModuleList(stages)
        self.pool = MAX_POOLING[dims](2, ceil_mode=True)
        self.fc = nn.Sequential(
            convolution(8 * width, fc, fc_size, padding=fc_size // 2 if same else 0),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            convolution(fc, fc, 1),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        self.score = convolution(fc, out_channels, 1)
        self.skip_scores = nn.ModuleList(convolution(width * 8 // 2**i, out_channels, 1) for i in range(skips))
        self.scales = SCALES[:skips] if at_once else (1.0,) * skips
        self.up = nn.ModuleList(
            UP_CONVOLUTION[dims](out_channels, out_channels, 4, stride=2, padding=int(same), bias=False)
            for _ in range(skips)
        )
        self.to_window = FixedUpsampling(dims, 32 // 2**skips, padded=same)
        self._initialise()
        self.shifts = self._follow(Field(rounds=True), 0)[0]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, \\*n) → (N, K, \\*n), logits; a window of any size.

        Raises:
            TileError: for a window of other axes.
        """
        window = x.shape[2:]
        self.check_window(window)
        pooled = []
        for stage in self.stages:
            x = self.pool(stage(x))
            pooled.append(x)
        x = self.score(self.fc(pooled.pop()))
        *shifts, last = self.shifts
        for up, score, scale, shift in zip(self.up, self.skip_scores, self.scales, shifts, strict=True):
            skip = pooled.pop()
            x = _overlay(up(x), score(skip if scale == 1 else scale * skip), shift)
        return _cut(self.to_window(x), last, window)

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through the same layers as :meth:`forward`."""
        return self._follow(field, axis)[1]

    def from_coarser(self, weights: Mapping[str, Tensor]) -> None:
        """Takes over the weights of a coarser network: 16s from 32s, 8s from 16s (section 4.2, staged training).

        The new skips keep what they began with, scores of zero and bilinear up-sampling, so that the logits begin as
        the coarser network's, more finely interpolated.

        Raises:
            ConfigError: where the weights are not those of a coarser network of this width.
        """
        own = self.state_dict()
        learned = {key: value for key, value in weights.items() if not key.startswith("to_window.")}
        new = ("skip_scores.", "up.", "to_window.")
        bad = [key for key in own if key not in learned and not key.startswith(new)]
        bad += [key for key, value in learned.items() if key not in own or own[key].shape != value.shape]
        if bad:
            raise ConfigError(f"these are no weights of a coarser network of this shape: {', '.join(bad)} do not fit")
        self.load_state_dict({**own, **learned})

    def _follow(self, field: Field, axis: int) -> tuple[list[int], Field]:
        """The shifts at each skip and at the end, and the output's field."""
        window, pooled, shifts = field, [], []
        for stage in self.stages:
            field = follow(self.pool, follow(stage, field, axis), axis)
            pooled.append(field)
        field = follow(self.score, follow(self.fc, pooled.pop(), axis), axis)
        for up, score in zip(self.up, self.skip_scores, strict=True):
            field, skip = follow(up, field, axis), follow(score, pooled.pop(), axis)
            shifts.append(field.shift(skip))
            field = field.overlay(skip)
        field = follow(self.to_window, field, axis)
        return [*shifts, field.shift(window)], field.crop(window)

    def _initialise(self) -> None:
        """VGG16's as He et al. 2015, scores zero, up-sampling bilinear (section 4.1)."""
        self.stages.apply(initialise)
        self.fc.apply(initialise)
        for parameter in (*self.score.parameters(), *self.skip_scores.parameters(), *self.up.parameters()):
            nn.init.zeros_(parameter)
        with torch.no_grad():
            for weight in self.up.parameters():
                for k in range(self.out_channels):
                    weight[k, k] = bilinear(2, self.dims)


class FCN32s(FCN):
    """The coarsest: fc7's scores, 32 times up-sampled. For the arguments see :class:`FCN`."""

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 21,
        dims: int = 2,
        width: int = 64,
        padding: Padding = "published",
        fc_size: int = 7,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(0, in_channels, out_channels, dims, width, padding, fc_size, dropout)


class FCN16s(FCN):
    """With pool4's scores added at stride 16. For the arguments see :class:`FCN`."""

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 21,
        dims: int = 2,
        width: int = 64,
        padding: Padding = "published",
        fc_size: int = 7,
        dropout: float = 0.5,
        at_once: bool = False,
    ) -> None:
        super().__init__(1, in_channels, out_channels, dims, width, padding, fc_size, dropout, at_once)


class FCN8s(FCN):
    """With pool4's and pool3's scores added at strides 16 and 8. For the arguments see :class:`FCN`."""

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 21,
        dims: int = 2,
        width: int = 64,
        padding: Padding = "published",
        fc_size: int = 7,
        dropout: float = 0.5,
        at_once: bool = False,
    ) -> None:
        super().__init__(2, in_channels, out_channels, dims, width, padding, fc_size, dropout, at_once)


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
        auxiliary: a second head on the third stage for :meth:`outputs`.
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
        check_dims(dims)
        check_counts(in_channels=in_channels, out_channels=out_channels, width=width)
        check_choice(ResNetName, backbone=backbone)
        check_choice(Literal[8, 16], output_stride=output_stride)
        resnet = ResNet(backbone, dims, in_channels, width, output_stride)
        *_, third, last = resnet.channels
        head = AuxiliaryHead(dims, last, out_channels)
        second = AuxiliaryHead(dims, third, out_channels) if auxiliary else None
        super().__init__(dims, in_channels, out_channels, resnet, head, second, align_corners)
        self.apply(initialise_resnet)


class FixedUpsampling(nn.Module):
    """Bilinear (trilinear) interpolation as a transposed convolution of each channel by itself, which is not learned.

    (N, K, \\*n) → (N, K, \\*(factor·(n + 1))), or \\*(factor·n) where padded. The last up-sampling is fixed (section
    4.3); the released networks spend K times the work on it, with weights that are zero between different classes.
    """

    weight: Tensor

    def __init__(self, dims: int, factor: int, padded: bool) -> None:
        super().__init__()
        self.factor = factor
        self.padding = factor // 2 if padded else 0
        self.register_buffer("weight", bilinear(factor, dims))

    def forward(self, x: Tensor) -> Tensor:
        """(N, K, \\*n) → (N, K, \\*m)."""
        up = functional.conv_transpose2d if x.ndim == 4 else functional.conv_transpose3d
        channels = x.shape[1]
        weight = self.weight.expand(channels, *self.weight.shape[1:])
        return up(x, weight, stride=self.factor, padding=self.padding, groups=channels)

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through the transposed convolution."""
        return field.up_convolve(2 * self.factor, self.factor, self.padding)


def bilinear(factor: int, dims: int) -> Tensor:
    """(1, 1, \\*2·factor): the kernel that interpolates linearly between voxels ``factor`` apart."""
    line = 1 - (torch.arange(2 * factor) + 0.5 - factor).abs() / factor
    kernel = line
    for _ in range(dims - 1):
        kernel = kernel[..., None] * line
    return kernel[None, None]


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
