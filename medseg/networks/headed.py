"""Networks whose scores are coarser than the window and resized to it; a backbone, a head, perhaps a second one.

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


class ResizedNetwork(Network):
    """A network that ends with linear interpolation to the window's own size, which may be any.

    Args:
        dims: 2 or 3.
        in_channels: C.
        out_channels: K.
        align_corners: of the interpolation.
    """

    any_size = True

    def __init__(self, dims: int, in_channels: int, out_channels: int, align_corners: bool) -> None:
        super().__init__(dims, in_channels, out_channels)
        self.align_corners = align_corners

    def scores(self, x: Tensor, auxiliary: bool) -> list[Tensor]:
        """(N, C, \\*n) → the logits before they are resized; where ``auxiliary``, those of auxiliary heads as well."""
        raise NotImplementedError

    def trace_scores(self, field: Field, axis: int) -> Field:
        """One axis through the layers that give the logits."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, \\*n) → (N, K, \\*n), logits; a window of any size.

        Raises:
            TileError: for a window of other axes.
        """
        self.check_window(x.shape[2:])
        return resize(self.scores(x, auxiliary=False)[0], x.shape[2:], self.align_corners)

    def outputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, C, \\*n) → the logits, then those of the auxiliary heads that there are, each (N, K, \\*n).

        Raises:
            TileError: for a window of other axes.
        """
        self.check_window(x.shape[2:])
        scores = self.scores(x, auxiliary=True)
        return tuple(resize(score, x.shape[2:], self.align_corners) for score in scores)

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through the same layers as :meth:`forward`."""
        return self.trace_scores(field, axis).resize(field, self.align_corners)


class HeadedNetwork(ResizedNetwork):
    """A backbone with a head on its last feature, or on all; modules carry torchvision's names.

    Args:
        dims: 2 or 3.
        in_channels: C.
        out_channels: K.
        backbone: a module that is a :class:`Backbone`.
        classifier: from its last feature to scores, unless :meth:`decode` says otherwise.
        auxiliary: from the feature before it to scores, or ``None``.
        align_corners: how logits are resized.
        auxiliary_weight: what the auxiliary head's loss counts.
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        backbone: nn.Module,
        classifier: nn.Module,
        auxiliary: nn.Module | None,
        align_corners: bool,
        auxiliary_weight: float,
    ) -> None:
        super().__init__(dims, in_channels, out_channels, align_corners)
        self.backbone = backbone
        self.classifier = classifier
        self.aux_classifier = auxiliary
        self.auxiliary_weights = () if auxiliary is None else (auxiliary_weight,)

    def decode(self, features: list[Tensor]) -> Tensor:
        """The backbone's features → the logits before they are resized."""
        out: Tensor = self.classifier(features[-1])
        return out

    def trace_decode(self, fields: list[Field], axis: int) -> Field:
        """One axis of the features through the same layers as :meth:`decode`."""
        return follow(self.classifier, fields[-1], axis)

    def scores(self, x: Tensor, auxiliary: bool) -> list[Tensor]:
        """(N, C, \\*n) → the logits, and where ``auxiliary`` the second head's."""
        features = self.backbone(x)
        scores = [self.decode(features)]
        if auxiliary and self.aux_classifier is not None:
            scores.append(self.aux_classifier(features[-2]))
        return scores

    def trace_scores(self, field: Field, axis: int) -> Field:
        """One axis through the backbone and the head."""
        return self.trace_decode(cast(Backbone, self.backbone).trace(field, axis), axis)
