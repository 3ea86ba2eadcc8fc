"""Whether an ONNX file says what its network says: both are given the same windows of noise.

Legend: N batch, C channels, K output channels, n voxels along one axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.export.onnx_graph import INPUT, Sizes
from medseg.inference.decode import Decoder
from medseg.networks.network import Network

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

TOLERANCE = 1e-4
"""The largest difference of two logits, as a part of the largest logit, that rounding in another order can make."""


@dataclass(frozen=True)
class Agreement:
    """How far a file and its network agree at one window.

    Attributes:
        window: (N, C, \\*n).
        difference: the largest of two logits.
        scale: the largest logit.
        differing: voxels with another label.
        voxels: how many were compared.
    """

    window: tuple[int, ...]
    difference: float
    scale: float
    differing: int
    voxels: int

    @property
    def agrees(self) -> bool:
        """Whether rounding explains the difference."""
        return self.difference <= TOLERANCE * max(self.scale, 1e-30)


def windows_to_check(
    network: Network, window: Sequence[int], sizes: Sizes, trained: Sequence[int] | None
) -> list[tuple[int, tuple[int, ...]]]:
    """Batches and windows at which a graph is run before it is believed: a small one, and unless sizes are fixed more.

    For ``steps`` other admissible ones, and the one it was trained on. For ``any`` also those that leave a single level
    of the network with an odd size, since many networks go another way there.

    Args:
        network: whose step counts.
        window: the only one, or a small one.
        sizes: what the graph claims.
        trained: the window that the network was trained on, if known.
    """
    steps = network.footprint.step
    found = [(1, tuple(window)), (2, tuple(window))]
    if sizes == "fixed":
        return found
    found.append((1, tuple(n + s * (i + 1) for i, (n, s) in enumerate(zip(window, steps, strict=True)))))
    if trained is not None and tuple(trained) != tuple(window):
        found.append((1, tuple(trained)))
    if sizes == "any":
        more = 1
        while more < max(max(steps), 2):
            found.append((1, tuple(n + more for n in window)))
            more *= 2
        found.append((1, tuple(n + i + 1 for i, n in enumerate(window))))
    return found


def compare(
    path: Path, network: Network, decoder: Decoder, windows: Sequence[tuple[int, tuple[int, ...]]]
) -> list[Agreement]:
    """Runs a file in ONNX Runtime, on the CPU, and its network in PyTorch, at each window.

    Raises:
        MedsegError: where the file does not load, does not run, or differs by more than rounding.
    """
    session = _session(path)
    found = []
    for batch, window in windows:
        agreement = _compare(session, network, decoder, (batch, network.in_channels, *window))
        if not agreement.agrees:
            raise MedsegError(
                f"at a window of {window} ONNX Runtime's logits differ by {agreement.difference:.2g} from PyTorch's, "
                f"whose largest is {agreement.scale:.2g}"
            )
        found.append(agreement)
    return found


def _session(path: Path) -> InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as problem:
        raise MedsegError(f"ONNX Runtime does not load the graph: {_first_line(problem)}") from problem


def _compare(session: InferenceSession, network: Network, decoder: Decoder, shape: tuple[int, ...]) -> Agreement:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    with torch.inference_mode():
        wanted = network(x).numpy()
    try:
        given: NDArray = session.run(None, {INPUT: x.numpy()})[0]
    except Exception as problem:
        raise MedsegError(f"ONNX Runtime fails at a window of {shape[2:]}: {_first_line(problem)}") from problem
    if given.shape != wanted.shape:
        raise MedsegError(f"at a window of {shape[2:]} the graph's logits are {given.shape}, not {wanted.shape}")
    differing = sum(
        int((decoder.classes(torch.from_numpy(a)) != decoder.classes(torch.from_numpy(b))).sum())
        for a, b in zip(given, wanted, strict=True)
    )
    difference = float(np.abs(given - wanted).max())
    scale = float(np.abs(wanted).max())
    voxels = wanted[:, 0].size
    return Agreement(shape, difference if np.isfinite(difference) else np.inf, scale, differing, voxels)


def _first_line(problem: Exception) -> str:
    """What ONNX Runtime says, without its codes and the places in its source."""
    line = (str(problem).strip() or type(problem).__name__).splitlines()[0]
    said = line.partition(" Status Message:")[0].rpartition("FAIL : ")[2]
    return said.removeprefix("Non-zero status code returned while running ")
