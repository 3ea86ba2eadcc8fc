"""Swin Transformer (Liu et al., ICCV 2021) as a backbone, made of MONAI's blocks.

    window ── 4^dims patches ── stage 1 ── merge ── stage 2 ── merge ── stage 3 ── merge ── stage 4
                                stride 4            8                   16                  32
                                e                   2e                  4e                  8e

MONAI's own network merges at the end of a stage, so that what a stage has seen comes out at twice its stride; here the
merges stand between the stages, as in the paper. Attention looks at cells of 7^dims whose grid begins at the window's
corner, and layer norm at each voxel alone.

Legend: N batch, C input channels, e channels of the first stage (96), n voxels along one axis of the window.
"""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.geometry import Field
from medseg.networks.monai_network import ScalarsOnCPU, monai_nets

SwinName = Literal["swin_tiny", "swin_small", "swin_base"]
SWINS: dict[str, tuple[int, tuple[int, ...], tuple[int, ...]]] = {
    "swin_tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "swin_small": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "swin_base": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
}
"""Name → e, blocks of each stage, their heads (section 3.3)."""
CELL = 7
"""Voxels of an attention's cell along each axis (section 3.3)."""


class Swin(nn.Module):
    """Section 3 and figure 3, with the layer norm on each stage's output that dense prediction uses.

    Where we differ, and why: MONAI's merge concatenates its 2^dims neighbours in another order than the authors' code,
    which a permutation of its weights undoes; no paths are dropped (the paper drops 0.2 to 0.5 of them in training).

    Args:
        name: which.
        dims: 2 or 3.
        in_channels: C.
        width: 64 for the paper's e; it scales, to a whole number of channels a head.

    Raises:
        ConfigError: where einops, which MONAI's blocks need, is missing.
    """

    def __init__(self, name: str, dims: int, in_channels: int, width: int = 64) -> None:
        super().__init__()
        full, depths, heads = SWINS[name]
        first = heads[0] * max(full * width // (64 * heads[0]), 1)
        self.channels = tuple(first * 2**stage for stage in range(len(depths)))
        whole = _monai_swin(in_channels, first, depths, heads, dims)
        self.patches = cast(nn.Module, whole.patch_embed)
        self.stages = nn.ModuleList(getattr(whole, f"layers{stage}")[0] for stage in range(1, len(depths) + 1))
        self.merges = nn.ModuleList()
        for stage in self.stages:
            self.merges.append(cast(nn.Module, stage.downsample))
            stage.register_module("downsample", None)
        del self.merges[-1]
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for channels in self.channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, \\*n) → the four stages' features, at strides 4, 8, 16, 32."""
        x = self.patches(x)
        features = []
        for index, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            if index:
                x = self.merges[index - 1](x.movedim(1, -1)).movedim(-1, 1)
            x = stage(x)
            features.append(norm(x.movedim(1, -1)).movedim(-1, 1))
        return features

    def trace(self, field: Field, axis: int) -> list[Field]:
        """One axis: attention over cells, whose shifts reach on from stage to stage, counts as over the window."""
        fields = [field.convolve(4, 4).over_window()]
        for _ in self.merges:
            fields.append(fields[-1].convolve(2, 2))
        return fields


def _monai_swin(in_channels: int, first: int, depths: tuple[int, ...], heads: tuple[int, ...], dims: int) -> nn.Module:
    try:
        import einops  # noqa: F401  (MONAI says only at the first use that it is missing)
    except ImportError as error:
        raise ConfigError("network.backbone swin_* needs einops: pip install einops") from error
    with ScalarsOnCPU():
        transformer: nn.Module = monai_nets().swin_unetr.SwinTransformer(
            in_chans=in_channels,
            embed_dim=first,
            window_size=(CELL,) * dims,
            patch_size=(4,) * dims,
            depths=depths,
            num_heads=heads,
            spatial_dims=dims,
            patch_norm=True,
            downsample="mergingv2",
        )
    return transformer
