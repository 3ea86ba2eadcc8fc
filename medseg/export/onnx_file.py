"""A model package as one ONNX file: the network, and in its metadata what a program needs to use it rightly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import medseg
from medseg.errors import ConfigError, MedsegError, OutputError, PackageError
from medseg.export.check import Agreement, compare, windows_to_check
from medseg.export.onnx_graph import BATCH, INPUT, OUTPUT, Sizes, generic_window, graph_of, small_window
from medseg.files import partial_of
from medseg.inference.decode import Decoder
from medseg.networks.network import Network
from medseg.package import ModelCard

if TYPE_CHECKING:
    from onnx import ModelProto

NEEDED = ("onnx", "onnxruntime", "onnxscript")
OPSETS = (18, 23)
"""The least and the most opset that PyTorch's exporter writes."""
DEFAULT_OPSET = 18
REASON_LENGTH = 200
LARGEST = 2**31 - 2**20
"""The most bytes of weights: a protocol buffer ends at 2 GiB."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        sizes: which windows it takes: ``any``, ``steps`` or ``fixed``.
        window: the one that it was traced at, and the only one where sizes are fixed.
        opset: of ONNX.
        checked: how it agreed with PyTorch, at each window where both were run.
        why: what was wrong with a graph of more sizes, where one was tried.
    """

    path: Path
    sizes: Sizes
    window: tuple[int, ...]
    opset: int
    checked: list[Agreement]
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "path": str(self.path),
            "sizes": self.sizes,
            "window": list(self.window),
            "opset": self.opset,
            "why": self.why,
            "checked": [
                {
                    "shape": list(one.window),
                    "largest_difference": one.difference,
                    "largest_logit": one.scale,
                    "differing_labels": one.differing,
                    "voxels": one.voxels,
                }
                for one in self.checked
            ],
        }


def check_installed() -> None:
    """Refuses to begin without the packages of the extra.

    Raises:
        MedsegError: naming those that are missing.
    """
    absent = [name for name in NEEDED if find_spec(name) is None]
    if absent:
        raise MedsegError(
            f"exporting to ONNX needs {', '.join(absent)}, not installed here: pip install 'medseg[export]'"
        )


def export_onnx(
    network: Network,
    card: ModelCard,
    path: Path,
    window: Sequence[int] | None = None,
    opset: int = DEFAULT_OPSET,
    overwrite: bool = False,
) -> Exported:
    """Writes a package's network as an ONNX file, after ONNX Runtime has given the same labels.

    Args:
        network: the package's, on the CPU.
        card: the package's.
        path: the file.
        window: the one size that it is to be for; None for as many as the network allows.
        opset: of ONNX.
        overwrite: replace a file of that name.

    Raises:
        MedsegError: where the file exists, a package is missing, the network cannot take the window, or no graph of the
            network gives its labels; nothing is written then.
    """
    check_installed()
    _check_path(path, overwrite)
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise ConfigError(
            f"--opset {opset} is not written by PyTorch's exporter: give one from {OPSETS[0]} to {OPSETS[1]}"
        )
    weights = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    if weights > LARGEST:
        raise PackageError(f"the weights have {weights / 2**30:.1f} GiB and one ONNX file holds 2 GiB at most")
    if window is not None:
        network.check_window(window)
    beside = partial_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        exported = _freest(network, card, path, beside, window, opset)
        beside.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)
    return exported


def _check_path(path: Path, overwrite: bool) -> None:
    if path.suffix.lower() != ".onnx":
        raise OutputError(f"{path} is no ONNX file: give -o FILE.onnx")
    if path.exists() and (path.is_dir() or not overwrite):
        raise OutputError(f"{path} exists: give --overwrite to replace it, or another -o")


def _freest(
    network: Network, card: ModelCard, path: Path, beside: Path, window: Sequence[int] | None, opset: int
) -> Exported:
    """Writes the graph of the most windows that passes its check, beside the file.

    Raises:
        MedsegError: where none does, with the reason.
    """
    why = ""
    for sizes in _attempts(network, window):
        traced = _traced(network, card, window, sizes)
        try:
            checked = _attempt(network, card, beside, traced, sizes, opset)
            return Exported(path, sizes, traced, opset, checked, why)
        except OSError:
            raise
        except Exception as problem:  # PyTorch's exporter raises whatever its parts do
            why = reason_of(problem)
    raise MedsegError(
        f"the network {card.network['name']} has no ONNX graph that gives its labels at a window of {list(traced)} "
        f"({why}); no file was written"
    )


