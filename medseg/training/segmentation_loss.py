"""What every loss is: from logits and a class map to one number.

Legend: N samples, K output channels, F foreground classes, n voxels. Targets are class maps (N, \\*core): 0 background,
1..F foreground, IGNORED what doesn't count. Everything is computed in float32 whatever the network computes in.
"""

from __future__ import annotations

from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medseg.datasets.labels import IGNORED, Labels
from medseg.errors import ConfigError
from medseg.inference.decode import Activation


class SegmentationLoss(nn.Module):
    """The base: what a loss says about the network's channels, and what it wants beside the target.

    Attributes:
        activation: what turns its logits into probabilities: ``softmax`` where a voxel has one class of several,
            ``sigmoid`` where every foreground class has a channel of its own.
        progress: how much of the training lies behind, 0 to 1; the loop sets it before every step.
        members: which classes each region is made of, (K, F + 1) of 0 and 1; None where every class is a channel.
        written: the class that each region is written as; () without regions.

    Raises:
        ConfigError: for another activation.
    """

    members: Tensor | None

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.register_buffer("members", None, persistent=False)
        self.written: tuple[int, ...] = ()
        if activation not in get_args(Activation):
            raise ConfigError(f"loss.activation is {activation!r}; it must be softmax or sigmoid")
        self.activation = activation
        self.progress = 0.0

    def channels(self, targets: int) -> int:
        """The output channels that a network needs for so many foreground classes or regions: softmax has one more."""
        return targets + 1 if self.activation == "softmax" else targets

    def learn_regions(self, labels: Labels) -> None:
        """From here on a channel is a region of ``labels``, where these have some.

        Raises:
            ConfigError: for a softmax, which gives each voxel to one channel alone.
        """
        if not labels.regions:
            return
        if self.activation == "softmax":
            raise ConfigError(
                f"the regions {', '.join(labels.regions)} overlap, and a softmax gives each voxel to one alone: take a "
                "loss with sigmoid channels, such as dice_bce"
            )
        table = np.zeros((len(labels.targets), labels.classes + 1), np.float32)
        for region, classes in enumerate(labels.targets.values()):
            table[region, list(classes)] = 1
        for part in self.modules():
            if isinstance(part, SegmentationLoss):
                part.members, part.written = torch.from_numpy(table), labels.written

    def reference(self, target: Tensor, channels: int, first: int = 1) -> Tensor:
        """A class map (N, \\*core) as float channels (N, ``channels``, \\*core) of 0 and 1.

        Class by class from ``first`` on, or region by region. Voxels that don't count are 0 in all.
        """
        if self.members is None:
            return one_channel_each(target, first, channels)
        return self.members[:, target.clamp(min=0).long()].movedim(0, 1)

    def maps(self, label: NDArray, foreground: int) -> NDArray | None:
        """What ``forward`` wants beside the class map (\\*core) of a sample, computed where samples are drawn.

        Returns:
            (\\*core) or (F, \\*core) float32; None where it wants nothing.
        """
        return None

    def forward(self, logits: Tensor, target: Tensor, maps: Tensor | None = None) -> Tensor:
        """(N, K, \\*core), (N, \\*core)[, (N, \\*core) or (N, F, \\*core)] → a scalar, never negative.

        Voxels whose target is IGNORED change nothing, and their gradient is zero; where all are, the loss is 0.
        """
        raise NotImplementedError


class Sum(SegmentationLoss):
    """Losses of one activation added up."""

    def __init__(self, *terms: SegmentationLoss) -> None:
        super().__init__(terms[0].activation)
        self.terms = nn.ModuleList(terms)

    def forward(self, logits: Tensor, target: Tensor, maps: Tensor | None = None) -> Tensor:
        """(N, K, \\*core), (N, \\*core) → scalar."""
        values = [term(logits, target) for term in self.terms]
        return torch.stack(values).sum()


def counted(target: Tensor) -> Tensor:
    """(N, \\*core) → (N, \\*core), true where a voxel counts."""
    return target != IGNORED


def one_channel_each(target: Tensor, first: int, classes: int) -> Tensor:
    """A class map (N, \\*core) as float channels (N, classes, \\*core) of 0 and 1, from class ``first`` on."""
    values = torch.arange(first, first + classes, device=target.device, dtype=target.dtype)
    shape = (1, classes) + (1,) * (target.ndim - 1)
    return (target.unsqueeze(1) == values.view(shape)).float()
