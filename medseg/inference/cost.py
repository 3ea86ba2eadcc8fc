"""What a forward pass costs in seconds and bytes: counted without running it, and corrected by what is measured.

    counted    the network runs on the «meta» device, where tensors have shapes and no values: floating-point
               operations, and the most bytes that are alive at once, for any window within milliseconds
    measured   a few real forward passes, where the network runs: seconds, and by how much memory rises above before
    expected   HEAP_BYTES + MARGIN * ratio * counted, the ratio being measured / counted

A straight line through the bytes of two small windows would not do: a valid network loses its border, so what its lower
levels hold grows from next to nothing, and the layer at which most is alive is another one in a small window.

Legend: N batch, C input channels, K output channels.
"""

from __future__ import annotations

import contextlib
import math
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from medseg.inference.process_memory import peak_of
from medseg.inference.segment import CHANNELS_LAST
from medseg.networks.network import Network

MARGIN = 1.1
"""What is expected beyond what is counted and measured."""
HEAP_BYTES = 96 << 20
"""What the C library's heap keeps of freed blocks: it maps only those of 32 MiB and more one by one (``mallopt(3)``,
``M_MMAP_THRESHOLD``), and the holes of smaller ones came to three times that at most."""
TELLING_BYTES = 4 * HEAP_BYTES
"""What a window must be counted at for the heap's holes not to hide its true ratio."""
BLOCK_CHANNELS = 16
"""oneDNN copies what a convolution takes and gives where it needs channels in blocks, and fills up the last one."""
REPETITIONS = 3
ENOUGH_SECONDS = 1.0
"""A forward pass is repeated until it took so long in all, :data:`REPETITIONS` times at most."""


@dataclass(frozen=True)
class Count:
    """One forward pass, counted: floating-point operations, and the most bytes of tensors alive, its input left out."""

    flops: int
    bytes: int


@dataclass(frozen=True)
class Sample:
    """One forward pass, measured: the fastest repetition, and the bytes at its peak; None where they cannot be told."""

    seconds: float
    bytes: int | None


class Forward:
    """The forward pass of a network: what it costs for a window and a batch.

    Args:
        network: as it will run, on its device.
        amp: whether it runs in mixed precision.
    """

    def __init__(self, network: Network, amp: bool = False) -> None:
        self.network = network
        self.amp = amp
        self.samples: dict[tuple[tuple[int, ...], int], Sample] = {}
        self._counts: dict[tuple[tuple[int, ...], int], Count] = {}

    def count(self, window: Sequence[int], batch: int = 1) -> Count:
        """What the meta device says."""
        key = (tuple(window), batch)
        if key not in self._counts:
            self._counts[key] = count_forward(self.network, window, batch)
        return self._counts[key]

    def measure(self, window: Sequence[int], batch: int = 1) -> Sample:
        """What a run on noise says; it is taken once, and kept.

        Before the first of all, a pass that is not counted: libraries load and compile what they need.
        """
        key = (tuple(window), batch)
        if not self.samples:
            measure_forward(self.network, window, batch, self.amp)
        if key not in self.samples:
            self.samples[key] = measure_forward(self.network, window, batch, self.amp)
        return self.samples[key]

    def bytes(self, window: Sequence[int], batch: int = 1) -> int:
        """What is expected at the peak of a pass, beyond what was held before."""
        return HEAP_BYTES + int(MARGIN * self.ratio * self.count(window, batch).bytes)

    @property
    def ratio(self) -> float:
        """Measured / counted bytes: the largest of large windows; of small ones only what exceeds 1 and the heap."""
        found = [(s.bytes, self.count(*key).bytes) for key, s in self.samples.items() if s.bytes]
        telling = [measured / counted for measured, counted in found if counted >= TELLING_BYTES]
        return max(telling or [1.0, *((measured - HEAP_BYTES) / counted for measured, counted in found)])

    @property
    def rate(self) -> float:
        """The most floating-point operations a second that were measured."""
        return max(self.count(*key).flops / s.seconds for key, s in self.samples.items())


