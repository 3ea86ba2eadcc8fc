"""Losses of whole regions: how far probabilities and reference overlap, and how far apart their borders lie.

Sums of probabilities p and reference g over the voxels that count, by MONAI:

    Dice               1 - (2 Σ p·g + s) / (Σ p + Σ g + s)                  Milletari et al. 2016, §3, without squares
    Tversky            1 - (Σ p·g + s) / (Σ p·g + α Σ p·(1-g) + β Σ (1-p)·g + s)             Salehi et al. 2017, eq. 4
    generalized Dice   1 - (2 Σ_c w_c Σ p·g + s) / (Σ_c w_c Σ (p + g) + s),  w_c = 1 / (Σ g)²  Sudre et al. 2017, eq. 1

Legend: N samples, K output channels, F foreground classes, s a small number that defines them for an empty reference.
"""

from __future__ import annotations

import numpy as np
import torch
from monai.losses import DiceLoss, GeneralizedDiceLoss, TverskyLoss
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from medseg.inference.decode import Activation
from medseg.training.segmentation_loss import SegmentationLoss, counted

NEXT_TO_NOTHING = 1e-20
"""The s of generalized Dice: its sums are about 1 / n, so that MONAI's 1e-5 would outweigh a class of 10^5 voxels."""


class RegionLoss(SegmentationLoss):
    """The base: probabilities and reference of the foreground classes, without what doesn't count."""

    def regions(self, logits: Tensor, target: Tensor, background: bool = False) -> tuple[Tensor, Tensor]:
        """(N, K, \\*core), (N, \\*core) → twice (N, F, \\*core): p and g, both 0 where a voxel doesn't count.

        With ``background`` a softmax's channel 0 comes along, (N, K, \\*core), and sigmoids are followed by their
        complements, (N, 2 F, \\*core).
        """
        counts, logits = counted(target).unsqueeze(1), logits.float()
        if self.activation == "softmax":
            first = 0 if background else 1
            p, g = logits.softmax(1)[:, first:], self.reference(target, logits.shape[1] - first, first)
        else:
            p, g = logits.sigmoid(), self.reference(target, logits.shape[1])
            if background:
                p, g = torch.cat([p, (-logits).sigmoid()], 1), torch.cat([g, counts.float() - g], 1)
        return torch.where(counts, p, 0), g


class Dice(RegionLoss):
    """Mean soft Dice loss of the foreground classes: background would drown small structures.

    Args:
        activation: of the channels.
        batch: whether sums go over all samples of a batch together, or over each, whose losses are then averaged.
        smooth: s, in voxels.
    """

    def __init__(self, activation: Activation, batch: bool, smooth: float) -> None:
        super().__init__(activation)
        self.dice = DiceLoss(batch=batch, smooth_nr=smooth, smooth_dr=smooth)

    def forward(self, logits: Tensor, target: Tensor, maps: Tensor | None = None) -> Tensor:
        """(N, K, \\*core), (N, \\*core) → scalar in [0, 1]."""
        value: Tensor = self.dice(*self.regions(logits, target))
        return value


class Tversky(RegionLoss):
    """Mean Tversky loss of the foreground classes.

    Args:
        activation: of the channels.
        alpha: what false positives count; 0.5 and 0.5 is Dice.
        beta: what false negatives count.
        batch: as for :class:`Dice`.
        smooth: s, in voxels.
    """

    def __init__(self, activation: Activation, alpha: float, beta: float, batch: bool, smooth: float) -> None:
        super().__init__(activation)
        self.tversky = TverskyLoss(alpha=alpha, beta=beta, batch=batch, smooth_nr=smooth, smooth_dr=smooth)

    def forward(self, logits: Tensor, target: Tensor, maps: Tensor | None = None) -> Tensor:
        """(N, K, \\*core), (N, \\*core) → scalar in [0, 1]."""
        value: Tensor = self.tversky(*self.regions(logits, target))
        return value


class GeneralizedDice(RegionLoss):
    """Generalized Dice loss: a class weighs by the inverse square of its volume, background among them.

    With sigmoid channels each class stands beside its own complement, which for one class is the paper's loss of two. A
    class that a reference has not weighs as much as the rarest that it has.

    Args:
        activation: of the channels.
        batch: as for :class:`Dice`.
    """

    def __init__(self, activation: Activation, batch: bool) -> None:
        super().__init__(activation)
        self.dice = GeneralizedDiceLoss(batch=batch, smooth_nr=NEXT_TO_NOTHING, smooth_dr=NEXT_TO_NOTHING)

    def forward(self, logits: Tensor, target: Tensor, maps: Tensor | None = None) -> Tensor:
        """(N, K, \\*core), (N, \\*core) → scalar in [0, 1]."""
        value: Tensor = self.dice(*self.regions(logits, target, background=True))
        return value


class Boundary(RegionLoss):
    """(1 - α) · generalized Dice + α · boundary loss, α rising evenly over the training (Kervadec et al. 2019, 2021).

    The boundary loss is the mean over voxels and foreground classes of φ · (p - g), φ the distance to the reference's
    border in voxels, negative inside: the paper's Σ φ·p (eq. 5) less its least value, so that it is never negative and
    0 for the reference itself. The gradient is the same. φ is 0 for a class that fills a sample or is not in it.
    MONAI's BoundaryLoss has the same φ but finds it within the step, on the CPU, and knows no voxels to ignore.

    Args:
        activation: of the channels.
        alpha: the share of the boundary loss at the first and at the last step.
        batch: of the generalized Dice.
    """

    def __init__(self, activation: Activation, alpha: tuple[float, float], batch: bool) -> None:
        super().__init__(activation)
        self.alpha = alpha
        self.region = GeneralizedDice(activation, batch)

    def maps(self, label: NDArray, foreground: int) -> NDArray[np.float32]:
        """φ of each foreground class or region, (F, \\*core)."""
        classes = [[number] for number in range(1, foreground + 1)]
        if self.members is not None:
            classes = [np.flatnonzero(region).tolist() for region in self.members.numpy()]
        return np.stack([signed_distance(np.isin(label, some)) for some in classes])

    def forward(self, logits: Tensor, target: Tensor, maps: Tensor | None = None) -> Tensor:
        """(N, K, \\*core), (N, \\*core), φ (N, F, \\*core) → scalar.

        Raises:
            ValueError: without φ.
        """
        if maps is None:
            raise ValueError("the boundary loss needs the distance maps of its targets")
        p, g = self.regions(logits, target)
        boundary = (maps * (p - g)).sum() / (counted(target).sum() * p.shape[1]).clamp(min=1)
        first, last = self.alpha
        share = first + (last - first) * self.progress
        return (1 - share) * self.region(logits, target) + share * boundary


def signed_distance(mask: NDArray) -> NDArray[np.float32]:
    """From each voxel to the mask's border in voxels, (*n) → (*n): 1, 2, ... outside, 0, -1, ... inside.

    0 everywhere where the mask is empty or full.
    """
    if not mask.any() or mask.all():
        return np.zeros(mask.shape, np.float32)
    inside, outside = distance_transform_edt(mask), distance_transform_edt(~mask)
    return np.where(mask, 1 - inside, outside).astype(np.float32)
