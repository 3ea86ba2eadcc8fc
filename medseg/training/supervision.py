"""The loss of everything that a network puts out: its logits, and what its auxiliary heads say on the way there.

    loss = L(logits) + Σ_i w_i L(auxiliary_i)          PSPNet and OCR: w = 0.4; nnU-Net's deep supervision: w_i = 2^-i

Legend: N samples, K output channels, F foreground classes, d axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medseg.errors import ConfigError
from medseg.networks.network import Network
from medseg.training.segmentation_loss import SegmentationLoss


def auxiliary_weights(network: Network, wanted: Sequence[float] | None) -> tuple[float, ...]:
    """What each auxiliary loss counts: the config's, else the network's own; empty where none of them counts.

    Raises:
        ConfigError: where the config's are not as many as the network has auxiliary outputs.
    """
    own = network.auxiliary_weights
    if wanted is None:
        return own
    if len(wanted) != len(own):
        hint = "give one for each" if own else "an argument of the network may give it some, as network.auxiliary=true"
        raise ConfigError(
            f"training.auxiliary_weights is {list(wanted)} and the network has {len(own)} auxiliary outputs: {hint}"
        )
    return tuple(wanted) if any(wanted) else ()


def supervised_loss(
    loss: SegmentationLoss, outputs: Sequence[Tensor], weights: Sequence[float], target: Tensor, maps: Tensor | None
) -> Tensor:
    """The logits' loss and those of the auxiliary outputs, weighted.

    Args:
        loss: of one output.
        outputs: the logits (N, K, \\*core), then the auxiliary ones (N, K, \\*n); where n differs, the target's nearest
            voxels are compared with them, as nnU-Net does.
        weights: of the auxiliary ones.
        target: (N, \\*core).
        maps: what the loss wants beside the target, or None.
    """
    main, *auxiliary = outputs
    total: Tensor = loss(main, target, maps)
    for weight, output in zip(weights, auxiliary, strict=True):
        if weight:
            shape = output.shape[2:]
            seen = None if maps is None else nearest(maps, shape)
            total = total + weight * loss(output, nearest(target, shape), seen)
    return total


def nearest(values: Tensor, shape: Sequence[int]) -> Tensor:
    """(..., \\*n) of any type → (..., \\*shape): of the voxels, those nearest to the centres of the new ones."""
    for axis, size in enumerate(shape, values.ndim - len(shape)):
        n = values.shape[axis]
        if n != size:
            index = torch.arange(size, device=values.device)
            values = values.index_select(axis, torch.div((2 * index + 1) * n, 2 * size, rounding_mode="floor"))
    return values
