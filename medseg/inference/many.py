"""A list of scans, one after the other: the next one is opened while one is segmented, and a bad one stops no other.

``OUT/report.json`` lists every input with what became of it, and is written anew after each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medseg.errors import MedsegError
from medseg.files import digest_of, read_json, write_json
from medseg.inference.infer import Job, Loop, Result, Say
from medseg.inference.model import Model, Options
from medseg.inference.pipeline import Progress
from medseg.inference.source import Source
from medseg.scans.sink import as_output_error

REPORT = "report.json"

Watch = Callable[[Path, Progress], None]


@dataclass(frozen=True)
class Outcome:
    """What became of one scan.

    Attributes:
        input: its file.
        output: its mask.
        status: ``done``, ``done before`` by an earlier start, or ``skipped``.
        why: the error of one that was skipped.
        key: digest of scan, model and options of one that is done.
        result: its account, where it was done now.
    """

    input: Path
    output: Path
    status: Literal["done", "done before", "skipped"]
    why: str = ""
    key: str = ""
    result: Result | None = None

    def row(self) -> dict[str, Any]:
        """For ``report.json``."""
        return {
            "input": str(self.input),
            "output": str(self.output),
            "status": self.status,
            "why": self.why,
            "key": self.key,
        }


def work_off(
    jobs: Sequence[tuple[Path, Path]],
    folder: Path,
    model: Model,
    options: Options,
    loop: Loop | None = None,
    watch: Watch | None = None,
    say: Say | None = None,
) -> Iterator[Outcome]:
    """Segments scans one after the other, and reports them in ``folder``.

    Args:
        jobs: each scan's file and its mask's final name.
        folder: for the report.
        model: for all.
        options: for all.
        loop: see :meth:`Job.run`.
        watch: takes the scan's file and its progress.
        say: takes lines worth knowing.
    """
    before = _rows_of(folder)
    rows: list[dict[str, Any]] = []
    with ThreadPoolExecutor(1, "open") as opener:
        waiting: list[Future[Source]] = [opener.submit(Source.open, jobs[0][0], model, options.series)] if jobs else []
        for number, (path, output) in enumerate(jobs):
            opened = waiting.pop()
            if number + 1 < len(jobs):
                waiting.append(opener.submit(Source.open, jobs[number + 1][0], model, options.series))
            try:
                outcome = _one(opened, path, output, model, options, before, loop, watch, say)
            except MedsegError as error:
                outcome = Outcome(path, output, "skipped", str(error))
            rows.append(outcome.row())
            if len(jobs) > 1 or outcome.status != "skipped":
                with as_output_error(folder / REPORT):
                    folder.mkdir(parents=True, exist_ok=True)
                    write_json(folder / REPORT, {"scans": rows + _not_yet(jobs[number + 1 :], before)})
            yield outcome


def _one(
    opened: Future[Source],
    path: Path,
    output: Path,
    model: Model,
    options: Options,
    before: dict[str, dict[str, Any]],
    loop: Loop | None,
    watch: Watch | None,
    say: Say | None,
) -> Outcome:
    job = Job(opened.result(), output, model, options)
    key = digest_of(job.parts)
    known = before.get(str(output), {})
    if output.exists() and not options.overwrite and known.get("key") == key and known.get("status") != "skipped":
        return Outcome(path, output, "done before", key=key)
    result = job.run(None if watch is None else lambda progress: watch(path, progress), say, loop)
    return Outcome(path, output, "done", key=key, result=result)


def _rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    """What an earlier start has reported, by output."""
    try:
        return {row["output"]: row for row in read_json(folder / REPORT, "the report of medseg infer")["scans"]}
    except (MedsegError, KeyError, TypeError):
        return {}


def _not_yet(jobs: Sequence[tuple[Path, Path]], before: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What is known of scans whose turn has not come: an earlier start's word, which a kill must not take from them."""
    waiting = [Outcome(path, output, "skipped", "not reached yet").row() for path, output in jobs]
    return [before.get(row["output"], row) for row in waiting]
