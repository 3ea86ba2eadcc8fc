"""``medseg export``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from medseg.errors import ConfigError, nearest

if TYPE_CHECKING:
    from medseg.export.onnx_file import Exported

TARGETS = ("onnx",)


def export(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A model package, a run's folder, or models:/NAME@ALIAS.")
    ],
    to: Annotated[str, typer.Option("--to", help="The format: onnx.")] = "onnx",
    output: Annotated[
        Optional[Path],
        typer.Option("-o", "--output", metavar="FILE.onnx", help="The network's name .onnx if not given."),
    ] = None,
    shape: Annotated[
        Optional[str],
        typer.Option(metavar="N[,N,N]", help="For windows of this size alone; default: all that the network allows."),
    ] = None,
    opset: Annotated[int, typer.Option(help="Of ONNX.")] = 18,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> None:
    """Write a model's network for other runtimes, after it has given the same labels there."""
    if to not in TARGETS:
        raise ConfigError(f"--to {to!r} is none of {', '.join(TARGETS)}{nearest(to, TARGETS)}")
    from medseg.cli.infer_options import sizes_of
    from medseg.export.onnx_file import check_installed, export_onnx
    from medseg.package import find_package, read_card, read_network

    check_installed()
    folder = find_package(model)
    card = read_card(folder)
    network = read_network(folder, card)
    window = sizes_of("--shape", shape)
    if window is not None and len(window) == 1:
        window *= network.dims
    path = output or Path(f"{card.network['name']}.onnx")
    exported = export_onnx(network, card, path, window, opset, overwrite)
    if as_json:
        print(json.dumps(exported.to_dict(), indent=2))
    else:
        _tell(exported)


def _tell(exported: Exported) -> None:
    takes = {
        "any": "windows of any size",
        "steps": "windows of every size at which tiling is exact (sizes.step and sizes.offset in the metadata)",
        "fixed": f"windows of {_by(exported.window)} alone",
    }
    print(f"takes {takes[exported.sizes]}", file=sys.stderr)
    if exported.why:
        print(f"note: a graph for more sizes was refused: {exported.why}", file=sys.stderr)
    for one in exported.checked:
        print(
            f"{_by(one.window)}: largest difference {one.difference:.1e} of logits up to {one.scale:.2g}, "
            f"{one.differing} of {one.voxels} labels differ",
            file=sys.stderr,
        )
    print(exported.path)


def _by(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))
