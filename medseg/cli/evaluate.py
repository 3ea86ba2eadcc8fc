"""``medseg evaluate``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from medseg.cli.case_names import CASE_NAMES, CaseNames
from medseg.errors import MedsegError, OutputError

if TYPE_CHECKING:
    from medseg.evaluation.evaluate import Scored, Wanted
    from medseg.evaluation.report import Report
    from medseg.tracking.applied import Origin
    from medseg.tracking.html.shown import OpenCase, ShownCase
    from medseg.tracking.store import Store


class Segments(StrEnum):
    """What a label is to v_rand and v_info."""

    borders = "borders"
    objects = "objects"


def evaluate(
    run: Annotated[
        Optional[Path],
        typer.Argument(
            metavar="[RUN]", help="A run's folder: the validation cases of it, or of all its folds, pooled."
        ),
    ] = None,
    predictions: Annotated[
        Optional[list[Path]],
        typer.Option(help="The folder of masks; several are pooled: --predictions A --predictions B."),
    ] = None,
    references: Annotated[
        Optional[Path], typer.Option(help="The folder of labels, matched by stem. Of a RUN: its data set.")
    ] = None,
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
    images: Annotated[
        Optional[Path],
        typer.Option(
            help="The folder of images, for report.html beside metrics.json. Default: that of the references' data set."
        ),
    ] = None,
    html: Annotated[bool, typer.Option("--html/--no-html", help="Write report.html where there are images.")] = True,
    case_names: Annotated[CaseNames, typer.Option(help=CASE_NAMES)] = CaseNames.stem,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace metrics that the folder holds.")] = False,
    track: Annotated[bool, typer.Option("--track", help="Leave a run in MLflow, linked to the model's.")] = False,
    store: Annotated[Optional[str], typer.Option(help="MLflow's store for it; else the default one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Compare masks with references, per case and class."""
    from medseg.evaluation.evaluate import Wanted, check_free, score_folders, write_report
    from medseg.learned_from import mark_trained

    wanted = Wanted(
        metrics=None if metrics is None else [word.strip() for word in metrics.split(",") if word.strip()],
        tolerance=None if tolerance is None else _tolerance(tolerance),
        overlap=overlap,
        instances=instances,
        objects=segments is Segments.objects,
        probabilities=probabilities,
    )
    page = _page(output, images, overwrite) if html else None
    folders = _folders(run, predictions, references)
    check_free(output, overwrite)
    tracked = _tracked(folders, output, store) if track or store is not None else None
    pictured = html and (output is not None or tracked is not None)
    if references is not None:
        scored = score_folders(
            folders, references, wanted=wanted, predicted_only=predicted_only, case_names=case_names.value
        )
        scored = replace(scored, report=mark_trained(scored.report, scored.masks))
        write_report(scored.report, output, scored.references)
        found = _looked_at(scored, page, folders, references, images) if pictured else _Found(scored.report)
    elif run is not None:
        found = _of_run(run, wanted, pictured, output, predicted_only)
    _show(found.report, as_json)
    if tracked is not None:
        _track(found, output, *tracked)


@dataclass(frozen=True)
class _Found:
    """Scores, the cases that can be looked at, and the page that shows them; None where none was written."""

    report: Report
    shown: Sequence[ShownCase] = ()
    page: Path | None = None


def _tracked(folders: list[Path], output: Path | None, store: str | None) -> tuple[Store, Origin]:
    """Where the run goes and where the masks come from; what can never be tracked is refused."""
    from medseg.tracking.applied import Origin, check_trackable
    from medseg.tracking.store import Store

    place, origin = Store.resolve(store), Origin.pooled(folders)
    check_trackable(place, origin.experiment, output)
    return place, origin


def _track(found: _Found, output: Path | None, store: Store, origin: Origin) -> None:
    """Leaves a run in MLflow."""
    from medseg.tracking.applied import track_evaluation
    from medseg.tracking.delivery import warn
    from medseg.tracking.review import Review
    from medseg.tracking.store import Unreachable

    pictures = Review(output or Path(), found.report, found.shown, None).pictures()
    try:
        run = track_evaluation(found.report, origin, output, store, pictures=pictures, page=found.page)
    except Unreachable as problem:
        warn(f"{problem}; nothing keeps the run: with -o OUT it would wait there for medseg sync")
        return
    print(f"run: {run.id or 'waits in ' + str(output)} in {store.shown}", file=sys.stderr)


def _show(report: Report, as_json: bool) -> None:
    from rich.console import Console

    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
        return
    Console(width=None if Console().is_terminal else 120).print(report.table())


def _folders(run: Path | None, predictions: list[Path] | None, references: Path | None) -> list[Path]:
    """Where the masks lie.

    Raises:
        MedsegError: where nothing is given, both a run and folders, or folders without references.
    """
    if run is not None and predictions:
        raise MedsegError(f"RUN {run} and --predictions exclude each other: a run has its own masks")
    if run is not None:
        from medseg.held_out import places_of

        return places_of(run)
    if not predictions:
        raise MedsegError("nothing to evaluate is given: a RUN, or --predictions MASKS with --references LABELS")
    if references is None:
        raise MedsegError("no references are given: add --references LABELS")
    return predictions


def _of_run(run: Path, wanted: Wanted, pictured: bool, output: Path | None, predicted_only: bool) -> _Found:
    """Scores a run's validation cases by its own data set."""
    from medseg.evaluation.evaluate import write_report
    from medseg.held_out import HeldOut

    held_out = HeldOut.of(run)
    report = held_out.score(wanted, predicted_only)
    if pictured and output is not None:
        name = run.resolve().name
        found = held_out.write(report, output, f"Evaluation of {name}", {"run": name})
        print(f"report: {found.page}", file=sys.stderr)
        return _Found(report, found.shown, found.page)
    write_report(report, output, held_out.cases)
    return _Found(report, _glanced(report, held_out.open_case) if pictured else ())


def _page(output: Path | None, images: Path | None, overwrite: bool) -> Path | None:
    """Where the page goes; None where nothing is written."""
    if images is not None and not images.exists():
        raise MedsegError(f"images {images}: no such file or folder")
    if output is None:
        if images is not None:
            raise MedsegError(f"--images {images} is for report.html: say with -o where it goes")
        return None
    path = output / "report.html"
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists: choose another folder, or replace it with --overwrite")
    return path


def _looked_at(
    scored: Scored, path: Path | None, predictions: list[Path], references: Path, images: Path | None
) -> _Found:
    """Looks at the cases of an evaluation whose images are known, and writes the page of them where one is wanted."""
    from medseg.learned_from import trained_cases
    from medseg.tracking.html.page import Page
    from medseg.tracking.html.shown import files_opener, images_beside, show_cases

    report = scored.report
    images = images or images_beside(references)
    if images is None:
        return _Found(report)
    if path is None:
        return _Found(report, _glanced(report, files_opener(scored, images)))
    shown = show_cases(report, files_opener(scored, images))
    about = {"predictions": ", ".join(folder.name for folder in predictions), "references": references.name}
    about |= trained_cases(report)
    try:
        Page(report, shown, f"Evaluation of {predictions[0].resolve().name}", about).write(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    print(f"report: {path}", file=sys.stderr)
    return _Found(report, shown, path)


def _glanced(report: Report, open_case: OpenCase) -> Sequence[ShownCase]:
    """The cases for the run's pictures alone: one that cannot be read costs no scores."""
    from medseg.tracking.html.shown import show_cases

    try:
        return show_cases(report, open_case)
    except MedsegError as error:
        print(f"the run has no pictures of cases: {error}", file=sys.stderr)
        return ()


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
