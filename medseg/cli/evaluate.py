"""``medseg evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Optional

import typer


def evaluate(
    predictions: Annotated[Path, typer.Option(help="The folder of masks.")],
    references: Annotated[Path, typer.Option(help="The folder of labels, matched by stem.")],
    output: Annotated[
        Optional[Path], typer.Option("-o", "--output", help="The folder for metrics.csv and metrics.json.")
    ] = None,
    predicted_only: Annotated[
        bool, typer.Option("--predicted-only", help="Leave out references without a prediction; else they score 0.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace metrics that the folder holds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Compare masks with references, per case and class."""
    from medseg.evaluation.evaluate import evaluate as evaluate_folders

    report = evaluate_folders(predictions, references, out=output, predicted_only=predicted_only, overwrite=overwrite)
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
        return
    from rich.console import Console

    Console(width=None if Console().is_terminal else 120).print(report.table())
