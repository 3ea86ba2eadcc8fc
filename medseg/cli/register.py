"""``medseg register``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from medseg.errors import MedsegError

if TYPE_CHECKING:
    from medseg.registry.register import Registered


def register(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A run's folder, a model package, or the id or name of a run in MLflow."),
    ],
    name: Annotated[Optional[str], typer.Option("--name", help="What the model is called in the registry.")] = None,
    alias: Annotated[
        Optional[list[str]],
        typer.Option(help="Points to this version from now on, such as champion; may be given again."),
    ] = None,
    store: Annotated[
        Optional[str], typer.Option(help="MLflow's store, where it is not the run's or default one.")
    ] = None,
    new: Annotated[bool, typer.Option("--new", help="A version even where one of the same content is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> None:
    """Give a trained model a name and a version in MLflow; models:/NAME@ALIAS is a MODEL then."""
    if name is None:
        raise MedsegError("no name is given: add --name NAME, what the model is to be called in the registry")

    from medseg.registry.register import candidate
    from medseg.registry.register import register as register_model

    aliases = tuple(dict.fromkeys(alias or ()))
    with candidate(run, store) as model:
        registered = register_model(model, name, aliases, new)
    _tell(registered, as_json)


def _tell(registered: Registered, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_row(registered), indent=2))
        return
    number = f"{registered.name} version {registered.version}"
    if registered.existing:
        print(f"{number} has the same content already: no version was added (--new adds one)", file=sys.stderr)
    for alias, before in registered.moved.items():
        if before not in (None, registered.version):
            print(f"{alias} pointed to version {before} until now", file=sys.stderr)
    print(registered.address)
    for alias in registered.moved:
        print(f"models:/{registered.name}@{alias}")


def _row(registered: Registered) -> dict[str, Any]:
    return {
        "name": registered.name,
        "version": registered.version,
        "address": registered.address,
        "existing": registered.existing,
        "aliases": dict(registered.moved),
    }
