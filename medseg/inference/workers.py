"""Several processes on one scan: each takes spans of batches, all write into one mask and one journal.

The bytes are those of one process with the same batches and threads, since a batch is fixed by its tiles' indices and
every voxel has one owner. A worker dies with the process that started it.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path

import torch

from medseg.errors import MedsegError
from medseg.geometry import Tiling
from medseg.inference.emit import Output
from medseg.inference.ensemble import load_models
from medseg.inference.infer import Job
from medseg.inference.journal import Journal
from medseg.inference.lock import shared
from medseg.inference.model import Model, Options
from medseg.inference.pipeline import Progress, Report
from medseg.inference.plan import Plan
from medseg.inference.process_memory import tame_heap
from medseg.inference.source import Source
from medseg.inference.through import outlook, through
from medseg.inference.windows import Windows
from medseg.scans.cache import PIECES

SPANS = 8
"""Spans of tiles for each worker: enough that all end at about the same time, few enough that each is a walk."""
LOOK_SECONDS = 0.25
"""How often the journal is looked at for the progress."""


class Workers:
    """Processes that go through jobs together; use it as a context manager, and as the loop of :meth:`Job.run`.

    Args:
        count: processes, at least two.
        model: each loads it anew from its package.
    """

    def __init__(self, count: int, model: Model) -> None:
        self.count, self._model = count, model
        self._context = multiprocessing.get_context("spawn")
        self._stop = self._context.Event()
        self._pool = self._started()

    def _started(self) -> ProcessPoolExecutor:
        folders = [model.folder for model in self._model.members]
        about = (folders, str(self._model.device), os.getpid(), self._stop)
        return ProcessPoolExecutor(self.count, self._context, _begin, about)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def __call__(self, job: Job, plan: Plan, output: Output, journal: Journal, report: Report | None) -> Progress:
        """Takes one job through its batches or slabs. When it returns or raises, no worker is at the job.

        Raises:
            MedsegError: the first that a worker met, or where one of them was killed.
        """
        way = job.way(plan)
        spans = _spans(_units(job, plan), self.count * (SPANS if isinstance(way, Tiling) else 1))
        total, lacking = outlook(job.source.view, job.network, way, output, journal, job.pace(plan))
        left: set[Future[Progress]] = set()
        begun = time.perf_counter()
        try:
            left.update(self._pool.submit(_work, job.source, job.output, job.options, plan, span) for span in spans)
            while left:
                done, left = wait(left, LOOK_SECONDS, FIRST_COMPLETED)
                for future in done:
                    _add(total, future.result())
                recorded = Journal.count(journal.path) - len(journal.done)
                total.done = total.before + (total.tiles - total.before) * recorded // max(lacking, 1)
                total.loop_seconds = time.perf_counter() - begun
                if report is not None:
                    report(total)
        except BrokenProcessPool:
            self._pool.shutdown()
            self._pool = self._started()
            raise MedsegError(
                f"{job.output}: a worker was killed, perhaps for want of memory; start again to go on, with fewer "
                "--workers or less --memory if it happens again"
            ) from None
        finally:
            self._end(left)
        return total

    def _end(self, left: set[Future[Progress]]) -> None:
        """Returns when none of these is at work."""
        if not left:
            return
        self._stop.set()
        for future in left:
            future.cancel()
        wait(left)
        self._stop.clear()


def _units(job: Job, plan: Plan) -> int:
    """What spans count: batches of tiles, or slabs."""
    way = job.way(plan)
    if isinstance(way, Tiling):
        return len(job.pace(plan).batches(way))
    return Windows.over(job.source.view, way).slabs


def _spans(units: int, pieces: int) -> Iterator[range]:
    size = -(-units // pieces)
    for start in range(0, units, size):
        yield range(start, min(start + size, units))


def _add(total: Progress, part: Progress) -> None:
    for name in ("read", "network", "write"):
        stage = getattr(part, name)
        getattr(total, name).add(stage.seconds, stage.bytes)


# In a worker

_MODEL: list[Model] = []
_STOP: list[Event] = []


def _begin(folders: Sequence[Path], device: str, parent: int, stop: Event) -> None:
    _die_with(parent)
    tame_heap()
    _STOP.append(stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers
    _MODEL.append(load_models(folders, torch.device(device)))


def _die_with(parent: int) -> None:
    """Has this process end with its parent, even if that is killed."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def _work(source: Source, output: Path, options: Options, plan: Plan, span: range) -> Progress:
    """One span of a job."""
    job = Job(source, output, _MODEL[0], options)
    if plan.threads:
        torch.set_num_threads(plan.threads)
    PIECES.budget = plan.cache_bytes
    with _joined(job, plan) as (sinks, journal):
        pace = replace(job.pace(plan), span=span)
        return through(source.view, job.network, job.way(plan), sinks, journal, pace, _unless_stopped)


def _unless_stopped(progress: Progress) -> None:
    """Ends a span whose job is not gone on with."""
    if _STOP[0].is_set():
        raise InterruptedError


@contextmanager
def _joined(job: Job, plan: Plan) -> Iterator[tuple[Output, Journal]]:
    with shared(job.output), Journal.joined(job.journal_path) as journal:
        sinks = job.open_output(plan, join=True)
        try:
            yield sinks, journal
        finally:
            for sink in sinks.sinks:
                sink.close()
