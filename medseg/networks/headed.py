"""A backbone, a head on its last feature, perhaps a second one on that before, and logits of the window's size.

    window ── backbone ──┬── last feature ──── classifier ────── K ──→ resized to the window
                         └── the one before ── aux_classifier ── K ──→ resized (for the loss alone)

Legend: N batch, C input channels, K output channels, n voxels along one axis.
"""

from __future__ import annotations

from typing import Protocol, cast

from torch import Tensor, nn

from medseg.geometry import Field
from medseg.networks.blocks import resize
from medseg.networks.network import Network, follow


class Backbone(Protocol):
    """What gives several features of a window, the finest first."""

    def __call__(self, x: Tensor) -> list[Tensor]:
        """(N, C, \\*n) → the features."""

    def trace(self, field: Field, axis: int) -> list[Field]:
        """One axis through the same layers."""


class HeadedNetwork(Network):
    """What FCN and DeepLab v3 on a ResNet, and PSPNet, share; modules carry torchvision's names.

    Args:
        dims: 2 or 3.
        in_channels: C.
        out_channels: K.
        backbone: a module that is a :class:`Backbone`.
        classifier: from its last feature to scores.
        auxiliary: from the feature before it to scores, or ``None``.
        align_corners: how logits are resized.
    """

    any_size = True

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        backbone: nn.Module,
        classifier: nn.Module,
        auxiliary: nn.Module | None,
        align_corners: bool,
    ) -> None:
        super().__init__(dims, in_channels, out_channels)
        self.backbone = backbone
        self.classifier = classifier
        self.aux_classifier = auxiliary
        self.align_corners = align_corners

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, \\*n) → (N, K, \\*n), logits; a window of any size."""
        self.check_window(x.shape[2:])
        return resize(self.classifier(self.backbone(x)[-1]), x.shape[2:], self.align_corners)

    def outputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, C, \\*n) → the logits, and the auxiliary head's where there is one, each (N, K, \\*n)."""
        self.check_window(x.shape[2:])
        *_, before, last = self.backbone(x)
        scores = [self.classifier(last)]
        if self.aux_classifier is not None:
            scores.append(self.aux_classifier(before))
        return tuple(resize(score, x.shape[2:], self.align_corners) for score in scores)

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through the same layers as :meth:`forward`."""
        last = cast(Backbone, self.backbone).trace(field, axis)[-1]
        return follow(self.classifier, last, axis).resize(field, self.align_corners)
