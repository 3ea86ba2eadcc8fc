"""``medseg evaluate``."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Optional

import typer

from medseg.errors import MedsegError


class Segments(StrEnum):
    """What a label is to v_rand and v_info."""

    borders = "borders"
    objects = "objects"


def evaluate(
    predictions: Annotated[Path, typer.Option(help="The folder of masks.")],
    references: Annotated[Path, typer.Option(help="The folder of labels, matched by stem.")],
    output: Annotated[
        Optional[Path], typer.Option("-o", "--output", help="The folder for metrics.csv and metrics.json.")
    ] = None,
    metrics: Annotated[
        Optional[str],
        typer.Option(
            help="Metrics or families, with commas: counts, surfaces, lesions, segments, thin, instances, calibration; "
            "dice, hd95, nsd, v_rand ... (docs/metrics.md). Default: counts, hd95, assd."
        ),
    ] = None,
    tolerance: Annotated[
        Optional[str],
        typer.Option(help="Of nsd, in mm (voxels where files state no unit): 2, or by label liver=3,tumor=2."),
    ] = None,
    overlap: Annotated[
        float, typer.Option(help="The IoU above which lesions match one to one; 0: any shared voxel.")
    ] = 0.0,
    instances: Annotated[
        bool, typer.Option("--instances", help="Files hold instance numbers, or masks: AP and panoptic quality too.")
    ] = False,
    segments: Annotated[
        Segments, typer.Option(help="What a label is to v_rand and v_info: the borders, or the objects themselves.")
    ] = Segments.borders,
    probabilities: Annotated[
        Optional[Path], typer.Option(help="The folder of probabilities: ECE and Brier score too.")
    ] = None,
    predicted_only: Annotated[
        bool,
        typer.Option("--predicted-only", help="Leave out references without a prediction; else they score the worst."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace metrics that the folder holds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Compare masks with references, per case and class."""
    from medseg.evaluation.evaluate import Wanted
    from medseg.evaluation.evaluate import evaluate as evaluate_folders

    wanted = Wanted(
        metrics=None if metrics is None else [word.strip() for word in metrics.split(",") if word.strip()],
        tolerance=None if tolerance is None else _tolerance(tolerance),
        overlap=overlap,
        instances=instances,
        objects=segments is Segments.objects,
        probabilities=probabilities,
    )
    report = evaluate_folders(
        predictions, references, out=output, wanted=wanted, predicted_only=predicted_only, overwrite=overwrite
    )
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
        return
    from rich.console import Console

    Console(width=None if Console().is_terminal else 120).print(report.table())


def _tolerance(text: str) -> float | dict[str, float]:
    """One number, or a number for each label."""
    try:
        if "=" not in text:
            return float(text)
        pairs = (part.rpartition("=") for part in text.split(","))
        return {name.strip(): float(value) for name, _, value in pairs}
    except ValueError:
        raise MedsegError(
            f"--tolerance {text}: give a distance, as in 2, or one a label, as in liver=3,tumor=2"
        ) from None
