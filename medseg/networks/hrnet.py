"""HRNetV2 (Wang et al., TPAMI 2020) with object-contextual representations (Yuan et al., ECCV 2020).

    window ── stem ── stride 4 ══ stage 1 ══ stage 2 ══ stage 3 ══ stage 4 ══╗ w
                                      ╚═════ stride 8 ═══════════════════════╣ 2w     all resized to stride 4: 15w
                                                  ╚═════ stride 16 ══════════╣ 4w
                                                             ╚══ stride 32 ══╝ 8w
    15w ──┬── soft regions: 1x1, K classes ──┐
          └── pixels: 3x3, 512 ──┬── regions' averages ── a pixel attends to them ──┐
                                 └──────────────────────────────────────────────────┴── 512 ── K ── window

Every voxel attends to regions that are averaged over the window: the footprint is not exact.

Legend: N batch, C input channels, K output channels, w width (48), A channels, n voxels along one axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from medseg.geometry import Field
from medseg.networks.blocks import ConvolutionNormReLU, initialise_outgoing, join, normalise, resize
from medseg.networks.headed import ResizedNetwork
from medseg.networks.network import (
    BATCH_NORM,
    CHANNEL_DROPOUT,
    CONVOLUTION,
    check_dropout,
    check_flags,
    check_lists,
    check_sizes,
    follow,
)
from medseg.networks.resnet import BasicBlock, Bottleneck

UNITS = 4
"""Residual units of a branch in one module, and bottlenecks of the first stage."""
MODULES = (1, 4, 3)
"""Modules of stages 2, 3 and 4, which have 2, 3 and 4 branches (Wang et al., table 1)."""


class HRNetOCR(ResizedNetwork):
    """HRNetV2 (Wang et al., figure 2, table 1), its pixels augmented by the objects' context (Yuan et al., section 3).

    Where we differ, and why: regions' weights are a softmax over the window's pixels, as the paper says (a version of
    the authors' release takes it over the classes). The release starts convolutions at a deviation of 0.001, for
    weights that are loaded next; ours start as He et al.'s, since there may be none. 2D or 3D.

    Args:
        in_channels: C.
        out_channels: K.
        dims: 2 or 3.
        width: channels of the finest branch: 48 is HRNetV2-W48, 18 is HRNetV2-W18.
        stem: channels of the two strided convolutions and of the first stage's bottlenecks, 64.
        features: channels of the pixels' representation, 512; the attention's keys have half.
        modules: of stages 2, 3 and 4; their number is that of the branches less one.
        dropout: after the augmented representation, 0.05 in the authors' release.
        align_corners: how branches and logits are resized; true in the authors' release.

    Raises:
        ConfigError: for a value that no network can be built from.
    """

    paper = "Yuan et al. 2020, arXiv:1909.11065; Wang et al. 2020, arXiv:1908.07919"
    auxiliary_weights = (0.4,)

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 21,
        dims: int = 2,
        width: int = 48,
        stem: int = 64,
        features: int = 512,
        modules: Sequence[int] = MODULES,
        dropout: float = 0.05,
        align_corners: bool = True,
    ) -> None:
        super().__init__(dims, in_channels, out_channels, align_corners)
        check_sizes(dims, in_channels=in_channels, out_channels=out_channels, width=width, stem=stem, features=features)
        check_lists(modules=modules)
        check_dropout(dropout=dropout)
        check_flags(align_corners=align_corners)
        self.backbone = HRNetV2(dims, in_channels, width, stem, modules, align_corners)
        joined = self.backbone.channels
        self.regions = nn.Sequential(*_with_bias(dims, joined, joined, 1), CONVOLUTION[dims](joined, out_channels, 1))
        self.pixels = nn.Sequential(*_with_bias(dims, joined, features, 3))
        self.context = ObjectContext(dims, features, max(features // 2, 1), dropout)
        self.classifier = CONVOLUTION[dims](features, out_channels, 1)
        self.apply(initialise_outgoing)

    def scores(self, x: Tensor, auxiliary: bool) -> list[Tensor]:
        """(N, C, \\*n) → the logits, and the soft regions' (their loss counts 0.4), each (N, K, \\*⌈n / 4⌉)."""
        joined = self.backbone(x)
        regions = self.regions(joined)
        return [self.classifier(self.context(self.pixels(joined), regions)), regions]

    def trace_scores(self, field: Field, axis: int) -> Field:
        """One axis through the same layers as :meth:`scores`."""
        return follow(self.pixels, self.backbone.trace(field, axis), axis).over_window()


class HRNetV2(nn.Module):
    """The four stages, their branches resized to the finest and concatenated (Wang et al., figures 2 and 4b)."""

    def __init__(
        self, dims: int, in_channels: int, width: int, stem: int, modules: Sequence[int], align_corners: bool
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.stem = nn.Sequential(
            ConvolutionNormReLU(dims, in_channels, stem, 3, stride=2),
            ConvolutionNormReLU(dims, stem, stem, 3, stride=2),
        )
        outputs = stem * Bottleneck.expansion
        self.first = nn.Sequential(
            Bottleneck(dims, stem, outputs), *(Bottleneck(dims, outputs, outputs) for _ in range(UNITS - 1))
        )
        self.stages = nn.ModuleList()
        channels = [outputs]
        for branches, count in enumerate(modules, 2):
            wanted = [width * 2**branch for branch in range(branches)]
            self.stages.append(Stage(dims, channels, wanted, count, align_corners))
            channels = wanted
        self.channels = sum(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, \\*n) → (N, channels, \\*⌈n / 4⌉)."""
        branches = [self.first(self.stem(x))]
        for stage in self.stages:
            branches = stage(branches)
        size = branches[0].shape[2:]
        return torch.cat([resize(branch, size, self.align_corners) for branch in branches], dim=1)

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through the same layers."""
        fields = [follow(self.first, follow(self.stem, field, axis), axis)]
        for stage in self.stages:
            fields = cast(Stage, stage).trace(fields, axis)
        finest = fields[0]
        return join([finest, *(branch.resize(finest, self.align_corners) for branch in fields[1:])])


class Stage(nn.Module):
    """One branch more than before, at half the size of the coarsest, and modules that exchange between branches."""

    def __init__(
        self, dims: int, channels: Sequence[int], wanted: Sequence[int], modules: int, align_corners: bool
    ) -> None:
        super().__init__()
        self.transitions = nn.ModuleList(
            nn.Identity() if before == after else ConvolutionNormReLU(dims, before, after, 3)
            for before, after in zip(channels, wanted, strict=False)
        )
        self.coarser = ConvolutionNormReLU(dims, channels[-1], wanted[-1], 3, stride=2)
        self.exchanges = nn.ModuleList(HighResolutionModule(dims, wanted, align_corners) for _ in range(modules))

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """The branches' features, finest first → one more."""
        coarser = self.coarser(branches[-1])
        branches = [*(change(x) for change, x in zip(self.transitions, branches, strict=True)), coarser]
        for module in self.exchanges:
            branches = module(branches)
        return branches

    def trace(self, fields: list[Field], axis: int) -> list[Field]:
        """One axis of every branch through the same layers."""
        coarser = follow(self.coarser, fields[-1], axis)
        fields = [*(follow(change, x, axis) for change, x in zip(self.transitions, fields, strict=True)), coarser]
        for module in self.exchanges:
            fields = cast(HighResolutionModule, module).trace(fields, axis)
        return fields


class HighResolutionModule(nn.Module):
    """Residual units in each branch, then every branch gets the sum of all, at its own size (Wang et al., figure 3).

    A finer branch comes down by strided 3^dims convolutions, a coarser one by a 1x1 convolution and interpolation.
    """

    def __init__(self, dims: int, channels: Sequence[int], align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(dims, width, width) for _ in range(UNITS))) for width in channels
        )
        self.fuse = nn.ModuleList(
            nn.ModuleList(_exchange(dims, channels, source, target) for source in range(len(channels)))
            for target in range(len(channels))
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """The branches' features, finest first → the same shapes."""
        branches = [units(x) for units, x in zip(self.branches, branches, strict=True)]
        return [self._sum(layers, branches, x.shape[2:]) for layers, x in zip(self.fuse, branches, strict=True)]

    def trace(self, fields: list[Field], axis: int) -> list[Field]:
        """One axis of every branch through the same layers."""
        fields = [follow(units, field, axis) for units, field in zip(self.branches, fields, strict=True)]
        fused = []
        for layers, target in zip(self.fuse, fields, strict=True):
            parts = [
                follow(layer, field, axis) for layer, field in zip(cast(nn.ModuleList, layers), fields, strict=True)
            ]
            parts = [part.resize(target, self.align_corners) if part.stride > target.stride else part for part in parts]
            fused.append(join([target, *parts]))
        return fused

    def _sum(self, layers: nn.Module, branches: list[Tensor], size: Sequence[int]) -> Tensor:
        parts = [
            resize(layer(x), size, self.align_corners)
            for layer, x in zip(cast(nn.ModuleList, layers), branches, strict=True)
        ]
        out: Tensor = self.relu(sum(parts[1:], parts[0]))
        return out


class ObjectContext(nn.Module):
    """Each pixel's representation, augmented by those of the regions that it is related to (Yuan et al., section 3.2).

    (N, A, \\*n) pixels, (N, K, \\*n) soft regions → (N, A, \\*n). A region's representation is the pixels' average,
    weighted by a softmax of its scores over the window; a pixel attends to the K regions by a softmax over keys and
    queries. The scale of that, one over the root of the keys' channels, is the authors' release's.
    """

    def __init__(self, dims: int, channels: int, keys: int, dropout: float) -> None:
        super().__init__()
        self.scale = keys**-0.5
        self.query = nn.Sequential(
            ConvolutionNormReLU(dims, channels, keys, 1), ConvolutionNormReLU(dims, keys, keys, 1)
        )
        self.key = nn.Sequential(OfObjects(dims, channels, keys, 1), OfObjects(dims, keys, keys, 1))
        self.value = OfObjects(dims, channels, keys, 1)
        self.up = ConvolutionNormReLU(dims, keys, channels, 1)
        self.augment = nn.Sequential(
            ConvolutionNormReLU(dims, 2 * channels, channels, 1), CHANNEL_DROPOUT[dims](dropout)
        )

    def forward(self, pixels: Tensor, regions: Tensor) -> Tensor:
        """(N, A, \\*n), (N, K, \\*n) → (N, A, \\*n)."""
        size = pixels.shape[2:]
        weights = regions.flatten(2).softmax(dim=2)
        objects = pixels.flatten(2) @ weights.transpose(1, 2)
        objects = objects.reshape(*objects.shape, *[1] * (len(size) - 1))
        keys, values = self.key(objects).flatten(2), self.value(objects).flatten(2)
        related = keys.transpose(1, 2) @ self.query(pixels).flatten(2)
        context = values @ (self.scale * related).softmax(dim=1)
        raised = self.up(context.unflatten(2, size))
        out: Tensor = self.augment(torch.cat([raised, pixels], dim=1))
        return out


class OfObjects(ConvolutionNormReLU):
    """A 1x1 convolution with batch norm and ReLU of K voxels, which may be one: (N, A, K, 1 ...) → (N, B, K, 1 ...)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, A, K, 1 ...) → (N, B, K, 1 ...)."""
        convolution, norm, relu = self
        out: Tensor = relu(normalise(norm, convolution(x)))
        return out


def _exchange(dims: int, channels: Sequence[int], source: int, target: int) -> nn.Module:
    """From one branch to another's channels; the size of a coarser source is left to interpolation."""
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.Sequential(
            CONVOLUTION[dims](channels[source], channels[target], 1, bias=False), BATCH_NORM[dims](channels[target])
        )
    halved = [
        ConvolutionNormReLU(dims, channels[source], channels[source], 3, stride=2) for _ in range(target - source - 1)
    ]
    last = CONVOLUTION[dims](channels[source], channels[target], 3, stride=2, padding=1, bias=False)
    return nn.Sequential(*halved, last, BATCH_NORM[dims](channels[target]))


def _with_bias(dims: int, inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    """Convolution, batch norm, ReLU; the authors' release keeps the bias in its heads."""
    convolution = CONVOLUTION[dims](inputs, outputs, kernel, padding=kernel // 2)
    return [convolution, BATCH_NORM[dims](outputs), nn.ReLU(inplace=True)]
