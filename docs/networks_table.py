"""Writes the tables of docs/networks.md; what stands above them there is kept.

    python docs/networks_table.py

Parameters are counted on the meta device; strides, receptive fields and footprints are followed through the layers
(:class:`medseg.geometry.Field`). Only what papers say is typed, in docs/networks_rows.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from networks_rows import FAMILIES, Family, Published, Row

from medseg import build_network
from medseg.files import write_text
from medseg.geometry import Field
from medseg.networks.monai_transformers import UNETR
from medseg.networks.network import Network

PAGE = Path(__file__).parent / "networks.md"
MARK = "<!-- What follows is written by docs/networks_table.py. -->\n"
COLUMNS = (
    "network",
    "C → K",
    "parameters",
    "published",
    "output stride",
    "field, coarsest",
    "field, output",
    "halo",
    "windows",
    "exact",
    "axes",
)


@dataclass(frozen=True)
class Seen(Field):
    """A field that is remembered, so that all nodes of a network can be looked at after its trace."""

    nodes: ClassVar[list[Field]] = []

    def __post_init__(self) -> None:
        self.nodes.append(self)


@dataclass(frozen=True)
class Facts:
    """What follows from a network itself, along one axis.

    Attributes:
        network: on the meta device.
        parameters: learned numbers.
        output_stride: voxels of the window for one voxel of the coarsest node.
        coarsest: voxels of the window that a voxel of the coarsest node sees.
        output: those that a voxel of the logits sees, over all of its phases.
    """

    network: Network
    parameters: int
    output_stride: int
    coarsest: int
    output: int


def facts(row: Row) -> Facts:
    """Builds the network without memory and follows its first axis."""
    with torch.device("meta"):
        network = build_network(row.spec)
    nodes = traced(network)
    stride = max(node.stride for node in nodes)
    return Facts(
        network,
        parameters=sum(p.numel() for p in network.parameters()),
        # A vision transformer's trace knows the window alone.
        output_stride=network.PATCH if isinstance(network, UNETR) else stride,
        coarsest=max(width(node) for node in nodes if node.stride == stride),
        output=width(nodes[-1]),
    )


def traced(network: Network) -> list[Field]:
    """The fields of all nodes along the first axis, the logits' last."""
    Seen.nodes.clear()
    out = network.trace(Seen(rounds=network.any_size), 0)
    return [*Seen.nodes, out]


def width(field: Field) -> int:
    """Voxels of the window that one voxel depends on."""
    return field.last - field.first + 1


def cells(row: Row, note: str) -> list[str]:
    """A line of the table."""
    found = facts(row)
    network, footprint = found.network, found.network.footprint
    published = row.published
    return [
        ", ".join([f"`{row.spec['name']}`", *(f"`{key}: {value}`" for key, value in _arguments(row))]),
        f"{network.in_channels} → {network.out_channels}",
        spaced(found.parameters),
        f"{published.figure}, {published.where}{note}" if published else "not given",
        str(found.output_stride),
        *([str(found.coarsest), str(found.output)] if footprint.exact else ["window"] * 2),
        str(footprint.halo[0]),
        _windows(network),
        "yes" if footprint.exact else "no",
        f"{network.dims}D",
    ]


def _arguments(row: Row) -> Iterator[tuple[str, str]]:
    for key, value in row.spec.items():
        if key not in ("name", "dims", "in_channels", "out_channels"):
            yield key, value if isinstance(value, str) else json.dumps(value)


def _windows(network: Network) -> str:
    if isinstance(network, UNETR):
        return str(network.image_size)
    rule = f"{network.footprint.offset[0]} mod {network.footprint.step[0]}"
    return f"any; {rule}" if network.any_size else rule


def spaced(count: int) -> str:
    """31030658 → 31 030 658."""
    return f"{count:,}".replace(",", " ")


def section(family: Family) -> str:
    """A heading, the source, the table, its notes, and the differences."""
    lines, notes = [], []
    for row in family.rows:
        mark = ""
        if row.published and (row.published.beside or row.published.why):
            notes.append(_note(row.published))
            mark = f" [{len(notes)}]"
        lines.append(cells(row, mark))
    parts = [f"## {family.title}", family.source, table(COLUMNS, lines)]
    if notes:
        parts.append("\n".join(f"[{i}] {note}.\\" for i, note in enumerate(notes, 1)).removesuffix("\\"))
    parts.append("Where these differ, and why:\n\n" + "\n".join(f"- {text}" for text in family.differences))
    return "\n\n".join(parts)


def _note(published: Published) -> str:
    if published.why:
        return f"{published.figure}: {published.why}"
    counted = [f"{'+' if count > 0 else '−'} {spaced(abs(count))} ({what})" for what, count in published.beside]
    return f"{published.figure} = ours {' '.join(counted)}"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def generated() -> str:
    """All that follows the mark."""
    return "\n" + "\n\n".join(section(family) for family in FAMILIES) + "\n"


def main() -> None:
    """Writes the page anew below its mark."""
    kept, mark, _ = PAGE.read_text().partition(MARK)
    if not mark:
        raise SystemExit(f"{PAGE} has no line {MARK.strip()!r}: tables go below it")
    write_text(PAGE, kept + MARK + generated())


if __name__ == "__main__":
    main()
