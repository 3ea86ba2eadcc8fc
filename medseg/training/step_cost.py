"""What a training step holds beside what a forward pass does: measured where they run; and, counted, the part of it
that poolings keep for unpooling.

Legend: N batch, C input channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import functional_call
from torch.optim import AdamW

from medseg.inference.cost import synchronize
from medseg.inference.process_memory import peak_of
from medseg.networks.network import MAX_POOLING, Network


def step_bytes(network: Network, window: Sequence[int], batch: int = 1) -> int | None:
    """By how many bytes memory rises in the first training step: activations, gradients, and AdamW's two averages.

    The loss is the mean square of all outputs: what a real one holds beside them is a few maps of K channels. The
    network is trained by it; give one that is not needed any more.

    Args:
        network: on its device; its weights are not counted.
        window: one number an axis.
        batch: N.

    Returns:
        None where it cannot be told (see :func:`~medseg.inference.process_memory.peak_of`).
    """
    first = next(network.parameters())
    x = torch.rand((batch, network.in_channels, *window), device=first.device, dtype=first.dtype)
    network.train().requires_grad_(True)
    with peak_of(first.device) as peak:
        optimizer = AdamW(network.parameters())
        torch.stack([output.square().mean() for output in network.outputs(x)]).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        synchronize(first.device)
    return peak()


def index_bytes(network: Network, window: Sequence[int], batch: int = 1) -> int:
    """The bytes of the places of maxima that a pass of (N, C, \\*window) keeps; nothing is computed."""
    found: list[int] = []

    def note(pool: torch.nn.Module, _: object, out: object) -> None:
        if isinstance(out, tuple):
            found.append(out[1].nbytes)

    tensors = [*network.named_parameters(), *network.named_buffers()]
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}
    x: Tensor = torch.empty((batch, network.in_channels, *window), device="meta", dtype=tensors[0][1].dtype)
    pools = [module for module in network.modules() if isinstance(module, MAX_POOLING[network.dims])]
    hooks = [pool.register_forward_hook(note) for pool in pools]
    try:
        with torch.no_grad():
            functional_call(network, shapes, (x,))
    finally:
        for hook in hooks:
            hook.remove()
    return sum(found)
