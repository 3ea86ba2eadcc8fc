"""``medseg cache list`` and ``medseg cache clear``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from medseg.preparing.inventory import Row

app = typer.Typer(invoke_without_command=True, add_completion=False)

KIND = "prepared, facts, statistics, indices, copies or weights; all of them if not given."


@app.callback()
def _top(context: typer.Context) -> None:
    """List or clear what is kept for the next time."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command("list")
def listing(as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with whole digests.")] = False) -> None:
    """List what is kept: its kind, the digest of its data set, how many cases or files, size, last use."""
    from medseg.preparing.inventory import entries, rows
    from medseg.scans.cache_folder import cache_folder

    found = rows(entries())
    if as_json:
        print(json.dumps({"folder": str(cache_folder()), "rows": [vars(row) for row in found]}, indent=2))
        return
    _show(found)
    print(f"{cache_folder()}: {_size(sum(row.nbytes for row in found))}")


@app.command("clear")
def clearing(
    kind: Annotated[Optional[str], typer.Option(metavar="KIND", help=KIND)] = None,
    older_than: Annotated[
        Optional[str], typer.Option(metavar="TIME", help="Only what was not used for so long: 12h, 30d, 2w.")
    ] = None,
) -> None:
    """Remove what is kept; all of it can be made again."""
    from medseg.preparing import inventory

    found = inventory.entries(kind)
    if older_than is not None:
        found = inventory.older_than(found, older_than)
    gone, left = inventory.clear(found)
    for row in inventory.rows(gone):
        print(f"{row.kind} {row.dataset[:12]}: {row.entries} removed, {_size(row.nbytes)} freed".replace(" :", ":"))
    print(f"{_size(sum(entry.nbytes for entry in gone))} freed")
    if left:
        print(f"left, since another process is preparing them: {len(left)}", file=sys.stderr)


def _show(found: list[Row]) -> None:
    from datetime import datetime

    from rich.console import Console
    from rich.table import Table

    table = Table("kind", "data set", "cases or files", "size", "last used")
    for row in found:
        used = f"{datetime.fromtimestamp(row.used):%Y-%m-%d %H:%M}"
        table.add_row(row.kind, row.dataset[:12], str(row.entries), _size(row.nbytes), used)
    if found:
        Console(width=None if Console().is_terminal else 100).print(table)


def _size(nbytes: int) -> str:
    from medseg.inference.budget import format_size

    return format_size(nbytes)
