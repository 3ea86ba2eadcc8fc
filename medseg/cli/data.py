"""``medseg phantom`` and ``medseg info``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from medseg.cli.series import SERIES, SERIES_FILTER, chosen, listing_series
from medseg.errors import ConfigError


def phantom(
    kind: Annotated[str, typer.Argument(metavar="cells2d|organs3d", help="What to make.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The data set's folder.")],
    cases: Annotated[int, typer.Option(min=1, help="How many images with labels.")] = 12,
    size: Annotated[str, typer.Option(metavar="N[,N[,N]]", help="Voxels along each axis, or one for all.")] = "512",
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a data set that the folder holds.")] = False,
) -> None:
    """Make synthetic images with labels: images/, labels/ and dataset.json."""
    from medseg.datasets.phantom import write_phantom

    parts = size.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(f"--size {size!r} is no size: give N or N,N or N,N,N")
    print(write_phantom(kind, output, cases, tuple(int(part) for part in parts), seed, overwrite=overwrite))


def info(
    scan: Annotated[Path, typer.Argument(metavar="SCAN", help="Any scan that medseg reads.")],
    series: Annotated[Optional[str], typer.Option(metavar="UID", help=SERIES)] = None,
    series_filter: Annotated[Optional[str], typer.Option(metavar="'KEY=VALUE, ...'", help=SERIES_FILTER)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print a scan's axes, shape, spacing, orientation, type and range, or the list of a folder's DICOM series."""
    from medseg.scans.info import describe
    from medseg.scans.scan import open_scan

    with listing_series():
        described = describe(open_scan(scan, series=chosen(series, series_filter)))
    if as_json:
        print(json.dumps(described, indent=2))
        return
    for key, value in described.items():
        print(f"{key:<12}{'not stated' if key == 'orientation' and value is None else value}")
