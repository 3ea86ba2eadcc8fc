"""``medseg networks``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from medseg.errors import MedsegError, OutputError


def networks(
    name: Annotated[Optional[str], typer.Argument(metavar="[NAME]", help="One network, with its arguments.")] = None,
    activations: Annotated[
        Optional[Path],
        typer.Option(metavar="IMAGE", help="Draw what the decoder of a trained NAME makes of this image."),
    ] = None,
    model: Annotated[
        Optional[Path],
        typer.Option("-m", "--model", help="For --activations: a package, a run's folder, or models:/NAME@ALIAS."),
    ] = None,
    output: Annotated[
        Optional[Path],
        typer.Option("-o", "--output", metavar="FILE.png", help="For it; NAME-activations.png if not given."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the picture if it exists.")] = False,
    device: Annotated[str, typer.Option(help="For --activations: auto, cpu, cuda, cuda:N or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the networks: paper, parameters, halo, step and exactness; or draw a decoder's activations."""
    if activations is not None:
        print(_draw(name, activations, model, output or Path(f"{name}-activations.png"), overwrite, device))
        return
    if model is not None or output is not None or overwrite:
        raise MedsegError("-m, -o and --overwrite go with a drawing: add --activations IMAGE")
    from medseg.networks import NETWORKS, describe

    described = [describe({"name": key}) for key in ([name] if name else NETWORKS)]
    if as_json:
        print(json.dumps(described[0] if name else described, indent=2))
    elif name:
        _one(described[0])
    else:
        _table(described)


def _draw(name: str | None, image: Path, model: Path | None, output: Path, overwrite: bool, device: str) -> Path:
    """Writes the picture of a decoder's activations."""
    if name is None or model is None:
        raise MedsegError(
            "--activations needs the network's name and a model: medseg networks NAME --activations IMAGE -m MODEL"
        )
    if output.suffix.lower() != ".png":
        raise OutputError(f"{output} is no PNG: give -o FILE.png")
    if output.exists() and not overwrite:
        raise OutputError(f"{output} exists: give --overwrite to replace it, or another -o")

    from medseg.files import partial_of
    from medseg.inference.device import find_device
    from medseg.inference.model import Model
    from medseg.tracking.activations import draw_activations

    loaded = Model.load(model, find_device(device))
    held = loaded.card.network["name"]
    if held != name:
        raise MedsegError(
            f"{model} holds a {held} and not a {name}: write medseg networks {held} --activations {image} -m {model}"
        )
    picture = draw_activations(loaded, image)
    beside = partial_of(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        picture.save(beside, "png")
        beside.replace(output)
    except OSError as error:
        raise OutputError(f"{output} cannot be written: {error.strerror or error}") from error
    return output


def _one(network: dict[str, Any]) -> None:
    for key, value in network.items():
        if key != "arguments":
            print(f"{key:<12}{value}")
    print("arguments (network.KEY in a config) and their defaults:")
    for key, value in network["arguments"].items():
        print(f"  {key:<14}{value}")


def _table(described: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "paper", "dims", "parameters", "halo", "step", "exact", box=None)
    for network in described:
        halo, step = (" ".join(map(str, network[key])) for key in ("halo", "step"))
        count = f"{network['parameters']:,}".replace(",", " ")
        exact = "yes" if network["exact"] else "no"
        table.add_row(network["name"], network["paper"], str(network["dims"]), count, halo, step, exact)
    Console(width=None if Console().is_terminal else 160).print(table)
