"""Losses of single voxels and their means: cross-entropy, focal loss, the hardest voxels alone.

A mean is over the voxels that count, divided by their number and not by the sum of their weights: a voxel of weight 10
pulls ten times as hard however many of them a sample has.

Legend: N samples, K output channels, F foreground classes, p the probability of the reference's class.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from monai.losses import FocalLoss
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medseg.datasets.labels import IGNORED
from medseg.inference.decode import Activation
from medseg.training.class_weights import ClassWeights, WeightRule
from medseg.training.segmentation_loss import SegmentationLoss, counted
from medseg.training.weightmap import border_weights, instances_from_classes


class CrossEntropy(SegmentationLoss):
    """Mean cross-entropy, -log p: of the classes (softmax), or binary, averaged over the foreground classes (sigmoid).

    Args:
        activation: of the channels.
        weights: what the voxels of each class count.
    """

    def __init__(self, activation: Activation, weights: WeightRule = None) -> None:
        super().__init__(activation)
        self.weights = ClassWeights(weights)

    def voxels(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, K, \\*core) float32, (N, \\*core) → (N, \\*core), whatever where a voxel doesn't count."""
        if self.activation == "softmax":
            return functional.cross_entropy(logits, target.long(), reduction="none", ignore_index=IGNORED)
        reference = self.reference(target, logits.shape[1])
        return functional.binary_cross_entropy_with_logits(logits, reference, reduction="none").mean(1)

    def chosen(self, losses: Tensor, counts: Tensor) -> Tensor:
        """The voxels that the mean is over, of those that count, given their losses: all of them."""
        return counts

    def forward(self, logits: Tensor, target: Tensor, maps: Tensor | None = None) -> Tensor:
        """(N, K, \\*core), (N, \\*core)[, a weight for each voxel (N, \\*core)] → scalar."""
        losses = self.voxels(logits.float(), target)
        chosen = self.chosen(losses.detach(), counted(target))
        for weights in (self.weights(target), maps):
            losses = losses if weights is None else losses * weights
        # Not a product with 0: where nothing counts, not even an overflow does.
        return torch.where(chosen, losses, 0).sum() / chosen.sum().clamp(min=1)


class BorderWeightedCrossEntropy(CrossEntropy):
    """The U-Net paper's: the borders between touching cells weigh more (Ronneberger et al. 2015, eq. 1 and 2).

    The paper sums w(x) · CE(x); here it is the mean. Without maps all voxels weigh the same.
    """

    def maps(self, label: NDArray, foreground: int) -> NDArray[np.float32]:
        """w(x) of a class map, (\\*core)."""
        counts = label != IGNORED
        return border_weights(instances_from_classes(np.where(counts, label, 0)), counts=counts)


class Focal(CrossEntropy):
    """-(1 - p)^gamma log p (Lin et al. 2017, eq. 4): what is learned already counts little. MONAI's FocalLoss.

    The paper's α is a list of class weights: [1 - α, α, ...].

    Args:
        activation: of the channels.
        gamma: 0 is cross-entropy, the paper's best is 2.
        weights: what the voxels of each class count.
    """

    def __init__(self, activation: Activation, gamma: float, weights: WeightRule = None) -> None:
        super().__init__(activation, weights)
        self.focal = FocalLoss(gamma=gamma, use_softmax=activation == "softmax", reduction="none")

    def voxels(self, logits: Tensor, target: Tensor) -> Tensor:
        """As cross-entropy's: of a softmax's channels all but the reference's are 0, sigmoids' are averaged."""
        first = 0 if self.activation == "softmax" else 1
        losses: Tensor = self.focal(logits, self.reference(target, logits.shape[1], first))
        return losses.sum(1) if self.activation == "softmax" else losses.mean(1)


class HardPixels(CrossEntropy):
    """Cross-entropy of the hardest voxels of a batch alone (Shrivastava et al. 2016, §4; OCR: Yuan et al. 2020, §4.2).

    Voxels are kept whose p is under ``threshold``; where those are fewer than ``min_kept`` of all that count, so many
    of the hardest. With sigmoid channels p is the geometric mean of their likelihoods.

    Args:
        activation: of the channels.
        threshold: 0.7 in OCR's release; 0 keeps the hardest fraction and no other, as Shrivastava et al. do.
        min_kept: a share of the voxels; OCR's 100 000 are about a sixteenth of a GPU's three crops of 512 x 1024.
        weights: what the voxels of each class count; how hard one is doesn't depend on it.
    """

    def __init__(self, activation: Activation, threshold: float, min_kept: float, weights: WeightRule = None) -> None:
        super().__init__(activation, weights)
        self.least = -math.log(threshold) if threshold > 0 else math.inf
        self.min_kept = min_kept

    def chosen(self, losses: Tensor, counts: Tensor) -> Tensor:
        """Those that are hard, found on the device: nothing waits for how many they are."""
        losses = torch.where(counts, losses, -1.0)
        rank = (counts.sum() * self.min_kept).ceil().long().clamp(min=1) - 1
        hardest = losses.flatten().sort(descending=True).values
        # gather, since an index of no axes would be waited for
        return counts & (losses >= hardest.gather(0, rank[None]).clamp(max=self.least))
