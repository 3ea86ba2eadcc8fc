"""``medseg check``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from medseg.cli.case_names import CASE_NAMES, CaseNames
from medseg.errors import MedsegError, OutputError

if TYPE_CHECKING:
    from medseg.datasets.case_names import How
    from medseg.datasets.checks.finding import Expected
    from medseg.datasets.checks.report import Report
    from medseg.datasets.checks.splits import Parts
    from medseg.datasets.checks.survey import Watch
    from medseg.datasets.layouts import DataSet

CONFIGS = (".yaml", ".yml")


def check(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="A data set's folder, a manifest, or a config, whose data counts.")
    ],
    overrides: Annotated[
        Optional[list[str]], typer.Argument(metavar="[KEY=VALUE]...", help="Keys laid over a config: data.root=FOLDER")
    ] = None,
    output: Annotated[
        Optional[Path], typer.Option("-o", "--output", help="The folder for check.json and check.html.")
    ] = None,
    case_names: Annotated[Optional[CaseNames], typer.Option(help=CASE_NAMES)] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 is one for each processor that may be used.")] = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Read every file anew, also those that the cache knows.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="A row for each finding: warnings name their cases too.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a report that the folder holds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON instead of a table.")] = False,
) -> None:
    """Look for what is wrong with a data set: broken files, pairs, grids, labels, copies, outliers, leaks."""
    _check_free(output, overwrite)
    found, expected, parts = _asked(data, list(overrides or ()), None if case_names is None else case_names.value)
    with FilesBar() as watch:
        from medseg.datasets.case_names import MAP, files_by_case, write_map
        from medseg.datasets.checks.run import check_dataset

        report = check_dataset(found, expected, parts, workers=workers, watch=watch, fresh=fresh)
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        _show(report, verbose)
    if output is not None:
        _write(report, output)
        write_map(output, files_by_case(found))
    elif any(case.stem for case in found.cases):
        print(f"cases are called by digests: with -o FOLDER, {MAP} says which files they are", file=sys.stderr)
    report.refuse("the table lists them")


def _asked(data: Path, overrides: list[str], case_names: How | None) -> tuple[DataSet, Expected, dict[str, Parts]]:
    """The data set, what its cases are held against, and the splits that are written down."""
    from medseg.datasets.checks.finding import Expected
    from medseg.datasets.checks.splits import read_parts

    if data.suffix.lower() in CONFIGS:
        return _configured(data, [*overrides, *([] if case_names is None else [f"data.case_names={case_names}"])])
    if overrides:
        raise MedsegError(f"{overrides[0]}: keys are laid over a config, and {data} is none ({', '.join(CONFIGS)})")
    from medseg.datasets.case_names import named
    from medseg.datasets.layouts import open_dataset

    found = named(open_dataset(data), case_names or "stem")
    info = found.info
    expected = Expected() if info is None else Expected(info.label_map, info.dims, info.channels)
    return found, expected, read_parts(found.root)


def _configured(path: Path, overrides: list[str]) -> tuple[DataSet, Expected, dict[str, Parts]]:
    from medseg.data_section import expected_of, find_data, labels_of
    from medseg.datasets.checks.splits import read_parts
    from medseg.experiment import Experiment

    experiment = Experiment.load(path, overrides)
    data = experiment.data
    found = find_data(data)
    known = data.labels is not None or found.info is not None
    labels = labels_of(data, found.info, found.root) if known else None
    channels = found.info.channels if found.info is not None else None
    named = {"train": data.train, "validation": data.validation, "test": data.test}
    own = {part: names for part, names in named.items() if isinstance(names, list) and names}
    parts = read_parts(found.root) | ({"the config": own} if own else {})
    return found, expected_of(experiment, labels, channels), parts


class FilesBar:
    """A bar on a terminal, nothing elsewhere."""

    def __enter__(self) -> Watch:
        from rich.console import Console
        from rich.progress import Progress

        console = Console(file=sys.stderr)
        self._bar = Progress(console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("files", total=None)
        return self._watch

    def _watch(self, done: int, total: int) -> None:
        # It begins only now: the processes are there already, and none of them has inherited its thread.
        self._bar.start()
        self._bar.update(self._task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _show(report: Report, every: bool) -> None:
    from rich.console import Console

    from medseg.datasets.checks.table import overview, table_of

    console = Console(width=None if Console().is_terminal else 140)
    for line in overview(report):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if report.findings:
        console.print(table_of(report, every))
    else:
        console.print("nothing was found wrong")


def _check_free(folder: Path | None, overwrite: bool) -> None:
    from medseg.datasets.checks.report import HTML, JSON

    if folder is not None and not overwrite:
        for name in (JSON, HTML):
            if (folder / name).exists():
                raise OutputError(f"{folder / name} exists: use --overwrite to replace it")


def _write(report: Report, folder: Path) -> None:
    from medseg.scans.sink import as_output_error

    with as_output_error(folder):
        report.write(folder)
    print(f"report: {folder / 'check.html'}", file=sys.stderr)
