"""A list of scans, one after the other: the next one is opened while one is segmented, and a bad one stops no other.

``OUT/report.json`` lists every input with what became of it, and is written anew after each
(:mod:`medseg.inference.audit`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from medseg.errors import MedsegError, PackageError, shorten
from medseg.files import digest_of
from medseg.inference.audit import REPORT, Row, Start
from medseg.inference.gate import Remark, told
from medseg.inference.infer import Job, Loop, Result, Say, probabilities_path
from medseg.inference.ledger import Ledger, now, with_digests
from medseg.inference.model import Model, Options
from medseg.inference.pipeline import Progress
from medseg.inference.source import Source
from medseg.inference.workers import Workers
from medseg.private import public
from medseg.scans.sink import as_output_error

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
        remarks: in what it is unlike the training images.
        source: as it was opened, where it could be.
    """

    input: Path
    output: Path
    status: Literal["done", "done before", "skipped"]
    why: str = ""
    key: str = ""
    result: Result | None = None
    remarks: tuple[Remark, ...] = ()
    source: Source | None = None

    def row(self, start: str = "", begun: str = "", notes: Sequence[str] = ()) -> Row:
        """For ``report.json``, without the digests.

        Args:
            start: by which it was done.
            begun: when.
            notes: lines that were said of it.
        """
        about = {"input": public(self.input), "output": str(self.output), "status": self.status}
        row = Row(**about, why=self.why, key=self.key, notes=[public(line) for line in notes])
        row = row.model_copy(update={"remarks": [remark.to_dict() for remark in self.remarks]})
        if self.result is None:
            return row
        found = {"start": start, "begun": begun, "seconds": round(self.result.seconds, 3), "plan": self.result.plan}
        return row.model_copy(update=found)


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

    Raises:
        PackageError: where strictness is asked for and the package does not tell of its training images.
    """
    check_strict(model, options)
    start = Start.of(model, options, loop.count if isinstance(loop, Workers) else 1)
    waiting = {str(output): Outcome(path, output, "skipped", "not reached yet").row() for path, output in jobs}
    ledger = Ledger(folder, start, waiting)
    with ThreadPoolExecutor(1, "open") as opener:
        coming: list[Future[Source]] = [opener.submit(Source.open, jobs[0][0], model, options)] if jobs else []
        for number, (path, output) in enumerate(jobs):
            opened = coming.pop()
            if number + 1 < len(jobs):
                coming.append(opener.submit(Source.open, jobs[number + 1][0], model, options))
            begun, notes = now(), _Notes(say)
            try:
                outcome = _one(opened, path, output, model, options, ledger.known(output), loop, watch, notes)
            except MedsegError as error:
                outcome = Outcome(path, output, "skipped", str(error))
            if len(jobs) > 1 or outcome.status != "skipped":
                with as_output_error(folder / REPORT):
                    folder.mkdir(parents=True, exist_ok=True)
                    _report(ledger, outcome, outcome.row(start.id, begun, notes.lines), options)
            yield outcome


def check_strict(model: Model, options: Options) -> None:
    """Refuses strictness where nothing is known to be strict about.

    Raises:
        PackageError: saying so.
    """
    if options.strict and model.card.fingerprint is None:
        raise PackageError(
            f"--strict needs a package that tells of its training images, and {model.folder} was written by medseg "
            f"{model.card.medseg}, which kept nothing of them: train again, or leave --strict out"
        )


class _Notes:
    """Lines worth knowing, told and kept."""

    def __init__(self, say: Say | None) -> None:
        self.lines: list[str] = []
        self._say = say

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        if self._say is not None:
            self._say(line)


def _one(
    opened: Future[Source],
    path: Path,
    output: Path,
    model: Model,
    options: Options,
    known: Row | None,
    loop: Loop | None,
    watch: Watch | None,
    notes: _Notes,
) -> Outcome:
    source = opened.result()
    job = Job(source, output, model, options)
    remarks = tuple(source.remarks(model.card))
    found = Outcome(path, output, "skipped", "", digest_of(job.parts), None, remarks, source)
    same = known is not None and known.key == found.key and known.status != "skipped"
    if same and output.exists() and not options.overwrite:
        return replace(found, status="done before")
    if remarks and options.strict:
        return replace(found, why=shorten(f"{public(path)} is {told(remarks)}; without --strict it is segmented"))
    if remarks:
        notes(f"{public(path)} is {told(remarks)}")
    result = job.run(None if watch is None else lambda progress: watch(path, progress), notes, loop)
    return replace(found, status="done", result=result)


def _report(ledger: Ledger, outcome: Outcome, row: Row, options: Options) -> None:
    """Puts a scan down at once, so that a kill does not take it, and then with digests."""
    row = ledger.put(row)
    if outcome.source is None or outcome.status == "skipped" or row.output_digest or row.output_bytes:
        return
    shares = probabilities_path(outcome.output) if options.probabilities is not None else None
    ledger.complete(with_digests(row, outcome.source.facts, outcome.output, shares))
