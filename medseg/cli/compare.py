"""``medseg compare``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from medseg.evaluation.comparison import Comparison
    from medseg.tracking.run import Run
    from medseg.tracking.scores import Found
    from medseg.tracking.store import Store


def compare(
    compared: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN_OR_DIR...",
            help="Folders that medseg evaluate -o wrote, or runs: a folder, an id, a name. The others "
            "are compared with the first.",
        ),
    ],
    output: Annotated[
        Optional[Path], typer.Option("-o", "--output", help="The folder for the tables and the forest plot.")
    ] = None,
    metrics: Annotated[
        Optional[str], typer.Option(help="With commas: dice, hd95 ... Default: the usual ones of those scored.")
    ] = None,
    labels: Annotated[Optional[str], typer.Option(help="With commas. Default: all.")] = None,
    over_labels: Annotated[
        bool, typer.Option("--over-labels", help="Compare each case's mean over labels instead of every label.")
    ] = False,
    all_pairs: Annotated[
        bool, typer.Option("--all-pairs", help="Compare each with each, instead of each with the first.")
    ] = False,
    common_cases: Annotated[
        bool, typer.Option("--common-cases", help="Where the cases differ, compare those that all have.")
    ] = False,
    different_references: Annotated[
        bool, typer.Option("--different-references", help="Go on where the references differ.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a comparison that the folder holds.")] = False,
    store: Annotated[
        Optional[str], typer.Option(help="MLflow's store, where it is not the runs' or default one.")
    ] = None,
    experiment: Annotated[
        Optional[str], typer.Option(help="MLflow's experiment. Default: the first run's, else «comparisons».")
    ] = None,
    no_tracking: Annotated[bool, typer.Option("--no-tracking", help="Leave no run in MLflow.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Compare what models scored on the same cases: differences, intervals, tests, effect sizes."""
    from medseg.evaluation.comparison import Asked
    from medseg.evaluation.comparison import compare as compare_scores
    from medseg.tracking.comparison import begin_run, check_free
    from medseg.tracking.scores import find_scores

    if output is not None:
        check_free(output, overwrite)
    found = find_scores(compared, store)
    asked = Asked(_words(metrics), _words(labels), over_labels, all_pairs, common_cases, different_references, seed)
    comparison = compare_scores([one.scores for one in found], asked)
    run = None if no_tracking else begin_run(comparison, *_place(found, store, experiment), output)
    _keep(comparison, output, overwrite, run)
    _show(comparison, as_json)


def _place(found: list[Found], store: str | None, experiment: str | None) -> tuple[Store, str]:
    """Where the comparison's run goes: what is asked for, else where the first run that is compared is."""
    from medseg.tracking.comparison import EXPERIMENT
    from medseg.tracking.store import Store

    stores = [one.store for one in found if one.store is not None]
    names = (one.experiment() for one in found)
    place = stores[0] if stores and store is None else Store.resolve(store)
    return place, experiment or next((name for name in names if name is not None), EXPERIMENT)


def _keep(comparison: Comparison, output: Path | None, overwrite: bool, run: Run | None) -> None:
    """Writes the files to the folder, and logs them; they pass through a temporary folder where none is given."""
    from tempfile import TemporaryDirectory

    from medseg.tracking.comparison import log_comparison, write_comparison

    with ExitStack() as stack:
        if run is not None:
            stack.enter_context(run)
        if output is None and run is None:
            return
        folder = output or Path(stack.enter_context(TemporaryDirectory())) / "comparison"
        write_comparison(comparison, folder, overwrite)
        if run is not None:
            log_comparison(comparison, run, folder)


def _show(comparison: Comparison, as_json: bool) -> None:
    from rich.console import Console

    from medseg.evaluation.comparison_table import cases_of, table_of
    from medseg.tracking.comparison import as_text

    if as_json:
        print(as_text(comparison), end="")
        return
    console = Console(width=None if Console().is_terminal else 160)
    console.print(table_of(comparison, console.width))
    console.print(cases_of(comparison))


def _words(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]
