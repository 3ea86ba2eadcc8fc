"""A network as an ONNX graph, for windows of as many sizes as the network allows.

    any      every size from the least on        a network that ends with its window's own size
    steps    n ≡ offset (mod step)               the windows at which tiling is exact
    fixed    one size                            a network that was built for it, or whose graph knows no other

They are tried in this order. A graph that is traced at one size can be wrong at another without a word, so each is run
at windows that it claims (:mod:`medseg.export.check`) before it is taken for what it is.

Legend: N batch, C channels, K output channels, n voxels along one axis, b bins along one axis.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from medseg.geometry.footprint import least_congruent
from medseg.networks.network import Network

if TYPE_CHECKING:
    from onnx import ModelProto

Sizes = Literal["any", "steps", "fixed"]
INPUT, OUTPUT = "window", "logits"
BATCH = "batch"
AXES = {2: ("y", "x"), 3: ("z", "y", "x")}
"""What the spatial axes are called in the graph, in array order."""
SMALL = 32
"""About how many voxels an axis of a small window has."""
COARSEST = (4, 5, 7)
"""Voxels along each axis of the coarsest level of the window that a graph of many sizes is traced at: none that equals
another or a pyramid's 1, 2, 3 or 6 bins, since what is equal in a trace is taken for the same."""


def small_window(network: Network) -> tuple[int, ...]:
    """A small window that the network can take, with a voxel to spare at its coarsest level."""
    return _window(network, (2,) * network.dims)


def generic_window(network: Network) -> tuple[int, ...]:
    """A window that the network can take, at which no two sizes within it agree by chance."""
    return _window(network, COARSEST[: network.dims])


def _window(network: Network, coarsest: Sequence[int]) -> tuple[int, ...]:
    """A window of :data:`SMALL` voxels or more whose coarsest level has a multiple of so many beyond the first."""
    sizes = []
    for field, voxels in zip(network.fields, coarsest, strict=True):
        times = -(-SMALL // (field.step * min(coarsest)))
        sizes.append(least_congruent(max(field.trim, 0) + field.step * voxels * times, field.step, field.offset))
    return tuple(max(n, network.least) for n in sizes) if network.any_size else tuple(sizes)


def graph_of(network: Network, window: Sequence[int], sizes: Sizes, opset: int) -> ModelProto:
    """The graph ``window`` (N, C, \\*n) → ``logits`` (N, K, \\*out), traced at a window.

    Args:
        network: on the CPU, in evaluation mode; it is left as it is.
        window: where it is traced.
        sizes: which windows the graph is for.
        opset: of ONNX.

    Raises:
        Exception: whatever PyTorch's exporter raises where it cannot.
    """
    traced = exportable(network)
    example = torch.zeros(2, network.in_channels, *window)
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            traced,
            (example,),
            dynamo=True,
            dynamic_shapes=(_dynamic(network, sizes),),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=opset,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("PyTorch's exporter returned no graph")
    graph: ModelProto = program.model_proto
    _name_axes(graph, network, sizes)
    return graph


def exportable(network: Network) -> nn.Module:
    """A copy of a network, in which layers that ONNX has no word for are said in words that it has."""
    twin = copy.deepcopy(network).eval()
    for module in list(twin.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.AdaptiveAvgPool2d | nn.AdaptiveAvgPool3d):
                setattr(module, name, BinAverages(child.output_size))
    return twin


class BinAverages(nn.Module):
    """Adaptive average pooling as one product an axis with the weights of its bins, of a window of any size.

    Bin i of b averages the voxels from ⌊i·n / b⌋ to ⌈(i + 1)·n / b⌉, as ``torch.nn.AdaptiveAvgPool2d`` has it.

    Args:
        bins: along all axes, or along each.
    """

    def __init__(self, bins: Any) -> None:
        super().__init__()
        self.bins: int | Sequence[int] = bins

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, \\*n) → (N, C, \\*b)."""
        dims = x.ndim - 2
        bins = (self.bins,) * dims if isinstance(self.bins, int) else tuple(self.bins)
        for axis, count in enumerate(bins, 2):
            weights = _bin_weights(x.shape[axis], count, x)
            x = torch.matmul(x.movedim(axis, -1), weights).movedim(-1, axis)
        return x


def _bin_weights(n: int, bins: int, like: Tensor) -> Tensor:
    """(n, b): what each voxel counts in each bin."""
    index = torch.arange(bins, device=like.device)
    start, stop = (index * n) // bins, ((index + 1) * n + bins - 1) // bins
    voxel = torch.arange(n, device=like.device)[:, None]
    within = (voxel >= start) & (voxel < stop)
    return within.to(like.dtype) / (stop - start).to(like.dtype)


def _dynamic(network: Network, sizes: Sizes) -> dict[int, Any]:
    """Which axes of the window vary, and over what."""
    from torch.export import Dim

    axes: dict[int, Any] = {0: Dim.DYNAMIC}
    for axis, field in enumerate(network.fields) if sizes != "fixed" else ():
        if sizes == "any" or field.step == 1:
            axes[2 + axis] = Dim.DYNAMIC
        else:
            axes[2 + axis] = field.step * Dim(f"k{axis}", min=1, max=2**16) + field.offset
    return axes


def _name_axes(graph: ModelProto, network: Network, sizes: Sizes) -> None:
    """Gives the axes that vary names that a reader knows."""
    for value, suffix in ((graph.graph.input[0], ""), (graph.graph.output[0], "_out")):
        axes = value.type.tensor_type.shape.dim
        axes[0].dim_param = BATCH
        for axis, name in zip(list(axes)[2:], AXES[network.dims], strict=True):
            if sizes != "fixed":
                axis.dim_param = name + suffix


@contextmanager
def quiet() -> Iterator[None]:
    """Without what PyTorch's exporter says of its own inside."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
