"""From logits to classes: the one place where scores become a decision.

Legend: K output channels, F foreground classes, M models whose probabilities are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Activation = Literal["sigmoid", "softmax"]
MOST_FLAGS = 8


@dataclass(frozen=True)
class Decoder:
    """How a model's channels are read.

    ``sigmoid``: one channel for each foreground class (K = F); the largest of those at least 0.5, else background.
    ``softmax``: background and the foreground classes (K = F + 1); the largest.
    ``sigmoid`` of regions: one channel for each region; of those at least 0.5 the last, as the class that ``written``
    has for it, as nnU-Net does (documentation/region_based_training.md).
    ``flags``: instead of a class, a number whose bit n says whether region n is at least 0.5, so that nothing of
    overlapping regions is lost; of at most :data:`MOST_FLAGS` regions.
    ``members``: so many models' channels lie side by side, and the mean of their probabilities counts.
    """

    activation: Activation = "softmax"
    written: tuple[int, ...] = ()
    flags: bool = False
    members: int = 1

    def probabilities(self, logits: Tensor) -> Tensor:
        """(M * K, \\*n) → (K, \\*n) in [0, 1]: the mean over the models."""
        if self.members == 1:
            return self._activated(logits)
        shares = [self._activated(own) for own in logits.chunk(self.members)]
        return torch.stack(shares).mean(0)

    def classes(self, logits: Tensor) -> Tensor:
        """(M * K, \\*n) logits → (\\*n) uint8: 0 background, 1..F foreground."""
        if self.members > 1:
            return self.classes_of_probabilities(self.probabilities(logits))
        return self._decide(logits, 0.0)

    def classes_of_probabilities(self, probabilities: Tensor) -> Tensor:
        """(K, \\*n) probabilities → (\\*n) uint8, the same decision taken after interpolation."""
        return self._decide(probabilities, 0.5)

    def _activated(self, logits: Tensor) -> Tensor:
        return logits.sigmoid() if self.activation == "sigmoid" else logits.softmax(0)

    def _decide(self, scores: Tensor, threshold: float) -> Tensor:
        if self.activation == "softmax":
            return scores.argmax(0).to(torch.uint8)
        if self.flags:
            bits = (2**n * (region >= threshold) for n, region in enumerate(scores))
            return torch.stack(list(bits)).sum(0).to(torch.uint8)
        if self.written:
            classes = torch.zeros(scores.shape[1:], dtype=torch.uint8, device=scores.device)
            for region, number in zip(scores, self.written, strict=True):
                classes[region >= threshold] = number
            return classes
        best, channel = scores.max(0)
        return torch.where(best >= threshold, channel + 1, 0).to(torch.uint8)