def _attempts(network: Network, window: Sequence[int] | None) -> list[Sizes]:
    if window is not None:
        return ["fixed"]
    return ["any", "steps", "fixed"] if network.any_size else ["steps", "fixed"]


def _traced(network: Network, card: ModelCard, window: Sequence[int] | None, sizes: Sizes) -> tuple[int, ...]:
    """The window at which a graph is made: what is asked for; for one size the trained one; else a generic one."""
    if window is not None:
        return tuple(window)
    return generic_window(network) if sizes != "fixed" else trained_window(network, card) or small_window(network)


def trained_window(network: Network, card: ModelCard) -> tuple[int, ...] | None:
    """What the network was trained on, one number an axis; None where the package does not say."""
    if card.window is None:
        return None
    window = tuple(card.window) * network.dims if len(card.window) == 1 else tuple(card.window)
    try:
        network.check_window(window)
    except MedsegError:
        return None
    return window


def _attempt(
    network: Network, card: ModelCard, beside: Path, window: tuple[int, ...], sizes: Sizes, opset: int
) -> list[Agreement]:
    import onnx

    network.check_window(window)
    graph = graph_of(network, window, sizes, opset)
    onnx.helper.set_model_props(graph, metadata_of(network, card, window, sizes))
    graph.producer_name, graph.producer_version = "medseg", medseg.__version__
    graph.doc_string = f"{card.network['name']} of medseg: {INPUT} to {OUTPUT}; see metadata_props"
    _save(graph, beside)
    checked = window if sizes == "fixed" else small_window(network)
    windows = windows_to_check(network, checked, sizes, trained_window(network, card))
    return compare(beside, network, Decoder(card.activation, card.label_map.written), windows)


def _save(graph: ModelProto, path: Path) -> None:
    import onnx

    onnx.checker.check_model(graph, full_check=True)
    path.write_bytes(graph.SerializeToString())


def metadata_of(network: Network, card: ModelCard, window: Sequence[int], sizes: Sizes) -> dict[str, str]:
    """What the file says of itself, as ONNX keeps it: text by key; all but names and digests is JSON.

    Args:
        network: whose footprint it is.
        card: the package's.
        window: the traced one.
        sizes: which windows the graph takes.
    """
    footprint, labels = network.footprint, card.label_map
    free = sizes == "any"
    about: dict[str, Any] = {
        "medseg.version": medseg.__version__,
        "medseg.weights_sha256": card.weights_sha256,
        "medseg.network": card.network,
        "footprint.halo": footprint.halo,
        "footprint.step": footprint.step,
        "footprint.offset": footprint.offset,
        "footprint.exact": footprint.exact,
        "footprint.trim": [[f.before, f.trim - f.before] for f in network.fields],
        "sizes": sizes,
        "sizes.step": [1] * network.dims if free else footprint.step,
        "sizes.offset": [0] * network.dims if free else footprint.offset,
        "window": list(window) if sizes == "fixed" else card.window,
        "labels": card.labels,
        "classes": [int(value) for value in labels.file_values],
        "targets": list(labels.targets),
        "activation": card.activation,
        "preprocessing": card.preprocessing.model_dump(mode="json"),
        "spacing_mm": card.preprocessing.spacing_mm,
        "inference": card.inference.model_dump(mode="json"),
        "postprocessing": [step.model_dump(mode="json") for step in card.postprocessing],
        "axes": [BATCH, "channel", *"zyx"[-network.dims :]],
    }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in about.items()}


def reason_of(problem: BaseException) -> str:
    """Why a graph could not be made, in one line: ours, or the innermost cause of another's."""
    while problem.__cause__ is not None and not isinstance(problem, MedsegError):
        problem = problem.__cause__
    lines = str(problem).strip().splitlines()
    return lines[0][:REASON_LENGTH] if lines else type(problem).__name__
