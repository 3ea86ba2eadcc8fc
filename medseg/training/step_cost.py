"""What a training step costs: measured where it runs, or counted on the meta device, where nothing is computed.

    counted    forward and backward pass run on tensors that have shapes and no values: floating-point operations, and
               the most bytes alive at once: activations that the backward pass waits for, gradients, copies in blocks
    expected   MARGIN * counted + what the optimiser keeps of each weight

Legend: N batch, C input channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import AdamW

from medseg.inference.cost import Counter, synchronize
from medseg.inference.process_memory import peak_of
from medseg.networks.network import MAX_POOLING, Network

MARGIN, HALF_MARGIN = 1.1, 1.3
"""What a step was measured to hold beyond what is counted: the copies that kernels make of views, and holes of the
heap; in mixed precision some maps are in 32 bits too (``benchmarks/plan_memory.py``)."""
AVERAGES = 2
"""What AdamW keeps of each weight."""


@dataclass(frozen=True)
class StepCount:
    """One training step, counted.

    Attributes:
        flops: floating-point operations of the forward and the backward pass.
        bytes: what is expected at its peak beyond the network's weights.
    """

    flops: int
    bytes: int


def count_step(network: Network, window: Sequence[int], batch: int = 1, *, half: bool = False) -> StepCount:
    """Counts a step of (N, C, \\*window) with AdamW; its loss is the mean square of all outputs.

    Args:
        network: on any device, the meta device too; it stays as it is.
        window: one number an axis.
        batch: N.
        half: whether activations are kept in 16 bits, as in mixed precision; weights and their gradients never are.

    Raises:
        TileError: for a window that the network cannot take.
    """
    dtype = torch.bfloat16 if half else torch.float32
    tensors = _shapes(network, dtype)
    x = torch.empty((batch, network.in_channels, *window), dtype=dtype, device="meta")
    training = network.training
    network.train()
    try:
        with Counter(x) as counter:
            outputs = functional_call(_Outputs(network), tensors, (x,))
            torch.stack([output.square().mean() for output in outputs]).sum().backward()  # type: ignore[no-untyped-call]
    finally:
        network.train(training)
    weights = sum(p.numel() for p in network.parameters()) * torch.float32.itemsize
    # In mixed precision gradients are in 32 bits, and a copy of the weights in 16 bits is alive beside them.
    held = AVERAGES * weights + (weights if half else 0)
    return StepCount(counter.flops, int((HALF_MARGIN if half else MARGIN) * counter.peak) + held)


class _Outputs(nn.Module):
    """A network whose forward pass gives all of its outputs."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, C, \\*window) → the logits and the auxiliary ones."""
        return self.network.outputs(x)


def _shapes(network: Network, dtype: torch.dtype) -> dict[str, Tensor]:
    """The network's weights on the meta device, as :class:`_Outputs` names them."""
    found = {}
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        kind = dtype if tensor.is_floating_point() else tensor.dtype
        found[f"network.{name}"] = torch.empty_like(
            tensor, dtype=kind, device="meta", requires_grad=tensor.requires_grad
        )
    return found


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
