"""DeepLab v3 (Chen et al. 2017) and v3+ (Chen et al., ECCV 2018).

    v3    window ── backbone ── stride 16 ── ASPP ── 4w ── score ── K ──────────────────────────── × 16 ── window

    v3+   window ── backbone ── stride 16 ── ASPP ── 4w ── × 4 ──┐
                       └─────── stride 4 ─── 1x1 ── 3w/4 ────────┴── 3x3 ── 3x3 ── score ── K ───── × 4 ── window

    ASPP  ┌ 1x1
          ├ 3x3, rate 6
          ├ 3x3, rate 12      each 4w channels with batch norm and ReLU, concatenated, then 1x1 to 4w
          ├ 3x3, rate 18
          └ the whole window's average (over the window: the footprint is exact only without it)

Both resize to the input's own size, so that a window of any size can go in. Tiling is exact (without the window's
average) for n ≡ 0 (mod 16), with ``align_corners`` for n ≡ 1 (mod 16): the papers' 321 and 513.

Legend: N batch, C input channels, K output channels, w width (64), n voxels along one axis; the rates are those of
output stride 16, and double at 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from medseg.geometry import Field
from medseg.networks.blocks import (
    AuxiliaryHead,
    ConvolutionNormReLU,
    PooledContext,
    SeparableConvolution,
    initialise_outgoing,
    join,
    resize,
)
from medseg.networks.headed import HeadedNetwork, ResizedNetwork
from medseg.networks.mobilenet import MobileNetV2
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
from medseg.networks.xception import Xception65

Head = Literal["paper", "torchvision"]
Backbone = Literal[ResNetName, "xception65", "mobilenet_v2"]
OutputStride = Literal[8, 16]
RATES = (6, 12, 18)
"""The dilations of ASPP at output stride 16 (Chen et al. 2017, section 3.3)."""


class DeepLabV3(HeadedNetwork):
    """Section 3 of Chen et al. 2017: a dilated ResNet, then ASPP with batch norm and the image's average.

    ``output_stride=8, multi_grid=None, head="torchvision", auxiliary=True`` is torchvision's
    ``deeplabv3_resnet50/101``, with its names, so that its weights load (42 004 074 and 60 996 202 parameters at 21
    classes).

    Where we differ, and why: the paper up-samples logits by the output stride; we resize them to the
    input's own size. It trains with output stride 16 and tests with 8: ``output_stride`` is an argument of one network,
    and weights fit both.

    Args:
        in_channels: C.
        out_channels: K.
        dims: 2 or 3.
        backbone: which ResNet; the paper's are 50 and 101.
        output_stride: 16 or 8.
        multi_grid: dilations of the last stage's units, in units of the stage's own (section 3.2.1); ``None`` for none.
        rates: dilations of ASPP at output stride 16; they double at 8.
        image_pooling: whether ASPP looks at the window's average (section 3.3). Without it the footprint is exact.
        head: ``paper`` scores what ASPP gives, ``torchvision`` has a 3^dims convolution between.
        dropout: after ASPP; 0.1 in the authors' release, 0.5 in torchvision.
        auxiliary: a second head on the third stage for :meth:`outputs`, as torchvision trains with (its loss counts
            0.5); the paper has none.
        align_corners: how logits are resized.
        width: channels of the backbone's first convolution, 64; everything scales with it.

    Raises:
        ConfigError: for a value that no network can be built from.
    """

    paper = "Chen et al. 2017, arXiv:1706.05587"

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 21,
        dims: int = 2,
        backbone: ResNetName = "resnet101",
        output_stride: OutputStride = 16,
        multi_grid: Sequence[int] | None = (1, 2, 4),
        rates: Sequence[int] = RATES,
        image_pooling: bool = True,
        head: Head = "paper",
        dropout: float = 0.1,
        auxiliary: bool = False,
        align_corners: bool = False,
        width: int = 64,
    ) -> None:
        check_sizes(dims, in_channels=in_channels, out_channels=out_channels, width=width)
        check_choice(ResNetName, backbone=backbone)
        check_choice(OutputStride, output_stride=output_stride)
        check_choice(Head, head=head)
        check_flags(image_pooling=image_pooling, auxiliary=auxiliary, align_corners=align_corners)
        check_dropout(dropout=dropout)
        resnet = ResNet(backbone, dims, in_channels, width, output_stride, multi_grid)
        *_, third, last = resnet.channels
        features = 4 * width
        aspp = ASPP(dims, last, features, scaled(rates, output_stride), image_pooling, False, dropout, align_corners)
        between = ConvolutionNormReLU(dims, features, features, 3) if head == "torchvision" else ()
        classifier = nn.Sequential(aspp, *between, CONVOLUTION[dims](features, out_channels, 1))
        second = AuxiliaryHead(dims, third, out_channels) if auxiliary else None
        super().__init__(dims, in_channels, out_channels, resnet, classifier, second, align_corners, 0.5)
        self.apply(initialise_outgoing)


class DeepLabV3Plus(ResizedNetwork):
    """Section 3 of Chen et al. 2018 (figure 2): v3's ASPP as the encoder, and a decoder that joins a stride-4 feature.

    Where we differ, and why: with MobileNetV2 the authors' release leaves ASPP's dilated branches and the decoder out;
    here every backbone has both, separable, so that backbones can be compared.

    Args:
        in_channels: C.
        out_channels: K.
        dims: 2 or 3.
        backbone: the paper's ResNet-101 or modified aligned Xception-65; another ResNet; MobileNetV2 for small
            machines.
        output_stride: of the encoder, 16 or 8.
        multi_grid: dilations of the last stage's units, for a ResNet alone (the release has none for Xception);
            ``None`` for none.
        rates: dilations of ASPP at output stride 16; they double at 8.
        image_pooling: whether ASPP looks at the window's average. Without it the footprint is exact.
        separable: whether ASPP and the decoder use atrous separable convolutions (section 3.1).
        dropout: after ASPP, 0.1 in the authors' release.
        align_corners: how features and logits are resized.
        width: channels of a ResNet's first convolution, 64; everything scales with it.

    Raises:
        ConfigError: for a value that no network can be built from.
    """

    paper = "Chen et al. 2018, arXiv:1802.02611"

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 21,
        dims: int = 2,
        backbone: Backbone = "resnet101",
        output_stride: OutputStride = 16,
        multi_grid: Sequence[int] | None = (1, 2, 4),
        rates: Sequence[int] = RATES,
        image_pooling: bool = True,
        separable: bool = True,
        dropout: float = 0.1,
        align_corners: bool = False,
        width: int = 64,
    ) -> None:
        super().__init__(dims, in_channels, out_channels, align_corners)
        check_sizes(dims, in_channels=in_channels, out_channels=out_channels, width=width)
        check_choice(Backbone, backbone=backbone)
        check_choice(OutputStride, output_stride=output_stride)
        check_flags(image_pooling=image_pooling, separable=separable, align_corners=align_corners)
        check_dropout(dropout=dropout)
        self.backbone: ResNet | Xception65 | MobileNetV2
        if backbone == "xception65":
            self.backbone = Xception65(dims, in_channels, width, output_stride)
        elif backbone == "mobilenet_v2":
            self.backbone = MobileNetV2(dims, in_channels, width, output_stride)
        else:
            self.backbone = ResNet(backbone, dims, in_channels, width, output_stride, multi_grid)
        low, high = self.backbone.channels[0], self.backbone.channels[-1]
        features, reduced = 4 * width, max(3 * width // 4, 1)
        all_rates = scaled(rates, output_stride)
        self.aspp = ASPP(dims, high, features, all_rates, image_pooling, separable, dropout, align_corners)
        self.reduce = ConvolutionNormReLU(dims, low, reduced, 1)
        self.decoder = nn.Sequential(
            atrous(dims, features + reduced, features, 1, separable), atrous(dims, features, features, 1, separable)
        )
        self.score = CONVOLUTION[dims](features, out_channels, 1)
        self.apply(initialise_outgoing)

    def scores(self, x: Tensor, auxiliary: bool) -> list[Tensor]:
        """(N, C, \\*n) → (N, K, \\*⌈n / 4⌉)."""
        features = self.backbone(x)
        low = self.reduce(features[0])
        high = resize(self.aspp(features[-1]), low.shape[2:], self.align_corners)
        return [self.score(self.decoder(torch.cat([high, low], dim=1)))]

    def trace_scores(self, field: Field, axis: int) -> Field:
        """One axis through the same layers as :meth:`scores`."""
        fields = self.backbone.trace(field, axis)
        low = fields[0]
        high = follow(self.aspp, fields[-1], axis).resize(low, self.align_corners)
        return follow(self.decoder, high.crop_and_concatenate(low), axis)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling with batch norm (Chen et al. 2017, figure 5): (N, A, \\*n) → (N, B, \\*n)."""

    def __init__(
        self,
        dims: int,
        inputs: int,
        outputs: int,
        rates: Sequence[int],
        image_pooling: bool,
        separable: bool,
        dropout: float,
        align_corners: bool,
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList([ConvolutionNormReLU(dims, inputs, outputs, 1)])
        self.convs.extend(atrous(dims, inputs, outputs, rate, separable) for rate in rates)
        if image_pooling:
            self.convs.append(PooledContext(dims, inputs, outputs, 1, align_corners))
        self.project = ConvolutionNormReLU(dims, len(self.convs) * outputs, outputs, 1)
        self.project.append(nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """(N, A, \\*n) → (N, B, \\*n)."""
        out: Tensor = self.project(torch.cat([branch(x) for branch in self.convs], dim=1))
        return out

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through the branches, which are concatenated."""
        return join([follow(branch, field, axis) for branch in self.convs])


def atrous(dims: int, inputs: int, outputs: int, rate: int, separable: bool) -> nn.Module:
    """A dilated 3^dims convolution with batch norm and ReLU, separable where asked for."""
    if separable:
        return SeparableConvolution(dims, inputs, outputs, rate)
    return ConvolutionNormReLU(dims, inputs, outputs, 3, rate=rate)


def scaled(rates: Sequence[int], output_stride: int) -> tuple[int, ...]:
    """The dilations of ASPP at an output stride, given those at 16.

    Raises:
        ConfigError: where they are not whole numbers of 1 or more.
    """
    check_lists(rates=rates)
    return tuple(rate * 16 // output_stride for rate in rates)
