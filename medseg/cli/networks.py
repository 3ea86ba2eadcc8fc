"""``medseg networks``."""

from __future__ import annotations

import json
from typing import Annotated, Any, Optional

import typer


def networks(
    name: Annotated[Optional[str], typer.Argument(metavar="[NAME]", help="One network, with its arguments.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the networks: paper, parameters, halo, step and exactness."""
    from medseg.networks import NETWORKS, describe

    described = [describe({"name": key}) for key in ([name] if name else NETWORKS)]
    if as_json:
        print(json.dumps(described[0] if name else described, indent=2))
    elif name:
        _one(described[0])
    else:
        _table(described)


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