def count_forward(network: Network, window: Sequence[int], batch: int = 1) -> Count:
    """Counts a pass of (N, C, \\*window) on the meta device; nothing is computed, and no weights are copied."""
    tensors = [*network.named_parameters(), *network.named_buffers()]
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}
    x = torch.empty((batch, network.in_channels, *window), dtype=_dtype(network), device="meta")
    with torch.no_grad(), Counter(x) as counter:
        functional_call(network, shapes, (x,))
    return Count(counter.flops, counter.peak)


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation, backward ones too, and which tensors' memory is alive after it; what is given is left out.

    Attributes:
        flops: floating-point operations so far.
        peak: the most bytes alive at once so far.
    """

    def __init__(self, given: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = self.peak = self._alive = 0
        self._known = weakref.WeakSet([given.untyped_storage()])

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: nothing is compiled here, and PyTorch would load its compiler (seconds) to keep it away from this."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = _concatenated(*args) if func is torch.ops.aten.cat.default else func(*args, **kwargs)
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        copies = 0
        if func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](*args, **kwargs, out_val=out)
            maps = args[:2] if func is torch.ops.aten.convolution_backward.default else args[:1]
            copies = sum(_blocked_bytes(x) for x in tree_leaves((maps, out)) if isinstance(x, Tensor))
        self.peak = max(self.peak, self._alive + copies)
        return out

    def _note(self, storage: Any) -> None:
        if storage not in self._known:
            self._known.add(storage)
            self._alive += storage.nbytes()
            weakref.finalize(storage, self._forget, storage.nbytes())

    def _forget(self, count: int) -> None:
        self._alive -= count


def _concatenated(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """What ``torch.cat`` gives on the meta device, where PyTorch's own would load its compiler first."""
    shape = list(tensors[0].shape)
    shape[axis] = sum(tensor.shape[axis] for tensor in tensors)
    return tensors[0].new_empty(shape)


def _blocked_bytes(x: Tensor) -> int:
    """Of an operation's input or output (N, channels, \\*n), copied into whole blocks of channels."""
    if x.ndim < 2 or not x.numel():
        return 0
    channels = x.shape[1]
    return x.numel() // channels * (-(-channels // BLOCK_CHANNELS) * BLOCK_CHANNELS) * x.element_size()


def measure_forward(network: Network, window: Sequence[int], batch: int = 1, amp: bool = False) -> Sample:
    """Runs (N, C, \\*window) of noise through the network where it lives."""
    device = _device(network)
    x = torch.rand((batch, network.in_channels, *window), device=device).to(_dtype(network))
    x = x.contiguous(memory_format=CHANNELS_LAST[network.dims])
    seconds: list[float] = []
    mixed = torch.autocast(device.type, enabled=amp) if amp else contextlib.nullcontext()
    with torch.inference_mode(), mixed, peak_of(device) as peak:
        while len(seconds) < REPETITIONS and sum(seconds) < ENOUGH_SECONDS:
            begun = time.perf_counter()
            network(x)
            synchronize(device)
            seconds.append(time.perf_counter() - begun)
    return Sample(min(seconds), peak())


def timing_seconds(seconds: float) -> float:
    """What :func:`measure_forward` takes for a pass of so many seconds."""
    return seconds * min(REPETITIONS, max(1, math.ceil(ENOUGH_SECONDS / seconds)))


def synchronize(device: torch.device) -> None:
    """Returns when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def window_bytes(network: Network, window: Sequence[int], batch: int = 1) -> int:
    """(N, C, \\*window) in the network's precision."""
    return batch * network.in_channels * math.prod(window) * _dtype(network).itemsize


def logits_bytes(network: Network, shape: Sequence[int], batch: int = 1) -> int:
    """(N, K, \\*shape) in the network's precision."""
    return batch * network.out_channels * math.prod(shape) * _dtype(network).itemsize


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def _dtype(network: nn.Module) -> torch.dtype:
    return next(network.parameters()).dtype
